"""Certificates, canonical JSON, and Merkle proofs against a slow twin and against forgers."""

import copy
import dataclasses
import hashlib
import itertools
import json

import numpy as np
import pytest

from s3t.store import certificates

IDS = [-(2**63), -5, 0, 1, 2, 7, 8, 100, 2**40, 2**63 - 1]
CERTIFICATE = certificates.Certificate(
    backbone="b" * 64,
    hyper={"rate": 0.1, "slots": [1, 2]},
    root_key=7,
    shard=0,
    slices=(2, 0),
    examples=3,
    ids_root="r" * 64,
    parent="p" * 64,
    stack={"jax": "1"},
    output="o" * 64,
)


# canonical JSON


def test_one_value_has_one_spelling():
    assert certificates.canonical({"b": [1, 2.5, None, True], "a": "é"}) == b'{"a":"\\u00e9","b":[1,2.5,null,true]}'
    assert certificates.canonical({"a": 1, "b": (1, 2)}) == certificates.canonical({"b": [1, 2], "a": 1})
    spellings = [certificates.canonical(value) for value in (1, 1.0, "1", True, [1], {"1": 1}, None)]
    assert len(set(spellings)) == len(spellings)


@pytest.mark.parametrize(
    "bad", [float("nan"), float("inf"), {1, 2}, b"x", {1: 2}, {"a": [{2: 3}]}, np.float32(1), object()]
)
def test_what_json_cannot_hold_is_refused(bad):
    with pytest.raises(ValueError, match=r"JSON"):
        certificates.canonical(bad)


def test_a_digest_says_of_what():
    assert (
        certificates.digest("node", [1])
        == hashlib.sha256(b"s3t.node\n[1]").hexdigest()
        != certificates.digest("certificate", [1])
    )


# certificates


def test_a_certificate_comes_back_and_keeps_its_digest():
    text = certificates.to_json(CERTIFICATE)
    again = certificates.from_json(text)
    assert again == CERTIFICATE and certificates.to_json(again) == text
    assert certificates.certificate_digest(again) == certificates.certificate_digest(CERTIFICATE)
    assert json.loads(text)["slices"] == [2, 0]


def test_every_field_is_in_the_digest_and_the_name_holds_what_bytes_depend_on():
    named = {"backbone", "hyper", "root_key", "shard", "slices", "ids_root"}
    for field in certificates.FIELDS:
        changed = dataclasses.replace(
            CERTIFICATE, **{field: {"slices": (0, 2), "hyper": {}, "stack": {}}.get(field, 12345)}
        )
        assert certificates.certificate_digest(changed) != certificates.certificate_digest(CERTIFICATE)
        assert (certificates.identity_of(changed) != certificates.identity_of(CERTIFICATE)) == (field in named), field


def test_names_of_this_version_are_those_of_every_version():
    expected = hashlib.sha256(b's3t.node\n["b",{"rate":0.1},7,1,[2,0],"r"]').hexdigest()
    assert certificates.identity("b", {"rate": 0.1}, 7, 1, (2, 0), "r") == expected
    assert certificates.merkle_root([1, 2]) == "6cde9959ec00e3e0222964fef5e2d7f9ac7dee10ff7f9ec472e91897fa041445"


@pytest.mark.parametrize("text", ["", "{", "[]", "7", "{}", certificates.to_json(CERTIFICATE)[:-1] + ',"more":1}'])
def test_what_is_no_certificate_is_refused(text):
    with pytest.raises(ValueError, match="a certificate"):
        certificates.from_json(text)


def test_a_digest_of_parameters_sees_every_bit_and_no_order():
    tensors = {"a": np.array([[0.0, 1.0]], np.float32), "b": np.arange(3)}
    first = certificates.parameters_digest(tensors)
    assert certificates.parameters_digest(dict(reversed(tensors.items()))) == first
    assert (
        certificates.parameters_digest({"a": np.asfortranarray(tensors["a"]), "b": np.array([0, 9, 1, 9, 2])[::2]}) == first
    )
    others = [
        {**tensors, "a": -tensors["a"] * [[1, -1]]},  # -0.0
        {**tensors, "a": tensors["a"].T},
        {**tensors, "a": tensors["a"].astype(np.float64)},
        {**tensors, "a": tensors["a"].view(np.int32)},
        {"b": tensors["a"], "a": tensors["b"]},
        {"a": tensors["a"]},
        {**tensors, "c": np.zeros(0)},
    ]
    assert len({first, *map(certificates.parameters_digest, others)}) == 1 + len(others)


# Merkle trees


def slow_top(ids):
    """The tree's recursive definition: the left part holds the largest power of two smaller than the whole."""
    if len(ids) == 1:
        return hashlib.sha256(b"\x00" + ids[0].to_bytes(8, "big", signed=True)).digest()
    left = 1
    while 2 * left < len(ids):
        left *= 2
    return hashlib.sha256(b"\x01" + slow_top(ids[:left]) + slow_top(ids[left:])).digest()


def slow_root(ids):
    top = slow_top(sorted(ids)) if ids else b""
    return hashlib.sha256(b"\x02" + len(ids).to_bytes(8, "big") + top).hexdigest()


@pytest.mark.parametrize("size", [*range(18), 31, 32, 33, 100])
def test_roots_are_those_of_the_slow_twin_in_any_order(size):
    ids = [7 * i - 50 for i in range(size)]
    assert certificates.merkle_root(ids) == slow_root(ids) == certificates.merkle_root(reversed(ids))


def test_different_sets_have_different_roots():
    subsets = [subset for size in range(6) for subset in itertools.combinations(range(6), size)]
    assert len({certificates.merkle_root(subset) for subset in subsets}) == len(subsets)


@pytest.mark.parametrize(
    "bad, message", [([1, 1], "twice"), ([2**63], "64 bits"), ([1.5], "64 bits"), ([True, 5], "64 bits")]
)
def test_malformed_leaves_are_refused(bad, message):
    with pytest.raises(ValueError, match=message):
        certificates.merkle_root(bad)


@pytest.mark.parametrize("size", [0, 1, 2, 3, 5, 8, 13, 17])
def test_every_id_has_one_true_proof_that_survives_json(size):
    ids = [3 * i for i in range(size)]
    tree = certificates.merkle_tree(ids)
    root = certificates.root_of(tree)
    for one in range(-4, 3 * size + 4):
        proof = json.loads(json.dumps(certificates.prove(tree, one)))
        assert certificates.check_inclusion(root, one, proof) == (one in ids)
        assert certificates.check_exclusion(root, one, proof) == (one not in ids)
        for other in {one - 1, one + 1, one + 3}:
            assert not certificates.check_inclusion(root, other, proof)
            assert not certificates.check_exclusion(root, other, proof) or other not in ids
        assert not certificates.check_inclusion(certificates.merkle_root([*ids, 10**6]), one, proof)
        assert not certificates.check_exclusion(certificates.merkle_root([*ids, 10**6]), one, proof)


def forgeries(proof):
    """A proof with one thing changed, in many ways."""
    for name in ("leaf", "below", "above"):
        if name in proof:
            yield {**proof, name: None}
        leaf = proof.get(name)
        if leaf:
            for index in {leaf["index"] - 1, leaf["index"] + 1, -1, 0, proof["size"], True, "0", None} - {leaf["index"]}:
                yield {**proof, name: {**leaf, "index": index}}
            for one in (leaf["id"] - 1, leaf["id"] + 1, 2**63, 1.0, None, "x"):
                yield {**proof, name: {**leaf, "id": one}}
            path = leaf["path"]
            for other in (
                path[:-1],
                path[1:],
                [*path, "00" * 32],
                ["00" * 32, *path],
                path[::-1],
                ["zz"] * len(path),
                None,
                [None],
            ):
                if other != path:
                    yield {**proof, name: {**leaf, "path": other}}
        yield {key: value for key, value in proof.items() if key != name}
    for size in (proof["size"] - 1, proof["size"] + 1, 0, -1, "x", None, 1e9):
        yield {**proof, "size": size}


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 11])
def test_a_changed_proof_proves_nothing_false(size):
    ids = [3 * i for i in range(size)]
    tree = certificates.merkle_tree(ids)
    root = certificates.root_of(tree)
    for one in range(-2, 3 * size + 2):
        honest = certificates.prove(tree, one)
        for proof in forgeries(copy.deepcopy(honest)):
            if one in ids:
                assert not certificates.check_inclusion(root, one, proof) or proof["leaf"] == honest["leaf"], proof
            assert not (one in ids and certificates.check_exclusion(root, one, proof))
            assert not (one not in ids and certificates.check_inclusion(root, one, proof))


def test_no_exclusion_of_a_member_from_any_pair_of_true_leaves():
    tree = certificates.merkle_tree(IDS)
    root = certificates.root_of(tree)
    leaves = [None, *(certificates.prove(tree, one)["leaf"] for one in IDS)]
    for below, above in itertools.product(leaves, leaves):
        proof = {"size": len(IDS), "below": below, "above": above}
        shown = [one for one in range(-10, 110) if certificates.check_exclusion(root, one, proof)]
        assert not set(shown) & set(IDS)
        if below and above and above["index"] != below["index"] + 1:
            assert shown == []
    assert certificates.check_exclusion(root, 50, certificates.prove(tree, 50))


@pytest.mark.parametrize("proof", [{}, [], None, 7, "x", {"size": 0}, {"size": 0, "below": [], "above": []}])
def test_a_malformed_proof_proves_nothing(proof):
    root = certificates.merkle_root([])
    assert not certificates.check_inclusion(root, 1, proof) and not certificates.check_exclusion(root, 1, proof)


def test_an_inner_node_does_not_pass_for_a_leaf():
    tree = certificates.merkle_tree([1, 2])
    left, right = tree.levels[0]
    assert certificates.root_of(tree) != hashlib.sha256(b"\x02" + (1).to_bytes(8, "big") + tree.levels[1][0]).hexdigest()
    assert tree.levels[1][0] == hashlib.sha256(b"\x01" + left + right).digest() != hashlib.sha256(left + right).digest()

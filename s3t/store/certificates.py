"""What a node was trained on and what came out, in a form that others can check.

A certificate binds a node's parameters to the Merkle root of the ids it was trained on. The holder of a certificate can
check, without the data and without the list of ids, that an id was among them (its leaf and the path to the root) or was
not (two adjacent leaves around the place where it would be). Hashes are SHA-256; what is hashed begins with its kind, so
that no leaf passes for an inner node and no certificate for a row of a ledger.

A proof of exclusion rests on the leaves being sorted, which a root alone does not show: whoever can read the ledger
rebuilds the tree from it (`python -m s3t verify`). A proof shows up to two ids beside the one in question.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import operator
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

Json = Any
Proof = dict[str, Any]

LEAF, INNER, ROOT = b"\x00", b"\x01", b"\x02"
INT64 = range(-(2**63), 2**63)


# --- Canonical JSON ---------------------------------------------------------------------------------------------------


def canonical(value: Json) -> bytes:
    """The one spelling of a JSON value: sorted keys, no spaces, ASCII. 1 and 1.0 are different values.

    Raises:
      ValueError: something that JSON cannot hold, NaN and infinity among it, or a key that is not a string.
    """
    try:
        _check_keys(value)
        return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
    except TypeError as error:
        raise ValueError(f"this is not JSON ({error}): give numbers, strings, lists and objects") from None
    except RecursionError:
        raise ValueError("this JSON is nested too deeply: give a flatter object") from None


def digest(kind: str, value: Json) -> str:
    """SHA-256 of a JSON value under the name of what it is, as 64 hexadecimal digits."""
    return hashlib.sha256(f"s3t.{kind}\n".encode() + canonical(value)).hexdigest()


def _check_keys(value: Json) -> None:
    """Refuse keys that json would turn into strings: {1: ...} and {"1": ...} would be one."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise ValueError(f"a key of a JSON object is a string, got {key!r}")
            _check_keys(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            _check_keys(inner)


# --- Certificates -----------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, kw_only=True)
class Certificate:
    """What a node was trained on and what came out.

    backbone: digest of the frozen parameters.
    hyper: hyper-parameters, a JSON object.
    root_key: seed of every random draw.
    shard: number of the shard.
    slices: numbers of the slices in the order of training.
    examples: how many ids.
    ids_root: `merkle_root` of the ids.
    parent: digest of the parent's certificate, None at depth 1.
    stack: what bytes depend on beside the above: versions, device, lane width, capacity, threads, `inputs` (the digest of
      the examples as they were read); and `bytes`, how many of parameters came out; a JSON object.
    output: `parameters_digest` of what came out.
    """

    backbone: str
    hyper: dict[str, Json]
    root_key: int
    shard: int
    slices: tuple[int, ...]
    examples: int
    ids_root: str
    parent: str | None
    stack: dict[str, Json]
    output: str


FIELDS = tuple(field.name for field in dataclasses.fields(Certificate))
KINDS = {  # of a field in JSON
    **dict.fromkeys(("backbone", "ids_root", "output"), (str,)),
    **dict.fromkeys(("hyper", "stack"), (dict,)),
    **dict.fromkeys(("root_key", "shard", "examples"), (int,)),
    "slices": (list,),
    "parent": (str, type(None)),
}


def identity(
    backbone: str, hyper: Mapping[str, Json], root_key: int, shard: int, slices: Iterable[int], ids_root: str
) -> str:
    """A node's name: what its bytes are a function of, within one stack. Arguments as in `Certificate`."""
    return digest("node", [backbone, dict(hyper), root_key, shard, list(slices), ids_root])


def identity_of(certificate: Certificate) -> str:
    """The name of the node that a certificate speaks of."""
    return identity(
        certificate.backbone,
        certificate.hyper,
        certificate.root_key,
        certificate.shard,
        certificate.slices,
        certificate.ids_root,
    )


def certificate_digest(certificate: Certificate) -> str:
    """What a child's certificate and the ledger hold of a certificate."""
    return digest("certificate", vars(certificate))


def to_json(certificate: Certificate) -> str:
    """A certificate as canonical JSON text."""
    return canonical(vars(certificate)).decode()


def from_json(text: str) -> Certificate:
    """A certificate read back.

    Raises:
      ValueError: the text is not an object of exactly the fields of a certificate.
    """
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError(f"a certificate is JSON, got {text[:40]!r}") from None
    if not isinstance(fields, dict) or set(fields) != set(FIELDS):
        raise ValueError(f"a certificate holds exactly {', '.join(FIELDS)}")
    if wrong := [name for name, kinds in KINDS.items() if type(fields[name]) not in kinds]:
        raise ValueError(f"a certificate's {wrong[0]} is of another type")
    return Certificate(**{**fields, "slices": tuple(fields["slices"])})


def parameters_digest(tensors: Mapping[str, np.ndarray]) -> str:
    """SHA-256 over names, types, shapes and bytes of named arrays, whatever their order; little-endian machines agree."""
    return digest_of_parts((name, array.dtype.name, array.shape, [_bytes(array)]) for name, array in tensors.items())


def digest_of_parts(parts: Iterable[tuple[str, str, tuple[int, ...], Iterable[bytes | memoryview]]]) -> str:
    """`parameters_digest` of arrays as (name, type, shape, their bytes in pieces)."""
    sha = hashlib.sha256(b"s3t.parameters\n")
    for name, dtype, shape, pieces in sorted(parts, key=operator.itemgetter(0)):
        sha.update(canonical([name, dtype, list(shape)]) + b"\n")
        for piece in pieces:
            sha.update(piece)
    return sha.hexdigest()


def _bytes(array: np.ndarray) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data  # no copy, which would stay in memory


# --- Ids --------------------------------------------------------------------------------------------------------------


def whole(values: Iterable[int]) -> list[int]:
    """Whole numbers of 64 bits, numpy's among them.

    Raises:
      ValueError: anything else.
    """
    return [_whole_number(value) for value in (values.tolist() if hasattr(values, "tolist") else values)]


def is_number(word: str) -> bool:
    """Whether a text is a whole number in decimal digits; int would take 1_2 for 12."""
    return len(word) <= 20 and word.isascii() and word.removeprefix("-").isdecimal()


def _whole_number(value: Any) -> int:
    number = operator.index(value) if hasattr(value, "__index__") and not isinstance(value, bool) else None
    if number is None or number not in INT64:
        raise ValueError(f"an id is a whole number of 64 bits, got {value!r:.80}: nothing was changed")
    return number


# --- Merkle trees over sorted ids -------------------------------------------------------------------------------------


class MerkleTree(NamedTuple):
    """A Merkle tree; an odd hash at the end of a level rises unchanged.

    ids: ascending.
    levels: hashes from the leaves up to a single one; empty if there are no ids.
    """

    ids: tuple[int, ...]
    levels: tuple[list[bytes], ...]


def merkle_tree(ids: Iterable[int]) -> MerkleTree:
    """The tree over the ids in ascending order.

    Raises:
      ValueError: an id that is no whole number of 64 bits, or an id twice.
    """
    ordered = tuple(sorted(ids))
    if any(low == high for low, high in pairwise(ordered)):
        raise ValueError("an id stands twice among the leaves: give each once")
    level, levels = [_leaf(id_) for id_ in ordered], []
    while level:
        levels.append(level)
        if len(level) == 1:
            break
        pairs = zip(level[::2], level[1::2], strict=False)
        level = [_inner(left, right) for left, right in pairs] + (level[-1:] if len(level) % 2 else [])
    return MerkleTree(ordered, tuple(levels))


def root_of(tree: MerkleTree) -> str:
    """A tree's root: it fixes the number of leaves, so that the last of them is known to be the last."""
    return _root(len(tree.ids), tree.levels[-1][0] if tree.levels else b"")


def merkle_root(ids: Iterable[int]) -> str:
    """The root of `merkle_tree`."""
    return root_of(merkle_tree(ids))


def prove(tree: MerkleTree, id_: int) -> Proof:
    """A proof that an id is in the tree, or one that it is not, as a JSON object.

    Returns:
      size, the number of leaves, and either `leaf` or `below` and `above`, the adjacent leaves around the id's place, None
      beyond either end. A leaf is {"id", "index", "path"}, the path being the sibling hashes from the leaf up.
    """
    place = bisect_left(tree.ids, id_)
    size = len(tree.ids)
    if place < size and tree.ids[place] == id_:
        return {"size": size, "leaf": _path(tree, place)}
    below = _path(tree, place - 1) if place > 0 else None
    return {"size": size, "below": below, "above": _path(tree, place) if place < size else None}


def check_inclusion(ids_root: str, id_: int, proof: Proof) -> bool:
    """Whether a proof shows that an id is among the leaves of a root; a malformed proof shows nothing."""
    try:
        return proof["leaf"]["id"] == id_ and _is_leaf(ids_root, proof["size"], proof["leaf"])
    except (LookupError, TypeError, ValueError, OverflowError):
        return False


def check_exclusion(ids_root: str, id_: int, proof: Proof) -> bool:
    """Whether a proof shows that an id is not among the sorted leaves of a root; a malformed proof shows nothing."""
    try:
        size, below, above = proof["size"], proof["below"], proof["above"]
        if size == 0:
            return ids_root == _root(0, b"") and below is None and above is None
        first = 0 if below is None else below["index"] + 1
        last = size if above is None else above["index"]
        ordered = (below is None or below["id"] < id_) and (above is None or id_ < above["id"])
        leaves = [leaf for leaf in (below, above) if leaf is not None]
        return first == last and ordered and all(_is_leaf(ids_root, size, leaf) for leaf in leaves)
    except (LookupError, TypeError, ValueError, OverflowError):
        return False


def _path(tree: MerkleTree, index: int) -> dict[str, Any]:
    """The leaf at an index with its sibling hashes."""
    path, at = [], index
    for level in tree.levels[:-1]:
        if at ^ 1 < len(level):
            path.append(level[at ^ 1].hex())
        at //= 2
    return {"id": tree.ids[index], "index": index, "path": path}


def _is_leaf(ids_root: str, size: int, leaf: dict[str, Any]) -> bool:
    """Whether a leaf stands at its index under a root of `size` leaves."""
    at, width = leaf["index"], size
    if type(at) is not int or type(size) is not int or not 0 <= at < size:
        return False
    value, path = _leaf(leaf["id"]), list(leaf["path"])
    while width > 1:
        if at ^ 1 < width:  # an odd one at the end of a level has no sibling
            sibling = bytes.fromhex(path.pop(0))
            value = _inner(sibling, value) if at % 2 else _inner(value, sibling)
        at, width = at // 2, (width + 1) // 2
    return not path and _root(size, value) == ids_root


def _leaf(id_: int) -> bytes:
    if type(id_) is not int or id_ not in INT64:
        raise ValueError(f"an id is a whole number of 64 bits, got {id_!r}")
    return hashlib.sha256(LEAF + id_.to_bytes(8, "big", signed=True)).digest()


def _inner(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(INNER + left + right).digest()


def _root(size: int, top: bytes) -> str:
    return hashlib.sha256(ROOT + size.to_bytes(8, "big") + top).hexdigest()

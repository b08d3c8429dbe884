"""Proofs from what a store holds: what verify sees, and what anyone can check."""

import dataclasses
import json

import pytest
from safetensors.numpy import save

from s3t.service import verify
from s3t.store import certificates, disk, documents, publishing
from s3t.store.ledger import database, records
from tests.helpers import stores


def test_verify_counts_what_it_saw(opened):
    receipt = disk.delete(opened, stores.ids_at(opened, 0, 1)[:1], "r")["head"]
    disk.purge(opened)
    result = verify.verify(opened.root, receipt)
    assert result == {
        "ok": True, "problems": [], "nodes": 10, "examples": 60, "deleted": 1, "requests": {"purged": 1}, "leftovers": 0,
        "rows": 19, "head": database.head(opened.ledger).digest,
    }  # fmt: skip
    assert not verify.verify(opened.root, "0" * 64)["ok"]


def problem(opened, *expect_heads):
    result = verify.verify(opened.root, *expect_heads)
    assert result["ok"] == (not result["problems"])
    return " | ".join(result["problems"])


def rewrite(opened, node, tensors=None, **changes):
    """Put another file in a node's place."""
    certificate, old = publishing.load(opened, node)
    tensors = tensors or old
    certificate = dataclasses.replace(certificate, **changes)
    data = save(tensors, {"certificate": certificates.to_json(certificate)})
    (opened.root / "nodes" / f"{node.identity}.safetensors").write_bytes(data)
    return certificate


def test_altered_files_show(opened):
    node = stores.at(opened, 0, (1, 2))
    path = opened.root / "nodes" / f"{node.identity}.safetensors"
    original = path.read_bytes()
    for data, message in ((b"", "damaged"), (original[:-1], "damaged"), (b"\xff" * 100, "damaged"), (None, "missing")):
        path.write_bytes(data) if data is not None else path.unlink()
        assert message in problem(opened) and node.identity in problem(opened)
    path.write_bytes(original[:-1] + bytes([original[-1] ^ 1]))
    assert "parameters of node" in problem(opened)
    path.write_bytes(original)
    rewrite(opened, node, output="0" * 64)
    assert "certificate of node" in problem(opened)
    path.write_bytes(save(stores.tensors("0" * 8)))
    assert "a certificate is JSON" in problem(opened)
    path.write_bytes(original)
    (opened.root / "manifest.json").write_bytes((opened.root / "manifest.json").read_bytes().replace(b"0.1", b"0.2"))
    assert "the manifest is not the one" in problem(opened)


def test_a_purged_file_that_comes_back_shows(opened):
    node = stores.at(opened, 0, (1, 2))
    path = opened.root / "nodes" / f"{node.identity}.safetensors"
    data = path.read_bytes()
    disk.delete(opened, stores.ids_at(opened, 0, 1)[:1], "r")
    disk.purge(opened)
    path.write_bytes(data)
    assert problem(opened) == f"node {node.identity} was purged, but its file is there"
    disk.open(opened.root)
    assert problem(opened) == ""


@pytest.mark.parametrize(
    "change, message",
    [
        ({"ids_root": "0" * 64}, "trained on the ids"),
        ({"examples": 3}, "trained on the ids"),
        ({"root_key": 8}, "otherwise than the manifest says"),
        ({"hyper": {"rate": 0.2}}, "otherwise than the manifest says"),
        ({"backbone": "other"}, "otherwise than the manifest says"),
        ({"shard": 1}, "otherwise than the manifest says"),
        ({"slices": (2, 1)}, "otherwise than the manifest says"),
        ({"parent": None}, "no serving parent"),
        ({"parent": "0" * 64}, "no serving parent"),
        ({"slices": (1,)}, "does not bear the name"),
    ],
)
def test_a_certificate_that_lies_shows_even_if_it_was_published(opened, change, message):
    """A liar with the ledger in hand: a file published with a certificate that says something else."""
    node = stores.at(opened, 0, (1, 2))
    certificate = rewrite(opened, node, **change)
    lying = records.PublishedNode("f" * 64, 0, (1, 2), node.as_of, certificates.certificate_digest(certificate))
    nodes = opened.root / "nodes"
    place = lambda: (nodes / f"{node.identity}.safetensors").rename(nodes / f"{lying.identity}.safetensors")  # noqa: E731
    records.record_node(opened.ledger, lying, stores.at(opened, 0, (1,)).identity, place)
    assert f"node {lying.identity}: {message}" in problem(opened).replace("was not trained", "trained").replace(
        "was made ", ""
    ).replace("has no", "no")


def test_a_served_node_that_holds_a_deleted_id_shows(opened):
    """A ledger whose deletion forgot to drop a node, chain and tables alike."""
    one = stores.ids_at(opened, 0, 1)[0]
    opened.ledger.execute("CREATE TEMP TABLE hidden AS SELECT * FROM nodes WHERE shard = 0")
    opened.ledger.execute("DELETE FROM nodes WHERE shard = 0")
    disk.delete(opened, [one])
    opened.ledger.execute("INSERT INTO nodes SELECT * FROM hidden")
    found = verify.verify(opened.root)["problems"]
    assert found and all("holds a deleted id" in text for text in found) and len(found) == 4


def test_an_unreadable_ledger_shows(opened):
    disk.close(opened)
    for path in opened.root.glob("ledger.sqlite*"):
        path.write_bytes(b"not a database" * 100)
    assert problem(opened) == f"{opened.root}'s ledger is damaged (file is not a database): restore it from a copy"


def test_anyone_can_check_the_proofs(opened):
    gone, kept = stores.ids_at(opened, 0, 1)[:2]
    disk.delete(opened, [gone])
    proofs = json.loads(json.dumps(documents.prove(opened, (gone, kept, 10**6))))
    assert [len(proof["nodes"]) for proof in proofs] == [10] * 3 and proofs[0]["head"] == database.head(
        opened.ledger
    ).digest
    stores.fill(opened)
    for proof in (*proofs, *documents.prove(opened, (gone, kept))):
        for node in proof["nodes"]:
            certificate = certificates.from_json(node["certificate"])
            holds = proof["id"] == kept and certificate.shard == 0 and 1 in certificate.slices
            assert node["holds"] == holds == certificates.check_inclusion(certificate.ids_root, proof["id"], node["proof"])
            assert certificates.check_exclusion(certificate.ids_root, proof["id"], node["proof"]) != holds
    assert sum(node["holds"] for node in documents.prove(opened, [kept])[0]["nodes"]) == 4

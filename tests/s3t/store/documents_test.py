"""Receipts and proofs that leave the house, and what an auditor makes of them, with the store gone."""

import contextlib
import copy
import json
import subprocess
import sys
from pathlib import Path

import pytest

from s3t.cli import main
from s3t.store import certificates, claims, disk, documents, publishing, signatures
from tests.helpers import commands, stores

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def key(tmp_path):
    path = tmp_path / "operator.key"
    signatures.make_key(path)
    return path


@pytest.fixture
def answers(opened, key, capsys, tmp_path):
    """(deleted id, id that is there, path of the deletion's answer, path of the proofs of both)."""
    gone, there = stores.ids_at(opened, 0, 1)[:2]
    words = ("--store", opened.root, "--key", key)
    paths = []
    for name, more in (
        ("receipt.json", ("delete", "--ids", gone)),
        ("proof.json", ("verify", "--prove", f"{gone},{there}")),
    ):
        status, answer, _ = commands.run(capsys, *more, *words)
        assert status == 0
        (tmp_path / name).write_text(json.dumps(answer))
        paths.append(tmp_path / name)
        stores.fill(opened)
    return gone, there, *paths


def checked(capsys, path, *words):
    status, result, err = commands.run(capsys, "check", path, *words)
    return status, result and [(claim["verdict"], claim["claim"]) for claim in result["claims"]], err


def test_an_auditor_checks_with_the_two_files_alone(answers, key, tmp_path):
    """In a process of its own, that cannot import jax."""
    gone, there, receipt, proof = answers
    code = "import sys; sys.modules['jax'] = None; from s3t.cli import main; sys.exit(main(sys.argv[1:]))"
    told = []
    for path in (receipt, proof):
        words = [sys.executable, "-c", code, "check", path, "--key", f"{key}.pub"]
        done = subprocess.run(list(map(str, words)), cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        told.append(done.stdout.splitlines())
    assert told[0][0].startswith("proved: the operator says that request ") and "deleted 1 examples" in told[0][0]
    assert told[1][0] == f"proved: id {gone}: none of 14 nodes was trained on it"
    assert told[1][2].startswith("proved: the operator says that these 14 nodes are all that served at head ")
    assert told[1][3].startswith(f"proved: id {there}: ") and told[1][-1] == "ok"


def test_without_a_key_nothing_is_proved(answers, key, capsys, opened, tmp_path):
    for path in answers[2:]:
        status, found, _ = checked(capsys, path)
        assert status == 3 and {verdict for verdict, _ in found} <= {"proved", "nothing was proved"}
    status, answer, _ = commands.run(capsys, "verify", "--prove", answers[0], "--store", opened.root)
    (tmp_path / "unsigned.json").write_text(json.dumps(answer))
    assert checked(capsys, tmp_path / "unsigned.json", "--key", f"{key}.pub")[0] == 3


def test_another_s_key_refutes(answers, capsys, tmp_path):
    signatures.make_key(tmp_path / "other.key")
    for path in answers[2:]:
        status, found, _ = checked(capsys, path, "--key", tmp_path / "other.key.pub")
        assert status == 1 and "refuted" in {verdict for verdict, _ in found}


def places(value, path=()):
    """Every place in a JSON value."""
    yield path
    for name, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(inner, (*path, name))


def altered(value, path, other):
    """A copy with another value at a place; None if that is what was there."""
    if not path:
        return None if value == other else other
    whole = copy.deepcopy(value)
    inner = whole
    for name in path[:-1]:
        inner = inner[name]
    if inner[path[-1]] == other and type(inner[path[-1]]) is type(other):
        return None
    inner[path[-1]] = other
    return whole


def test_nothing_in_a_receipt_or_a_proof_can_be_changed(answers, key):
    """Whatever stands in any place: no claim more is proved, and nothing raises."""
    public, tried = signatures.public_key(Path(f"{key}.pub")), 0
    for path, name in ((answers[2], "receipt"), (answers[3], "proofs")):
        whole = json.loads(path.read_text())[name]
        document = whole[0] if name == "proofs" else whole
        if name == "proofs":  # one node is enough for the places of all
            assert claims.judged(documents.check(document, public))["ok"]
        for place in places(document):
            for other in (None, 0, -1, 1, True, "", "x", "0" * 64, [], {}, [0], {"id": 1}, 1.5, 10**30):
                forged = altered(document, place, other)
                if forged is None or place[-1:] == ("public_key",):  # which is for convenience
                    continue
                for found in documents.documents_in(json.dumps(forged).encode()) if _is_document(forged) else []:
                    tried += 1
                    assert not claims.judged(documents.check(found, public))["ok"], (place, other)
    assert tried > 1000


def _is_document(value):
    try:
        return documents.documents_in(json.dumps(value).encode())
    except ValueError:
        return False


def test_a_node_that_is_left_out_shows(answers, key):
    public = signatures.public_key(Path(f"{key}.pub"))
    proof = json.loads(answers[3].read_text())["proofs"][1]  # of an id that nodes hold
    holders = [node for node in proof["nodes"] if node["holds"]]
    assert holders
    proof["nodes"] = [node for node in proof["nodes"] if not node["holds"]]
    found = documents.check(proof, public)
    assert [claim.verdict for claim in found] == ["proved", "refuted", "proved"]


@pytest.mark.parametrize("text", [b"", b"\xff", b"[" * 100_000, b"[]", b"{}", b"7", b'{"receipt": 1, "proofs": {}}'])
def test_a_file_without_receipt_or_proof_is_one_line(tmp_path, capsys, text):
    (tmp_path / "odd.json").write_bytes(text)
    status, result, err = commands.run(capsys, "check", tmp_path / "odd.json")
    assert (status, result) == (2, None) and ("this is no JSON" in err or "no receipt and no proof" in err)


def test_what_is_signed_is_written_down(opened, key):
    """The format that docs/threat_model.md gives, by hand: 64 bytes over a prefix and canonical JSON."""
    from cryptography.hazmat.primitives import serialization

    answer = disk.delete(opened, [1], "R")
    signed = documents.receipt(opened, answer, signatures.signer(key))
    public = serialization.load_pem_public_key(Path(f"{key}.pub").read_bytes())
    text = json.dumps(signed["statement"], sort_keys=True, separators=(",", ":"))
    public.verify(bytes.fromhex(signed["signature"]), b"s3t.signed\n" + text.encode())
    assert signed["public_key"] == public.public_bytes_raw().hex()
    assert signed["statement"] | {"at": "", "store": "", "row": 0} == {
        "format": "s3t.receipt/1", "store": "", "row": 0, "at": "", "request": "R", "ids": [1], "already": [],
        "unknown": [], "nodes_dropped": answer["nodes_dropped"], "head": answer["head"],
    }  # fmt: skip


def test_an_id_that_is_edited_and_a_proof_of_no_node_prove_nothing(tmp_path, key):
    """An empty store's statement is genuine; the id beside it is anybody's."""
    public, bare = signatures.public_key(Path(f"{key}.pub")), stores.make(tmp_path / "bare")
    (proof,) = documents.prove(bare, [12], signatures.signer(key))
    assert claims.judged(documents.check(proof, public))["verdict"] == "nothing was proved"
    assert documents.check(proof, public)[0].reason == "the proof is of no node"
    for id_ in ("12: none of 14 nodes was trained on it\nok", 12.0, True, float("inf"), 2**63, None, [12]):
        found = documents.check(proof | {"id": id_}, public)[0]
        assert (found.verdict, found.claim) == ("refuted", "the proof of an id can be read")


def test_what_others_wrote_into_a_document_is_one_line_for_people(tmp_path, capsys):
    text = {"statement": {"format": documents.RECEIPT, "request": "R\nok\x1b[8m\u2028"}, "signature": ""}
    (tmp_path / "forged.json").write_text(json.dumps(text))
    assert main(["check", str(tmp_path / "forged.json")]) == 3
    told = capsys.readouterr().out.splitlines()
    assert len(told) == 2 and "request R\\nok\\x1b[8m\\u2028 deleted" in told[0] and told[1] == "not ok: nothing was proved"
    claim = commands.run(capsys, "check", tmp_path / "forged.json")[1]["claims"][0]["claim"]
    assert "R\nok\x1b[8m\u2028" in claim, "JSON says what it is"


def test_the_signed_statement_of_a_proof_may_be_given_alone(answers, key, capsys, tmp_path):
    statement = json.loads(answers[3].read_text())["proofs"][0]["serving"]
    (tmp_path / "alone.json").write_text(json.dumps(statement))
    status, found, _ = checked(capsys, tmp_path / "alone.json", "--key", f"{key}.pub")
    assert status == 0 and found[0][1].startswith("the operator says that these 14 nodes are all that served at head ")


def test_receipts_and_proofs_are_held_against_each_other(answers, key, capsys, tmp_path, opened):
    _, there, receipt, proof = answers
    words = ("--key", f"{key}.pub")
    status, result, _ = commands.run(capsys, "check", receipt, proof, *words)
    assert status == 0 and "(1 of 1 deleted ids have a proof)" in result["claims"][-1]["claim"]

    def against(*documents_):
        (tmp_path / "both.json").write_text(json.dumps(documents_))
        status, result, _ = commands.run(capsys, "check", tmp_path / "both.json", *words)
        return status, result["claims"][-1]["verdict"], result["claims"][-1]["reason"]

    sign, proofs = signatures.signer(key), json.loads(proof.read_text())["proofs"]
    later = documents.receipt(opened, disk.delete(opened, [there], "S"), sign)
    status, verdict, reason = against(later, *proofs)
    assert (status, verdict) == (1, "refuted") and reason.endswith("ask for a proof from after the deletion")
    before = sign(later["statement"] | {"row": 1})
    assert against(before, *proofs)[1:] == ("refuted", f"a node that serves holds id {there}, which was deleted")
    assert against(before, proofs[0])[:2] == (3, "nothing was proved")
    elsewhere = sign(later["statement"] | {"row": 1, "store": "0" * 64})
    assert against(elsewhere, *proofs)[1:] == ("refuted", "they are of several stores: give those of one")
    assert against(sign(later["statement"] | {"row": "x"}), *proofs)[1:] == ("refuted", "one of them is malformed")


def test_a_node_that_is_dropped_while_proofs_are_made_is_left_out(opened, monkeypatch):
    """It is deleted and purged between the snapshot and the reading of its file."""
    gone, check = stores.ids_at(opened, 0, 1)[0], publishing.check

    def dropping(store, node):
        monkeypatch.setattr(publishing, "check", check)
        with disk_of(opened) as other:
            disk.delete(other, [gone])
            disk.purge(other)
        return check(store, node)

    monkeypatch.setattr(publishing, "check", dropping)
    (proof,) = documents.prove(opened, [gone])
    assert len(proof["nodes"]) == len(publishing.live(opened)) < 14
    assert not any(node["holds"] for node in proof["nodes"])
    assert claims.judged(documents.check(proof, None))["verdict"] == "nothing was proved"  # unsigned, and whole
    disk.file_of(opened, publishing.live(opened)[0].identity).unlink()
    with pytest.raises(ValueError, match="is missing"):
        documents.prove(opened, [gone])


@contextlib.contextmanager
def disk_of(opened):
    other = disk.look(opened.root)
    yield other
    disk.close(other)


def test_what_is_no_file_to_check_is_one_line_that_says_what_to_give(tmp_path, capsys, monkeypatch, key):
    monkeypatch.setattr(documents, "MOST_BYTES", 10)
    (tmp_path / "large").write_text("[" * 11)
    give = "give what python -m s3t delete --key or verify --prove printed with --json"
    for path, message in (
        (tmp_path, f"{tmp_path} is no file: {give}"),
        (tmp_path / "no", f"cannot be read (No such file or directory): {give}"),
        (tmp_path / "large", "has more than 10 bytes: check it in parts, and ask verify --prove for fewer ids at once"),
    ):
        status, _, err = commands.run(capsys, "check", path)
        assert status == 2 and message in err
    (tmp_path / "link").symlink_to(f"{key}.pub")
    assert signatures.public_key(tmp_path / "link")
    status, _, err = commands.run(capsys, "check", tmp_path / "large", "--key", tmp_path)
    assert status == 2 and f"{tmp_path} is no file: give the file of a key, which python -m s3t key makes" in err


def test_a_key_that_would_sign_nothing_is_refused(opened, key, capsys):
    status, _, err = commands.run(capsys, "verify", "--store", opened.root, "--key", key)
    assert status == 2 and "--key signs proofs: give --prove, too" in err


# keys


def test_a_key_is_made_once_and_kept_secret(tmp_path, capsys, opened):
    key = tmp_path / "k"
    status, answer, _ = commands.run(capsys, "key", "--key", key)
    assert status == 0 and answer["public_key"] == signatures.public_key(tmp_path / "k.pub")
    assert key.stat().st_mode & 0o777 == 0o600
    status, _, err = commands.run(capsys, "key", "--key", key)
    assert status == 2 and "already" in err
    key.chmod(0o644)
    head = opened.ledger.execute("SELECT count(*) FROM log").fetchone()
    for path, message in (
        (key, "others may read the private key"),
        (tmp_path / "k.pub", "is no private Ed25519 key"),
        (tmp_path / "no", "cannot be read (No such file"),
    ):
        path.chmod(0o600) if path.suffix else None
        status, _, err = commands.run(capsys, "delete", "--store", opened.root, "--ids", "1", "--key", path)
        assert status == 2 and message in err
    assert opened.ledger.execute("SELECT count(*) FROM log").fetchone() == head, "what cannot be signed is not done"
    status, _, err = commands.run(capsys, "check", key, "--key", key)
    assert status == 2 and "is no public Ed25519 key" in err


def test_without_the_library_one_line_says_what_to_install(tmp_path, capsys, monkeypatch, opened):
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.asymmetric", None)
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives", None)
    for words in (
        ("key", "--key", tmp_path / "k"),
        ("delete", "--store", opened.root, "--ids", "1", "--key", tmp_path / "k"),
    ):
        status, _, err = commands.run(capsys, *words)
        assert status == 2 and "pip install 'forethought[signing]'" in err


def test_trees_are_those_of_the_certificates(opened):
    """The slow twin: each id of each node against each certificate."""
    ids = list(range(0, 60, 7))
    nodes = {certificates.certificate_digest(publishing.load(opened, n)[0]): n for n in publishing.live(opened)}
    for proof in documents.prove(opened, ids):
        for node in proof["nodes"]:
            certificate = certificates.from_json(node["certificate"])
            place = nodes[certificates.certificate_digest(certificate)]
            held = {id_ for s in place.slices for id_ in stores.ids_at(opened, place.shard, s)}
            assert node["holds"] == (proof["id"] in held)

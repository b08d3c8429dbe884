"""Ids of healed requests leave the ledger: no byte of them stays, and every digest still fits."""

import json
import re
import sqlite3

import pytest

from s3t.cli import main
from s3t.service import restoring, verify
from s3t.store import copies, deletions, disk, documents, manifests, publishing, signatures, state
from s3t.store.ledger import database, hash_chain, marks, records, redaction
from tests.helpers import commands, stores

BIG = 7_234_567_890_123_456_789  # an id that nothing else looks like
ASKED = 6_123_456_789_012_345_678  # never registered


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A full store with one large id among many, so that its tables have inner pages."""
    root = tmp_path_factory.mktemp("large") / "store"
    made = stores.make(root)
    disk.register(made, [BIG, *range(BIG - 3000, BIG - 2000)], [0] * 1001, [1] * 1001)
    disk.close(stores.fill(made))
    return root


def healed(opened, ids, request):
    done = disk.delete(opened, ids, request)
    disk.purge(opened)
    stores.fill(opened)
    assert request in state.mark_healed(opened)
    return done


def varint(number):
    """A rowid of 64 bits as SQLite writes it."""
    high = number >> 8
    return bytes(0x80 | (high >> shift) & 0x7F for shift in range(49, -1, -7)) + bytes([number & 0xFF])


def found(root, id_):
    """The files that hold an id in any spelling."""
    spellings = str(id_).encode(), id_.to_bytes(8, "big"), id_.to_bytes(8, "little"), varint(id_)
    files = [path for path in root.rglob("*") if path.is_file()]
    return {path.name for path in files if any(spelling in path.read_bytes() for spelling in spellings)}


def key(opened):
    return manifests.key_of(opened.manifest)


def test_no_byte_of_an_id_stays_and_every_head_fits(opened, capsys):
    receipt = healed(opened, [BIG, 3, ASKED], "R")["head"]
    before, head = verify.verify(opened.root, receipt), database.head(opened.ledger)
    assert found(opened.root, BIG) and found(opened.root, ASKED)
    status, result, err = commands.run(capsys, "redact", "--store", opened.root)
    assert (status, err) == (0, "") and (result["redacted"], result["examples"], result["kept"]) == (["R"], 2, [])
    disk.close(opened)
    assert found(opened.root, BIG) == found(opened.root, ASKED) == set()
    after = verify.verify(opened.root, receipt, head.digest, result["head"])
    assert after["ok"] and {**after, "rows": 0, "head": ""} == {**before, "rows": 0, "head": ""}
    assert after["rows"] == before["rows"] + 1 == result["rows"]


def test_an_open_connection_does_not_keep_the_ids(opened):
    """A server holds one; it reads nothing while the file is written anew."""
    other = disk.look(opened.root)
    chain = records.read_rows(hash_chain.start(), other.ledger)
    healed(opened, [BIG], "R")
    chain = records.read_rows(chain, other.ledger)
    assert BIG in chain.history.deleted
    redaction.redact(opened)
    assert found(opened.root, BIG) == set()
    chain = records.read_rows(chain, other.ledger)  # goes on from what it has read
    assert not chain.problem and BIG not in chain.history.deleted and chain.digest == database.head(opened.ledger).digest
    assert set(records.live_of(chain.history)) == set(publishing.live(other))
    disk.close(other)


def test_a_reader_that_keeps_old_pages_is_told_of(opened, monkeypatch):
    monkeypatch.setattr(database, "WAIT_SECONDS", 0.1)
    made = disk.look(opened.root)
    healed(made, [BIG], "R")
    with database.reading(opened.ledger):
        opened.ledger.execute("SELECT count(*) FROM examples").fetchone()
        with pytest.raises(ValueError, match=r"the ids are redacted, but .* may hold them in pages out of use"):
            redaction.redact(made)
    assert redaction.redact(made).requests == () and found(opened.root, BIG) == set()
    disk.close(made)


def test_only_what_is_healed_long_enough_is_redacted(opened, capsys):
    healed(opened, [1], "R")
    disk.delete(opened, [2], "open")
    status, result, _ = commands.run(capsys, "redact", "--store", opened.root, "--older-than", 1)
    assert status == 0 and result["redacted"] == [] and result["rows"] == database.head(opened.ledger).rows
    assert main(["redact", "--store", str(opened.root)]) == 0
    assert capsys.readouterr().out.startswith("redacted: 1 requests, 1 examples forgotten\nhead: ")
    assert deletions.answer(opened.ledger, "open").ids == (2,)
    assert redaction.redact(opened).requests == ()
    for text in ("-1", "x", "inf"):
        assert commands.run(capsys, "redact", "--store", opened.root, f"--older-than={text}")[0] == 2


def test_what_is_forgotten_is_known_again(opened, capsys, tmp_path):
    """A redacted id is not registered a second time, and a repeated request has a state and no ids."""
    before = healed(opened, [BIG, 3], "R")
    redaction.redact(opened)
    with pytest.raises(ValueError, match=f"id {BIG} was registered before: nothing was registered"):
        disk.register(opened, [BIG, 5000], [0, 0], [0, 0])
    done = disk.delete(opened, [BIG, 4, ASKED], "S")
    assert (done["ids"], done["already"], done["unknown"]) == ([4], [BIG], [ASKED])
    status, again, _ = commands.run(capsys, "delete", "--store", opened.root, "--ids", 1, "--request-id", "R")
    assert status == 0 and (again["state"], again["ids"], again["redacted"]) == ("healed", [], True)
    assert (again["head"], again["nodes_dropped"]) == (before["head"], before["nodes_dropped"])
    assert main(["delete", "--store", str(opened.root), "--ids", "1", "--request-id", "R"]) == 0
    assert "request R was healed, and its ids are redacted since" in capsys.readouterr().out
    signatures.make_key(tmp_path / "k")
    words = ("delete", "--store", opened.root, "--ids", "1", "--request-id", "R", "--key", tmp_path / "k")
    status, signed, _ = commands.run(capsys, *words)  # a receipt of no ids would say that none was deleted
    assert status == 0 and "receipt" not in signed and "its ids are redacted" in signed["no_receipt"]
    assert main(list(map(str, words))) == 0 and "\nno receipt: its ids are redacted" in capsys.readouterr().out
    with pytest.raises(ValueError, match="the ids of request R were redacted: the receipt that it was given then holds"):
        documents.receipt(opened, signed, signatures.signer(tmp_path / "k"))
    stores.fill(opened)
    state.mark_healed(opened)
    assert redaction.redact(opened).requests == ("S",)  # which names a forgotten id
    assert records.counts(opened.ledger)["deleted"] == 3 and verify.verify(opened.root)["ok"]


def test_a_node_that_was_trained_meanwhile_is_not_published(opened):
    one = stores.ids_at(opened, 0, 0)[0]
    healed(opened, [one], "first")
    other = stores.ids_at(opened, 0, 0)[0]
    node = next(node for node in publishing.live(opened) if node.slices == (0, 1, 2) and node.shard == 0)
    late = node._replace(identity="f" * 64, as_of=database.head(opened.ledger).rows)
    healed(opened, [other], "second")
    redaction.redact(opened)
    with pytest.raises(records.Outdated, match="has been deleted: it is not published"):
        records.record_node(opened.ledger, late, None, lambda: None)


# tampering


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM forgotten",
        "DROP TABLE forgotten",
        "UPDATE forgotten SET deleted = deleted + 1",
        "UPDATE forgotten SET registered = registered + 1",
        "UPDATE forgotten SET mark = 'x' WHERE mark = (SELECT min(mark) FROM forgotten)",
        "UPDATE forgotten SET slice = 1 - slice",
        "UPDATE forgotten SET redacted = 2",
        "INSERT INTO forgotten SELECT 'y', shard, slice, registered, deleted, redacted FROM forgotten LIMIT 1",
        "UPDATE examples SET deleted = (SELECT max(deleted) FROM forgotten) WHERE id = 5",
        "DELETE FROM examples WHERE id = 5",
        "INSERT INTO examples VALUES (77, 0, 0, 2, NULL)",
        "UPDATE log SET detail = replace(detail, '[1]', '[2]') WHERE request = 'kept' AND kind = 'received'",
        "UPDATE log SET detail = replace(detail, '\"salt\":\"', '\"salt\":\"0') WHERE request = 'kept'",
        "UPDATE log SET detail = replace(detail, '\"ids\":[\"', '\"ids\":[\"0') WHERE request = 'R'",
    ],
)
def test_what_is_altered_after_a_redaction_is_found(opened, statement):
    healed(opened, [0, 3], "R")
    redaction.redact(opened)
    disk.delete(opened, [1], "kept")
    assert verify.verify(opened.root)["ok"]
    assert opened.ledger.execute(statement).rowcount
    assert not verify.verify(opened.root)["ok"]


def test_ids_that_are_taken_away_without_a_redaction_are_found(opened):
    """The chain alone would not show it: its digests never covered more."""
    healed(opened, [3], "R")
    for seq, kind, detail in opened.ledger.execute("SELECT seq, kind, detail FROM log WHERE request = 'R'").fetchall():
        opened.ledger.execute("UPDATE log SET detail = ? WHERE seq = ?", (hash_chain.sealed(kind, detail), seq))
    opened.ledger.execute("UPDATE examples SET deleted = NULL WHERE id = 3")
    problems = verify.verify(opened.root)["problems"]
    assert any(
        re.search(r"the ids of row \d+ are gone, but no row says that they were redacted", line) for line in problems
    )


def test_a_sealed_row_is_what_its_digest_covers():
    detail = json.dumps({"ids": [12, 17], "already": [], "unknown": [5], "nodes": ["n"], "salt": "ab"})
    sealed = json.loads(hash_chain.sealed("deactivated", detail))
    assert set(sealed) == {"ids", "already", "unknown", "nodes"} and sealed["nodes"] == ["n"]
    assert [len(id_) for id_ in sealed["ids"]] == [64, 64] and len({*sealed["ids"], *sealed["unknown"]}) == 3
    assert hash_chain.sealed("deactivated", json.dumps(sealed)) == json.dumps(sealed)
    assert hash_chain.sealed("published", detail) == detail
    row = "0" * 64, 3, "now", "deactivated", "R"
    assert hash_chain.link(*row, detail) == hash_chain.link(*row, hash_chain.sealed("deactivated", detail))
    assert hash_chain.link(*row, detail) != hash_chain.link(*row, detail.replace("ab", "ac"))


# older ledgers


def test_rows_of_older_ledgers_keep_their_ids(tmp_path, capsys):
    """Their digests cover the ids; a store of 0.1 goes on, and what is registered and deleted now can be forgotten."""
    root = tmp_path / "store"
    made = stores.manifest()
    opened = disk.create(root, made)
    records.record_examples(opened.ledger, range(60), *stores.places(range(60)))  # as 0.1 did
    disk.register(opened, [BIG], [0], [1])
    stores.fill(opened)
    deletions.record_deletion(opened.ledger, [1], "old")
    healed(opened, [2], "old example")
    healed(opened, [BIG], "new")
    assert verify.verify(root)["ok"]
    assert main(["redact", "--store", str(root)]) == 0
    out = capsys.readouterr().out
    assert out.startswith(
        "redacted: 1 requests, 1 examples forgotten\nkept: 2 requests whose rows, or whose examples' rows,"
    )
    assert deletions.answer(opened.ledger, "old").ids == (1,) and deletions.answer(opened.ledger, "new").state == "healed"
    assert verify.verify(root)["ok"] and verify.verify(root)["deleted"] == 3
    disk.close(opened)


# copies


def test_a_redacted_store_is_backed_up_and_restored(opened, tmp_path):
    healed(opened, [BIG], "R")
    redaction.redact(opened)
    made = copies.back_up(opened.root, tmp_path / "backup", "test")
    assert found(tmp_path / "backup", BIG) == set()
    restoring.restore(tmp_path / "backup", opened.root)
    assert verify.verify(opened.root, made.head)["ok"]


def test_a_redacted_deletion_is_made_again_in_an_older_backup(opened, tmp_path, capsys):
    """The backup names the id, the store its mark."""
    copies.back_up(opened.root, tmp_path / "backup", "test")
    healed(opened, [BIG, 3], "R")
    redaction.redact(opened)
    status, _, err = commands.run(capsys, "restore", tmp_path / "backup", "--store", opened.root)
    assert status == 2 and "lacks 1 deletions" in err and "first of request R" in err
    words = "restore", tmp_path / "backup", "--store", opened.root, "--replay-deletions"
    status, result, _ = commands.run(capsys, *words)
    assert status == 0 and [(done["request"], done["ids"]) for done in result["replayed"]] == [("R", 2)]
    restored = disk.look(opened.root)
    assert sorted(deletions.answer(restored.ledger, "R").ids) == [3, BIG] and verify.verify(opened.root)["ok"]
    disk.close(restored)


def test_marks_are_of_the_store(opened):
    assert marks.mark(key(opened), BIG) != marks.mark(b"another", BIG)
    healed(opened, [BIG], "R")
    redaction.redact(opened)
    assert marks.forgotten(opened.ledger, key(opened), [BIG, 3]) == {BIG}
    assert marks.forgotten(opened.ledger, b"another", [BIG, 3]) == set()


def test_the_varint_of_the_test_is_sqlites(tmp_path):
    with sqlite3.connect(tmp_path / "x") as made:
        made.execute("CREATE TABLE t (id INTEGER PRIMARY KEY)")
        made.execute("INSERT INTO t VALUES (?)", (BIG,))
    made.close()
    assert varint(BIG) in (tmp_path / "x").read_bytes()

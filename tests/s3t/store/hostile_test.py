"""Stores that were prepared to do harm: links, planted files, pipes, altered tables, files of absurd size."""

import os
import sqlite3
import stat

import pytest

from s3t.service import verify
from s3t.store import deletions, disk, files, publishing, state
from s3t.store.ledger import audit, database, hash_chain, records
from tests.helpers import commands, stores


def snapshot(folder):
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def elsewhere(tmp_path):
    """A folder of somebody else's, with files called like nodes'."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    for name in (f"{'0' * 64}.safetensors", f"{'1' * 64}.tmp", "thesis.txt"):
        (folder / name).write_text("precious")
    return folder


# links


@pytest.mark.parametrize("command", [("delete", "--ids", "1"), ("heal",), ("train",), ("verify",), ("status",)])
def test_a_link_in_place_of_the_nodes_is_followed_by_no_command(opened, elsewhere, capsys, command):
    (opened.root / "nodes").rename(opened.root.parent / "nodes")
    (opened.root / "nodes").symlink_to(elsewhere)
    before = snapshot(elsewhere)
    status, _, err = commands.run(capsys, *command, "--store", opened.root)
    assert status == 2 and err.count("\n") == 1
    assert command[0] in ("heal", "train") or "is not a directory but a link or a file" in err
    assert snapshot(elsewhere) == before


@pytest.mark.parametrize("name", ["manifest.json", "ledger.sqlite", "ledger.sqlite-wal", "ledger.sqlite-shm"])
@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_what_takes_the_place_of_a_file_is_neither_followed_nor_waited_for(opened, tmp_path, capsys, name, kind):
    path, target = opened.root / name, tmp_path / "target"
    target.write_bytes(path.read_bytes())
    path.unlink()
    path.symlink_to(target) if kind == "link" else os.mkfifo(path)
    before = target.read_bytes()
    for words in (("status",), ("delete", "--ids", "1"), ("verify",)):
        status, _, err = commands.run(capsys, *words, "--store", opened.root)
        assert status == 2 and ("is a link" in err or "is a pipe" in err or "there is no" in err)
    assert target.read_bytes() == before


@pytest.mark.parametrize("kind", ["link", "pipe", "directory"])
def test_what_takes_the_place_of_a_node_is_that_nodes_problem(opened, tmp_path, kind):
    path = disk.file_of(opened, publishing.live(opened)[0].identity)
    path.rename(tmp_path / "moved")
    {"link": lambda: path.symlink_to(tmp_path / "moved"), "pipe": lambda: os.mkfifo(path), "directory": path.mkdir}[kind]()
    (problem,) = verify.verify(opened.root)["problems"]
    assert f"cannot be read: it is a {kind}" in problem


def test_a_planted_link_is_not_written_through(opened, elsewhere):
    """A node is first written under a name that is known beforehand."""
    one = stores.ids_at(opened, 0, 0)[0]
    disk.delete(opened, [one])
    disk.purge(opened)
    drafted = publishing.draft_node(opened, 0, (0,))
    target = elsewhere / "thesis.txt"
    disk.file_of(opened, drafted.identity).with_suffix(".tmp").symlink_to(target)
    publishing.publish(opened, drafted, stores.tensors(drafted.identity), {}, None)
    assert target.read_text() == "precious" and not disk.file_of(opened, drafted.identity).is_symlink()


@pytest.mark.parametrize("name", ["../../elsewhere/thesis", "/etc/passwd", "", "x" * 64, "0" * 63])
def test_an_identity_that_leads_elsewhere_is_no_file(opened, name):
    with pytest.raises(ValueError, match="is no identity of a node"):
        disk.file_of(opened, name)


def test_a_path_to_a_store_may_be_a_link_of_the_user_s(opened, tmp_path):
    (tmp_path / "link").symlink_to(opened.root)
    assert verify.verify(tmp_path / "link")["ok"]


# permissions


def test_a_store_is_for_its_owner_alone(tmp_path):
    before = os.umask(0)
    try:
        (tmp_path / "store").mkdir()
        opened = stores.fill(stores.make(tmp_path / "store"))
    finally:
        os.umask(before)
    for path in (opened.root, *opened.root.rglob("*")):
        wanted = 0o700 if path.is_dir() else 0o600
        assert stat.S_IMODE(path.stat().st_mode) == wanted, path


# tables against the chain


def test_a_purge_removes_nothing_that_the_chain_has_serving(opened):
    before = stores.files_of(opened)
    for statement in (
        "UPDATE nodes SET dropped = 1",
        "UPDATE nodes SET dropped = (SELECT max(seq) FROM log)",
        "DELETE FROM nodes",
        "UPDATE nodes SET dropped = 'x'",
    ):
        opened.ledger.execute("SAVEPOINT here")
        opened.ledger.execute(statement)
        with pytest.raises(
            database.Damaged, match=r"ledger was altered \(.*\): nothing was changed; run python -m s3t verify"
        ):
            with_savepoint(opened)
        opened.ledger.execute("ROLLBACK TO here")
        opened.ledger.execute("RELEASE here")
        assert stores.files_of(opened) == before
    assert verify.verify(opened.root)["ok"]


def with_savepoint(opened):
    """A purge's removal inside the savepoint, which a purge of its own could not begin."""
    live = {node.identity for node in publishing.live(opened)}
    gone = {name.removesuffix(".safetensors") for name in stores.files_of(opened)} - live
    for identity in gone or {node.identity for node in publishing.live(opened)}:
        records.check_gone(opened.ledger, identity)


@pytest.mark.parametrize("statement", ["UPDATE nodes SET dropped = 1", "DELETE FROM nodes"])
def test_a_deletion_beside_an_altered_table_unlinks_no_serving_node(opened, capsys, statement):
    before = stores.files_of(opened)
    opened.ledger.execute(statement)
    one = stores.ids_at(opened, 0, 0)[0]
    status, _, err = commands.run(capsys, "delete", "--store", opened.root, "--ids", one, "--request-id", "R")
    assert status == 2 and "but the purge is still to be done" in err and "ledger was altered" in err
    assert stores.files_of(opened) == before


@pytest.mark.parametrize("command", ["heal", "train"])
def test_nothing_is_trained_from_a_table_that_the_chain_contradicts(opened, capsys, command):
    one = stores.ids_at(opened, 0, 0)[0]
    disk.delete(opened, [one])
    opened.ledger.execute("UPDATE examples SET deleted = NULL")
    head = database.head(opened.ledger)
    status, _, err = commands.run(capsys, command, "--store", opened.root)
    assert status == 2 and database.head(opened.ledger) == head
    assert f"the deletion of id {one} is not what the ledger's rows say" in err or "nothing says how to train" in err


def test_a_request_is_not_purged_or_healed_twice_whatever_the_table_says(opened):
    disk.delete(opened, [stores.ids_at(opened, 0, 0)[0]], "r")
    disk.purge(opened)
    opened.ledger.execute("UPDATE requests SET state = 'deactivated'")
    head = database.head(opened.ledger)
    with pytest.raises(database.Damaged, match="request r is purged already"):
        disk.purge(opened)
    opened.ledger.execute("UPDATE requests SET state = 'purged'")
    assert deletions.record_healed(opened.ledger, "r")
    opened.ledger.execute("UPDATE requests SET state = 'purged'")
    with pytest.raises(database.Damaged, match="request r is healed already"):
        deletions.record_healed(opened.ledger, "r")
    assert database.head(opened.ledger).rows == head.rows + 1


KINDS = ["created", "registered", "published", "received", "deactivated", "purged", "restored", "replaced"]


@pytest.mark.parametrize("detail", ["7", "[]", "{}", '"x"', '{"ids": 1}', "{", "[" * 5000, '{"nodes": [[]], "ids": ["x"]}'])
@pytest.mark.parametrize("kind", KINDS)
def test_a_row_with_other_json_is_a_problem_and_no_traceback(opened, capsys, kind, detail):
    """Forged with all digests from there on, as whoever can write the store can."""
    disk.delete(opened, [stores.ids_at(opened, 0, 0)[0]], "R")
    disk.purge(opened)
    if kind == "replaced":
        opened.ledger.execute("BEGIN")
        database.append(opened.ledger, "replaced", "", {"by": publishing.live(opened)[0].identity, "nodes": []})
        opened.ledger.execute("COMMIT")
    if kind == "restored":
        opened.ledger.execute("BEGIN")
        database.append(opened.ledger, "restored", "", {"identity": publishing.live(opened)[0].identity})
        opened.ledger.execute("COMMIT")
    relink(opened.ledger, kind, detail)
    for words in (
        ("status",),
        ("delete", "--ids", "1", "--request-id", "R"),
        ("delete", "--ids", "2"),
        ("verify",),
        ("heal",),
    ):
        status, _, err = commands.run(capsys, *words, "--store", opened.root)
        assert status in (0, 1, 2) and err.count("\n") <= 1
        if words == ("verify",) and (kind, detail) != ("received", "[]"):
            assert status in (1, 2) or kind == "received"


def relink(ledger, kind, detail):
    """Give the first row of a kind another detail, and forge all digests."""
    before, seen = hash_chain.START, False
    for row in [hash_chain.Row(*row) for row in ledger.execute("SELECT * FROM log ORDER BY seq").fetchall()]:
        if row.kind == kind and not seen:
            row, seen = row._replace(detail=detail), True
        before = hash_chain.link(before, *row[:5])
        ledger.execute("UPDATE log SET detail = ?, digest = ? WHERE seq = ?", (row.detail, before, row.seq))
    assert seen


# full disks


def test_a_write_that_finds_no_room_leaves_nothing_and_names_the_path(opened, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda descriptor: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    path = opened.root / "nodes" / f"{'2' * 64}.safetensors"
    with pytest.raises(OSError, match=f"No space left on device: '{path}'"):
        files.write(path, b"x")
    assert not path.exists() and not path.with_suffix(".tmp").exists()


def test_a_full_disk_is_named_with_the_ledger(opened):
    """SQLite says so of a commit that finds no room: here because the file may not grow."""
    (pages,) = opened.ledger.execute("PRAGMA page_count").fetchone()
    opened.ledger.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(ValueError, match=r"is full, make room there and repeat the command; nothing was changed") as raised:
        for number in range(60):
            head = database.head(opened.ledger)
            disk.delete(opened, [number], f"{number}".rjust(200, "R"))
    assert str(opened.root / "ledger.sqlite") in str(raised.value)
    assert database.head(opened.ledger) == head and verify.verify(opened.root)["ok"]
    assert state.status(opened)["deleted"] == number and number > 0


# what SQLite itself would do


def test_a_journal_beside_a_ledger_is_not_rolled_back(opened, capsys, tmp_path):
    """A rollback journal may name another one, which SQLite removes: any file of the user's."""
    victim = tmp_path / "victim.txt"
    victim.write_text("precious")
    name = str(victim).encode()
    tail = len(name).to_bytes(4, "big") + sum(name).to_bytes(4, "big") + bytes.fromhex("d9d505f920a163d7")
    head = bytes.fromhex("d9d505f920a163d7") + bytes(4) + bytes(4) + (0).to_bytes(4, "big") + (512).to_bytes(4, "big")
    head += (4096).to_bytes(4, "big")
    journal = opened.root / "ledger.sqlite-journal"
    journal.write_bytes(head.ljust(512, b"\0") + (0x40000001).to_bytes(4, "big") + name + tail)
    for words in (("status",), ("verify",), ("delete", "--ids", "1"), ("heal",)):
        status, _, err = commands.run(capsys, *words, "--store", opened.root)
        assert status in (1, 2) and (words == ("verify",) or "is nothing that a store has" in err)
    assert victim.exists() and journal.exists()


def test_a_trigger_or_a_view_that_comes_while_the_store_is_open_is_refused(opened):
    other = sqlite3.connect(opened.root / "ledger.sqlite", isolation_level=None)
    before = database.head(opened.ledger)
    for statement in (
        "CREATE TRIGGER t BEFORE INSERT ON log BEGIN SELECT RAISE(IGNORE); END",
        "CREATE VIEW v AS SELECT 1",
        "CREATE TEMP TABLE fine (x)",
    ):
        other.execute(statement)
        if "TEMP" in statement:
            break
        with pytest.raises(database.Damaged, match="is none of a store's"):
            disk.delete(opened, [1])
        with pytest.raises(database.Damaged, match="is none of a store's"):
            stores.ids_at(opened, 0, 0)
        other.execute(statement.split()[0].replace("CREATE", "DROP") + f" {statement.split()[1]} {statement.split()[2]}")
    other.close()
    assert database.head(opened.ledger) == before and disk.delete(opened, [1])["ids"] == [1]


def test_an_index_that_hides_rows_is_found(opened):
    """Its content and not its definition was altered: what is quick to ask is empty, and the table is whole."""
    opened.ledger.execute("PRAGMA writable_schema = ON")
    (page,) = opened.ledger.execute("SELECT rootpage FROM sqlite_master WHERE name = 'live'").fetchone()
    (size,) = opened.ledger.execute("PRAGMA page_size").fetchone()
    opened.ledger.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    path = opened.root / "ledger.sqlite"
    disk.close(opened)
    data = bytearray(path.read_bytes())
    at = (page - 1) * size
    data[at + 3 : at + 7] = bytes(2) + size.to_bytes(2, "big")  # no cell, and all room is free
    path.write_bytes(data)
    again = disk.look(opened.root)
    with pytest.raises(database.Damaged, match="the ledger's file is damaged"):
        audit.check(again)
    assert not verify.verify(again.root)["ok"]


def test_a_table_that_calls_an_example_deleted_earns_no_receipt(opened):
    opened.ledger.execute("UPDATE examples SET deleted = 1 WHERE id = 12")
    with pytest.raises(database.Damaged, match="row 1 is not what it was"):
        disk.delete(opened, [12])
    done = disk.delete(opened, [13])
    (row,) = opened.ledger.execute("SELECT deleted FROM examples WHERE id = 13").fetchone()
    opened.ledger.execute("UPDATE examples SET deleted = ? WHERE id = 12", (row,))
    with pytest.raises(database.Damaged, match="no row says that id 12 was deleted"):
        disk.delete(opened, [12])
    assert disk.delete(opened, [13])["already"] == [13] and done["ids"] == [13]


def test_a_node_that_a_table_has_serving_again_is_not_called_purged(opened):
    disk.delete(opened, [stores.ids_at(opened, 0, 0)[0]], "R")
    opened.ledger.execute("UPDATE nodes SET dropped = NULL")
    with pytest.raises(database.Damaged, match="serves, which request R dropped"):
        disk.purge(opened)
    assert state.status(opened)["requests"] == {"deactivated": 1}


def test_a_store_stays_where_it_was_opened(tmp_path, monkeypatch):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        disk.close(stores.fill(stores.make(tmp_path / name / "store")))
    monkeypatch.chdir(tmp_path / "a")
    opened = disk.look("store")
    disk.delete(opened, [stores.ids_at(opened, 0, 0)[0]], "R")
    monkeypatch.chdir(tmp_path / "b")
    assert disk.purge(opened) == ("R",)
    assert verify.verify(tmp_path / "b" / "store")["nodes"] == 14 and verify.verify("store")["leftovers"] == 0
    assert verify.verify(tmp_path / "a" / "store")["leftovers"] == 0


def test_a_closed_store_is_not_called_damaged(opened):
    disk.close(opened)
    with pytest.raises(ValueError, match="it was closed, or is used in another thread") as raised:
        disk.delete(opened, [1])
    assert not isinstance(raised.value, database.Damaged)

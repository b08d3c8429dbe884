"""Stores that were damaged, altered or locked away: one line that says so, and nothing lost."""

import dataclasses
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from s3t.cli import main
from s3t.plans import simulate
from s3t.service import verify
from s3t.store import deletions, disk, publishing, state
from s3t.store.ledger import database, records
from tests.helpers import stores

ROOT = Path(__file__).resolve().parents[3]


def run(capsys, *words):
    """(status, standard output, the one line on standard error or none)."""
    status = main(list(map(str, words)))
    out, err = capsys.readouterr()
    assert err.count("\n") == (status == 2)
    return status, out, err


def alter(opened, statement):
    """Change a ledger's tables behind its back; the chain is left as it was."""
    opened.ledger.execute(statement)


# manifest


@pytest.mark.parametrize(
    "change", [{"shards": 1}, {"slices": "x"}, {"hyper": {"rate": 0.2}}, {"arguments": {"root": "elsewhere"}}]
)
def test_a_changed_manifest_is_believed_by_no_command(opened, capsys, change):
    path = opened.root / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    head = database.head(opened.ledger)
    for words in (
        ("status",),
        ("delete", "--ids", "1"),
        ("predict", "--ids", "1"),
        ("heal",),
        ("train",),
    ):
        status, out, err = run(capsys, *words, "--store", opened.root)
        assert (status, out) == (2, "")
        assert f"the manifest of {opened.root} is not the one that its ledger was created with: restore it" in err
    assert database.head(opened.ledger) == head
    status, out, _ = run(capsys, "verify", "--store", opened.root)
    assert status == 1 and out == "problem: the manifest is not the one that the ledger was created with\n"


@pytest.mark.parametrize("data", [b"", b"{}", b"\xff\xfe", b"[1]"])
def test_a_manifest_that_is_none_is_a_problem_too(opened, data):
    (opened.root / "manifest.json").write_bytes(data)
    assert verify.verify(opened.root)["problems"] == ["the manifest is not the one that the ledger was created with"]
    with pytest.raises(ValueError, match="is not a manifest of a store: restore it"):
        disk.look(opened.root)


def test_a_ledger_of_another_store_is_refused(opened, tmp_path):
    other = stores.make(tmp_path / "other", shards=1)
    disk.close(other)
    shutil.copy(tmp_path / "other" / "manifest.json", opened.root)
    with pytest.raises(ValueError, match="not the one that its ledger was created with"):
        disk.open(opened.root)


# deletion


def test_rubbish_does_not_keep_a_deletion_waiting(opened, capsys):
    one = stores.ids_at(opened, 0, 1)[0]
    backup = opened.root / "nodes" / "backup"
    backup.mkdir()
    status, out, err = run(capsys, "delete", "--store", opened.root, "--ids", one, "--request-id", "R", "--json")
    assert status == 2 and json.loads(out)["ids"] == [one]
    assert err.startswith(f"error: deleted (request R), but the purge is still to be done: {backup} is nothing")
    assert state.status(opened)["requests"] == {"deactivated": 1} and state.status(opened)["nodes"]["leftovers"] == 1
    assert backup.is_dir() and verify.verify(opened.root)["ok"]
    with pytest.raises(ValueError, match=r"backup is nothing that the store made, perhaps a copy of a node: remove it"):
        disk.open(opened.root)
    backup.rmdir()
    assert run(capsys, "delete", "--store", opened.root, "--ids", one, "--request-id", "R")[0] == 0
    assert state.status(opened)["requests"] == {"purged": 1}


@pytest.mark.parametrize("name", ["link", "notes.txt", f"copy of {'0' * 64}.safetensors", f"{'A' * 64}.safetensors"])
def test_what_the_store_did_not_make_is_named_and_stays(opened, tmp_path, name):
    """It may be a copy of a deleted node, so nothing is called purged while it is there."""
    (tmp_path / "elsewhere").mkdir()
    if name == "link":
        (opened.root / "nodes" / name).symlink_to(tmp_path / "elsewhere")
    else:
        (opened.root / "nodes" / name).write_bytes(b"")
    disk.delete(opened, [stores.ids_at(opened, 0, 1)[0]], "R")
    with pytest.raises(ValueError, match="is nothing that the store made, perhaps a copy of a node: remove it"):
        disk.purge(opened)
    assert os.path.lexists(opened.root / "nodes" / name) and (tmp_path / "elsewhere").is_dir()
    assert state.status(opened)["requests"] == {"deactivated": 1} and state.status(opened)["nodes"]["leftovers"] == 1


def test_a_deletion_without_the_directory_of_nodes_stands(opened, capsys):
    one = stores.ids_at(opened, 0, 1)[0]
    shutil.rmtree(opened.root / "nodes")
    status, out, err = run(capsys, "delete", "--store", opened.root, "--ids", one, "--request-id", "R")
    assert status == 2 and "request R: 1 examples deleted" in out
    assert "error: deleted (request R), but the purge is still to be done: " in err
    assert deletions.answer(opened.ledger, "R").ids == (one,)


def test_a_deletion_whose_answer_cannot_be_written_is_purged_and_says_so(opened):
    """A full disk: at once, as at the interpreter's exit, when what is left is written once more."""
    one = stores.ids_at(opened, 0, 1)[0]
    with open("/dev/full", "w") as full:
        done = command("delete", "--json", "--store", opened.root, "--request-id", "R", "--ids", one, stdout=full)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: deleted (request R), but the answer could not be written: [Errno 28]")
    assert state.status(opened)["requests"] == {"purged": 1} and state.status(opened)["nodes"]["leftovers"] == 0


def command(*words, **pipes):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **pipes}
    words = [sys.executable, "-m", "s3t", *map(str, words)]
    return subprocess.run(words, cwd=ROOT, text=True, timeout=60, check=False, **pipes)


@pytest.fixture
def unread():
    """A pipe whose reader has gone."""
    read, write = os.pipe()
    os.close(read)
    yield write
    os.close(write)


@pytest.mark.parametrize("words", [("--help",), ("status", "--help"), ("status",), ("verify", "--json"), ("delete",)])
def test_a_command_that_nobody_reads_ends_without_a_word(opened, unread, words):
    """As `... | head -1` does; a deletion is done all the same, to its end."""
    about = () if "--help" in words else ("--store", opened.root)
    which = ("--ids", stores.ids_at(opened, 0, 1)[0]) if words == ("delete",) else ()
    done = command(*words, *about, *which, stdout=unread)
    assert (done.returncode, done.stderr) == (141, "")
    assert state.status(opened)["requests"] == ({"purged": 1} if which else {})


def test_a_mistake_that_nobody_reads_ends_without_a_word(tmp_path, unread):
    """As `... 2>&1 | head -1` does."""
    for words in (("status", "--store", tmp_path), ("status",)):
        assert command(*words, stdout=unread, stderr=subprocess.STDOUT).returncode == 141


def test_what_was_not_deleted_is_not_called_so(opened, capsys):
    (opened.root / "nodes" / "backup").mkdir()
    err = run(capsys, "delete", "--store", opened.root, "--ids", "999", "--request-id", "R")[2]
    assert err.startswith("error: nothing to delete (request R), but the purge is still to be done: ")


# healing


def test_a_dropped_node_cannot_be_drafted_again_unless_the_ledger_was_altered(opened):
    one = stores.ids_at(opened, 0, 0)[0]
    disk.delete(opened, [one], "r")
    disk.purge(opened)
    alter(opened, f"UPDATE examples SET deleted = NULL WHERE id = {one}")
    before = {path.name for path in (opened.root / "nodes").iterdir()}
    with pytest.raises(ValueError, match=r"the ledger was altered: node .* was dropped before; run python -m") as raised:
        stores.fill(opened)  # which drafts anew after every Outdated, as healing does
    assert not isinstance(raised.value, records.Outdated)
    assert {path.name for path in (opened.root / "nodes").iterdir()} == before
    assert f"the deletion of id {one} is not what the ledger's rows say" in verify.verify(opened.root)["problems"]


def test_examples_that_go_and_come_never_bring_a_name_back(opened):
    """The legitimate case: an id that was deleted is refused for ever, so no later draft holds the same ids."""
    one = stores.ids_at(opened, 0, 0)[0]
    seen = {node.identity for node in publishing.live(opened)}
    for step, new in enumerate((100, 101, 102)):
        disk.delete(opened, [one], str(step))
        with pytest.raises(ValueError, match="was registered before"):
            disk.register(opened, [one], [0], [0])
        disk.register(opened, [new], [0], [0])
        stores.fill(opened)
        fresh = {node.identity for node in publishing.live(opened) if node.shard == 0 and 0 in node.slices}
        assert len(fresh) == 4 and not fresh & seen
        seen, one = seen | fresh, new


# reading


def unwritable(monkeypatch, path):
    """What SQLite says of a ledger that this process may not write, before it has found its files of rows ahead."""
    error = sqlite3.OperationalError("attempt to write a readonly database")
    error.sqlite_errorcode = sqlite3.SQLITE_READONLY_DIRECTORY
    connect = database._connect

    def refused(asked, mode, *more):
        if asked == path and "immutable" not in mode:
            raise error
        return connect(asked, mode, *more)

    monkeypatch.setattr(database, "_connect", refused)


def test_a_store_on_a_read_only_disk_is_verified(template, tmp_path, monkeypatch):
    root = tmp_path / "store"
    shutil.copytree(template, root)
    expected = verify.verify(root)
    unwritable(monkeypatch, root / "ledger.sqlite")
    assert verify.verify(root) == expected and expected["ok"] and expected["nodes"] == 14
    assert state.status(disk.look(root, read_only=True))["state"] == "complete"
    with pytest.raises(ValueError, match=r"store's ledger cannot be used \(attempt to write a readonly database\)"):
        disk.look(root)  # who serves must see what others append
    (root / "ledger.sqlite-wal").write_bytes(b"rows ahead")  # not to be passed over
    with pytest.raises(ValueError, match=r"cannot be used .*: check who may write") as raised:
        verify.verify(root)
    assert not isinstance(raised.value, database.Damaged)


def test_a_locked_ledger_is_not_called_damaged(template, tmp_path, monkeypatch):
    root = tmp_path / "store"
    shutil.copytree(template, root)
    monkeypatch.setattr(database, "WAIT_SECONDS", 0.0)
    holder = sqlite3.connect(root / "ledger.sqlite", isolation_level=None)
    holder.execute("PRAGMA locking_mode = EXCLUSIVE")
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.raises(ValueError, match=r"cannot be used \(database is locked\)"):
        verify.verify(root)
    holder.close()
    assert verify.verify(root)["ok"]


@pytest.mark.parametrize("table", ["log", "examples", "requests", "nodes"])
def test_a_ledger_without_a_table_is_damaged(opened, capsys, table):
    alter(opened, f"DROP TABLE {table}")
    text = f"{opened.root}'s ledger is damaged (no such table: {table}): restore it from a copy"
    assert verify.verify(opened.root) == {"ok": False, "problems": [text]}
    assert run(capsys, "status", "--store", opened.root) == (2, "", f"error: {text}\n")


def test_a_damaged_page_is_found_when_it_is_read(opened):
    path = opened.root / "ledger.sqlite"
    (first,) = opened.ledger.execute("SELECT rootpage FROM sqlite_master WHERE name = 'examples'").fetchone()
    (size,) = opened.ledger.execute("PRAGMA page_size").fetchone()
    opened.ledger.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    disk.close(opened)
    data = path.read_bytes()
    path.write_bytes(data[: (first - 1) * size] + b"\x00" * size + data[first * size :])
    result = verify.verify(opened.root)
    assert not result["ok"] and "the ledger's file is damaged (" in result["problems"][0]


def test_a_directory_in_place_of_a_node_is_that_nodes_problem(opened):
    node = publishing.live(opened)[0]
    path = disk.file_of(opened, node.identity)
    path.unlink()
    path.mkdir()
    result = verify.verify(opened.root)
    (text,) = result["problems"]
    assert not result["ok"] and text.startswith(f"node {node.identity}: the file {path} cannot be read: ")


def test_an_empty_head_is_one_that_the_ledger_never_had(opened, capsys):
    status, out, _ = run(capsys, "verify", "--store", opened.root, "--expect-head", "")
    assert status == 1 and "the ledger never had the head" in out


# what libraries cannot read


@pytest.mark.parametrize(
    "kind, metadata",
    [("F8_E4M3", {}), ("F32", {"certificate": "[" * 100_000}), ("F32", {"certificate": "deep"})],
    ids=["a type that numpy lacks", "JSON too deep to read", "JSON too deep to hash"],
)
def test_a_file_that_no_library_can_read_is_that_nodes_problem(opened, kind, metadata):
    node = publishing.live(opened)[0]
    if metadata.get("certificate") == "deep":
        hyper = json.loads('{"a":' * 700 + "1" + "}" * 700)
        certificate = dataclasses.replace(publishing.load(opened, node)[0], hyper=hyper)
        metadata = {"certificate": json.dumps(vars(certificate))}
    size = 1 if kind == "F8_E4M3" else 4
    header = json.dumps({"__metadata__": metadata, "x": {"dtype": kind, "shape": [1], "data_offsets": [0, size]}}).encode()
    disk.file_of(opened, node.identity).write_bytes(len(header).to_bytes(8, "little") + header + bytes(size))
    result = verify.verify(opened.root)
    assert [problem.startswith(f"node {node.identity}: ") for problem in result["problems"]] == [True] and not result["ok"]


def test_json_too_deep_and_memory_that_is_not_there_are_one_line(opened, capsys, monkeypatch):
    with pytest.raises(SystemExit) as left:
        main(["train", "--store", "no", "--hyper", "[" * 100_000])
    assert left.value.code == 2 and "expected a JSON object, got '[[[" in capsys.readouterr().err
    monkeypatch.setattr(simulate, "falls", lambda *_: np.empty(1 << 50))
    words = ("simulate", "--planner", "sisa", "--slices", "2", "--shards", "1")
    assert run(capsys, *words)[2].startswith("error: out of memory (Unable to allocate ")
    (opened.root / "manifest.json").write_text("[" * 200_000)
    assert "is not a manifest of a store: restore it from a copy" in run(capsys, "status", "--store", opened.root)[2]


@pytest.mark.parametrize(
    "platform, message",
    [("odd", "Unable to initialize backend 'odd'"), ("cuda", "JAX_PLATFORMS is 'cuda', and there is no such device here")],
)
def test_a_platform_that_is_not_there_is_one_line(opened, platform, message):
    words = [sys.executable, "-m", "s3t", "predict", "--store", str(opened.root), "--ids", "3"]
    env = {**os.environ, "JAX_PLATFORMS": platform}
    done = subprocess.run(words, cwd=ROOT, env=env, capture_output=True, text=True, timeout=500, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("error: ") and (message in done.stderr or jax.devices()[0].platform == "gpu")


def test_a_deletion_while_the_status_looks_is_no_problem(opened, monkeypatch):
    file_of, deleted = disk.file_of, []

    def deleting(asked, identity):
        if not deleted:
            other = disk.open(opened.root)
            deleted.append(stores.ids_at(other, 0, 0)[0])
            disk.delete(other, deleted, "race")
            disk.purge(other)
            disk.close(other)
        return file_of(asked, identity)

    monkeypatch.setattr(disk, "file_of", deleting)
    assert state.status(opened)["problems"] == [] and deleted


def test_the_manifest_is_for_its_owner_s_eyes_alone(opened):
    assert (opened.root / "manifest.json").stat().st_mode & 0o777 == 0o600

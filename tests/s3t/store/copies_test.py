"""Backups of a store in use: whole or not there, private, and held against their digests."""

import json
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from s3t.cli import main
from s3t.service import verify
from s3t.store import copies, disk, files, publishing
from s3t.store.ledger import database
from tests.helpers import commands, stores

ROOT = Path(__file__).resolve().parents[3]


def back_up(opened, path):
    return copies.back_up(opened.root, path, "test")


def test_a_backup_is_the_store_at_its_head(opened, tmp_path, capsys):
    """Taken while another connection holds rows that are not in the ledger's file yet."""
    disk.delete(opened, [stores.ids_at(opened, 0, 1)[0]], "R")
    assert (opened.root / "ledger.sqlite-wal").stat().st_size > 0
    head, made = database.head(opened.ledger), tmp_path / "backup"
    status, result, err = commands.run(capsys, "backup", "--store", opened.root, made)
    assert (status, err) == (0, "") and (result["head"], result["rows"], result["files"]) == (head.digest, head.rows, 12)
    assert result["backup"] == str(made) and result["time"].endswith("Z")
    proof = verify.verify(made / "store", head.digest)
    assert proof["ok"] and proof["deleted"] == 1 and proof["nodes"] == 10
    description = json.loads((made / "backup.json").read_text())
    assert {"store/" + name for name in description["files"]} == {
        path.relative_to(made).as_posix() for path in (made / "store").rglob("*") if path.is_file()
    }
    for path in [made, *made.rglob("*")]:
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path
    assert sorted(path.name for path in tmp_path.iterdir()) == ["backup", "store"]
    plain = tmp_path / "plain.sqlite"  # what a plain copy misses
    shutil.copy(opened.root / "ledger.sqlite", plain)
    query = "SELECT count(*) FROM log WHERE digest = ?"
    assert sqlite3.connect(plain).execute(query, (head.digest,)).fetchone() == (0,)
    assert main(["backup", "--store", str(opened.root), str(tmp_path / "again")]) == 0
    out = capsys.readouterr().out
    assert f"head: {head.digest} after {head.rows} rows\n" in out and "take a new one and destroy this one" in out


def test_a_backup_goes_where_nothing_is(opened, tmp_path, capsys):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes").touch()
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    (tmp_path / "to store").symlink_to(opened.root)
    before = stores.content(opened)
    for place, message in (
        ("full", "is there already: choose another place"),
        ("file", "is there already"),
        ("link", "is a link: name the directory itself"),
        ("no/backup", f"there is no directory {tmp_path / 'no'}: make it"),
        ("store/backup", "lies in the store"),
        ("to store/backup", "lies in the store"),
        ("store/nodes/backup", "lies in the store"),
        ("store", "is there already"),
    ):
        status, out, err = commands.run(capsys, "backup", "--store", opened.root, tmp_path / place)
        assert (status, out) == (2, None) and message in err, place
    assert stores.content(opened) == before and not list((tmp_path / "empty").iterdir())
    assert commands.run(capsys, "backup", "--store", tmp_path / "empty", tmp_path / "x")[2].startswith(
        "error: there is no store at"
    )
    back_up(opened, tmp_path / "empty")
    assert verify.verify(tmp_path / "empty" / "store")["ok"]


def test_a_node_that_is_dropped_meanwhile_takes_a_new_snapshot(opened, tmp_path, monkeypatch):
    """Its file is gone before it is copied, twice; a node that replaces it is in the backup."""
    read, gone = files.read_bytes, []
    others = iter([(0, 0), (1, 1)])

    def deleting(path):
        place = next(others, None)
        if place:
            gone.append(stores.ids_at(opened, *place)[0])
            disk.delete(opened, gone[-1:], str(len(gone)))
            disk.purge(opened)
            stores.fill(opened)
        return read(path)

    monkeypatch.setattr(files, "read_bytes", deleting)
    made = back_up(opened, tmp_path / "backup")
    assert len(gone) == 2 and made.head == database.head(opened.ledger).digest
    copy = disk.look(tmp_path / "backup" / "store")
    assert stores.content(copy) == stores.content(opened) and len(publishing.live(copy)) == 14
    disk.close(copy)


def test_a_backup_of_what_is_not_whole_is_refused(opened, tmp_path):
    node = publishing.live(opened)[0]
    path = disk.file_of(opened, node.identity)
    data = path.read_bytes()
    for content, message in ((None, f"the file of node {node.identity} is missing"), (data[:-1] + b"?", "parameters")):
        path.unlink() if content is None else path.write_bytes(content)
        with pytest.raises(ValueError, match=r"is not whole, .*: heal it, then back it up") as raised:
            back_up(opened, tmp_path / "backup")
        assert message in str(raised.value)
    path.write_bytes(data)
    opened.ledger.execute("UPDATE requests SET state = 'healed'")
    opened.ledger.execute("UPDATE examples SET deleted = 3 WHERE id = 1")
    with pytest.raises(database.Damaged, match=r"is not worth a backup, the deletion of id 1 is not what"):
        back_up(opened, tmp_path / "backup")
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_a_link_in_place_of_nodes_is_not_followed(opened, tmp_path):
    (opened.root / "nodes").rename(tmp_path / "elsewhere")
    (opened.root / "nodes").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="is not a directory but a link"):
        back_up(opened, tmp_path / "backup")
    assert not (tmp_path / "backup").exists()


def test_a_backup_that_is_killed_leaves_none_and_the_next_one_clears_up(opened, tmp_path):
    """Right before each step that others could see."""
    code = "import sys; from tests.helpers import stores; from s3t.store import copies\n"
    code += "stores.die_at(int(sys.argv[3])); copies.back_up(sys.argv[1], sys.argv[2], 'test')"
    made = tmp_path / "backup"
    for step in (1, 3, 20, 48):
        words = [sys.executable, "-c", code, str(opened.root), str(made), str(step)]
        assert subprocess.run(words, cwd=ROOT, check=False, timeout=60).returncode == -9
        assert not made.exists() and (tmp_path / ".backup.tmp").is_dir()
    back_up(opened, made)
    assert verify.verify(made / "store")["ok"] and not (tmp_path / ".backup.tmp").exists()


def test_two_backups_do_not_fill_one_place(opened, tmp_path):
    with copies.beside(tmp_path / "backup"), pytest.raises(ValueError, match="another process makes a store in"):
        back_up(opened, tmp_path / "backup")
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_a_backup_is_made_while_another_process_writes(opened, tmp_path):
    """No writer waits for it, and it sees nothing of what is not committed."""
    head = database.head(opened.ledger)
    with database.writing(opened.ledger):
        database.append(opened.ledger, "received", "R", {"ids": [1]})
        assert back_up(opened, tmp_path / "backup").head == head.digest


@pytest.mark.parametrize(
    "change",
    [
        lambda fields: [],
        lambda fields: {**fields, "files": {**fields["files"], "../../x": "0"}},
        lambda fields: {**fields, "files": {}},
        lambda fields: {**fields, "rows": "1"},
        lambda fields: {**fields, "more": 1},
    ],
)
def test_a_description_that_cannot_be_is_refused(opened, tmp_path, change):
    back_up(opened, tmp_path / "backup")
    path = tmp_path / "backup" / "backup.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(ValueError, match="is damaged: use another backup"):
        copies.describe(tmp_path / "backup")
    path.unlink()
    with pytest.raises(ValueError, match="there is no backup at"):
        copies.describe(tmp_path / "backup")


def test_files_of_a_backup_are_held_against_their_digests(opened, tmp_path):
    made = tmp_path / "backup"
    description = back_up(opened, made)
    path = made / "store" / next(name for name in description.files if name.startswith("nodes/"))
    data = path.read_bytes()
    (tmp_path / "other").write_bytes(data)
    for change, message in (
        (lambda: path.write_bytes(data + b"x"), "is not what was backed up"),
        (lambda: None, "is missing"),
        (lambda: path.symlink_to(tmp_path / "other"), "is a link"),
    ):
        path.unlink()
        change()
        with pytest.raises(ValueError, match=message), copies.beside(tmp_path / "out") as out:
            copies.unpack(made, description, out)
        path.unlink(missing_ok=True)
        path.write_bytes(data)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []

"""A backup is put in a store's place only whole, and no deletion is forgotten on the way unless somebody says so."""

import json
import multiprocessing
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from s3t.cli import main
from s3t.service import restoring, verify
from s3t.store import copies, deletions, disk, state
from s3t.store.ledger import database, salvage
from tests.helpers import commands, stores

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A full store whose nodes hold made-up parameters."""
    root = tmp_path_factory.mktemp("made-up") / "store"
    disk.close(stores.fill(stores.make(root)))
    return root


@pytest.fixture
def backup(opened, tmp_path):
    """Of the store, after one deletion."""
    disk.delete(opened, [ids(opened)[0]], "before")
    disk.purge(opened)
    copies.back_up(opened.root, tmp_path / "backup", "test")
    return tmp_path / "backup"


def ids(opened):
    return stores.ids_at(opened, 0, 1)


def names(path):
    return sorted(entry.name for entry in path.iterdir())


def restore(capsys, backup, root, *words):
    return commands.run(capsys, "restore", backup, "--store", root, *words)


def test_a_backup_is_restored_where_nothing_is(opened, backup, tmp_path, capsys):
    head = database.head(opened.ledger)
    for place in ("new", "empty"):
        (tmp_path / "empty").mkdir(exist_ok=True)
        status, result, err = restore(capsys, backup, tmp_path / place, "--expect-head", head.digest)
        assert (status, err) == (0, "") and (result["head"], result["rows"]) == (head.digest, head.rows)
        assert (result["moved"], result["replayed"], result["warnings"]) == (None, [], [])
        restored = disk.open(tmp_path / place)
        assert stores.content(restored) == stores.content(opened) and verify.verify(tmp_path / place, head.digest)["ok"]
        stores.fill(restored)  # it goes on like any store
        disk.close(restored)
        for path in [tmp_path / place, *(tmp_path / place).rglob("*")]:
            assert path.stat().st_mode & 0o077 == 0
    assert names(tmp_path) == ["backup", "empty", "new", "store"]


def test_what_is_there_is_moved_aside_and_a_server_sees_it(opened, backup, tmp_path, capsys):
    content = stores.content(opened)
    for number in (1, 2):
        looked = disk.look(opened.root)
        assert main(["restore", str(backup), "--store", str(opened.root)]) == 0
        out = capsys.readouterr().out
        aside = tmp_path / f"store.before-restore-{number}"
        assert f"moved what was there to {aside}\n" in out and f"warning: {aside} still holds what was deleted" in out
        with pytest.raises(ValueError, match="was moved or replaced while it was open"):
            database.head(looked.ledger)
        with pytest.raises(ValueError, match="was moved or replaced while it was open"):
            disk.delete(looked, [5], "x")
        disk.close(looked)
        moved = disk.look(aside)
        assert stores.content(moved) == content
        disk.close(moved)
    assert verify.verify(opened.root)["ok"]


# deletions after the backup


def test_a_later_deletion_is_not_forgotten_unless_told(opened, backup, tmp_path, capsys):
    _, one, two = ids(opened)[:1] + ids(opened)[:2]
    receipt = disk.delete(opened, [one, 999, 998], "later 1")["head"]
    disk.delete(opened, [two, one], "later 2")
    before = database.head(opened.ledger)
    status, out, err = restore(capsys, backup, opened.root)
    assert (status, out) == (2, None)
    assert f"the backup lacks 2 deletions that {opened.root} has acknowledged, first of request later 1" in err
    assert "--replay-deletions" in err and "--lose-deletions" in err
    assert database.head(opened.ledger) == before and names(tmp_path) == ["backup", "store"]
    status, result, _ = restore(capsys, backup, opened.root, "--replay-deletions")
    assert status == 0 and [done["request"] for done in result["replayed"]] == ["later 1", "later 2"]
    assert [done["ids"] for done in result["replayed"]] == [1, 1]
    restored = disk.look(opened.root)
    assert deletions.answer(restored.ledger, "later 1")[2:5] == ((one,), (), (999, 998))
    assert deletions.answer(restored.ledger, "later 2")[2:5] == ((two,), (one,), ())
    assert state.status(restored)["requests"] == {"purged": 3}
    assert stores.files_of(restored) == stores.live_files(restored)
    proof = verify.verify(opened.root, *(done["head"] for done in result["replayed"]))
    assert proof["ok"] and proof["deleted"] == 3 and not verify.verify(opened.root, receipt)["ok"]
    again = commands.run(capsys, "delete", "--store", opened.root, "--ids", f"{one},999,998", "--request-id", "later 1")
    assert again[0] == 0 and again[1]["ids"] == [one]
    disk.close(restored)
    assert restore(capsys, backup, opened.root)[0] == 2  # the deletions that were made again count, too


def test_deletions_may_be_lost_knowingly(opened, backup, capsys):
    disk.delete(opened, [ids(opened)[0]], "later")
    status, result, _ = restore(capsys, backup, opened.root, "--lose-deletions")
    assert status == 0 and result["replayed"] == [] and "1 deletions are lost: make them again" in result["warnings"]
    assert verify.verify(opened.root)["deleted"] == 1


def test_ids_that_came_after_the_backup_are_told(opened, backup, capsys):
    disk.register(opened, [1000, 1001], [0, 0], [1, 1])
    disk.delete(opened, [1000], "only new")
    disk.delete(opened, [ids(opened)[0], 1001], "both")
    status, result, _ = restore(capsys, backup, opened.root, "--replay-deletions")
    assert status == 0 and [done["request"] for done in result["replayed"]] == ["both"]
    assert result["unknown"] == 2 and any("do not register them again" in warning for warning in result["warnings"])


# damaged stores


def emptied(path):
    """A ledger whose tables are gone but for its log."""
    with database.open_ledger(path) as ledger:
        for table in ("examples", "requests", "nodes"):
            ledger.execute(f"DROP TABLE {table}")
    ledger.close()


@pytest.mark.parametrize("damage", ["tables", "manifest", "nodes"])
def test_deletions_are_read_from_a_damaged_store(opened, backup, capsys, damage):
    one = ids(opened)[0]
    disk.delete(opened, [one], "later")
    disk.close(opened)
    if damage == "tables":
        emptied(opened.root / "ledger.sqlite")
    elif damage == "manifest":
        (opened.root / "manifest.json").unlink()
    else:
        shutil.rmtree(opened.root / "nodes")
    status, _, err = restore(capsys, backup, opened.root)
    assert status == 2 and "the backup lacks 1 deletions" in err
    status, result, _ = restore(capsys, backup, opened.root, "--replay-deletions")
    assert status == 0 and [done["request"] for done in result["replayed"]] == ["later"]
    assert verify.verify(opened.root)["ok"]


@pytest.mark.parametrize("content", [b"", b"no database at all" * 300, None])
def test_a_ledger_that_tells_nothing_may_have_held_deletions(opened, backup, capsys, content):
    disk.close(opened)
    path = opened.root / "ledger.sqlite"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    status, _, err = restore(capsys, backup, opened.root)
    assert status == 2 and f"{opened.root} may hold deletions that the backup lacks, for " in err and "error: " in err
    for choice in ("--lose-deletions", "--replay-deletions"):
        shutil.rmtree(opened.root)
        opened.root.mkdir()
        (opened.root / "manifest.json").touch()
        if content is not None:
            path.write_bytes(content)
        status, result, _ = restore(capsys, backup, opened.root, choice)
        assert status == 0 and any("not all that was deleted may be known" in text for text in result["warnings"])
        assert verify.verify(opened.root)["ok"]


def test_an_altered_row_does_not_hide_later_deletions(opened, backup, capsys):
    one, two = ids(opened)[:2]
    disk.delete(opened, [one], "A")
    disk.delete(opened, [two], "B")
    opened.ledger.execute("UPDATE log SET detail = '{' WHERE request = 'A' AND kind = 'deactivated'")
    with salvage.held(opened.root / "ledger.sqlite") as past:
        assert [deletion[0] for deletion in past.deletions] == ["before", "B"] and "changed or moved" in past.problem
    status, result, _ = restore(capsys, backup, opened.root, "--replay-deletions")
    assert status == 0 and [done["request"] for done in result["replayed"]] == ["B"]
    assert any("not all that was deleted may be known" in warning for warning in result["warnings"])


def test_a_damaged_page_ends_what_is_read_and_is_told(opened, backup, capsys):
    """Deletions of the pages before it are made again."""
    for number in range(40):
        disk.register(opened, [2000 + number], [0], [0])
        disk.delete(opened, [ids(opened)[0] if number < 3 else 2000 + number], f"{number}".rjust(200, "R"))
    opened.ledger.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    (size,) = opened.ledger.execute("PRAGMA page_size").fetchone()
    disk.close(opened)
    path = opened.root / "ledger.sqlite"
    data = path.read_bytes()
    last = max(at for at in range(0, len(data), size) if b"deactivated" in data[at : at + size] and data[at] == 13)
    path.write_bytes(data[:last] + bytes(size) + data[last + size :])
    with salvage.held(path) as past:
        assert 4 <= len(past.deletions) < 41 and "can be read up to row" in past.problem
    assert restore(capsys, backup, opened.root)[0] == 2
    status, result, _ = restore(capsys, backup, opened.root, "--replay-deletions")
    assert status == 0 and [done["ids"] for done in result["replayed"]] == [1, 1, 1]
    assert any("can be read up to row" in warning for warning in result["warnings"])


# refusals


def test_what_cannot_be_restored_changes_nothing(opened, backup, tmp_path, capsys):
    later = disk.delete(opened, [ids(opened)[0]], "later")["head"]
    disk.purge(opened)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes").touch()
    (tmp_path / "link").symlink_to(opened.root)
    (tmp_path / "file").touch()
    stranger = tmp_path / "stranger"
    disk.close(stores.make(stranger, shards=1))
    seen = names(tmp_path)
    for source, place, words, message in (
        (tmp_path / "no", opened.root, (), "there is no backup at"),
        (opened.root, tmp_path / "new", (), "there is no backup at"),
        (backup, tmp_path / "other", (), "holds something else than a store"),
        (backup, tmp_path / "link", (), "is a link or a file"),
        (backup, tmp_path / "file", (), "is a link or a file"),
        (backup, tmp_path / "a" / "b", (), "there is no directory"),
        (backup, stranger, ("--lose-deletions",), "holds another store than the backup"),
        (backup, opened.root, ("--expect-head", later, "--lose-deletions"), "the ledger never had the head"),
        (backup, opened.root, ("--replay-deletions", "--lose-deletions"), "not allowed with"),
    ):
        status, out, err = restore(capsys, source, place, *words)
        assert (status, out) == (2, None) and message in err, message
    path = backup / "backup.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "rows": 3}))
    assert "its ledger has another head than it says" in restore(capsys, backup, tmp_path / "new")[2]
    assert names(tmp_path) == seen and verify.verify(opened.root, later)["ok"]


def test_a_restore_that_was_stopped_between_two_renames_forgets_nothing(opened, backup, tmp_path, capsys, monkeypatch):
    disk.delete(opened, [ids(opened)[0]], "later")
    rename = Path.rename

    def failing(path, target):
        if path.name.startswith("."):
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", failing)
    assert main(["restore", str(backup), "--store", str(opened.root), "--replay-deletions"]) == 130
    capsys.readouterr()
    assert names(tmp_path) == ["backup", "store"] and verify.verify(opened.root)["ok"]
    monkeypatch.undo()
    opened.root.rename(tmp_path / "store.before-restore-1")  # as after a power cut
    status, _, err = restore(capsys, backup, opened.root)
    assert status == 2 and f"is missing beside {tmp_path / 'store.before-restore-1'}" in err
    assert restore(capsys, backup, opened.root, "--lose-deletions")[0] == 0


@pytest.mark.parametrize("step", [1, 20, 38, -1])
def test_a_restore_that_is_killed_leaves_a_whole_store(opened, backup, tmp_path, step):
    """Before a step that others could see, -1 being the first after the renames; the same command goes on from there."""
    disk.delete(opened, [ids(opened)[0]], "later")
    code = "import sys; from tests.helpers import stores; from s3t.service import restoring\n"
    code += "swap = restoring._swap\n"
    code += (
        "restoring._swap = lambda *paths: (stores.die_at(1), swap(*paths))\n" if step < 0 else f"stores.die_at({step})\n"
    )
    code += "restoring.restore(*sys.argv[1:], replay=True)"
    words = [sys.executable, "-c", code, str(backup), str(opened.root)]
    assert subprocess.run(words, cwd=ROOT, check=False, timeout=60).returncode == -9
    assert (tmp_path / "store.before-restore-1").exists() == (step < 0)
    assert verify.verify(opened.root)["ok"] and verify.verify(opened.root)["deleted"] == 2
    assert restoring.restore(backup, opened.root, replay=True)["replayed"][0]["request"] == "later"
    assert verify.verify(opened.root)["deleted"] == 2 and not (tmp_path / ".store.tmp").exists()


def deleting(root, id_, answers):
    """In another process: a deletion that has to wait."""
    store = disk.look(root)
    answers.put("looked")
    try:
        answers.put(disk.delete(store, [id_], "race")["head"])
    except ValueError as error:
        answers.put(str(error))


def test_a_deletion_during_a_restore_is_refused_and_not_lost(opened, backup, monkeypatch):
    """It waits for the ledger, which is another one then."""
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    other = context.Process(target=deleting, args=(opened.root, ids(opened)[0], answers))
    swap = restoring._swap

    def waiting(*paths):
        other.start()
        assert answers.get(timeout=60) == "looked"
        threading.Event().wait(0.3)
        return swap(*paths)

    monkeypatch.setattr(restoring, "_swap", waiting)
    restoring.restore(backup, opened.root)
    assert "was moved or replaced while it was open" in answers.get(timeout=60)
    other.join()
    assert verify.verify(opened.root)["deleted"] == 1

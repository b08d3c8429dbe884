"""Stores on disks that are full, read-only or out of reach: reading needs no room, and a failure is one line with the path.

The disks are real where the tests may mount one (as root on Linux).
"""

import contextlib
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from s3t.service import verify
from s3t.store import disk, files, publishing, state
from s3t.store.ledger import database
from tests.helpers import commands, stores

ROOT = Path(__file__).resolve().parents[3]


def mount(*words):
    done = subprocess.run(["mount", *map(str, words)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no disk can be mounted here: {done.stderr.strip()}")


@pytest.fixture
def small(tmp_path):
    """A disk of one megabyte."""
    path = tmp_path / "disk"
    path.mkdir()
    if not shutil.which("mount"):
        pytest.skip("there is no command mount here")
    mount("-t", "tmpfs", "-o", "size=1m", "tmpfs", path)
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


@pytest.fixture
def store(small, template):
    """A copy of the template on it, closed."""
    shutil.copytree(template, small / "store")
    return small / "store"


def fill(path):
    """Write until there is no room left."""
    with contextlib.suppress(OSError), open(path / "filling", "ab", buffering=0) as file:
        while True:
            file.write(bytes(512))


def one_line(capsys, *words):
    status, out, err = commands.run(capsys, *words)
    assert (status, out) == (2, None)
    return err


def readable(capsys, root, backup):
    """What needs no room of a store's disk."""
    assert commands.run(capsys, "status", "--store", root)[1]["state"] == "complete"
    assert commands.run(capsys, "verify", "--store", root)[1]["ok"]
    assert commands.run(capsys, "backup", "--store", root, backup)[0] == 0
    assert verify.verify(backup / "store")["ok"]


# full


def test_a_store_on_a_full_disk_is_read_and_changes_are_refused(store, tmp_path, capsys):
    before = verify.verify(store)
    fill(store.parent)
    readable(capsys, store, tmp_path / "backup")
    readable(capsys, store, tmp_path / "again")  # with what SQLite has left beside the ledger by then
    for words in (("delete", "--ids", 1), ("purge",), ("redact",)):
        err = one_line(capsys, *words, "--store", store)
        assert f"the disk of {store / 'ledger.sqlite'} is full, make room there and repeat the command" in err
    (store.parent / "filling").unlink()
    assert verify.verify(store) == before
    assert commands.run(capsys, "delete", "--store", store, "--ids", 1)[1]["ids"] == [1]


def test_a_disk_that_fills_up_under_an_open_store_acknowledges_nothing(store):
    opened = disk.look(store)
    fill(store.parent)
    answers = []
    with pytest.raises(ValueError, match="is full, make room there and repeat the command; nothing was changed"):
        for number in range(60):
            answers.append(disk.delete(opened, [number], str(number).rjust(200, "R")))
    disk.close(opened)
    (store.parent / "filling").unlink()
    proof = verify.verify(store, *(answer["head"] for answer in answers))
    assert proof["ok"] and proof["deleted"] == len(answers)


def test_a_node_that_finds_no_room_is_not_published(store):
    opened = disk.open(store)
    disk.delete(opened, [stores.ids_at(opened, 0, 1)[0]], "R")
    disk.purge(opened)
    before = stores.files_of(opened), database.head(opened.ledger)
    fill(store.parent)
    with pytest.raises((OSError, ValueError), match=rf"No space left on device: '{store}|is full, make room there"):
        stores.fill(opened)
    assert (stores.files_of(opened), database.head(opened.ledger)) == before
    (store.parent / "filling").unlink()
    stores.fill(opened)
    assert len(publishing.live(opened)) == 14 and verify.verify(store)["ok"]
    disk.close(opened)


def test_copies_to_a_full_disk_leave_nothing(opened, small, tmp_path, capsys):
    fill(small)
    err = one_line(capsys, "backup", "--store", opened.root, small / "backup")
    assert str(small) in err and ("No space left on device" in err or "is full" in err)
    assert commands.run(capsys, "backup", "--store", opened.root, tmp_path / "backup")[0] == 0
    err = one_line(capsys, "restore", tmp_path / "backup", "--store", small / "store")
    assert str(small) in err and "No space left on device" in err
    assert [path.name for path in small.iterdir()] == ["filling"]


def test_a_file_that_may_not_grow_is_one_line(opened):
    """RLIMIT_FSIZE, without a disk of its own."""
    code = (
        "import resource, signal, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)); from s3t.cli import main;"
    )
    code += "sys.exit(main(sys.argv[1:]))"
    for words in (("delete", "--ids", "1"), ("backup", str(opened.root.parent / "backup"))):
        words = [sys.executable, "-c", code, *words, "--store", str(opened.root)]
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done
        assert done.stderr.startswith("error: ")
    assert [path.name for path in opened.root.parent.iterdir()] == ["store"]
    assert verify.verify(opened.root)["deleted"] == 0


# read-only


def test_a_store_on_a_read_only_disk_is_read_and_changes_are_refused(store, tmp_path, capsys):
    mount("-o", "remount,ro", store.parent)
    readable(capsys, store, tmp_path / "backup")
    for words in (("delete", "--ids", 1), ("purge",), ("redact",)):
        err = one_line(capsys, *words, "--store", store)
        assert f"the disk of {store / 'ledger.sqlite'} is read-only, mount it for writing and repeat the command" in err
    err = one_line(capsys, "backup", "--store", tmp_path / "backup" / "store", store.parent / "backup")
    assert "Read-only file system" in err and str(store.parent) in err
    err = one_line(capsys, "restore", tmp_path / "backup", "--store", store)
    assert "Read-only file system" in err and str(store.parent) in err


# out of reach


@contextlib.contextmanager
def nobody():
    """The rights of nobody, if these are root's, whom nothing stops."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def test_what_may_not_be_read_or_written_is_one_line(template, capsys):
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        root = Path(folder) / "store"
        shutil.copytree(template, root)
        with nobody():
            if os.geteuid() == 65534:
                assert "Permission denied" in one_line(capsys, "status", "--store", root)
        for path in (root, *root.rglob("*")):
            path.chmod(0o555 if path.is_dir() else 0o444)
        with nobody():
            assert commands.run(capsys, "status", "--store", root)[1]["state"] == "complete"
            err = one_line(capsys, "delete", "--ids", 1, "--store", root)
            assert f"check who may write in {root}, and its disk" in err
            err = one_line(capsys, "backup", "--store", root, Path(folder) / "backup")
            assert ("Permission denied" in err and folder in err) == (Path(folder).stat().st_uid != os.geteuid())
        for path in (root, *root.rglob("*")):
            path.chmod(0o700)


def test_too_many_open_files_are_one_line(opened, capsys):
    limit, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    held = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        with contextlib.suppress(OSError):
            while True:
                held.append(os.open(os.devnull, os.O_RDONLY))
        lines = []
        for _ in range(30):  # with ever more room, until it works
            status, out, err = commands.run(capsys, "delete", "--store", opened.root, "--ids", 1, "--request-id", "R")
            if out is not None and not err:
                break
            assert status == 2
            lines.append(err)
            os.close(held.pop())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
        for descriptor in held:
            os.close(descriptor)
    assert out and out["ids"] == [1] and len(lines) > 2, lines
    assert all("Too many open files" in line or "too many files are open" in line for line in lines), lines
    assert state.status(opened)["requests"] == {"purged": 1}


def test_an_error_of_a_write_names_its_path(opened):
    with pytest.raises(OSError, match="No such file or directory: ") as raised:
        files.write(opened.root / "no" / "x", b"x")
    assert str(opened.root / "no") in str(raised.value)

"""Archives on a disk: kept, dropped, erased, altered; a writer killed before any step leaves what the next one mends."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
from concurrent import futures

import pytest

from experiments.core import files
from experiments.core.errors import UnwritableError
from experiments.federated import layout, log, store
from experiments.federated.log import ArchiveError
from experiments.federated.store import Update

ROOT = pathlib.Path(__file__).resolve().parents[3]
USERS = ("ann", "bob", "cleo")


def content(user, t):
    return f"{user} in {t}".encode()


def add(opened, t, users=USERS):
    updates = {user: Update(1 / len(users), content(user, t)) for user in users}
    opened.append(t, updates, shared=f"shared {t}".encode(), model=log.digest(b"model %d" % t))


def story(root):
    """Make an archive, or go on with one from wherever it stopped: two rounds, one user erased, a round dropped."""
    opened = store.open_store(root, write=True) if (root / layout.LOG).exists() else store.create(root, b"w0", {"m": 3})
    kinds = [row["kind"] for row in opened.rows]
    for t in range(kinds.count("round"), 2):
        add(opened, t, USERS[:2])
    if "erased" not in kinds:
        opened.erase("bob", method="test", model_before="a" * 64, model_after="b" * 64)
    if "dropped" not in kinds:
        opened.drop_before(1, b"w1")
    return opened


def die_at(step):
    """Kill this process right before its step-th visible step."""
    left = [step]

    def counted(function):
        def call(*args, **more):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **more)

        return call

    os.fsync, os.replace, os.unlink, os.rmdir = map(counted, (os.fsync, os.replace, os.unlink, os.rmdir))


def kill_at_every_step(folder):
    """Tell the story in children, each killed a step later than the one before, until one comes to the end."""
    step, alive = 0, True
    while alive:
        step += 1
        child = os.fork()
        if child == 0:
            die_at(step)
            story(folder / f"killed {step}")
            os._exit(0)
        alive = os.WIFSIGNALED(os.waitpid(child, 0)[1])


def told(root):
    """All files but what says when they were made."""
    names = sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
    return names, {name: (root / name).read_bytes() for name in names if name.endswith(".bin")}


@pytest.fixture
def root(tmp_path):
    return tmp_path / "archive"


@pytest.fixture
def opened(root):
    with store.create(root, b"w0", {"rate": 2}) as made:
        for t in range(3):
            add(made, t)
        yield made


def test_what_was_added_is_read(root, opened):
    with pytest.raises(ArchiveError, match="another process writes"):
        store.open_store(root, write=True)
    reader = store.open_store(root)
    assert reader.about == {"rate": 2} and reader.head == opened.head
    assert {t: list(users) for t, users in reader.rounds.items()} == {t: list(USERS) for t in range(3)}
    assert reader.rounds[1]["ann"] == (1 / 3, log.digest(b"ann in 1"), 8)
    assert reader.read("cleo", 2) == b"cleo in 2" and reader.shared(1) == b"shared 1" and reader.start() == (0, b"w0")
    assert reader.verify() == 1 + 9 + 3
    assert reader.sizes() == {
        "users": sum(len(content(user, t)) for user in USERS for t in range(3)), "shared": 24, "start": 2,
        "certificates": 0, "log": (root / "log.jsonl").stat().st_size,
    }  # fmt: skip


def test_an_erased_user_is_gone_and_the_log_keeps_digests(root, opened):
    certificate = opened.erase("bob", method="after MEDU, alpha 0", model_before="a" * 64, model_after="b" * 64)
    assert certificate["removed"] == [{"round": t, "digest": log.digest(content("bob", t)), "bytes": 8} for t in range(3)]
    assert certificate["model_before"] == "a" * 64 and certificate["user"] == "bob" and certificate["digest"] == opened.head
    (path,) = (root / "certificates").iterdir()
    assert json.loads(path.read_text()) == certificate
    assert len(list((root / "users").iterdir())) == 2 and list(opened.rounds[0]) == ["ann", "cleo"]
    reader = store.open_store(root)
    store.check_certificate(reader, certificate)
    with pytest.raises(ArchiveError, match="of bob in round 1 was erased"):
        reader.read("bob", 1)
    with pytest.raises(ArchiveError, match="no update of bob"):
        opened.erase("bob", method="", model_before="", model_after="")
    add(opened, 3)  # who comes back begins anew
    assert opened.read("bob", 3) == b"bob in 3"
    opened.erase("bob", method="", model_before="", model_after="")
    assert len(list((root / "certificates").iterdir())) == 2


def test_a_certificate_is_of_one_archive_and_of_files_that_are_gone(root, opened):
    path = next((root / "users").glob("*/000001.bin"))
    user = next(user for user in USERS if path.read_bytes() == content(user, 1))
    certificate = opened.erase(user, method="", model_before="", model_after="")
    for change in ({"model_after": "c" * 64}, {"archive": "0" * 64}, {"seq": 1}, {"seq": "x"}):
        with pytest.raises(ArchiveError, match="no such erasure"):
            store.check_certificate(opened, certificate | change)
    path.parent.mkdir()
    path.write_bytes(b"back")
    with pytest.raises(ArchiveError, match="though it was erased"):
        store.check_certificate(opened, certificate)


def test_old_rounds_are_dropped(root, opened):
    opened.drop_before(2, b"w2")
    assert opened.start() == (2, b"w2") and list(opened.rounds) == [2] and opened.verify() == 5
    assert sorted(path.name for path in root.rglob("*.bin")) == ["000002.bin"] * 5
    for t, line in ((0, "was erased or dropped"), (7, "round 7 is not in the archive .*: it has rounds 2 to 2")):
        with pytest.raises(ArchiveError, match=line):
            opened.read("ann", t)
    head = opened.head
    opened.drop_before(2, b"other")  # nothing is left to drop
    assert opened.head == head and opened.start() == (2, b"w2")


@pytest.mark.parametrize("user", [17, None, "", "a\nb", "x" * 201, "12345678901234567890"])
def test_users_have_stable_ids(opened, user):
    with pytest.raises(ArchiveError, match="id"):
        opened.append(3, {user: Update(1.0, b"")})
    assert max(opened.rounds) == 2


def test_a_folder_that_is_made_is_its_owner_s_alone_and_one_that_is_there_keeps_its_mode(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there").chmod(0o750)
    for name, mode in (("a/new", 0o700), ("there", 0o750)):
        store.create(tmp_path / name, b"w0", {}).close()
        assert (tmp_path / name).stat().st_mode & 0o777 == mode
    (tmp_path / "file").touch()
    with pytest.raises(ArchiveError, match="file is no folder: give another"):
        store.create(tmp_path / "file", b"w0", {})


def test_rounds_and_weights_that_cannot_be_are_refused(root, opened):
    with pytest.raises(ArchiveError, match="round 2 cannot follow round 2"):
        add(opened, 2)
    for weight in (-0.1, 1.1, float("nan")):
        with pytest.raises(ArchiveError, match="from 0 to 1"):
            opened.append(3, {"ann": Update(weight, b"")})
    with pytest.raises(ArchiveError, match="took no part in round 1"):
        opened.read("dora", 1)
    with pytest.raises(ArchiveError, match="open it with write=True"):
        add(store.open_store(root), 3)
    with pytest.raises(ArchiveError, match="not empty"):
        store.create(root, b"", {})
    with pytest.raises(ArchiveError, match="is no archive"):
        store.open_store(root / "elsewhere", write=True)


def test_an_altered_file_is_named(root, opened):
    opened.close()
    for path, read in (
        (next((root / "users").glob("*/000001.bin")), lambda: store.open_store(root).verify()),
        (root / "shared" / "000002.bin", lambda: store.open_store(root).shared(2)),
        (root / "start" / "000000.bin", lambda: store.open_store(root).start()),
    ):
        before = path.read_bytes()
        path.write_bytes(before[:-1] + b"?")
        with pytest.raises(ArchiveError, match=f"{path} was altered"):
            read()
        path.unlink()
        with pytest.raises(ArchiveError, match=f"{path} is missing"):
            read()
        path.write_bytes(before)
    lines = (root / "log.jsonl").read_bytes().splitlines(keepends=True)
    for altered in (
        [lines[0], lines[1].replace(b"bob", b"rob"), *lines[2:]],
        [lines[0], *lines[2:]],
        [lines[0], lines[2], lines[1], lines[3]],
        [lines[0], b"{}\n"],
        [lines[0], b"\xff\n"],
    ):
        (root / "log.jsonl").write_bytes(b"".join(altered))
        with pytest.raises(ArchiveError, match=r"log\.jsonl was altered at line 2"):
            store.open_store(root)
    (root / "log.jsonl").write_bytes(lines[0].replace(b'"format": 1', b'"format": 2'))
    with pytest.raises(ArchiveError, match="is of format 2: this forethought reads 1"):
        store.open_store(root)


def test_a_log_without_its_end_is_refused_before_anything_is_removed(root, opened):
    opened.close()
    lines = (root / "log.jsonl").read_bytes().splitlines(keepends=True)
    (root / "log.jsonl").write_bytes(b"".join(lines[:2]))
    before = told(root)
    with pytest.raises(ArchiveError, match=r"does not know .*00000[12]\.bin"):
        store.open_store(root, write=True)
    assert told(root) == before


def test_a_full_disk_leaves_the_archive_as_it_was(root, opened, monkeypatch):
    before, write, calls = told(root), files.write_bytes, []

    def full(path, data):
        calls.append(path)
        if len(calls) == 3:
            raise UnwritableError("cannot write: no space left")
        write(path, data)

    monkeypatch.setattr(files, "write_bytes", full)
    with pytest.raises(UnwritableError):
        add(opened, 3)
    monkeypatch.undo()
    assert told(root) == before
    add(opened, 4)
    opened.close()
    assert store.open_store(root, write=True).verify() == 1 + 12 + 4


def test_after_an_error_no_file_is_begun(tmp_path, monkeypatch):
    """Those that are under way end; of a thousand users most were still to come."""
    ended, calls, shutdown = threading.Event(), [], futures.ThreadPoolExecutor.shutdown

    def full(path, data):
        calls.append(path)
        if path.name == "0":
            raise UnwritableError("cannot write: no space left")
        ended.wait()

    def end(pool, **how):
        ended.set()
        shutdown(pool, **how)

    monkeypatch.setattr(files, "write_bytes", full)
    monkeypatch.setattr(futures.ThreadPoolExecutor, "shutdown", end)
    with pytest.raises(UnwritableError):
        layout.write({tmp_path / str(user): b"" for user in range(1000)})
    assert len(calls) < 500


def test_a_row_that_was_cut_short_never_was(root, opened):
    opened.close()
    whole = (root / "log.jsonl").read_bytes()
    (root / "log.jsonl").write_bytes(whole[:-20])
    assert list(store.open_store(root).rounds) == [0, 1] and (root / "log.jsonl").read_bytes() == whole[:-20]
    with store.open_store(root, write=True) as mended:
        assert list(mended.rounds) == [0, 1] and not list(root.rglob("000002.bin"))
        add(mended, 2)
        assert mended.verify() == 13


def test_a_writer_killed_before_any_step_is_mended_by_the_next(tmp_path):
    """The children have a parent of their own: this process may have threads, which do not survive a fork."""
    code = f"import pathlib, sys; from {__name__} import kill_at_every_step; kill_at_every_step(pathlib.Path(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, check=True)
    killed = list(tmp_path.iterdir())
    story(tmp_path / "whole").close()
    expected = told(tmp_path / "whole")
    assert len(killed) > 40  # 2 rounds of 3 files and a row, and more
    for root in killed:
        with story(root) as opened:
            assert told(root) == expected, root
            assert opened.verify() == 1 + 1 + 1
            store.check_certificate(opened, json.loads(next((root / "certificates").iterdir()).read_text()))


def test_a_writer_killed_from_outside_is_mended(root):
    """Another process that adds rounds until it is killed, at whatever point it is in."""
    code = (
        f"import pathlib, sys; import {__name__} as t\n"
        "opened = t.store.create(pathlib.Path(sys.argv[1]), b'w0', {})\n"
        "for i in range(10**6): t.add(opened, i)"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(root)], cwd=ROOT)
    while not (root / "shared" / "000003.bin").exists():
        assert child.poll() is None
    child.kill()
    child.wait()
    with store.open_store(root, write=True) as opened:
        assert list(opened.rounds) == list(range(len(opened.rounds))) and len(opened.rounds) >= 3
        assert opened.verify() == 1 + 4 * len(opened.rounds)
        add(opened, len(opened.rounds))

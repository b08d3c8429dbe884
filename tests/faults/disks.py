"""Disks: one that fills, one that becomes read-only, no more file descriptors, files that may not grow or be written.

A process that meets this ends with one line, what it acknowledged is in the ledger, the record is whole, and once there is
room the same work ends with the same bytes. Where nothing can be mounted, the size of files is limited instead.
"""

import contextlib
import functools
import os
import resource
import shutil
import sqlite3
import subprocess

from s3t.service import verify
from s3t.store import deletions, disk, state
from tests.faults import children
from tests.helpers import stores

EXAMPLES = 60
ALLOWED = (ValueError, OSError, sqlite3.Error)  # what the command line tells in one line
SIZE = "1m"  # of the small disk
NOBODY = 65534


def attack(room, rng, limit, tally):
    """One fault after another, each around work that deletes, purges and trains."""
    template = room.folder / "template"
    disk.close(stores.fill(stores.make(template, EXAMPLES)))
    with small_disk(room.folder / "small") as small:
        faults = [descriptors, unwritable, sizes, *([full, read_only] if small else [])]
        for number in limit:
            ids = rng.sample(range(EXAMPLES), 6)
            requests = [[f"r{at}", ids[2 * at : 2 * at + 2]] for at in range(3)]
            fault = faults[number % len(faults)]
            root = (small if fault in (full, read_only) else room.folder) / "store"
            shutil.rmtree(root, ignore_errors=True)
            shutil.copytree(template, root)
            with tally.trial(f"{fault.__name__} {number}"):
                judge(fault(root, requests, rng), root, requests, tally, f"{fault.__name__} {number}")
                compare(root, template, room.folder / "twin", requests, tally, f"{fault.__name__} {number}")
            shutil.rmtree(root)


@contextlib.contextmanager
def small_disk(folder):
    """A disk of a megabyte; None where this user may mount none."""
    folder.mkdir()
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", folder], capture_output=True, check=False
    ).returncode == 0  # fmt: skip
    try:
        yield folder if mounted else None
    finally:
        if mounted:
            subprocess.run(["umount", "-l", folder], check=True)


def work(root, requests, say, spoil=lambda: None):
    """Delete, purge and train until it fails; say what was acknowledged, and any error that is not for users."""
    spoil()
    try:
        opened = disk.open(root)
        stores.carry_out(opened, requests, say)
        state.status(opened)
        disk.close(opened)
        say("done")
    except ALLOWED as error:
        if "\n" in str(error):
            raise
        say("refused")


def judge(ended, root, requests, tally, what):
    """What was acknowledged is there, though the fault may last."""
    if ended.error or ended.killed:
        tally.bad("tracebacks", f"{what}: {ended.error}")
    result = verify.verify(root)
    if not result["ok"]:
        tally.bad("wrong", f"{what}: {result['problems']}")
    opened = disk.look(root, read_only=True)
    for request, ids in requests:
        answer = deletions.answer(opened.ledger, request)
        if request in ended.said and (answer is None or set(answer.ids) != set(ids)):
            tally.bad("lost", f"{what}: {request}")
    disk.close(opened)


def compare(root, template, twin, requests, tally, what):
    ends = []
    shutil.copytree(template, twin)
    for store in (root, twin):
        opened = disk.open(store)
        stores.carry_out(opened, requests)
        ends.append(stores.content(opened))
        disk.close(opened)
    shutil.rmtree(twin)
    if ends[0] != ends[1] or not verify.verify(root)["ok"]:
        tally.bad("wrong", f"{what}: the same work ends with other bytes")


# --- Faults -----------------------------------------------------------------------------------------------------------


def full(root, requests, rng):
    """A disk with so few bytes left that some write finds no room."""
    filler = root.parent / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    os.truncate(filler, max(0, filler.stat().st_size - 4096 * rng.randint(0, 60)))
    ended = children.run(functools.partial(work, root, requests))
    filler.unlink()
    return ended


def read_only(root, requests, rng):
    """A disk that becomes read-only, before the work or in the middle of it."""
    begun = requests[: rng.randint(0, 2)]
    first = children.run(functools.partial(work, root, begun))
    remounted(root.parent, "ro")
    ended = children.run(functools.partial(work, root, requests))
    remounted(root.parent, "rw")
    return ended._replace(said=first.said + ended.said)


def remounted(folder, mode):
    subprocess.run(["mount", "-o", f"remount,{mode}", folder], check=True, capture_output=True)


def descriptors(root, requests, rng):
    """A process that may open but a few files more."""
    used = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 12
    most = used + rng.randint(0, 8)

    def spoil():
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))

    return children.run(functools.partial(work, root, requests, spoil=spoil))


def sizes(root, requests, rng):
    """Files that may not grow beyond so many bytes; SIGXFSZ is ignored by Python, so that a write fails."""
    most = rng.randint(1, 60) * 4096

    def spoil():
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))

    return children.run(functools.partial(work, root, requests, spoil=spoil))


def unwritable(root, requests, rng):
    """Something of the store that may not be written or searched; root may everything, so it becomes nobody."""
    paths = [root, root / "nodes", root / "ledger.sqlite", root / "manifest.json", *root.glob("nodes/*")]
    path, mode = rng.choice(paths), rng.choice([0o000, 0o400, 0o500])
    before = path.stat().st_mode

    def spoil():
        path.chmod(mode)
        if os.geteuid() == 0:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)

    if os.geteuid() == 0:
        opened_to_nobody(root, NOBODY)
    ended = children.run(functools.partial(work, root, requests, spoil=spoil))
    if path.exists():
        path.chmod(before)
    if os.geteuid() == 0:
        opened_to_nobody(root, 0)
    return ended


def opened_to_nobody(root, user):
    """Give a store, and the way to it, to a user."""
    for path in (root.parent, root, *root.rglob("*")):
        os.chown(path, user, user)

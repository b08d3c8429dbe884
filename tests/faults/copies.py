"""Copies: kill -9 of processes that back a store up and put a backup in its place, before any system call.

A backup is there whole or not at all, the store that it is taken of stays whole, and a restoration that is done again ends
with every acknowledged deletion. Without these commands there is nothing to attack.
"""

import importlib
import importlib.util
import shutil

from s3t.service import verify
from s3t.store import disk
from tests.faults import children
from tests.helpers import stores

COPIES, RESTORING = "s3t.store.copies", "s3t.service.restoring"


def attack(room, rng, limit, tally):
    """Kill a backup and a restoration in turn."""
    if not (importlib.util.find_spec(COPIES) and importlib.util.find_spec(RESTORING)):
        return
    back_up, restore = importlib.import_module(COPIES).back_up, importlib.import_module(RESTORING).restore
    template, later, backup = (room.folder / name for name in ("template", "later", "backup"))
    disk.close(stores.fill(stores.make(template)))
    shutil.copytree(template, later)
    back_up(template, backup, "test")
    ids = rng.sample(range(60), 4)
    opened = disk.look(later)
    stores.carry_out(opened, [["r", ids[:2]], ["s", ids[2:]]])
    disk.close(opened)
    jobs = {
        "back up": lambda say: back_up(room.store, room.folder / "new" / "copy", "test"),
        "restore": lambda say: restore(backup, room.store, replay=True),
    }
    calls = {name: counted(room, later, work) for name, work in jobs.items()}
    for number in limit:
        name = list(jobs)[number % 2]
        call = rng.randint(1, calls[name])
        begin(room, later)
        ended = children.run(jobs[name], at_call=call)
        with tally.trial(f"{name}, system call {call}"):
            if ended.error:
                tally.bad("tracebacks", f"{name} {call}: {ended.error}")
            if name == "restore" or not (room.folder / "new" / "copy").exists():  # a backup that is there is whole
                jobs[name](None)
            check(room, name, set(ids), tally, f"{name} {call}")


def begin(room, later):
    """The store with its deletions, and no copy of it."""
    for path in [room.folder / "new", *room.folder.glob("*store*")]:
        shutil.rmtree(path)
    (room.folder / "new").mkdir()
    room.fresh(later)


def counted(room, later, work):
    (room.folder / "new").mkdir(exist_ok=True)
    begin(room, later)
    return children.run(work, count=True).calls


def check(room, name, gone, tally, what):
    """The store, and its copy, are whole and lack what was deleted."""
    roots = [room.store, *([room.folder / "new" / "copy" / "store"] if name == "back up" else [])]
    for root in roots:
        result = verify.verify(root)
        if not result["ok"]:
            tally.bad("wrong", f"{what}: {result['problems']}")
        looked = disk.look(root)
        deleted = {one for (one,) in looked.ledger.execute("SELECT id FROM examples WHERE deleted IS NOT NULL")}
        disk.close(looked)
        if not gone <= deleted:
            tally.bad("lost", f"{what}: {sorted(gone - deleted)}")

"""A trained store to be altered, and every command on what the alteration left, in this process.

Each command ends with a status of 0 to 4 and at most one line on standard error. None answers by a node that holds a
deleted example. What `verify` calls whole holds every acknowledged deletion, and what `delete` acknowledges is in the
ledger. Nothing beside the store is touched.
"""

import contextlib
import dataclasses
import functools
import io
import json
import os
import resource
import shutil
import sqlite3
import time
import traceback
from pathlib import Path

from s3t.cli import main
from s3t.service import ensemble, serving
from s3t.store import disk, publishing
from tests.helpers import builds, stores

STATUS = {0, 1, 2, 3, 4}
SLOWEST = 60.0  # seconds of one command: nothing in a store of a hundred kilobytes may take longer
ROOM = 3 << 30  # bytes of memory that a command may take beside what is there


@dataclasses.dataclass
class Victim:
    """A store with a deletion that is healed, one that is purged, and one that is only acknowledged.

    template: closed and whole.  ahead: the same with its last rows in the -wal alone.
    before: the ledger as it was before the deletions, and the files of nodes that serve no more: what an attacker kept.
    dropped: identities of these nodes.  outputs: digests of their parameters.
    heads: of the acknowledged deletions.  requests: [(request, ids)].  left: ids that are not deleted.
    """

    template: Path
    ahead: Path
    before: Path
    dropped: set[str]
    outputs: set[str]
    heads: list[str]
    requests: list[tuple[str, list[int]]]
    left: list[int]


def make(folder):
    """The victim."""
    template, ahead, before = (folder / name for name in ("template", "ahead", "before"))
    disk.close(disk.open(builds.trained(template)))
    shutil.copytree(template, before)
    opened, other = disk.look(template), disk.look(template)  # the second keeps the rows in the -wal
    files, outputs = {node.identity: publishing.load(opened, node)[0].output for node in publishing.live(opened)}, set()
    asked = [
        ("r0", stores.ids_at(opened, 0, 0)[:1]),
        ("r1", stores.ids_at(opened, 1, 1)[:2]),
        ("r2", stores.ids_at(opened, 0, 1)[:1]),
    ]
    heads = []
    for request, ids in asked:
        heads.append(disk.delete(opened, ids, request)["head"])
        if request == "r0":
            builds.carry_out(opened, [(request, ids)])
            files |= {node.identity: publishing.load(opened, node)[0].output for node in publishing.live(opened)}
        if request == "r1":
            disk.purge(opened)
    shutil.copytree(template, ahead)
    live = {node.identity for node in publishing.live(opened)}
    outputs = {output for name, output in files.items() if name not in live}
    left = [one for (one,) in opened.ledger.execute("SELECT id FROM examples WHERE deleted IS NULL ORDER BY id")]
    disk.close(other)
    disk.close(opened)
    return Victim(
        template, ahead, before, files.keys() - live, outputs, heads, [(name, list(ids)) for name, ids in asked], left
    )


def prepare():
    """Settings of a process that attacks: bounded memory, and one compiled program for all servers."""
    ensemble.make_ensemble = functools.cache(ensemble.make_ensemble)
    used = (
        int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() if os.path.exists("/proc") else ROOM
    )
    resource.setrlimit(resource.RLIMIT_AS, (used + ROOM, resource.RLIM_INFINITY))


# --- Commands ---------------------------------------------------------------------------------------------------------


def run(tally, what, *words):
    """(status, object on standard output or None) of a command; whatever else it does is counted."""
    out, err, began = io.StringIO(), io.StringIO(), time.monotonic()
    words = [*map(str, words), "--json"]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = main(words)
    except SystemExit as left:
        status = left.code
    except BaseException:
        tally.bad("tracebacks", f"{what}: {words[0]}: {traceback.format_exc(limit=-4)}")
        return None, None
    said = err.getvalue()
    seconds = time.monotonic() - began
    if status not in STATUS or said.count("\n") > 1 or (status == 2) != said.startswith("error: "):
        tally.bad("wrong", f"{what}: {words[0]} ends with {status} and says {said!r:.500}")
    if ("out of memory" in said and words[0] != "heal") or seconds > SLOWEST:  # a program may be made too large
        tally.bad("wrong", f"{what}: {words[0]} took {seconds:.0f} s and says {said!r:.300}")
    try:
        return status, json.loads(out.getvalue()) if out.getvalue() else None
    except ValueError:
        tally.bad("wrong", f"{what}: {words[0]} prints {out.getvalue()!r:.300}")
        return status, None


def assault(room, victim, tally, what, rng, *, heads=True, heal=False):
    """Every command on an altered store; whether any of them noticed."""
    store = ("--store", room.store)
    trust = ("--trust-factory", builds.FACTORY)
    expected = [word for head in victim.heads for word in ("--expect-head", head)] if heads else []
    if not heads:
        victim = dataclasses.replace(victim, dropped=set(), outputs=set())  # it says of itself what is deleted
    statuses = [run(tally, what, "status", *store)[0]]
    verdict, _ = run(tally, what, "verify", *store, *expected)
    if verdict == 0 and heads:
        check_whole(room.store, victim, tally, what)
    one = rng.choice(victim.left)
    with watched(victim, tally, what):
        statuses += [verdict, run(tally, what, "predict", *store, *trust, *expected, "--ids", one)[0]]
    again = lambda: run(tally, what, "delete", *store, "--ids", victim.requests[0][1][0], "--request-id", "r0")  # noqa: E731
    if rng.random() < 0.5:
        statuses.append(again()[0])
    status, answer = run(tally, what, "delete", *store, "--ids", one, "--request-id", "new")
    statuses += [status, again()[0]]
    if answer and answer["ids"] and not is_recorded(room.store, "new"):
        tally.bad("lost", f"{what}: the deletion of {one} after it")
    if heal:
        statuses.append(run(tally, what, "heal", *store, *trust)[0])
        run(tally, what, "verify", *store)
        with watched(victim, tally, f"{what}, healed"):
            run(tally, what, "predict", *store, *trust, *expected, "--ids", one)
    return any(statuses)


def check_whole(root, victim, tally, what):
    """What is called whole has every deletion, and nothing that was dropped serves."""
    with contextlib.closing(disk.look(root).ledger) as ledger:
        recorded = {one for (one,) in ledger.execute("SELECT id FROM examples WHERE deleted IS NOT NULL")}
        live = {name for (name,) in ledger.execute("SELECT identity FROM nodes WHERE dropped IS NULL")}
    if lost := {one for _, ids in victim.requests for one in ids} - recorded:
        tally.bad("lost", f"{what}: {sorted(lost)}, and it is called whole")
    if stale := live & victim.dropped:
        tally.bad("served", f"{what}: {sorted(stale)} are called live")


def is_recorded(root, request):
    """Whether the file of the ledger has a deletion, whatever else is wrong with it."""
    query = "SELECT kind FROM log WHERE seq = (SELECT deactivated FROM requests WHERE request = ?)"
    with contextlib.closing(sqlite3.connect(root / disk.LEDGER)) as ledger:
        try:
            return ledger.execute(query, (request,)).fetchone() == ("deactivated",)
        except sqlite3.Error:
            return False


@contextlib.contextmanager
def watched(victim, tally, what):
    """Count answers by nodes that a deletion dropped."""
    predict = serving.Server.predict

    def seen(self, x):
        answer = predict(self, x)
        nodes = [seat.node for seat in self.view.seats.values()]
        outputs = {publishing.load(self.store, node)[0].output for node in nodes} if victim.outputs else set()
        if {node.identity for node in nodes} & victim.dropped or outputs & victim.outputs:
            tally.bad("served", f"{what}: an answer by a dropped node")
        return answer

    serving.Server.predict = seen
    try:
        yield
    finally:
        serving.Server.predict = predict


def attacked(room, victim, tally, what, rng, **more):
    """One try: every command on what was altered, and a look at the surroundings."""
    before = room.surroundings()
    tally.tried += 1
    tally.seen += bool(assault(room, victim, tally, what, rng, **more))
    if (after := room.surroundings()) != before:
        changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
        tally.bad("outside", f"{what}: {sorted(changed)[:5]}")

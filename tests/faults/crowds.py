"""Crowds: processes delete, purge, heal, verify, tell the status and serve one store, all at once.

Afterwards all acknowledged deletions are in the ledger, the record is whole, and the store holds the bytes of a twin from
which the same ids were deleted in peace. No look in between finds a problem or a node that may not serve.
"""

import functools
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from s3t.service import verify
from s3t.store import disk, publishing, state
from s3t.store.ledger import database, records
from tests.faults import children
from tests.helpers import stores

ROOT = Path(__file__).resolve().parents[2]
DELETERS, HEALERS = 3, 2
MAKE = "import sys; from tests.helpers import servers; from s3t.store import disk; "
MAKE += "disk.close(servers.fill(servers.make(sys.argv[1])))"


def attack(room, rng, limit, tally):
    """Crowd after crowd around copies of one store; each process of a crowd is one try."""
    template = room.folder / "template"
    subprocess.run([sys.executable, "-c", MAKE, str(template)], cwd=ROOT, check=True, env=environment())
    forms = forms_of(template)
    for number in limit:
        room.fresh(template)
        ids = rng.sample(range(80), 40)
        parts = [ids[start : start + 18] for start in (0, 10, 20)][:DELETERS]
        crowd = [functools.partial(delete, room.store, f"d{at}-", part) for at, part in enumerate(parts)]
        crowd += [functools.partial(heal, room.store, room.folder / "stop", forms)] * HEALERS
        crowd += [functools.partial(look, room.store, room.folder / "stop", how) for how in (verified, told, held)]
        with serving(room.store, tally):
            ended = gathered(crowd, DELETERS, room.folder / "stop")
        for member, one in zip(crowd, ended, strict=True):
            with tally.trial(f"crowd {number}, {member.func.__name__}"):
                judge(one, tally, f"crowd {number}, {member.func.__name__}")
        compare(room, template, forms, ids[:38], ended, tally, f"crowd {number}")


def gathered(crowd, deleters, stop):
    """Run all at once; who looks or heals stops when the deleters are done."""
    stop.unlink(missing_ok=True)
    members = [children.start(work) for work in crowd]
    ended = [children.end(member) for member in members[:deleters]]
    stop.touch()
    return ended + [children.end(member) for member in members[deleters:]]


def judge(ended, tally, what):
    if ended.error or ended.killed:
        tally.bad("tracebacks", f"{what}: {ended.error or 'it died'}")
    for word in ended.said:
        kind, _, detail = word.partition("=")
        if kind in ("wrong", "served"):
            tally.bad(kind, f"{what}: {detail}")


def compare(room, template, forms, ids, ended, tally, what):
    """What is left when all have gone, beside a twin."""
    opened = disk.look(room.store)
    deleted = {one for (one,) in opened.ledger.execute("SELECT id FROM examples WHERE deleted IS NOT NULL")}
    said = {int(word.partition("=")[2]) for one in ended for word in one.said if word.startswith("deleted=")}
    if lost := said - deleted:
        tally.bad("lost", f"{what}: {sorted(lost)}")
    twin = room.folder / "twin"
    shutil.copytree(template, twin)
    other = disk.look(twin)
    disk.delete(other, ids, "all")
    ends = []
    for store in (opened, other):
        disk.purge(store)
        fill(store, forms)
        state.mark_healed(store)
        ends.append(stores.content(store))
        result = verify.verify(store.root)
        if not result["ok"] or set(result["requests"]) != {"healed"}:
            tally.bad("wrong", f"{what}: {result}")
        disk.close(store)
    if ends[0] != ends[1] or deleted != set(ids):
        tally.bad("wrong", f"{what}: the twin differs")
    shutil.rmtree(twin)


# --- Members of a crowd -----------------------------------------------------------------------------------------------


def delete(root, name, ids, say):
    opened = disk.look(root)
    for one in ids:
        result = disk.delete(opened, [one], f"{name}{one}")
        say(f"deleted={(result['ids'] or result['already'])[0]}")
        if one % 3 == 0:
            disk.purge(opened)


def heal(root, stop, forms, say):
    opened = disk.look(root)
    while not stop.exists():
        disk.purge(opened)
        fill(opened, forms)
        state.mark_healed(opened)


def look(root, stop, how, say):
    while not stop.exists():
        how(root, say)


def verified(root, say):
    for problem in verify.verify(root)["problems"]:
        say(f"wrong={problem.replace(' ', '_')}")


def told(root, say):
    opened = disk.look(root, read_only=True)
    for problem in state.status(opened)["problems"]:
        if not problem.startswith(state.REBUILD):
            say(f"wrong={problem.replace(' ', '_')}")
    disk.close(opened)


def held(root, say):
    """As a server does: what is read between two looks at one head is of nodes that serve and is whole."""
    opened = disk.look(root)
    head = database.head(opened.ledger)
    nodes = publishing.live(opened)
    lost = []
    for node in nodes:
        try:
            publishing.load(opened, node)
        except ValueError as error:
            lost.append(str(error))
    if lost and database.head(opened.ledger) == head:
        say(f"wrong={lost[0].replace(' ', '_')}")
    gone = {one for (one,) in opened.ledger.execute("SELECT id FROM examples WHERE deleted IS NOT NULL")}
    for shard in range(opened.manifest.shards):
        with database.reading(opened.ledger):
            examples, live = records.shard_ids(opened.ledger, shard), publishing.live(opened)
        if any(gone & set(records.held_by(examples, node)) for node in live if node.shard == shard):
            say(f"served=shard_{shard}")
    disk.close(opened)


# --- Made-up nodes that a server can read -----------------------------------------------------------------------------


def forms_of(template):
    """Depth -> the tensors of some node of it."""
    opened = disk.look(template)
    forms = {len(node.slices): publishing.load(opened, node)[1] for node in publishing.live(opened)}
    disk.close(opened)
    return forms


def fill(opened, forms):
    stores.fill(opened, lambda drafted: _drawn(drafted, forms))


def _drawn(drafted, forms):
    sign = 1 + int(drafted.identity[:4], 16) / 65536
    return {name: (array * sign).astype(array.dtype) for name, array in forms[len(drafted.slices)].items()}


class serving:  # a context
    """A real server beside the crowd, whose answers name no head that a deletion before the question outdated."""

    def __init__(self, root, tally):
        self.root, self.tally = root, tally

    def __enter__(self):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.helpers.servers", str(self.root)],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(),
        )  # fmt: skip
        self.process.stdout.readline()

    def __exit__(self, *_):
        time.sleep(0.1)
        self.process.kill()
        out, err = self.process.communicate()
        answers = [json.loads(line) for line in out.splitlines() if line.endswith("}")]
        with self.tally.trial("the server of a crowd"):
            if "Traceback" in err:
                self.tally.bad("tracebacks", f"the server: {err[-1500:]}")
            opened = disk.look(self.root)
            rows = dict(opened.ledger.execute("SELECT digest, seq FROM log"))
            disk.close(opened)
            heads = [rows[answer["head"]] for answer in answers if "head" in answer]
            if heads != sorted(heads):
                self.tally.bad("served", "a server went back")
            if not heads and not any(state.REBUILD in answer.get("error", "") for answer in answers):
                self.tally.bad("wrong", f"a server gave no answer: {answers[-1:]}")


def environment():
    return {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}

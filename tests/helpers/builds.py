"""Small stores that are really trained, and a process that makes, deletes from and heals one, to be killed.

    python -m tests.helpers.builds DIR REQUESTS [STEP]

makes the store in DIR if there is none and trains what it misses; then it carries out the requests of a JSON file
[[request, [id, ...]], ...] and heals after each. It says `ready`, each node that begins to serve, each request, and `done`.
With STEP it kills itself right before its STEP-th step that others could see, as `tests.helpers.stores` does.
"""

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np

from s3t.plans.structure import make_plan
from s3t.service import creation, healing
from s3t.store import disk, publishing
from tests.helpers import stacks, stores

KEY = bytes(32)
SHARDS, SLICES = 2, 2
PLAN = make_plan(SLICES, [(0, 1), (1,)])
FACTORY = "tests.helpers.builds:make"
NODES = [(shard, node) for node in PLAN.nodes for shard in range(SHARDS)]


def make(hyper, *, missing=()):
    """The factory; examples may be missing from the data set, as may be noticed when they are fetched."""
    source = stacks.source(hyper={"toy": 1} | dict(hyper))
    return dataclasses.replace(source, ids=source.ids[~np.isin(source.ids, missing)])


def create(root, made=make, factory=FACTORY):
    return creation.make_store(root, made({}), PLAN, SHARDS, 5, KEY, factory=factory)


def trained(root):
    """A trained store, closed: 2 shards of 2 slices, 3 nodes per shard."""
    opened = create(root)
    assert healing.train_missing(opened, make({})) == (6, 0)
    disk.close(opened)
    return root


def at(opened, shard, slices):
    return next(node for node in publishing.live(opened) if (node.shard, node.slices) == (shard, slices))


def never_had(root, opened, gone):
    """Files and nodes of a store that is made like another one, of data in which some examples never existed."""
    twin = disk.create(root, opened.manifest)
    source = make({}, missing=gone)
    assert set(make({}).ids) - set(source.ids) == set(gone)
    creation.ensure_examples(twin, source)
    healing.train_missing(twin, source)
    files, live, deleted = stores.content(twin)
    assert not deleted
    disk.close(twin)
    return files, live


def hit(opened, *places):
    """Whether a node holds one of the (shard, slice)."""
    return {(shard, node) for shard, node in NODES if any((shard, s) in places for s in node)}


def lacking_example(one):
    source = make({})

    def fetch(ids):
        if one in ids:
            raise ValueError(f"the toy data have no example {one}")
        return source.fetch(ids)

    return dataclasses.replace(source, fetch=fetch)


def damage(opened, shard, slices):
    """Alter a bit of a node's file; the file and what was in it."""
    path = disk.file_of(opened, at(opened, shard, slices).identity)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    return path, whole


def carry_out(opened, requests, report=lambda line: None):
    for request, ids in requests:
        disk.delete(opened, ids, request)
        report(request)
        healing.heal(opened, make({}), report=lambda draft: report("node"))


def main(root, requests, step=None):
    watch = stores.die_at(int(step)) if step else None
    print("ready", flush=True)
    opened = disk.open(root) if disk.exists(root) else create(root)
    if watch:
        opened.ledger.set_trace_callback(watch)
    source = make({})
    creation.ensure_examples(opened, source)
    healing.heal(opened, source, report=lambda made: print("node", flush=True))
    carry_out(opened, json.loads(Path(requests).read_text()), lambda line: print(line, flush=True))
    print("done", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

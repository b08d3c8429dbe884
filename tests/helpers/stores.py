"""Small stores whose nodes hold made-up parameters, and a process that deletes from one, to be killed. No jax in here.

    python -m tests.helpers.stores DIR REQUESTS [STEP]

carries out the requests of a JSON file [[request, [id, ...]], ...]: deletes, says so, purges, and makes the missing nodes
anew. With STEP it kills itself right before its STEP-th step that others could see: a commit, a sync, a rename, a removal.
"""

import contextlib
import json
import os
import shutil
import signal
import sys
from pathlib import Path

import numpy as np

from s3t.plans.partition import assign
from s3t.plans.structure import make_plan
from s3t.store import disk, manifests, publishing, state
from s3t.store.ledger import audit, records
from s3t.store.manifests import Manifest

KEY = b"a key for tests"
SEQUENCES = [(0, 1, 2), (1, 2), (2, 0)]


def manifest(shards=2, sequences=SEQUENCES, slices=3):
    plan = make_plan(slices, sequences)
    return Manifest(
        factory="tests.helpers.stores:make",
        arguments={},
        backbone="backbone",
        hyper={"rate": 0.1},
        root_key=7,
        shards=shards,
        slices=slices,
        nodes=plan.nodes,
        partition_key=KEY.hex(),
    )


def places(ids, shards=2, slices=3):
    return assign(list(ids), shards, slices, KEY)


def make(root, examples=60, **more):
    """A store with examples 0, 1, ... and no nodes."""
    made = manifest(**more)
    opened = disk.create(root, made)
    disk.register(opened, range(examples), *places(range(examples), made.shards, made.slices))
    return opened


@contextlib.contextmanager
def copied(template, root):
    """A copy of a store, open for a while."""
    shutil.copytree(template, root)
    opened = disk.open(root)
    yield opened
    disk.close(opened)


def problems(opened):
    """What an audit finds wrong with the ledger."""
    key = manifests.key_of(opened.manifest)
    return audit.audit(opened.ledger, records.manifest_digest(opened.ledger), key=key)


def ids_at(opened, shard, slice_):
    """The ids that are left in a slice."""
    return records.members(opened.ledger, shard, (slice_,))[1]


def tensors(identity):
    """What training would make: a function of the node's identity, a few KB."""
    rng = np.random.default_rng(int(identity[:8], 16))
    return {"slot/a": rng.normal(size=(64, 4)).astype(np.float32), "head": rng.normal(size=(10,))}


def fill(opened, tensors_of=lambda drafted: tensors(drafted.identity)):
    """Train whatever is missing, though others may delete and train meanwhile."""
    while True:
        serving = {(node.shard, node.slices): node.identity for node in publishing.live(opened)}
        drafts = [publishing.draft_node(opened, *place) for place in publishing.missing(opened)]
        due = [d for d in drafts if d.ids and (len(d.slices) == 1 or (d.shard, d.slices[:-1]) in serving)]
        if not due:
            return opened
        for drafted in due:
            parent = serving.get((drafted.shard, drafted.slices[:-1]))
            try:
                publishing.publish(opened, drafted, tensors_of(drafted), {"lanes": 1}, parent)
            except records.Outdated:
                break


def content(opened):
    """What may depend on nothing but who was deleted: serving files and their bytes, deleted ids."""
    files = {path.name: path.read_bytes() for path in (opened.root / "nodes").iterdir()}
    live = {(node.identity, node.shard, node.slices) for node in publishing.live(opened)}
    deleted = opened.ledger.execute("SELECT id FROM examples WHERE deleted IS NOT NULL ORDER BY id").fetchall()
    return files, live, deleted


def files_of(opened):
    return {path.name for path in (opened.root / "nodes").iterdir()}


def live_files(opened):
    return {f"{node.identity}.safetensors" for node in publishing.live(opened)}


def at(opened, shard, slices):
    return next(node for node in publishing.live(opened) if (node.shard, node.slices) == (shard, slices))


def carry_out(opened, requests, report=lambda line: None):
    for request, ids in requests:
        disk.delete(opened, ids, request)
        report(request)
        disk.purge(opened)
        fill(opened)
        state.mark_healed(opened)


def die_at(step):
    """Kill this process right before its step-th visible step from now on; returns what watches a connection for them."""
    left = [step]

    def count(*_):
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def counted(function):
        return lambda *args, **more: (count(), function(*args, **more))[1]

    os.fsync, os.replace, os.unlink = counted(os.fsync), counted(os.replace), counted(os.unlink)
    return lambda statement: count() if statement == "COMMIT" else None


def main(root, requests, step=None):
    opened = disk.open(root)
    assert "jax" not in sys.modules
    if step:
        opened.ledger.set_trace_callback(die_at(int(step)))
    print("ready", flush=True)
    carry_out(opened, json.loads(Path(requests).read_text()), lambda request: print(request, flush=True))
    print("done", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

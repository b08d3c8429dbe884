"""How long a deletion takes until it is durable, and how many fit in a second.

    python -m experiments.benchmarks.s3t_ledger [--dir DIR]

Per number of registered ids and size of a node's file: milliseconds from the call to the durable acknowledgement (median
and 99th percentile of single requests), the same until the files of dropped nodes are gone, deletions per second in
requests of 1,000, microseconds to ask for the head, and seconds to build and to verify. About two minutes on two CPU
cores. It measures the disk under DIR (the current directory if not given), so choose the one that a store would lie on.
"""

from __future__ import annotations

import argparse
import functools
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from experiments.benchmarks import smoke
from s3t.plans.partition import assign
from s3t.plans.planners import lattice
from s3t.service import verify
from s3t.store import disk, publishing
from s3t.store.ledger import database, records
from s3t.store.manifests import Manifest

SHARDS, SLICES, KEY = 5, 4, b"a key for benchmarks"
SINGLES, BATCH = 200, 1000


def main() -> None:
    """Print one row per store."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dir", default=".")
    parser.add_argument("--ids", type=int, nargs="+", default=[1_000, 100_000, 1_000_000])
    parser.add_argument("--node-bytes", type=int, nargs="+", default=[10_000, 1_000_000])
    args = smoke.parse(parser, dir=smoke.folder, ids=[100], node_bytes=[1_000])
    print("     ids  node bytes   p50 ms   p99 ms   until purged: p50 ms   deletions/s   head us   build s   verify s")
    for examples in args.ids:
        for size in args.node_bytes:
            with tempfile.TemporaryDirectory(dir=args.dir) as directory:
                print(row(Path(directory) / "store", examples, size), flush=True)


def row(root: Path, examples: int, size: int) -> str:
    """Build one store, verify it, and delete from it."""
    opened, build_seconds = timed(lambda: build(root, examples, size))
    proof, verify_seconds = timed(lambda: verify.verify(root))
    if not proof["ok"]:
        raise RuntimeError(f"the store is not what was built: {proof['problems'][0]}")
    order = np.random.default_rng(0).permutation(examples)
    singles, rest = order[: min(SINGLES, examples // 2)], order[min(SINGLES, examples // 2) :]
    acknowledged, purged = [], []
    for one in singles:
        refill(opened, size)
        answer, seconds = timed(functools.partial(delete_and_purge, opened, int(one)))
        acknowledged.append(answer["acknowledged_ms"])
        purged.append(1e3 * seconds)
    batches = [rest[start : start + BATCH] for start in range(0, min(len(rest), 20 * BATCH), BATCH)]
    deleted, batch_seconds = timed(lambda: sum(len(disk.delete(opened, batch)["ids"]) for batch in batches))
    head_us = 1e3 * timed(lambda: [database.head(opened.ledger) for _ in range(1000)])[1]
    disk.close(opened)
    p50, p99 = np.percentile(acknowledged, [50, 99])
    return (
        f"{examples:8}  {size:10}  {p50:7.2f}  {p99:7.2f}  {np.median(purged):21.2f}  {deleted / batch_seconds:12.0f}"
        f"  {head_us:8.1f}  {build_seconds:8.1f}  {verify_seconds:9.1f}"
    )


def delete_and_purge(opened: disk.Store, id_: int) -> dict[str, Any]:
    """What the deletion answers."""
    answer = disk.delete(opened, [id_])
    disk.purge(opened)
    return answer


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """What a function returns, and its seconds."""
    began = time.perf_counter()
    return work(), time.perf_counter() - began


def build(root: Path, examples: int, size: int) -> disk.Store:
    """A store whose nodes hold zeros instead of parameters."""
    plan = lattice(SLICES)
    manifest = Manifest(
        factory="no:factory",
        arguments={},
        backbone="no backbone",
        hyper={},
        root_key=0,
        shards=SHARDS,
        slices=SLICES,
        nodes=plan.nodes,
        partition_key=KEY.hex(),
    )
    opened = disk.create(root, manifest)
    disk.register(opened, range(examples), *assign(range(examples), SHARDS, SLICES, KEY))
    names: dict[tuple[int, tuple[int, ...]], str] = {}
    for shard, slices in publishing.missing(opened):
        drafted = publishing.draft_node(opened, shard, slices)
        publishing.publish(opened, drafted, {"slot": np.zeros(size // 4, np.float32)}, {}, names.get((shard, slices[:-1])))
        names[shard, slices] = drafted.identity
    return opened


def refill(opened: disk.Store, size: int) -> None:
    """Let every node of the plan serve again, so that each deletion finds a full store; names are drawn, not computed."""
    names = {(node.shard, node.slices): node.identity for node in publishing.live(opened)}
    as_of = database.head(opened.ledger).rows
    for shard, slices in publishing.missing(opened):
        name = names[shard, slices] = os.urandom(32).hex()
        path = opened.root / "nodes" / f"{name}.safetensors"
        node = records.PublishedNode(name, shard, slices, as_of, "no certificate")
        write = functools.partial(write_zeros, path, size)
        records.record_node(opened.ledger, node, names.get((shard, slices[:-1])), write)


def write_zeros(path: Path, size: int) -> None:
    path.write_bytes(bytes(size))


if __name__ == "__main__":
    main()

"""What an answer of the ensemble costs, and what it costs to change who answers.

    python -m experiments.benchmarks.s3t_serve [--models digits small] [--dir DIR]

Per ViT, untrained, in a store of 5 shards, 4 slices and all 75 nodes: milliseconds for a batch of one plain model with LoRA
in all of its blocks, of a loop over 5 such models, and of the server ("mean": 5 members, "all": 40), taken in turns, and in
brackets the same as ratios to the plain model. Then what follows from the ledger: microseconds to see that its head is the
same, milliseconds to follow a deletion (8 rows to 0) and a heal (8 files read, checked and put), and how many programs all
that compiled. A few minutes on two CPU cores.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks import smoke
from experiments.models import vits
from s3t.plans.partition import assign
from s3t.plans.planners import lattice
from s3t.service import ensemble, serving
from s3t.store import disk, publishing
from s3t.store.ledger import records
from s3t.store.manifests import Manifest, plan_of
from s3t.training.adapters import Lora
from s3t.training.backbone import Backbone, forward, owned
from s3t.training.source import to_tensors
from s3t.training.stages import Trained

SHARDS, SLICES, EXAMPLES, KEY = 5, 4, 1000, b"a key for benchmarks"
LORA = Lora(8, 8.0, ("query", "value"))
IMAGES = {"digits": (8, 8, 1), "small": (28, 28, 1)}


def main() -> None:
    """Print one row per model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=IMAGES, default=list(IMAGES))
    parser.add_argument("--dir", default=".")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=8)
    args = smoke.parse(parser, dir=smoke.folder, models=["digits"], batch_size=2, rounds=1)
    for name in args.models:
        with tempfile.TemporaryDirectory(dir=args.dir) as directory:
            print(report(Path(directory) / "store", name, args.batch_size, args.rounds), flush=True)


def report(root: Path, name: str, batch_size: int, rounds: int) -> str:
    """The lines of one model."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(batch_size, *IMAGES[name])).astype(np.float32)
    module = vits.vit(name, 10)
    backbone, frozen = vits.as_backbone(module), vits.split_head(vits.init(module, jax.random.key(0), x))[0]
    opened = fill(make(root), backbone, rng)
    server, every = (
        serving.Server(opened, backbone, frozen, LORA, aggregate=aggregate, batch_size=batch_size)
        for aggregate in ("mean", "all")
    )
    plain = plain_model(backbone, server)
    seconds = in_turns(
        {
            "plain": lambda: jax.device_get(plain(server.frozen, x, 0)),
            "loop of 5": lambda: np.mean([jax.device_get(plain(server.frozen, x, row)) for row in range(SHARDS)], axis=0),
            "mean": lambda: server.predict(x),
            "all": lambda: every.predict(x),
        },
        rounds,
    )

    def follow() -> None:
        server.refresh()
        jax.block_until_ready(server.bank)

    before = programs(server)
    head_us = 1e6 * np.median([timed(server.refresh) for _ in range(1000)])
    dropped, healed = [], []
    for shard in range(SHARDS):
        (one, *_) = records.members(opened.ledger, shard, (0,))[1]
        disk.delete(opened, [one])
        dropped.append(timed(follow))
        fill(opened, backbone, rng)
        healed.append(timed(follow))
        server.predict(x)
    compiled = programs(server) - before
    disk.close(opened)
    shown = ", ".join(f"{what} {1e3 * s:.2f} ms ({s / seconds['plain']:.2f})" for what, s in seconds.items())
    return (
        f"{name}, batches of {batch_size}: {shown}\n"
        f"  head unchanged {head_us:.1f} us, deletion {1e3 * np.median(dropped):.2f} ms, heal "
        f"{1e3 * np.median(healed):.2f} ms, programs compiled meanwhile {compiled}"
    )


def plain_model(backbone: Backbone, server: serving.Server) -> Callable[..., jax.Array]:
    """(frozen, x, row) -> logits of a chain of the server's bank without masks: a model with LoRA in every block."""
    blocks = owned(backbone.depth, SLICES)
    models = [jax.tree.map(lambda leaf, row=row: np.asarray(leaf[row]), server.bank) for row in range(SHARDS)]
    run = jax.jit(
        lambda frozen, x, parts: forward(backbone, frozen, x, LORA, blocks, [part.slot for part in parts], parts[-1].head)
    )
    held = jax.device_put(models)
    return lambda frozen, x, row: run(frozen, x, held[row])


def in_turns(work: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Median seconds of each, one after the other in every round, after one round that compiles."""
    taken = [{name: timed(run) for name, run in work.items()} for _ in range(rounds + 1)]
    return {name: float(np.median([one[name] for one in taken[1:]])) for name in work}


def timed(work: Callable[[], Any]) -> float:
    """Seconds of a call."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def programs(server: serving.Server) -> int:
    """How many programs the server has compiled."""
    compiled: tuple[Any, ...] = (server.ensemble, ensemble.put)
    return sum(function._cache_size() for function in compiled)


def make(root: Path) -> disk.Store:
    """A store with examples and no nodes."""
    plan = lattice(SLICES)
    manifest = Manifest(
        factory="no:factory",
        arguments={},
        backbone="none",
        hyper={},
        root_key=0,
        shards=SHARDS,
        slices=SLICES,
        nodes=plan.nodes,
        partition_key=KEY.hex(),
    )
    opened = disk.create(root, manifest)
    disk.register(opened, range(EXAMPLES), *assign(range(EXAMPLES), SHARDS, SLICES, KEY))
    return opened


def fill(opened: disk.Store, backbone: Backbone, rng: np.random.Generator) -> disk.Store:
    """Publish every missing node, with random numbers for parameters."""
    shapes = ensemble.part_shapes(backbone, LORA, plan_of(opened.manifest))
    names = {(node.shard, node.slices): node.identity for node in publishing.live(opened)}
    for shard, slices in publishing.missing(opened):
        part = jax.tree.map(lambda leaf: 0.1 * rng.normal(size=leaf.shape).astype(leaf.dtype), shapes[len(slices) - 1])
        drafted = publishing.draft_node(opened, shard, slices)
        publishing.publish(
            opened, drafted, to_tensors(Trained(part.slot, part.head, jnp.zeros(1))), {}, names.get((shard, slices[:-1]))
        )
        names[shard, slices] = drafted.identity
    return opened


if __name__ == "__main__":
    main()

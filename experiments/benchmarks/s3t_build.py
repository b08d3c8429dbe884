"""Building all nodes of a plan: lanes by vmap or node after node, with cached prefixes or without.

    python -m experiments.benchmarks.s3t_build [--model small] [--examples 128] [--repeats 3] [--peers PYTHON]

One process, one data set (random images, the same in every cell); each cell is run once to compile and then `--repeats`
times, the cells in turn, and the median is told with its range. Parameters are compared between the cells. Filling the
cache is part of a cached build and told apart. With `--peers` the same nodes are trained by `s3t_peft` in another
interpreter, which has torch, transformers and peft: the same model, examples, steps and optimiser, node after node.

About ten minutes on two CPU cores; `--model digits --examples 32 --repeats 1` takes one.
"""

from __future__ import annotations

import argparse
import functools
import json
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.benchmarks import smoke
from experiments.exact.sources import building
from experiments.models import vits
from s3t.plans import planners, structure
from s3t.plans.partition import Places
from s3t.training import arrangement, schedule
from s3t.training.adapters import Lora
from s3t.training.arrangement import Slices
from s3t.training.schedule import Setup
from s3t.training.source import Source
from s3t.training.stages import Job, Recipe, Trained

SHARDS, SLICES, CLASSES = 5, 4, 10
SHAPES = {"digits": (8, 8, 1), "small": (28, 28, 1)}
RANK = 8
RECIPE = {"alpha": 8.0, "learning_rate": 1e-2, "weight_decay": 0.01, "clip": 1.0}
TOLERANCE = 1e-2  # in parameters: the rounding of other programs grows over the steps, another training is off by far more


class Cell(NamedTuple):
    """One way of building: how many lanes, and how many bytes of activations may be kept."""

    name: str
    lanes: int
    cache_bytes: int


def main() -> None:
    """Print the table, and the peers' row beside it."""
    args = arguments()
    x, y = made_up(args)
    slices, plan = arranged(x, y, args.batch_size), planners.PLANNERS[args.planner](SLICES, None, None)
    cells = [
        Cell("node after node, no cache", 1, 0),
        Cell("lanes, no cache", args.lanes, 0),
        Cell("node after node, cache", 1, 1 << 40),
        Cell("lanes, cache", args.lanes, 1 << 40),
    ]
    setups = {cell.name: setup_of(args, plan, x, y, cell) for cell in cells}
    results = {name: build(setup, slices) for name, setup in setups.items()}  # compiles
    spent: dict[str, list[float]] = {cell.name: [] for cell in cells}
    for _ in range(args.repeats):
        for name, setup in setups.items():
            spent[name].append(timed(functools.partial(build, setup, slices)))
    worst = max(largest_difference(results[cells[0].name], found) for found in results.values())
    if not worst <= TOLERANCE:
        raise SystemExit(f"the cells disagree by {worst:.2g}: they did not train the same nodes")
    filling = [timed(lambda: fill(setups[cells[-1].name], slices)) for _ in range(args.repeats)]
    print(f"{args.model}, {args.planner}, m={SHARDS} L={SLICES}: {len(plan.nodes)} nodes per shard, {len(x)} examples,")
    print(f"{args.epochs} epochs, batches of {args.batch_size}, {args.lanes} lanes; {jax.devices()[0].device_kind}")
    share = structure.flops(plan, cached=True) / structure.flops(plan)
    print(f"FLOPs cached / uncached: {share:.2f}; parameters agree to {worst:.1g}")
    base = np.median(spent[cells[0].name])
    for name, seconds in spent.items():
        print(row(name, seconds, base))
    print(row("  of it filling the cache", filling, base))
    if args.peers:
        print(row("PyTorch + peft, node after node", peers(args, plan, x, y), base))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="small", choices=SHAPES)
    parser.add_argument("--planner", default="lattice", choices=planners.PLANNERS)
    parser.add_argument("--examples", type=int, default=128, help="of each shard")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--lanes", type=int, default=building.lanes_for("vit", 75))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--peers", metavar="PYTHON", help="an interpreter with torch, transformers and peft")
    return smoke.parse(parser, model="digits", planner="sisa", examples=8, batch_size=8, epochs=1, repeats=1)


def made_up(args: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
    """Random images and labels: what is trained on does not change how long it takes."""
    rng, count = np.random.default_rng(0), SHARDS * args.examples
    x = rng.normal(size=(count, *SHAPES[args.model])).astype(np.float32)
    return x, rng.integers(CLASSES, size=count).astype(np.int32)


def arranged(x: np.ndarray, y: np.ndarray, batch_size: int) -> Slices:
    """Slices of one size."""
    ids = np.arange(len(x))
    group = group_of(len(x))
    places = Places((group // SLICES).astype(np.int32), (group % SLICES).astype(np.int32))
    capacity = arrangement.capacity_for(arrangement.counts(places, SHARDS, SLICES), batch_size)
    return arrangement.arrange(x, y, ids, places, SHARDS, SLICES, capacity)


def group_of(count: int) -> np.ndarray:
    """The shard and slice of each example as one number."""
    return np.arange(count) % (SHARDS * SLICES)


def setup_of(args: argparse.Namespace, plan: structure.Plan, x: np.ndarray, y: np.ndarray, cell: Cell) -> Setup:
    """The build of one cell."""
    module, frozen = vits.vit(args.model, CLASSES), random_backbone(args.model)
    optimizer = building.cosine_adamw(RECIPE["learning_rate"], RECIPE["weight_decay"], RECIPE["clip"])
    recipe = Recipe(Lora(RANK, RECIPE["alpha"], ("query", "value")), args.batch_size, args.epochs, optimizer)
    fetch = lambda ids: (x[ids], y[ids])  # noqa: E731
    source = Source(
        backbone=vits.as_backbone(module),
        frozen=frozen,
        recipe=recipe,
        ids=np.arange(len(x)),
        fetch=fetch,
        hyper={},
        most_lanes=cell.lanes,
        cache_bytes=cell.cache_bytes,
    )
    shapes = schedule.make_shapes(source, plan, np.bincount(group_of(len(x))).reshape(SHARDS, SLICES))
    return Setup(source, plan, SHARDS, jax.random.key(0), shapes)


@functools.cache
def random_backbone(model: str) -> Any:
    module = vits.vit(model, CLASSES)
    return vits.split_head(vits.init(module, jax.random.key(0), np.zeros((1, *SHAPES[model]), np.float32)))[0]


def build(setup: Setup, slices: Slices) -> dict[Job, Trained]:
    """Every node, on the host."""
    calls = schedule.build(setup, slices, jobs_of(setup), never_published)
    return {job: trained for call in calls for job, trained in call.nodes}


def never_published(shard: int, node: structure.Node) -> Trained:
    """Of a parent that is not among the jobs; every node is."""
    raise KeyError((shard, node))


def fill(setup: Setup, slices: Slices) -> Any:
    """The activations that all depths read."""
    return schedule.activations(setup, setup.source.frozen, slices, [(shape, jobs_of(setup)) for shape in setup.shapes])


def jobs_of(setup: Setup) -> list[Job]:
    return [(shard, node) for node in setup.plan.nodes for shard in range(SHARDS)]


def timed(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def largest_difference(some: dict[Job, Trained], other: dict[Job, Trained]) -> float:
    differences = jax.tree.map(lambda a, b: float(np.max(np.abs(a - b))), some, other)
    return max(jax.tree.leaves(differences))


def row(name: str, seconds: list[float], base: float) -> str:
    low, middle, high = min(seconds), float(np.median(seconds)), max(seconds)
    return f"{name:34} {middle:8.2f} s [{low:.2f}, {high:.2f}]   {base / middle:5.2f} times as fast as the first"


def peers(args: argparse.Namespace, plan: structure.Plan, x: np.ndarray, y: np.ndarray) -> list[float]:
    """Seconds of `s3t_peft` for the same work."""
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder) / "examples.npz", x=x, y=y, group=group_of(len(x)))
        vits.save_npz(Path(folder) / "vit.npz", random_backbone(args.model))
        work = {
            **RECIPE,
            "rank": RANK,
            "vit": vits.VITS[args.model],
            "shards": SHARDS,
            "slices": SLICES,
            "classes": CLASSES,
            "nodes": plan.nodes,
            "epochs": args.epochs,
            "batch_size": args.batch_size,
            "repeats": args.repeats,
        }
        (Path(folder) / "work.json").write_text(json.dumps(work))
        program = Path(__file__).with_name("s3t_peft.py")
        done = subprocess.run([args.peers, program, folder], check=True, capture_output=True, text=True)
        return json.loads(done.stdout.splitlines()[-1])["seconds"]


if __name__ == "__main__":
    main()

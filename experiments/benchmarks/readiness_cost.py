"""What a readiness step costs: FLOPs as XLA counts them, wall time, memory, the shipped schedule, and PyTorch beside it.

    python -m experiments.benchmarks.readiness_cost [--models mlp cnn] [--parts flops wall schedule memory] [--peers]

Costs are in units of a plain training step of equal batch. Each stands beside the bound it has to meet; a `!` marks one
that does not. About 15 minutes on two CPU cores, most of it compiling; results and their meaning are in README.md.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import models
from experiments.benchmarks import smoke
from experiments.comparison import checks
from experiments.comparison.rehearsals import rehearsal
from experiments.configs import readiness as configs
from experiments.core import workdirs
from experiments.core.machines import environment, execution
from experiments.data import datasets, problem
from experiments.training import cost, epochs, fleets, loop
from readiness import MetaBatch, Terms, make_readiness, make_step, paper_terms
from readiness.step import init_state
from unlearn import ALGORITHMS, Request
from unlearn.gradient import first_order, second_order

CLASSES, RATE, STEP_SIZE = 10, 0.05, jnp.float32(0.1)
CAP = float(np.log(CLASSES))
SHAPES = {"mlp": (28, 28, 1), "cnn": (28, 28, 1), "resnet": (32, 32, 3), "vit": (32, 32, 3)}
MODULES = {
    "mlp": models.MLP(CLASSES, (256, 256)),
    "cnn": models.CNN(CLASSES),
    "resnet": models.ResNet18(CLASSES, width=16, stages=(1, 1, 1, 1)),
    "vit": models.ViT(CLASSES),
}
QUICK = (
    {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else {}
)  # for programs that only get counted
WALL_TOLERANCE = 0.15  # of the FLOP ratio; the strided CNN is reported without a bound
WALL_BOUND = ("mlp", "resnet", "vit")
OVERHEAD_BOUND = 0.50


class Variant(NamedTuple):
    """A readiness loss; `bound` is in plain steps, `ordinary` adds the ordinary loss of a batch of its own."""

    name: str
    bound: float
    terms: Terms = paper_terms(CAP, form="raw")
    order: int = 2
    inner_steps: int = 1
    ordinary: bool = False
    algorithm: str = "ascent"


# One forward and backward pass each: the inner gradient, its Hessian product (2), every outer term, the ordinary loss.
# Rematerialised inner steps (K > 1) compute their gradient again, without the gradients of weights: 2/3 of a pass more.
VARIANTS = (
    Variant("forget + stable", 5.2),
    Variant("+ ordinary loss", 6.3, ordinary=True),
    Variant("+ gain on a fresh batch", 7.3, paper_terms(CAP), ordinary=True),
    Variant("+ recovery", 8.3, paper_terms(CAP, resistance=1.0), ordinary=True),
    Variant("forget + stable, first order", 3.2, order=1),
    Variant("forget + stable, K = 2", 2 + 2 * 11 / 3 + 0.2, inner_steps=2),
    Variant("forget + stable, K = 4", 2 + 4 * 11 / 3 + 0.2, inner_steps=4),
    # The inner step sees retain data, too; the level is a pass forward.
    Variant("level + stable + ordinary loss", 6 + 3 + 0.5, Terms(), ordinary=True, algorithm="level"),
)
PAPER, SHIPPED = VARIANTS[2], VARIANTS[-1]


class Program(NamedTuple):
    """A function to compile and what to call it with."""

    fn: Callable
    args: tuple


def plain_step(name: str, size: int) -> Program:
    """An ordinary training step."""
    model, optimizer = models.as_model(models.of_module(MODULES[name], SHAPES[name])), optax.sgd(RATE)
    args = init_state(parameters(name), optimizer), batch(name, 0, size), jax.random.key(0)
    return Program(make_step(model, optimizer), args)


def meta_step(name: str, variant: Variant, size: int, unroll: bool) -> Program:
    """A training step of a variant on meta-batches of the same size."""
    model, optimizer = models.as_model(models.of_module(MODULES[name], SHAPES[name])), optax.sgd(RATE)
    order = first_order if variant.order == 1 else second_order
    rehearsed = lambda rate: ALGORITHMS[variant.algorithm](model, optax.sgd(rate), grad=order)  # noqa: E731
    readiness = make_readiness(model, rehearsed, variant.terms, unroll=unroll)
    state, key = init_state(parameters(name), optimizer), jax.random.key(0)
    meta = meta_batch(name, variant.inner_steps, size, retain=variant.algorithm == "level")
    if variant.ordinary:
        return Program(
            make_step(model, optimizer, readiness=readiness), (state, batch(name, 0, size), key, meta, STEP_SIZE)
        )

    def alone(state: Any, meta: MetaBatch, key: Any) -> Any:
        gradient = jax.grad(lambda params: readiness(params, meta, STEP_SIZE, key)[0])(state.params)
        return jax.tree.map(lambda p, g: p - RATE * g, state.params, gradient)

    return Program(alone, (state, meta, key))


def parameters(name: str) -> Any:
    """Freshly initialised."""
    return MODULES[name].init(jax.random.key(0), jnp.zeros((1, *SHAPES[name])))["params"]


def batch(name: str, seed: int, size: int, *lead: int) -> dict[str, jax.Array]:
    """Noise with random labels."""
    rng, lead = np.random.default_rng(seed), (*lead, size)
    arrays = {
        "x": rng.normal(size=(*lead, *SHAPES[name])).astype(np.float32),
        "y": rng.integers(0, CLASSES, size=lead, dtype=np.int32),
        "id": np.zeros(lead, np.int32),
        "weight": np.ones(lead, np.float32),
    }
    return jax.tree.map(jnp.asarray, arrays)


def meta_batch(name: str, inner_steps: int, size: int, retain: bool = False) -> MetaBatch:
    """All parts of one size, each drawn on its own."""
    forget, stable, recovery = (batch(name, seed, size) for seed in (2, 3, 4))
    kept = batch(name, 5, size, inner_steps) if retain else None
    return MetaBatch(Request(batch(name, 1, size, inner_steps), kept), forget, stable, recovery)


def compiled(program: Program, **options: Any) -> Any:
    """The program as XLA makes it."""
    return jax.jit(program.fn).lower(*program.args).compile(compiler_options=options)


# --- Parts ------------------------------------------------------------------------------------------------------------


def flops(names: list[str], size: int) -> None:
    """FLOPs of each variant, inner steps unrolled because scans hide their trips from the counter."""
    print("\nFLOPs in plain steps (bound)\n" + f"{'':30s}" + "".join(f"{name:>16s}" for name in names))
    units = {name: environment.flops(compiled(plain_step(name, size), **QUICK)) for name in names}
    for variant in VARIANTS:
        counts = [environment.flops(compiled(meta_step(n, variant, size, unroll=True), **QUICK)) / units[n] for n in names]
        print(f"{variant.name:30s}" + "".join(f"{beside(count, variant.bound):>16s}" for count in counts), flush=True)


def wall(names: list[str], size: int, seconds: float) -> None:
    """Wall time of the shipped meta-step over that of a plain step, beside the same ratio of FLOPs."""
    print(f"\nWall time, {SHIPPED.name!r}, batch {size}: plain and meta in turn, medians")
    for name in names:
        plain = compiled(plain_step(name, size))
        meta = compiled(meta_step(name, SHIPPED, size, unroll=True))
        arguments = plain_step(name, size).args, meta_step(name, SHIPPED, size, unroll=True).args
        times = in_turn([lambda: plain(*arguments[0]), lambda: meta(*arguments[1])], seconds)  # noqa: B023
        counted, ratio = environment.flops(meta) / environment.flops(plain), times.ratio(1, 0)
        off = ratio / counted - 1
        mark = " !" if name in WALL_BOUND and off > WALL_TOLERANCE else ""
        print(
            f"{name:8s} plain {times.median(0):8.2f} ms  meta {times.median(1):8.2f} ms  ratio {ratio:5.2f}"
            f"  FLOPs {counted:5.2f}  {off:+.0%}{mark}  ({times.pairs} pairs)",
            flush=True,
        )


def schedule(seconds: float) -> None:
    """What the shipped schedule adds to an epoch: a quarter batch rehearsed on every fourth step."""
    print("\nAn epoch with rehearsals on the shipped schedule, over one without")
    digits, synthetic = (configs.get_config("digits") for _ in range(2))
    synthetic.model.options.widths = (256, 256)
    synthetic.train.batch_size, synthetic.seeds = 128, 3
    for name, given, dataset in (("digits", digits, datasets.load(digits.data)), ("28x28", synthetic, noise_set())):
        given.train.steps = max(1, len(dataset.train.id) // given.train.batch_size)
        config = checks.resolved(given)
        model = models.build(config.model, dataset.train.x[:1], dataset.classes)
        devices = execution.make(config.parallel, convolutional=model.convolutional)
        trainer = fleets.make(model, devices, dataset.train, config.train, workdirs.Workdir("."))
        ready = rehearsal("default", config.readiness, trainer, problem.make(dataset, config.forget))
        ways = trainer.way(), ready.way
        ones = np.ones(len(dataset.train.id))
        lanes = loop.make_lanes(np.arange(config.seeds), ones.astype(bool), ones)
        state = loop.init_lanes(ways[0], lanes)
        runs = [
            lambda fn=epochs.make(way, trainer.devices), pools=pools: fn(  # noqa: B008
                state,  # noqa: B023
                lanes,  # noqa: B023
                trainer.data,  # noqa: B023
                pools,
                0,
                config.train.steps,  # noqa: B023
            )
            for way, pools in zip(ways, (None, ready.pools), strict=True)
        ]
        times = in_turn(runs, seconds)
        plain = cost.of_training(ways[0], trainer.data)
        spent = cost.of_rehearsing(ready.counted, trainer.data, ready.pools, plain["step_flops"])
        overhead, counted = times.ratio(1, 0) - 1, spent["train_flops"] / plain["train_flops"] - 1
        print(
            f"{name:8s} {config.seeds} lanes, {config.train.steps} steps of {config.train.batch_size}:"
            f" {times.median(0):.1f} -> {times.median(1):.1f} ms, {beside(overhead, OVERHEAD_BOUND, '+.0%')},"
            f" FLOPs {counted:+.0%}  ({times.pairs} pairs)",
            flush=True,
        )


def noise_set() -> datasets.Dataset:
    """Noise in the shape of 28x28 images, 8192 for training."""
    sizes = {"train": 8192, "validation": 64, "test": 64}
    rng, splits, first = np.random.default_rng(0), {}, 0
    for name, count in sizes.items():
        images = rng.normal(size=(count, 28, 28, 1)).astype(np.float32)
        labels = rng.integers(0, CLASSES, count, dtype=np.int32)
        splits[name] = datasets.Split(images, labels, np.arange(first, first + count, dtype=np.int32))
        first += count
    return datasets.Dataset("noise", splits["train"], splits["validation"], splits["test"], CLASSES)


def memory(names: list[str], size: int) -> None:
    """Temporary memory of the meta-step for several inner steps, as a scan and unrolled."""
    print(f"\nTemporary memory in MiB, forget + stable, batch {size}")
    mib = lambda program: compiled(program, **QUICK).memory_analysis().temp_size_in_bytes / 2**20  # noqa: E731
    for name in names:
        weights = sum(leaf.size for leaf in jax.tree.leaves(parameters(name)))
        print(f"{name:8s} parameters {weights * 4 / 2**20:.1f}, a Hessian {weights**2 * 4 / 2**20:,.0f}", end="")
        print(f", plain step {mib(plain_step(name, size)):.1f}", flush=True)
        for unroll, counts in ((False, (1, 4, 16)), (True, (1, 4))):
            sizes = [mib(meta_step(name, VARIANTS[0]._replace(inner_steps=k), size, unroll)) for k in counts]
            listed = ", ".join(f"K = {k}: {s:.1f}" for k, s in zip(counts, sizes, strict=True))
            print(f"         {'unrolled' if unroll else 'scan'}: {listed}", flush=True)


def peers(size: int, seconds: float) -> None:
    """The same meta-step by torch.func, from the same parameters and batches."""
    from experiments.benchmarks import readiness_torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    print(f"\ntorch.func {readiness_torch.version(cores)} on {cores} cores, batch {size}: in turn, medians")
    for name in ("mlp", "cnn"):
        programs = plain_step(name, size), meta_step(name, PAPER, size, unroll=True)
        for kind, program in zip(("plain", "meta"), programs, strict=True):
            ours, state = compiled(program), program.args[0]
            rival = readiness_torch.step(name, kind, RATE, float(STEP_SIZE), CAP, PAPER.terms, program.args)
            error = readiness_torch.difference(name, rival(), ours(*program.args)[0].params, state.params)
            times = in_turn([lambda: ours(*program.args), rival], seconds)  # noqa: B023
            print(
                f"{name:4s} {kind:5s} jax {times.median(0):8.2f} ms  torch {times.median(1):8.2f} ms"
                f"  torch/jax {times.ratio(1, 0):5.2f}  gradients differ by {error:.0e}{'' if error < 1e-4 else ' !'}",
                flush=True,
            )


# --- Clock ------------------------------------------------------------------------------------------------------------


class Times(NamedTuple):
    """Milliseconds [rounds][functions]; one round calls each function once, so that noise hits all of them."""

    rounds: list[list[float]]

    @property
    def pairs(self) -> int:
        return len(self.rounds)

    def median(self, which: int) -> float:
        return statistics.median(times[which] for times in self.rounds)

    def ratio(self, a: int, b: int) -> float:
        """The median over rounds of a's time over b's."""
        return statistics.median(times[a] / times[b] for times in self.rounds)


def in_turn(functions: list[Callable], seconds: float, least: int = 7) -> Times:
    """Call functions one after another, for `seconds` and at least `least` rounds, after two rounds to warm up."""
    rounds: list[list[float]] = []
    started = time.monotonic()
    while len(rounds) < least + 2 or time.monotonic() - started < seconds:
        rounds.append([milliseconds(function) for function in functions])
    return Times(rounds[2:])


def milliseconds(function: Callable) -> float:
    started = time.perf_counter()
    jax.block_until_ready(function())
    return 1e3 * (time.perf_counter() - started)


def beside(value: float, bound: float, form: str = ".2f") -> str:
    return f"{value:{form}} ({bound:{form}}){' ' if value <= bound else '!'}"


def main() -> None:
    """Print the parts that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=list(MODULES), choices=list(MODULES))
    parts = ["flops", "wall", "schedule", "memory"]
    parser.add_argument("--parts", nargs="*", default=parts, choices=parts)
    parser.add_argument("--peers", action="store_true", help="compare with torch.func; needs torch")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--seconds", type=float, default=20.0, help="how long each timing goes on")
    args = smoke.parse(parser, models=["mlp"], parts=["flops", "wall"], batch=8, seconds=0.0)
    print(
        f"jax {jax.__version__}, Python {platform.python_version()}, {jax.devices()[0].device_kind}, {os.cpu_count()} cores"
    )
    run = {
        "flops": lambda: flops(args.models, args.batch),
        "wall": lambda: wall(args.models, args.batch, args.seconds),
        "schedule": lambda: schedule(args.seconds),
        "memory": lambda: memory(args.models, args.batch),
    }
    for part in args.parts:
        run[part]()
    if args.peers:
        peers(args.batch, args.seconds)


if __name__ == "__main__":
    main()

"""What a rehearsed step of a large decoder plans to hold on each of several devices, beside what it holds on one.

    python -m experiments.benchmarks.sharded_memory [--devices 8] [--depth 24] [--width 1024] [--documents 8] [--length 128]
        [--microbatches 1]

The model is GPT-2 with float32 parameters, by default the medium one; blocks and the inner step are computed again for the
gradient. The step is AdamW on an ordinary loss with the level form beside it, second order, one inner step, and its
forget, retain and stable batches are as large as the batch. Devices are a CPU's, made by JAX; no weights are made, and
nothing runs: numbers are XLA's plan of the compiled program, whose machine code is left slow. A `!` marks a bound that is
not met.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from experiments import models
from experiments.benchmarks import smoke
from experiments.benchmarks.language_cost import Variant, Work, arguments
from experiments.core.machines import execution
from experiments.models.language import decoder
from experiments.models.language.backbones import as_functions
from readiness import Terms, make_readiness, make_step
from unlearn import ALGORITHMS

BOUND = 1 / 5  # of one device's memory, on each of eight
OPTIMIZER = optax.adamw(1e-4)
ONCE = Variant(inner_steps=1, remat=True)


def main() -> None:
    """Print a row for one device and one for several."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--devices", type=int, default=8)
    parser.add_argument("--depth", type=int, default=24)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--vocabulary", type=int, default=50257)
    parser.add_argument("--documents", type=int, default=8)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--microbatches", type=int, default=1, help="parts that each batch is evaluated in")
    args = smoke.parse(parser, devices=2, depth=1, width=64, vocabulary=128, documents=2, length=8)
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", args.devices)
    jax.config.update("jax_disable_most_optimizations", True)
    sizes = {"width": args.width, "depth": args.depth, "heads": args.width // 64, "positions": 1024}
    work = Work(decoder.gpt2(vocabulary=args.vocabulary, **sizes), args.length, args.documents, args.documents)
    given = jax.eval_shape(lambda: arguments(work, ONCE, OPTIMIZER))
    numbers = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(given[0].params))
    print(f"{numbers / 1e6:.0f}M parameters, {args.depth} blocks, {args.documents} x {args.length} tokens in each batch")
    print("devices  arguments   results  temporaries     total  of one  compiled in", flush=True)
    alone = planned(work, execution.make("jit", jax.devices()[:1]), given, 1, None, args.microbatches)
    if args.devices > 1:
        spread = execution.make("jit", jax.devices(), fsdp=args.devices)
        planned(work, spread, given, args.devices, alone, args.microbatches)


def planned(
    work: Work, devices: execution.Execution, given: Any, count: int, alone: float | None, microbatches: int
) -> float:
    """Print what the step plans to hold on each device; its bytes."""
    began = time.perf_counter()
    plan = lowered(work, devices, given, microbatches).compile().memory_analysis()
    took = time.perf_counter() - began
    parts = plan.argument_size_in_bytes, plan.output_size_in_bytes, plan.temp_size_in_bytes
    total = float(sum(parts))
    share = total / (alone or total)
    mark = " !" if alone and count >= 8 and share > BOUND else ""
    sizes = [f"{size / 1e9:.2f} GB" for size in (*parts, total)]
    print(
        f"{count:7d} {sizes[0]:>10s} {sizes[1]:>9s} {sizes[2]:>12s} {sizes[3]:>9s} {share:7.3f} {took:10.0f} s{mark}",
        flush=True,
    )
    return total


def lowered(work: Work, devices: execution.Execution, given: Any, microbatches: int = 1) -> Any:
    """The rehearsed step of an execution before XLA compiles it, for arguments of which only shapes are known."""
    state, *rest = given
    step = make(work, devices, microbatches)
    if devices.shardings is None:
        return jax.jit(step).lower(state, *rest)
    placed = devices.shardings(state)
    return jax.jit(step, in_shardings=(placed, *[None] * len(rest)), out_shardings=(placed, None)).lower(state, *rest)


def make(work: Work, devices: execution.Execution, microbatches: int = 1) -> Callable:
    """The step `(state, batch, key, meta_batch, step_size)` as an execution carries it out, each batch in parts."""
    model = devices.microbatched(models.as_model(as_functions(decoder.Decoder(work.config, remat=True))), microbatches)

    def rehearsed(rate: jax.Array) -> Any:
        return ALGORITHMS["level"](model, optax.sgd(rate), mean=devices.mean, grad=devices.inner_grad(2))

    readiness = make_readiness(model, rehearsed, Terms(), mean=devices.mean, remat=ONCE.remat)
    step = make_step(model, OPTIMIZER, readiness=readiness, mean=devices.mean, grad=devices.outer_grad)

    def run(state: Any, batch: Any, key: jax.Array, meta: Any, step_size: jax.Array) -> Any:
        return step(state, devices.split(batch, 0), key, devices.split_meta(meta), jnp.asarray(step_size))

    return run


if __name__ == "__main__":
    main()

"""What a rehearsed step costs a language model of GPT-2's size: time, FLOPs, memory; PyTorch and transformers beside it.

    python -m experiments.benchmarks.language_cost [--parts step memory torch generate] [--peers PYTHON]

The model is GPT-2 with random weights, by default the small one, in float32, and TF32 is off on both sides. A step is an
ordinary loss with AdamW, and a rehearsed one has beside it the level form and the `level` algorithm as they are shipped,
its forget, retain and stable batches each `--fraction` of the batch. Inner steps run as they do in training: in a loop, and
computed again for the gradient where a variant says remat. FLOPs are XLA's count with inner steps unrolled. A `!` marks a
bound that is not met. PYTHON, by default this one if it has torch, runs `language_torch`.
"""

from __future__ import annotations

import os

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # PyTorch wants some of the same GPU

import argparse
import dataclasses
import functools
import importlib.util
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import models
from experiments.benchmarks import smoke
from experiments.core.machines import environment
from experiments.models.language import decoder, folders, generate
from experiments.models.language.backbones import as_functions
from readiness import MetaBatch, Terms, make_readiness, make_step
from readiness.step import init_state
from unlearn import ALGORITHMS, Request, microbatched
from unlearn.gradient import first_order, second_order

RATE, STEP_SIZE, LEVEL = 1e-4, 0.1, -3.0
TOLERANCE = 0.15  # of the FLOP ratio
ROOM = {"K4-remat": 24e9}  # bytes
SAME = 1e-4  # of gradients
TINY = {"vocabulary": 64, "width": 16, "depth": 1, "heads": 2, "positions": 16}
CHECKED = ("plain", "K1-first", "K2-remat")  # their gradients, at that size


class Variant(NamedTuple):
    """A rehearsed step, or with no inner steps a plain one.

    remat: inner steps are computed again for the gradient.  parts: that each batch is evaluated in.
    """

    inner_steps: int
    order: int = 2
    remat: bool = False
    parts: int = 1


# None is the plain step. They run in this order, and the peak that a device tells is the highest so far.
VARIANTS: dict[str, Variant | None] = {
    "plain": None,
    "K1-first": Variant(1, order=1),
    "K1-remat": Variant(1, remat=True),
    "K1": Variant(1),
    "K2-remat": Variant(2, remat=True),
    "K4-remat": Variant(4, remat=True),
    "K4-first": Variant(4, order=1),
    "K4": Variant(4),
    "plain-parts": Variant(0, parts=4),
    "K1-parts": Variant(1, parts=4),
    "K4-remat-parts": Variant(4, remat=True, parts=4),
}


class Work(NamedTuple):
    """The model, and the documents of a step: `batch` of them, `rehearsed` in each part of a meta-batch."""

    config: decoder.DecoderConfig
    length: int
    batch: int
    rehearsed: int


Row = tuple[str, str]  # what was measured, and what was seen


def make(work: Work, variant: Variant | None, optimizer: optax.GradientTransformation, unroll: bool) -> Callable:
    """The step `(state, batch, key[, meta_batch, step_size])` of a variant."""
    model = models.as_model(as_functions(decoder.Decoder(work.config)))
    if variant is not None:
        model = microbatched(model, variant.parts)
    if variant is None or not variant.inner_steps:
        return make_step(model, optimizer)
    order = first_order if variant.order == 1 else second_order
    rehearsed = lambda rate: ALGORITHMS["level"](model, optax.sgd(rate), grad=order)  # noqa: E731
    readiness = make_readiness(model, rehearsed, Terms(), unroll=unroll, remat=variant.remat)
    return make_step(model, optimizer, readiness=readiness)


def arguments(work: Work, variant: Variant | None, optimizer: optax.GradientTransformation) -> tuple:
    """What the step is called with; every part of the meta-batch has documents of its own."""
    draw = functools.partial(documents, work)
    given = init_state(parameters(work.config), optimizer), draw(0, work.batch), jax.random.key(0)
    if variant is None or not variant.inner_steps:
        return given
    level = {"level": jnp.full((variant.inner_steps, work.rehearsed), LEVEL)}
    request = Request(draw(1, work.rehearsed, variant.inner_steps) | level, draw(2, work.rehearsed, variant.inner_steps))
    forget = draw(3, work.rehearsed) | {"level": level["level"][0]}
    return *given, MetaBatch(request, forget, draw(4, work.rehearsed)), jnp.float32(STEP_SIZE)


def parameters(config: decoder.DecoderConfig) -> Any:
    """Freshly initialised."""
    return jax.jit(as_functions(decoder.Decoder(config)).init)(jax.random.key(0))


def documents(work: Work, seed: int, size: int, *lead: int) -> dict[str, jax.Array]:
    """Random tokens, each to be told from those before it."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, work.config.vocabulary, (*lead, size, work.length + 1), dtype=np.int32)
    x, y = jnp.asarray(tokens[..., :-1]), jnp.asarray(tokens[..., 1:])
    return {"x": x, "y": y, "id": jnp.zeros((*lead, size), jnp.int32), "weight": jnp.ones((*lead, size))}


ADAMW = optax.adamw(RATE)


def lowered(work: Work, name: str, unroll: bool) -> Any:
    """The program of a variant before XLA compiles it; no array is made."""
    variant = VARIANTS[name]
    fn = make(work, variant, ADAMW, unroll)
    return jax.jit(fn).lower(*jax.eval_shape(lambda: arguments(work, variant, ADAMW)))


@functools.lru_cache
def compiled(work: Work, name: str) -> Any:
    return lowered(work, name, unroll=False).compile()


@functools.lru_cache
def flops(work: Work, name: str) -> float:
    """FLOPs of a step, counted at depth 1 and 2: all layers are alike. In parts, those of its matrix products.

    Counted as lowered for a CPU: on a GPU XLA does not look into the library calls that matrix products become. What it
    counts after compilation for a CPU is 3% less with remat, and else within 1% the same.
    """
    shallow = [work._replace(config=dataclasses.replace(work.config, depth=depth)) for depth in (1, 2)]
    if (variant := VARIANTS[name]) is not None and variant.parts > 1:
        fn = make(work, variant, ADAMW, unroll=True)
        return environment.products(jax.make_jaxpr(fn)(*jax.eval_shape(lambda: arguments(work, variant, ADAMW))).jaxpr)
    with jax.default_device(jax.devices("cpu")[0]):
        first, second = (float(lowered(few, name, unroll=True).cost_analysis()["flops"]) for few in shallow)
    return first + (work.config.depth - 1) * (second - first)


def step(work: Work, names: list[str], repeats: int, times: dict[str, float], peaks: dict[str, int]) -> Iterator[Row]:
    """Median milliseconds of each variant, in plain steps beside its FLOPs; notes times and the device's peaks."""
    for name in names:
        began = time.perf_counter()
        program = compiled(work, name)
        took = time.perf_counter() - began
        times[name] = median(functools.partial(program, *arguments(work, VARIANTS[name], ADAMW)), repeats)
        peaks[name] = (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0)
        ratio, counted = times[name] / times["plain"], flops(work, name) / flops(work, "plain")
        mark = " !" if ratio > (1 + TOLERANCE) * counted else ""
        seen = f"{times[name]:9.2f} ms, {ratio:5.2f} plain steps, FLOPs {counted:5.2f} ({ratio / counted - 1:+.0%}){mark}"
        yield f"step {name}", f"{seen}, compiled in {took:.0f} s"


def memory(work: Work, names: list[str], peaks: dict[str, int]) -> Iterator[Row]:
    """What XLA plans for each variant, and the most that the device held by the end of its turn in `step`."""
    for name in names:
        plan, total = compiled(work, name).memory_analysis(), environment.peak_bytes(compiled(work, name))
        parts = plan.argument_size_in_bytes, plan.output_size_in_bytes, plan.temp_size_in_bytes
        listed = " + ".join(f"{size / 1e9:.2f}" for size in parts)
        seen = f"{total / 1e9:6.2f} GB (arguments + results + temporaries: {listed})"
        if peaks.get(name):
            seen += f", device peak {peaks[name] / 1e9:.2f} GB"
        bound = ROOM.get(name, np.inf)
        yield f"memory {name}", seen + (" !" if max(total, peaks.get(name, 0)) > bound else "")


def torch_steps(work: Work, names: list[str], repeats: int, python: str, times: dict[str, float]) -> Iterator[Row]:
    """The same steps by torch.func: gradients at a tiny size, then milliseconds from the same weights and documents.

    torch.func computes nothing again: with remat in a variant's name its step is the one without.
    """
    tiny = Work(decoder.gpt2(**TINY), length=8, batch=2, rehearsed=2)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        jobs = [write_job(folder / f"check {name}", tiny, name, 0) for name in CHECKED]
        jobs += [write_job(folder / name, work, name, repeats) for name in names]
        jax.clear_caches()
        for told in peer(python, jobs):
            name = told["name"]
            if "gradient" in told:
                theirs = folders.load_folder(Path(told["gradient"])).params
                off = difference(theirs, gradient(tiny, VARIANTS[name]))
                yield f"torch {name}", f"gradients differ by {off:.0e} at a tiny size{'' if off < SAME else ' !'}"
                continue
            seen = f"{told['milliseconds']:9.2f} ms, torch {told['torch']}"
            if name in times:
                seen += f", torch/jax {told['milliseconds'] / times[name]:.2f}"
            yield f"torch {name}", seen + (f", peak {told['peak'] / 1e9:.2f} GB" if told["peak"] else "")


def generation(work: Work, prompt: int, new: int, repeats: int, python: str) -> Iterator[Row]:
    """Greedy tokens per second with a cache of keys and values, beside transformers with the same weights."""
    prompts = np.asarray(documents(work._replace(length=prompt), 5, work.batch)["x"])
    params, lengths = parameters(work.config), np.full(work.batch, prompt)
    run = lambda: generate.generate(decoder.Decoder(work.config), params, prompts, lengths, new)  # noqa: E731
    tokens, ours = np.asarray(run()), 1e3 * work.batch * new / median(run, repeats)
    yield "generate jax", f"{ours:9.0f} tokens/s, {work.batch} x {new} after {prompt}"
    if not python:
        return
    with tempfile.TemporaryDirectory() as made:
        folders.save_folder(made, work.config, params)
        np.savez(Path(made) / "data.npz", prompts=prompts)
        jax.clear_caches()
        job = {"kind": "generate", "name": "generate", "folder": made, "new": new, "repeats": repeats}
        for told in peer(python, [job]):
            theirs = 1e3 * work.batch * new / told["milliseconds"]
            same = float(np.mean(np.asarray(told["tokens"]) == tokens))
            seen = f"{theirs:9.0f} tokens/s, jax is {ours / theirs:.2f} times as fast, {same:.1%} of tokens are equal"
            yield f"generate transformers {told['transformers']}", seen + ("" if same == 1 else " !")


def write_job(folder: Path, work: Work, name: str, repeats: int) -> dict[str, Any]:
    """Weights and documents of a step in files, and what `language_torch` is to do with them.

    `repeats` 0 asks for the gradient, which then stands in the folder "gradient" as weights do.
    """
    variant = VARIANTS[name]
    state, batch, _, *rest = arguments(work, variant, optax.identity())
    folders.save_folder(folder, work.config, state.params)
    parts = {"batch": batch}
    if rest:
        meta = rest[0]
        parts |= {"asked": meta.requests.forget, "kept": meta.requests.retain, "forget": meta.forget, "stable": meta.stable}
    np.savez(folder / "data.npz", **{f"{part}_{field}": data[field] for part, data in parts.items() for field in "xy"})
    settings: dict[str, Any] = {key: getattr(Terms(), key) for key in ("efficiency", "retention", "width")}
    settings |= {"heads": work.config.heads, "depth": work.config.depth, "epsilon": work.config.norm_epsilon}
    settings |= {"rate": RATE, "step_size": STEP_SIZE, "level": LEVEL, "order": variant.order if variant else 0}
    return {"kind": "step", "name": name, "folder": str(folder), "repeats": repeats, **settings}


def peer(python: str, jobs: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """What `language_torch` tells of each job, as soon as it does.

    Raises:
      SystemExit: with its last line, if it failed.
    """
    device = "cuda" if jax.default_backend() == "gpu" else "cpu"
    program = str(Path(__file__).with_name("language_torch.py"))
    with tempfile.TemporaryFile("w+") as errors:
        line = [python, program, json.dumps({"device": device, "jobs": jobs})]
        with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=errors, text=True) as process:
            assert process.stdout is not None
            for told in process.stdout:
                if told.startswith("{"):
                    yield json.loads(told)
        if process.returncode:
            errors.seek(0)
            said = errors.read().strip().splitlines() or [f"{python} ended with {process.returncode}"]
            raise SystemExit(f"language_torch failed: {said[-1]}")


def gradient(work: Work, variant: Variant | None) -> Any:
    """The gradient that a step hands to its optimiser."""
    nothing = functools.partial(jax.tree.map, jnp.zeros_like)
    keep = optax.GradientTransformation(lambda params: params, lambda slopes, *_: (nothing(slopes), slopes))
    return jax.jit(make(work, variant, keep, unroll=False))(*arguments(work, variant, keep))[0].opt_state


def difference(theirs: Any, ours: Any) -> float:
    """||their gradient - ours|| / ||ours||."""
    away = jax.tree.map(lambda a, b: jnp.asarray(a) - b, theirs, ours)
    return float(optax.global_norm(away) / optax.global_norm(ours))


def median(run: Callable, repeats: int) -> float:
    """Milliseconds, after two calls to warm up."""
    seen = []
    for _ in range(repeats + 2):
        began = time.perf_counter()
        jax.block_until_ready(run())
        seen.append(1e3 * (time.perf_counter() - began))
    return statistics.median(seen[2:])


def main() -> None:
    """Print each number as it comes, and all of them in a table at the end."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parts = ["step", "memory", "torch", "generate"]
    parser.add_argument("--parts", nargs="+", default=parts, choices=parts)
    usual = ["plain", "K1-first", "K1", "K4-remat"]
    parser.add_argument(
        "--variants", nargs="+", default=usual, choices=list(VARIANTS), help="K is the number of inner steps"
    )
    here = sys.executable if importlib.util.find_spec("torch") else ""
    parser.add_argument("--peers", default=here, help="a Python with torch and transformers")
    for option, size in {"vocabulary": 50257, "width": 768, "depth": 12, "heads": 12, "positions": 1024}.items():
        parser.add_argument(f"--{option}", type=int, default=size)
    for option, size in {"batch": 8, "length": 128, "prompt": 16, "new": 128, "repeats": 5}.items():
        parser.add_argument(f"--{option}", type=int, default=size)
    parser.add_argument("--fraction", type=float, default=1.0, help="of the batch, in each part of a meta-batch")
    args = smoke.parse(parser, **TINY, variants=["K1"], batch=2, length=8, prompt=4, new=4, repeats=1)
    jax.config.update("jax_default_matmul_precision", "float32")
    if args.smoke:  # compiling is most of it
        jax.config.update("jax_disable_most_optimizations", True)
    sizes = {option: getattr(args, option) for option in TINY}
    if not 0 < args.fraction <= 1:
        parser.error(f"--fraction is {args.fraction:g}: give a share above 0, 1 at most")
    if max(args.length, args.prompt + args.new) > args.positions:
        parser.error(f"--positions {args.positions} do not hold --length, or --prompt and --new: give more")
    work = Work(decoder.gpt2(**sizes), args.length, args.batch, max(1, round(args.fraction * args.batch)))
    names = [name for name in VARIANTS if name in {"plain", *args.variants}]
    times: dict[str, float] = {}
    peaks: dict[str, int] = {}
    run = {
        "step": lambda: step(work, names, args.repeats, times, peaks),
        "memory": lambda: memory(work, names, peaks),
        "torch": lambda: torch_steps(work, names, args.repeats, args.peers, times),
        "generate": lambda: generation(work, args.prompt, args.new, args.repeats, args.peers),
    }
    device = f"{jax.devices()[0].device_kind}, jax {jax.__version__}, batch {work.batch} x {work.length}"
    print(f"{device}, {work.rehearsed} documents in each part of a meta-batch, {sizes}", flush=True)
    rows, failed = [], []
    for part in parts:
        if part not in args.parts:
            continue
        if part in ("torch", "generate") and not args.peers:
            print(f"{part}: this Python has no torch, so nothing stands beside it: give --peers PYTHON", flush=True)
            if part == "torch":
                continue
        try:
            for what, seen in run[part]():
                rows.append(f"| {what} | {' '.join(seen.split())} |")
                print(f"{what:28s}{seen}", flush=True)
        except SystemExit as error:  # the other parts can do without the peer
            failed.append(str(error))
            print(f"{part}: {error}", flush=True)
        if part != "step" or "memory" not in args.parts:
            compiled.cache_clear()
            jax.clear_caches()
    print("\n".join(["", device, *rows]))
    if failed:
        raise SystemExit("; ".join(failed))


if __name__ == "__main__":
    main()

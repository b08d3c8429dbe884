"""A step's clipped and noisy gradient of DP-SGD: `experiments.training.dpsgd` against clipping one by one with optax.

    python -m experiments.benchmarks.dpsgd [--models mlp vit cnn resnet] [--lanes 1]

Prints, for each model, seconds of either form and of an ordinary gradient (medians of interleaved runs, compilation
aside), temporary memory as XLA plans it, and how far the two gradients are apart. Lanes are a `vmap`, as in a fleet.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import models
from experiments.benchmarks import smoke
from experiments.core.machines import environment
from experiments.models import ModelFns
from experiments.training import dpsgd
from unlearn.base import Array, Batch

CLASSES, CLIP, NOISE = 10, 1.0, 0.5
MODULES = {
    "mlp": (models.MLP(CLASSES, (256, 256)), (28, 28, 1)),
    "vit": (models.ViT(CLASSES), (32, 32, 3)),
    "cnn": (models.CNN(CLASSES), (32, 32, 3)),
    "resnet": (models.ResNet18(CLASSES, width=16, stages=(1, 1, 1, 1)), (32, 32, 3)),
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=list(MODULES), default=list(MODULES))
    parser.add_argument("--lanes", type=int, default=1)
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=15)
    args = smoke.parse(parser, models=["mlp"], batch_size=8, repeats=2)
    device = jax.devices()[0].device_kind
    print(f"{device}, jax {jax.__version__}: {args.lanes} lanes, batches of {args.batch_size}, {args.repeats} repeats")
    for name in args.models:
        measure(name, args.lanes, args.batch_size, args.repeats)


def measure(name: str, lanes: int, size: int, repeats: int) -> None:
    """One model's line."""
    module, image = MODULES[name]
    model = models.of_module(module, image)
    rng = np.random.default_rng(0)
    batch = {
        "x": jnp.asarray(rng.normal(size=(size, *image)), jnp.float32),
        "y": jnp.asarray(rng.integers(0, CLASSES, size)),
        "weight": jnp.ones(size),
    }
    params = jax.vmap(model.init)(jax.random.split(jax.random.key(0), lanes))
    forms = {"ghost": ghost, "per example": per_example, "ordinary": ordinary}
    over = lambda form: jax.jit(jax.vmap(lambda params: form(model, params, batch, jax.random.key(1))))  # noqa: E731
    programs = {form: over(fn).lower(params).compile() for form, fn in forms.items()}
    found = {form: program(params) for form, program in programs.items()}
    apart = jax.tree.map(jnp.subtract, found["ghost"], found["per example"])
    off = optax.tree.norm(apart) / optax.tree.norm(found["per example"])
    seconds: dict[str, list[float]] = {form: [] for form in forms}
    for _ in range(repeats):
        for form, program in programs.items():
            with environment.stopwatch() as stopwatch:
                jax.block_until_ready(program(params))
            seconds[form].append(stopwatch())
    median = {form: statistics.median(times) for form, times in seconds.items()}
    memory = {form: mebibytes(program) for form, program in programs.items()}
    told = [f"{form} {1e3 * median[form]:.1f} ms, {memory[form]:.1f} MiB" for form in forms]
    faster = median["per example"] / median["ghost"]
    print(f"{name:7} {'; '.join(told)}; per example / ghost {faster:.2f}; relative difference {off:.0e}", flush=True)


def mebibytes(program: Any) -> float:
    """Temporary memory as XLA plans it."""
    return program.memory_analysis().temp_size_in_bytes / 2**20


def ghost(model: ModelFns, params: Any, batch: Batch, key: Array) -> Any:
    """The house's form."""
    total, losses, _ = dpsgd.clipped_sum(model, models.as_model(model).loss, params, batch, key, CLIP)
    return dpsgd.noisy_mean(total, key, CLIP * NOISE, len(losses))


def per_example(model: ModelFns, params: Any, batch: Batch, key: Array) -> Any:
    """Every example's gradient, handed to optax."""
    gradients = jax.vmap(jax.grad(_loss(model, key)), (None, 0))(params, jax.tree.map(lambda leaf: leaf[:, None], batch))
    aggregate = optax.contrib.differentially_private_aggregate(CLIP, NOISE, key=key)
    return aggregate.update(gradients, aggregate.init(params))[0]


def ordinary(model: ModelFns, params: Any, batch: Batch, key: Array) -> Any:
    """The gradient that is not private."""
    return jax.grad(_loss(model, key))(params, batch)


def _loss(model: ModelFns, key: Array) -> Callable[[Any, Batch], Array]:
    seen = models.as_model(model)
    return lambda params, batch: jnp.mean(seen.loss(seen.apply(params, batch["x"], key), batch))


if __name__ == "__main__":
    main()

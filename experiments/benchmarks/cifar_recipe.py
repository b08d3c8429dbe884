"""The quick recipe for cifar10 against the house's plain CNN, at equal steps: test accuracy and seconds.

    python -m experiments.benchmarks.cifar_recipe --data_dir=DIR [--contenders recipe] [--steps 780] [--seeds 2]

Trains every contender once for each seed, by turns, as `configs/readiness.py:cifar10` and `cifar10_quick` have it, and
prints test accuracy, that of the mean over an image and its mirror image, and seconds per model without
compiling. `--contenders recipe` alone is the command that trains it.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import models
from experiments.benchmarks import smoke
from experiments.comparison import checks
from experiments.configs import readiness as configs
from experiments.core.machines import execution
from experiments.data import datasets
from experiments.scoring.statistics import make_statistics
from experiments.training import epochs, loop, whitening

OVERRIDES: dict[str, tuple[str, dict[str, Any]]] = {  # experiment, what is changed
    "house": ("cifar10", {}),
    "recipe": ("cifar10_quick", {}),
    "recipe, the house's schedule": ("cifar10_quick", {"optimizer": "sgd", "learning_rate": 0.05}),
    "recipe, random filters": ("cifar10_quick", {}),
    "house, the recipe's schedule": ("cifar10", {"optimizer": "nesterov", "learning_rate": 0.2}),
}
RANDOM = "recipe, random filters"


class Unwhitened(models.Whitened):
    """Another type, for which no filters are computed: those of its initialisation stay."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="cifar10", help="the data set")
    parser.add_argument("--data_dir", default="")
    parser.add_argument("--contenders", nargs="+", choices=list(OVERRIDES), default=list(OVERRIDES))
    parser.add_argument("--train_size", type=int, default=20_000)
    parser.add_argument("--steps", type=int, default=780)
    parser.add_argument("--seeds", type=int, default=2)
    args = smoke.parse(parser, data="digits", train_size=256, steps=4, seeds=1, contenders=["house", RANDOM])
    config = configs.get_config("cifar10")
    config.data.name, config.data.data_dir, config.data.train_size = args.data, args.data_dir, args.train_size
    dataset = datasets.load(checks.resolved(config).data)
    found: dict[str, list[tuple[float, ...]]] = {name: [] for name in args.contenders}
    for seed in range(args.seeds):
        for name in args.contenders:
            found[name].append(trained(name, dataset, args.steps, seed))
            print(f"{name:28} seed {seed}: {told(found[name][-1])}", flush=True)
    print(f"means over {args.seeds} seeds, {args.train_size} images, {args.steps} steps")
    for name, runs in found.items():
        print(f"{name:28} {told(tuple(np.mean(runs, axis=0)))}")


def trained(name: str, dataset: datasets.Dataset, steps: int, seed: int) -> tuple[float, ...]:
    """Test accuracy, that with mirror images, and seconds of training."""
    experiment, changes = OVERRIDES[name]
    config = configs.get_config(experiment)
    config.train.update(changes)
    made = checks.resolved(config)
    size, count = made.train.batch_size, len(dataset.train.id)
    model = models.build(made.model, dataset.train.x[:1], dataset.classes)
    if name == RANDOM:
        unwhitened = Unwhitened(dataset.classes, made.model.options["widths"])
        model = models.of_module(unwhitened, dataset.train.x.shape[1:], convolutional=True)
    way = loop.Way(model, loop.optimizer(made.train, steps), steps, max(1, count // size), size)
    lanes = loop.make_lanes([seed], np.ones(count, bool), np.ones(count))
    batch = jax.tree.map(jnp.asarray, datasets.batch(dataset.train))
    devices = execution.make("jit", convolutional=model.convolutional)
    epoch_fn = epochs.make(way, devices)
    with tempfile.TemporaryDirectory() as folder:
        trained = loop.train(way, lanes, batch, None, epoch_fn, Path(folder), lambda entry: None, 1e9)
    plain = models.as_model(model)
    return (
        *(accuracy(one, trained.params, dataset.test, devices) for one in (plain, whitening.both_ways(plain))),
        trained.seconds,
    )


def accuracy(model: Any, params: Any, split: datasets.Split, devices: execution.Execution) -> float:
    """Of the one lane."""
    return float(make_statistics(model, devices)(params, datasets.batch(split)).correct.mean())


def told(run: tuple[float, ...]) -> str:
    test, mirrored, seconds = run
    return f"test {100 * test:.1f}%, with mirror images {100 * mirrored:.1f}%, {seconds:.0f} s"


if __name__ == "__main__":
    main()

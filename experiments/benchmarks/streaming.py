"""Wall time of an epoch with the images on disk against the same epoch in memory.

    python -m experiments.benchmarks.streaming --experiment=fashion_mnist --data_dir=DIR

Trains the lanes of one fleet for a few epochs either way, prints seconds per epoch (the median, compilation aside), their
ratio, what opening the data set took, and checks that both end with the same parameters.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import models
from experiments.benchmarks import smoke
from experiments.comparison import checks
from experiments.configs import readiness as configs
from experiments.core import sections
from experiments.core.machines import environment, execution
from experiments.data import datasets
from experiments.models.functions import ModelFns
from experiments.training import epochs, loop
from unlearn import tree


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--experiment", default="digits", choices=list(configs.EXPERIMENTS))
    parser.add_argument("--data_dir", default="")
    parser.add_argument("--lanes", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=3)
    args = smoke.parse(parser, epochs=1)
    config = configs.get_config(args.experiment)
    config.data.data_dir = args.data_dir
    ends, medians = [], []
    for streamed in (False, True):
        config.data.stream = streamed
        started = time.monotonic()
        made = checks.resolved(config)
        dataset = datasets.load(made.data)
        opened = time.monotonic() - started
        model = models.build(made.model, dataset.train.x[:1], dataset.classes)
        seconds, params = train(model, made.train, dataset, streamed, args.lanes, args.epochs)
        medians.append(statistics.median(seconds))
        ends.append(params)
        speed = len(dataset.train.id) / medians[-1]
        print(
            f"{'streamed' if streamed else 'in memory':9}  {medians[-1]:7.2f} s/epoch ({speed:,.0f} examples/s a lane)",
            end="",
        )
        print(f"  opened in {opened:.1f} s")
    print(f"ratio {medians[1] / medians[0]:.2f}; same bits: {tree.bits_equal(*ends)}")


def train(
    model: ModelFns, section: sections.Train, dataset: datasets.Dataset, streamed: bool, lanes: int, count: int
) -> tuple[list[float], Any]:
    """Seconds of each epoch, and the parameters at the end."""
    batch, everyone = datasets.batch(dataset.train), np.ones(len(dataset.train.id), bool)
    if not streamed:
        batch = jax.tree.map(jnp.asarray, batch)
    per_epoch = len(everyone) // section.batch_size
    rule = loop.optimizer(section, count * per_epoch)
    way = loop.Way(model, rule, count * per_epoch, per_epoch, section.batch_size)
    fleets = loop.make_lanes(np.arange(lanes), everyone, everyone)
    devices = execution.make("jit", convolutional=model.convolutional)
    epoch_fn = epochs.make(way, devices, on_disk=streamed)
    states, seconds = loop.init_lanes(way, fleets), []
    for epoch in range(count):
        with environment.stopwatch() as stopwatch:
            states, _ = jax.block_until_ready(epoch_fn(states, fleets, batch, None, epoch, per_epoch))
        seconds.append(stopwatch())
    return seconds, states.params


if __name__ == "__main__":
    main()

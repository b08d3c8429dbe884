"""A fleet of oracles as lanes of one program, against the same models trained one after another.

    python -m experiments.benchmarks.oracles [--experiment digits] [--oracles 128] [--single 3]

Prints seconds without compilation: of the whole fleet, and of as many single runs, which is the mean of the few that are
made times their number. The model and the schedule are those of
`configs/readiness.py`; every oracle is trained without a random tenth of the data that is its own.
"""

from __future__ import annotations

import argparse

import jax
import jax.numpy as jnp
import numpy as np

from experiments import models
from experiments.benchmarks import smoke
from experiments.comparison import checks
from experiments.configs import readiness as configs
from experiments.core import workdirs
from experiments.core.errors import UserError
from experiments.core.machines import environment, execution, fleet
from experiments.data import datasets
from experiments.scoring import evaluation
from experiments.scoring.statistics import make_statistics
from experiments.training import epochs, fleets, loop

HELD_OUT = 0.1


def main() -> None:
    """Train, time and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--experiment", default="digits", choices=list(configs.EXPERIMENTS))
    parser.add_argument("--oracles", type=int, default=128)
    parser.add_argument("--single", type=int, default=3, help="single runs behind the mean")
    parser.add_argument("--at_once", type=int, default=256, help="lanes of one program")
    parser.add_argument("--whole", action="store_true", help="also without a CPU's parts, see `core.machines.fleet`")
    parser.add_argument("--steps", type=int, default=0, help="of a training; 0: as the experiment says")
    parser.add_argument("--data_dir", default="")
    args = smoke.parse(parser, oracles=2, single=1, steps=40)
    if min(args.oracles, args.single, args.at_once) < 1:
        parser.error("--oracles, --single and --at_once are 1 or more")
    config = configs.get_config(args.experiment)
    config.data.data_dir = args.data_dir
    config.train.steps = args.steps or config.train.steps
    try:
        made = checks.resolved(config)
        dataset = datasets.load(made.data, models.classifies_text(made.model))
        model = models.build(made.model, dataset.train.x[:1], dataset.classes, dataset.tokens)
        datasets.check_splits(dataset, made.train.batch_size)
    except UserError as error:
        parser.error(str(error))
    devices = execution.make(made.parallel, convolutional=model.convolutional)
    trainer = fleets.make(model, devices, dataset.train, made.train, workdirs.Workdir("."))
    lanes = oracles(dataset.train.id, args.oracles)
    parts = [fleet.lane(lanes, slice(i, i + args.at_once)) for i in range(0, args.oracles, args.at_once)]
    trained = [seconds(trainer, part) for part in parts]
    if args.whole:
        fleet.CPU_LANES = args.oracles
        print(f"not in parts: {sum(seconds(trainer, part)[0] for part in parts):.1f} s")
    together = sum(took for took, _ in trained)
    alone = args.oracles * float(
        np.mean([seconds(trainer, fleet.lane(lanes, slice(i, i + 1)))[0] for i in range(args.single)])
    )
    accuracy = np.concatenate([accuracies(trainer, params, dataset.test) for _, params in trained])
    told = f"{args.experiment}: {args.oracles} oracles, test accuracy {100 * accuracy.mean():.1f}"
    ratio = f"{alone:.1f} s one after another ({alone / together:.2f} times as long)"
    print(f"{told}: {together:.1f} s as lanes, {ratio}")


def oracles(ids: np.ndarray, count: int) -> loop.Lane:
    """Lanes that each leave out a tenth of the examples, by id."""
    kept = np.stack([datasets.hash_uniform(ids, f"oracle{i}", 0) >= HELD_OUT for i in range(count)])
    lanes = loop.make_lanes(np.arange(count), kept[0], np.ones(len(ids)))
    return lanes._replace(member=jnp.asarray(kept))


def seconds(trainer: fleets.Trainer, lanes: loop.Lane) -> tuple[float, object]:
    """Wall time of a training without compilation, and its parameters."""
    way = trainer.way()
    epoch = epochs.make(way, trainer.devices)
    count, rest = divmod(way.steps, way.per_epoch)
    states = loop.init_lanes(way, lanes)
    for steps in {way.per_epoch, rest} - {0}:  # compile
        jax.block_until_ready(epoch(jax.tree.map(jnp.copy, states), lanes, trainer.data, None, 0, steps))
    with environment.stopwatch() as stopwatch:
        for number in range(count):
            states, _ = epoch(states, lanes, trainer.data, None, number, way.per_epoch)
        if rest:
            states, _ = epoch(states, lanes, trainer.data, None, count, rest)
        jax.block_until_ready(states)
        took = stopwatch()
    return took, states.params


def accuracies(trainer: fleets.Trainer, params: object, test: datasets.Split) -> np.ndarray:
    """[lanes] test accuracy."""
    statistics = make_statistics(models.as_model(trainer.model), trainer.devices)
    return evaluation.measure(statistics, params, datasets.batch(test))[0].mean(axis=1)


if __name__ == "__main__":
    main()

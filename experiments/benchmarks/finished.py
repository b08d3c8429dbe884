"""What benchmarks of readiness read off a finished comparison: its models by seed, an attack set, and cells of a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from experiments import models
from experiments.comparison import checks, run
from experiments.configs.comparison import Comparison
from experiments.core import keys
from experiments.core.keys import Purpose
from experiments.core.machines import execution
from experiments.data import datasets, problem
from experiments.data.sets import padded
from experiments.loading import Run, load
from experiments.scoring import relearning
from unlearn import Model
from unlearn.base import Batch
from unlearn.metrics.intervals import t_interval

SHOWN = (5, 10, 25, 50, 100)  # steps of an attack


class Finished(NamedTuple):
    """A finished comparison, with what its config leaves unset filled in, and one device as the comparison used it."""

    run: Run
    config: Comparison
    problem: problem.Problem
    model: Model
    devices: execution.Execution

    @property
    def seeds(self) -> range:
        """Of the models, one each."""
        return range(self.config.seed, self.config.seed + self.config.seeds)

    def params(self, training: str, variant: str = "default") -> Any:
        """The models of a way as they were trained, stacked by seed."""
        trees = [self.run.model(training, variant, seed)[1] for seed in self.seeds]
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)

    def attacked(self) -> tuple[Batch, Batch]:
        """The attack set of which a tenth is forgotten, and the rest of the forgotten; on the device."""
        attack, watched = relearning.attacks(self.config.relearn, self.problem)["part"]
        return jax.tree.map(jnp.asarray, (attack, padded(watched, len(watched["id"]))))

    def attack_keys(self) -> jax.Array:
        """Raw keys of attacks, one for each model."""
        return keys.raw(self.seeds, Purpose.ATTACK)


def finished(config: ml_collections.ConfigDict, workdir: str) -> Finished:
    """Run a comparison, or read it back."""
    run.run(config, workdir)
    resolved, found = checks.resolved(config), load(workdir)
    data = datasets.load(resolved.data)
    made = models.build(resolved.model, data.train.x[:1], data.classes, data.tokens)
    devices = execution.one_device(convolutional=made.convolutional)
    return Finished(found, resolved, problem.make(data, resolved.forget), models.as_model(made), devices)


def back(curves: np.ndarray) -> str:
    """Mean accuracy in % after the steps that are shown, of curves [models, steps + 1]."""
    curve = curves.mean(axis=0)
    return "/".join(f"{100 * curve[step]:.0f}" for step in SHOWN if step < len(curve))


def steps_shown(steps: int) -> str:
    """The steps that `back` is of, if an attack takes so many."""
    return "/".join(str(step) for step in SHOWN if step <= steps)


def mean(values: jax.Array | np.ndarray | Sequence[float], digits: str) -> str:
    """Mean ± half of the 95% t-interval over models."""
    interval = t_interval(np.asarray(values, np.float64))
    return f"{interval.mean:{digits}} ± {interval.high - interval.mean:{digits}}"

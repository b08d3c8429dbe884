"""What a model has of the leavers, and how far it is from one that never saw them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.data import datasets
from experiments.erasure import backdoor
from experiments.erasure.problem import Problem
from federated.history import Array
from unlearn.base import Batch
from unlearn.losses import weighted_mean

Apply = Callable[[Array, Any], Array]  # (vector, x) -> logits
AT_ONCE = 1000  # examples: activations of a test set of images, patches of convolutions above all, may take gigabytes


class Asked(NamedTuple):
    """The examples that models are asked about.

    test, validation: held out.  forgotten: all that is to go, as it was trained on.
    stamped: test images of other classes than the target, with the stamp; None without a backdoor.
    """

    test: Batch
    validation: Batch
    forgotten: Batch
    stamped: Any


class Answers(NamedTuple):
    """What a model answers.

    test: [test] its classes.  right: whether these are right.
    forgotten: [examples to go] bool, whether right.  margins: of these, log p - log(1 - p).
    triggered: share of stamped images that get the target; NaN without a backdoor.
    """

    test: np.ndarray
    right: np.ndarray
    forgotten: np.ndarray
    margins: np.ndarray
    triggered: float


def asked(problem: Problem, forgotten: Batch) -> Asked:
    """The examples of a problem's models, given those that are to go."""
    dataset, leaver = problem.dataset, problem.config.leaver
    test = datasets.batch(dataset.test)
    stamped = None
    if leaver.backdoor:
        others = test["x"][test["y"] != leaver.target]
        stamped = backdoor.stamped(others, leaver.stamp, float(dataset.train.x.max()))
    return Asked(test, datasets.batch(dataset.validation), forgotten, stamped)


def answers(problem: Problem, asked: Asked, apply: Apply, vector: Array) -> Answers:
    """What a model answers to all that is asked.

    Args:
      apply: the model.
      vector: its parameters.
    """
    told = classes(apply, vector, asked.test["x"])
    forgotten = jnp.asarray(in_parts(apply, vector, asked.forgotten["x"]))
    batch = jax.tree.map(jnp.asarray, asked.forgotten)
    triggered = np.nan
    if asked.stamped is not None:
        triggered = float((classes(apply, vector, asked.stamped) == problem.config.leaver.target).mean())
    return Answers(
        told,
        told == asked.test["y"],
        np.asarray(problem.model.correct(forgotten, batch)) > 0.5,
        np.asarray(problem.model.margin(forgotten, batch)),
        triggered,
    )


def classes(apply: Apply, vector: Array, x: Any) -> np.ndarray:
    """The class that a model tells of each example, [examples]."""
    return in_parts(apply, vector, x).argmax(axis=1)


def in_parts(apply: Apply, vector: Array, x: Any) -> np.ndarray:
    """A model's logits, of some examples at once, [examples, classes]."""
    parts = [apply(vector, x[first : first + AT_ONCE]) for first in range(0, len(x), AT_ONCE)]
    return np.concatenate([np.asarray(logits) for logits in parts])


def score(found: Answers, reference: Answers, gap: float, served_gap: float) -> dict[str, float]:
    """The numbers of a model beside its retraining.

    Args:
      found, reference: what the model and its retraining answer.
      gap: distance of its parameters from the retraining's.
      served_gap: that of the served model.
    """
    return {
        "test_accuracy": float(found.right.mean()),
        "test_gap": float(found.right.mean() - reference.right.mean()),
        "leaver_accuracy": float(found.forgotten.mean()),
        "leaver_gap": float(found.forgotten.mean() - reference.forgotten.mean()),
        "backdoor": found.triggered,
        "distance": gap / served_gap if served_gap else float("nan"),
        "disagreement": float((found.test != reference.test).mean()),
    }


def divergence(logits: Array, reference: Array, weights: Array) -> Array:
    """Weighted mean of KL(p_reference || p) over examples, in nats."""
    wanted, told = jax.nn.log_softmax(reference), jax.nn.log_softmax(logits)
    return weighted_mean(jnp.sum(jnp.exp(wanted) * (wanted - told), axis=1), weights)

"""How far models memorise each example: their confidence if trained with it less that if trained without (2008.03703)."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from experiments.core.errors import UserError
from experiments.core.keys import Hash, Purpose
from experiments.data import datasets
from experiments.judge import capacity, texts
from experiments.judge.cases import Case
from experiments.judge.ulira import halved
from experiments.training import loop

STAGE = "memorisation"


def memorisation(case: Case) -> np.ndarray:
    """Of each training example, of text to predict each document, [examples] float64 in [-1, 1].

    It comes from a fleet that judges nothing else, trained once.

    Raises:
      UserError: an example has no finite model with it, or none without.
    """

    def compute() -> np.ndarray:
        lanes = halves(case)
        params = capacity.train(case, case.trainer.way(), lanes, STAGE).params
        dataset = case.problem.dataset
        found = texts.statistics(case, params, datasets.batch(dataset.train))
        whole = texts.first_rows(dataset, np.arange(len(dataset.train.id)))
        return estimate(found.loss, np.asarray(lanes.member)[:, whole])

    return np.array(case.workdir.stage(STAGE, compute), np.float64)


def halves(case: Case) -> loop.Lane:
    """Plain models, each example in a random half of them, by its id alone."""
    ids, count = case.problem.dataset.asked_as, case.shared.judgement.memorisation_lanes
    member = halved(ids, range(count), case.seed, Hash.MEMORISATION)
    seeds = case.seed + np.arange(count)
    plain = loop.make_lanes(seeds, member[0], np.ones(len(ids)), purpose=Purpose.MEMORISATION)
    return plain._replace(member=jnp.asarray(member))


def estimate(losses: np.ndarray, member: np.ndarray) -> np.ndarray:
    """mean confidence of models trained with the example - mean confidence of models trained without it, [examples].

    Args:
      losses: [models, examples] -log p_y; models with a value that is not finite are left out.
      member: [models, examples] bool, who was trained on what.

    Raises:
      UserError: an example has no model with it, or none without.
    """
    finite = np.isfinite(losses).all(axis=1)
    confidence, member = np.exp(-losses[finite].astype(np.float64)), member[finite]
    inside = member.sum(axis=0)
    if not len(member) or min(inside.min(), (len(member) - inside).min()) < 1:
        raise UserError(
            f"memorisation: {len(member)} of {len(finite)} models are finite, too few for every example: "
            "raise --config.judge.memorisation_lanes, or lower --config.train.learning_rate"
        )
    means = [np.where(side, confidence, 0.0).sum(axis=0) / side.sum(axis=0) for side in (member, ~member)]
    return means[0] - means[1]

"""What DP-SGD guarantees: the sampling that a guarantee is of, its (epsilon, delta), and how a report says so.

Each example enters the batch of each step by itself, with probability q = batch size / examples (Poisson sampling); noise
and mean are those of a batch of the expected size. Two data sets are neighbours if one has an example more. How many
examples there are counts as known.
"""

from __future__ import annotations

import functools
import importlib.util
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from scipy import stats

from experiments.core import keys
from experiments.core.keys import Purpose
from experiments.core.notices import LOG
from unlearn.base import Array

OVERFLOW = 1e-9  # the probability that any batch of a training is larger than its room; it is part of delta
LOOSE = 1000.0  # an epsilon beyond it says nothing: Renyi's bound will do, which takes no memory (below, a gigabyte)
ORDERS = range(2, 513)
MISSING = "dp-accounting is not installed: pip install 'forethought[privacy]' and run again"


def capacity(batch_size: int, steps: int, examples: int) -> int:
    """Room for a batch that no step of a training outgrows but with probability OVERFLOW; a Poisson number's tail is longer
    than that of any binomial one of the same mean.
    """
    return min(examples, int(stats.poisson.isf(OVERFLOW / steps, batch_size)))


def rows(root: Array, member: Array, ids: Array, step: Array, batch_size: int, room: int) -> Array:
    """Positions of one step's batch, increasing, [room]; -1 where there is none.

    Whether an example is in it follows from its id, its key and q, so that no other example changes it.

    Args:
      root: key of the model.
      member: [examples] bool, who is trained on.
    """
    key = keys.fold(root, Purpose.POISSON, step)
    drawn = jax.vmap(lambda i: jax.random.bits(jax.random.fold_in(key, i)))(ids)
    rate = batch_size / jnp.sum(member)
    low = drawn < (rate * 2.0**32).astype(jnp.uint32)
    return jnp.flatnonzero(member & (low | (rate >= 1)), size=room, fill_value=-1)


@functools.cache
def epsilon(rate: float, noise: float, steps: int, delta: float) -> float:
    """The epsilon of so many steps of the sampled Gaussian mechanism, never too small; infinite without noise.

    Args:
      rate: q.
      noise: standard deviation on a sum of gradients of norm 1.

    Raises:
      ImportError: dp-accounting is not installed.
    """
    import dp_accounting
    from dp_accounting import pld, rdp

    if not noise:
        return math.inf
    relation = dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE
    step = dp_accounting.PoissonSampledDpEvent(rate, dp_accounting.GaussianDpEvent(noise))
    event = dp_accounting.SelfComposedDpEvent(step, steps)
    bound = rdp.RdpAccountant(ORDERS, relation).compose(event).get_epsilon(delta)
    if not bound <= LOOSE:
        return float(bound)
    return float(min(bound, pld.PLDAccountant(relation).compose(event).get_epsilon(delta)))


def guarantee(noise: float, delta: float, *, batch_size: int, steps: int, examples: int) -> dict[str, Any]:
    """Facts of a row whose batches were drawn by Poisson sampling.

    Args:
      delta: 0 is examples ** -1.1.
      examples: the fewest that a model was trained on.

    Returns:
      sampling, delta, and epsilon: None where there is none, or nothing to count it with.
    """
    delta = delta or examples**-1.1
    try:
        found = epsilon(min(1.0, batch_size / examples), noise, steps, delta - OVERFLOW)
    except ImportError:
        found = math.nan
    return {"sampling": "poisson", "epsilon": found if math.isfinite(found) else None, "delta": delta, "noise": noise}


SHUFFLED: dict[str, Any] = {"sampling": "shuffled"}


def warn() -> None:
    """Say before a training that its epsilon cannot be counted, if it cannot."""
    if importlib.util.find_spec("dp_accounting") is None:
        LOG.warning("no epsilon of DP-SGD will be stated: %s", MISSING)


def said(facts: Mapping[str, Any]) -> str:
    """The sentence that a report has of DP-SGD, by the facts of its rows; those of older runs have none."""
    if facts.get("sampling") != "poisson":
        return "Batches of DP-SGD were shuffled, not drawn by Poisson sampling: no guarantee (epsilon, delta) is claimed."
    if facts["epsilon"] is None:
        why = MISSING if facts["noise"] else "it was trained without noise"
        return f"Of DP-SGD no guarantee (epsilon, delta) is claimed: {why}."
    return (
        f"DP-SGD: the parameters before the request are ({facts['epsilon']:.3g}, {facts['delta']:.2g})-differentially "
        "private, of adding or removing one training example, by dp-accounting under Poisson sampling. That holds for one "
        "model, and not for what was standardised, chosen or reported by the same data."
    )

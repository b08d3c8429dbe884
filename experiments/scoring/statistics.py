"""Statistics of single examples, reduced on the device: what scores, attacks and fleets look at and keep.

No logits leave the device, since a vocabulary has 50,000 entries. An example with a logit that is not finite has NaN in
every statistic, so that a model that failed is seen to have failed.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.core.machines import fleet
from experiments.core.machines.execution import Execution
from unlearn import losses
from unlearn.base import Array, Batch, Model
from unlearn.metrics import scores
from unlearn.model import token_mean

CHUNK = 500  # examples looked at together, whatever the set: one compiled shape
CHUNK_TOKENS = 8192  # of texts: each has as many logits as the vocabulary has entries
CHUNK_LOGITS = 1 << 25  # and so fewer tokens of a large vocabulary


class Statistics(NamedTuple):
    """Of each example, [..., examples] float32; leading axes are models.

    Of a text all are of its mean token.

    loss: -log p_y = log(1 + exp(-margin)).
    margin: log p_y - log(1 - p_y) = z_y - log sum over j != y of exp z_j.
    correct: 1 where the largest logit is the label's, else 0.
    entropy: -sum_i p_i log p_i.
    modified_entropy: of Song and Mittal, which knows the label; see `unlearn.losses`.
    """

    loss: np.ndarray
    margin: np.ndarray
    correct: np.ndarray
    entropy: np.ndarray
    modified_entropy: np.ndarray


Reduction = Callable[[Any, Batch], Statistics]  # (params of all lanes, batch) -> [lanes, examples] each


@functools.lru_cache
def make_statistics(model: Model, devices: Execution) -> Reduction:
    """`(params of all lanes, batch) -> Statistics` [lanes, examples], in chunks of one compiled shape."""
    of_example = _of_example(model)

    def reduced(params: Any, batch: Batch) -> tuple[Array, ...]:
        logits, labels = model.apply(params, batch["x"], None), batch["y"]
        margin = model.margin(logits, batch)
        every = (
            jax.nn.softplus(-margin),
            margin,
            model.correct(logits, batch),
            of_example(losses.entropy(logits), batch),
            of_example(losses.modified_entropy(logits, labels), batch),
        )
        return tuple(jnp.where(_finite(logits), values, jnp.nan) for values in every)

    over = devices.lanes(reduced)

    def statistics(params: Any, batch: Batch) -> Statistics:
        looked_at = {name: batch[name] for name in ("x", "y", "token_weight") if name in batch}
        return Statistics(*in_chunks(lambda part: over(params, part), looked_at, entries_of(model, params, batch["x"])))

    return statistics


@functools.lru_cache
def make_divergence(model: Model, devices: Execution) -> Callable[[Any, Any, Batch], np.ndarray]:
    """`(params of all lanes, params of all teachers, batch) -> [lanes, examples]` float32: the mean over teachers of the
    Jensen-Shannon divergence in bits of a lane's answers from a teacher's; both in one program."""
    of_example = _of_example(model)

    def reduced(params: Any, teachers: Any, batch: Batch) -> Array:
        logits = model.apply(params, batch["x"], None)
        each = (fleet.lane(teachers, i) for i in range(fleet.lane_count(teachers)))  # a loop: see core.fleet
        divergences = [losses.js_divergence(logits, model.apply(teacher, batch["x"], None)) for teacher in each]
        mean = jnp.stack([of_example(values, batch) for values in divergences]).mean(axis=0)
        return jnp.where(_finite(logits), mean, jnp.nan)

    over = devices.lanes(reduced)

    def divergence(params: Any, teachers: Any, batch: Batch) -> np.ndarray:
        looked_at = {name: batch[name] for name in ("x", "token_weight") if name in batch}
        entries = entries_of(model, params, batch["x"])
        found: np.ndarray = in_chunks(lambda part: over(params, teachers, part), looked_at, entries)
        return found

    return divergence


def _of_example(model: Model) -> Callable[[Array, Batch], Array]:
    """What an example has, from what its logits have: of a text, the mean over its tokens."""
    return (lambda values, batch: values) if model.token_loss is None else token_mean


def _finite(logits: Array) -> Array:
    """[examples] bool: whether all logits of an example are finite."""
    return jnp.isfinite(logits).reshape(len(logits), -1).all(axis=-1)


def entries_of(model: Model, params: Any, x: Any) -> int:
    """How many logits a model has for each token of a text to predict, as `in_chunks` takes it; 1 of anything else.

    Args:
      params: of all lanes.
      x: of a batch.
    """
    if model.token_loss is None:
        return 1
    one = jax.eval_shape(lambda params: fleet.lane(params, 0), params)
    logits: Any = jax.eval_shape(
        lambda params, x: model.apply(params, x, None), one, jax.tree.map(lambda leaf: leaf[:1], x)
    )
    return int(logits.shape[-1])


def in_chunks(fn: Callable[[Any], Any], examples: Any, entries: int = 1) -> Any:
    """`fn` of examples, a pytree of [examples, ...] arrays, CHUNK at a time: numpy arrays [lanes, examples, ...].

    Of texts it is CHUNK_TOKENS tokens at a time, fewer if these had more than CHUNK_LOGITS logits, and no less than one
    text. The last chunk is filled up with zeros, whose results are left out.

    Args:
      entries: logits of a token.
    """
    parts, count, chunk = [], len(jax.tree.leaves(examples)[0]), chunk_of(examples, entries)
    for start in range(0, count, chunk):
        size = min(chunk, count - start)
        part = jax.tree.map(lambda leaf: _filled(leaf[start : start + chunk], chunk), examples)  # noqa: B023
        parts.append(jax.tree.map(lambda leaf: np.asarray(leaf)[:, :size], fn(part)))  # noqa: B023
    return jax.tree.map(lambda *leaves: np.concatenate(leaves, axis=1), *parts)


def chunk_of(examples: Any, entries: int = 1) -> int:
    """How many examples are looked at together, of a pytree of [examples, ...] arrays, with so many logits of a token."""
    leaves = jax.tree.leaves(examples)
    tokens = [leaf.shape[1] for leaf in leaves if np.issubdtype(leaf.dtype, np.integer) and leaf.ndim == 2]
    most = min(CHUNK_TOKENS, CHUNK_LOGITS // entries)
    return max(1, most // max(tokens)) if tokens else CHUNK


def _filled(leaf: np.ndarray, size: int) -> Array:
    missing = size - len(leaf)
    return jnp.asarray(np.concatenate([leaf, np.zeros((missing, *leaf.shape[1:]), leaf.dtype)]))


def finite(statistics: Statistics) -> np.ndarray:
    """[...] bool: the models whose every logit is finite."""
    return np.isfinite(np.stack(statistics)).all(axis=(0, -1))


def of_logits(logits: np.ndarray, labels: np.ndarray) -> Statistics:
    """The slow twin, on the host in float64: of logits [models, examples, classes] that an older version kept."""
    is_finite = np.isfinite(logits).all(axis=-1)
    known = np.where(is_finite[..., None], logits, 0.0)
    every = (
        scores.loss(known, labels),
        scores.margin(known, labels),
        known.argmax(axis=-1) == labels,
        scores.entropy(known, labels),
        scores.modified_entropy(known, labels),
    )
    return Statistics(*(np.where(is_finite, values, np.nan) for values in every))

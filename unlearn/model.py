"""What the pure rooms see of a model and of its data: functions and mappings of arrays, never modules."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from unlearn import losses

Array = jax.Array
Params = Any
Batch = Mapping[str, Any]  # x, y (arrays or pytrees of them), id (stable identity), weight (0 pads); examples lead each
Apply = Callable[[Params, Any, Array | None], Any]

CLASSIFIER, LANGUAGE = "classifier", "language"
KINDS = (CLASSIFIER, LANGUAGE)


def _class_correct(logits: Array, batch: Batch) -> Array:
    return losses.correct(logits, batch["y"])


class Model(NamedTuple):
    """A model as functions; `classifier` and `sequence_model` make one from `apply`, equal ones from equal functions.

    apply: (params, x, key) -> logits, the examples leading; the key is dropout's, None asks for a prediction.
    loss: (logits, batch) -> [examples].
    margin: (logits, batch) -> [examples], log p - log(1 - p) of the right answer.
    divergence: (reference logits, logits, batch) -> [examples], zero where they agree.
    features: (params, x, key) -> [examples, ...], or None.
    token_loss: (logits, batch) -> [examples, length], of a language model -log p of every token; None of a classifier.
    correct: (logits, batch) -> [examples], how much of an example is told right: 0 or 1, of a text the share of its tokens.
    parts: how batches are evaluated part by part, as `microbatched` makes it; None: at once.
    """

    apply: Apply
    loss: Callable[[Any, Batch], Array]
    margin: Callable[[Any, Batch], Array]
    divergence: Callable[[Any, Any, Batch], Array]
    features: Apply | None = None
    token_loss: Callable[[Any, Batch], Array] | None = None
    correct: Callable[[Any, Batch], Array] = _class_correct
    parts: Any = None


def classifier(apply: Apply, features: Apply | None = None) -> Model:
    """The model of a classifier: logits [examples, classes], integer labels y [examples].

    loss = -log p_y; margin = log p_y - log(1 - p_y); divergence = KL(p_reference || p).

    Args:
      apply: (params, x, key) -> logits.
      features: (params, x, key) -> [examples, ...], if something is to be measured on them.

    Example:
      >>> import jax.numpy as jnp
      >>> model = classifier(lambda params, x, key: x @ params)
      >>> logits = model.apply(jnp.eye(2), jnp.log(jnp.array([[3.0, 1.0]])), None)
      >>> loss, margin = model.loss(logits, {"y": jnp.array([0])}), model.margin(logits, {"y": jnp.array([0])})
      >>> print(f"{loss[0]:.3f} {margin[0]:.3f}")  # log 4/3 and log 3
      0.288 1.099
    """
    return Model(apply, _class_loss, _class_margin, _class_divergence, features)


def sequence_model(apply: Apply, features: Apply | None = None) -> Model:
    """The model of a language model: an example is a document, reduced to one number before anything else is done.

    With l_t = -log p(y_t) and token weights w_t, loss = sum_t w_t l_t / sum_t w_t. The margin is that of the mean token:
    with p = exp(-loss), log p - log(1 - p). The divergence is the mean of the tokens' KL(p_reference || p).

    Args:
      apply: (params, x, key) -> logits [examples, length, vocabulary], of tokens x [examples, length].
      features: (params, x, key) -> [examples, ...], if something is to be measured on them.

    A batch holds the tokens to predict, y [examples, length], and beside them, if not all of them count,
    `token_weight` [examples, length]; a document of no tokens has loss 0.

    Example:
      >>> import jax.numpy as jnp
      >>> model = sequence_model(lambda params, x, key: params[x])
      >>> logits = model.apply(jnp.log(jnp.array([[3.0, 1.0], [1.0, 1.0]])), jnp.array([[0, 1]]), None)
      >>> batch = {"y": jnp.array([[1, 0]]), "token_weight": jnp.array([[1.0, 0.0]])}
      >>> print(f"{model.loss(logits, batch)[0]:.3f}")  # log 4, of the one token that counts
      1.386
    """
    return Model(apply, _sequence_loss, _sequence_margin, _sequence_divergence, features, _token_loss, _sequence_correct)


def _class_loss(logits: Array, batch: Batch) -> Array:
    return losses.cross_entropy(logits, batch["y"])


def _class_margin(logits: Array, batch: Batch) -> Array:
    return losses.margin(logits, batch["y"])


def _class_divergence(reference_logits: Array, logits: Array, batch: Batch) -> Array:
    return losses.kl_divergence(reference_logits, logits)


def _token_loss(logits: Array, batch: Batch) -> Array:
    return losses.cross_entropy(logits, batch["y"])


def _sequence_loss(logits: Array, batch: Batch) -> Array:
    return token_mean(_token_loss(logits, batch), batch)


def _sequence_correct(logits: Array, batch: Batch) -> Array:
    return token_mean(losses.correct(logits, batch["y"]), batch)


def _sequence_margin(logits: Array, batch: Batch) -> Array:
    loss = _sequence_loss(logits, batch)
    # A loss below the smallest float would have the margin infinity, and its slope would not be a number.
    loss = jnp.maximum(loss, jnp.finfo(loss.dtype).tiny)
    return -loss - jnp.log(-jnp.expm1(-loss))


def _sequence_divergence(reference_logits: Array, logits: Array, batch: Batch) -> Array:
    return token_mean(losses.kl_divergence(reference_logits, logits), batch)


def token_mean(values: Array, batch: Batch) -> Array:
    """The mean over the tokens of each document, [examples, length] -> [examples]; tokens of weight 0 are never read."""
    total = jnp.sum(_token_weights(values, batch), axis=-1)
    return token_sum(values, batch) / jnp.where(total > 0, total, 1.0)


def token_sum(values: Array, batch: Batch) -> Array:
    """The weighted sum over the tokens of each document, [examples, length] -> [examples]; see `token_mean`."""
    weights = _token_weights(values, batch)
    return jnp.sum(jnp.where(weights > 0, values, 0.0) * weights, axis=-1)


def _token_weights(values: Array, batch: Batch) -> Array:
    weights = batch.get("token_weight")
    weights = jnp.ones_like(values) if weights is None else weights
    losses.require_same_shape(values, weights)
    return weights

"""Losses on logits, one number per example, and the weighted mean that reduces them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.scipy.special import xlogy

Array = jax.Array


def weighted_mean(values: Array, weights: Array) -> Array:
    """Mean of `values` under `weights`: sum(w v) / sum(w), and 0 where all weights are 0.

    This is the reduction for one device and for sharded arrays under `jit`; another device mode passes its own.

    Args:
      values: [examples] float. Entries of weight 0 are never read, so padding may hold anything.
      weights: [examples] float, not negative.

    Raises:
      ValueError: values and weights of different shapes, which broadcasting would average wrongly in silence.
    """
    require_same_shape(values, weights)
    total = jnp.sum(weights)
    kept = jnp.where(weights > 0, values, 0.0)
    return jnp.sum(kept * weights) / jnp.where(total > 0, total, 1.0)


def require_same_shape(values: Array, weights: Array) -> None:
    """Refuse to reduce values with weights of another shape; shared by the means of all device modes.

    Raises:
      ValueError: one line with both shapes.
    """
    if jnp.shape(values) != jnp.shape(weights):
        raise ValueError(
            f"values of shape {jnp.shape(values)} cannot be reduced with weights of shape {jnp.shape(weights)}: "
            "reduce tokens to one value per example first"
        )


def require_labels(logits: Array, labels: Array) -> None:
    """Refuse labels that broadcasting would compare with other examples' logits in silence.

    Raises:
      ValueError: one line with both shapes.
    """
    if jnp.shape(labels) != jnp.shape(logits)[:-1]:
        raise ValueError(
            f"labels of shape {jnp.shape(labels)} are not those of logits of shape {jnp.shape(logits)}: "
            f"give one label for each row of logits, {jnp.shape(logits)[:-1]}"
        )


def cross_entropy(logits: Array, labels: Array) -> Array:
    """-log p_y for logits [..., classes] and integer labels [...], in float32 or wider."""
    require_labels(logits, labels)
    log_p = jax.nn.log_softmax(_wide(logits))
    return -jnp.take_along_axis(log_p, labels[..., None], axis=-1)[..., 0]


def margin(logits: Array, labels: Array) -> Array:
    """Margin log p_y - log(1 - p_y) = z_y - logsumexp over the other classes: exact where p_y rounds to 0 or 1."""
    require_labels(logits, labels)
    wide = _wide(logits)
    own = jnp.take_along_axis(wide, labels[..., None], axis=-1)[..., 0]
    return own - jax.nn.logsumexp(jnp.where(_is(labels, wide), -jnp.inf, wide), axis=-1)


def huber(distance: Array, width: float) -> Array:
    """d^2 / 2w within `width` w of 0, and |d| - w / 2 beyond: slope 1 at most."""
    far = jnp.abs(distance)
    return jnp.where(far < width, distance**2 / (2 * width), far - width / 2)


def kl_divergence(reference_logits: Array, logits: Array) -> Array:
    """KL(p_reference || p) for two arrays of logits [..., classes]: zero where they agree, never negative."""
    if jnp.shape(reference_logits) != jnp.shape(logits):
        shapes = f"{jnp.shape(reference_logits)} and {jnp.shape(logits)}"
        raise ValueError(f"logits of shapes {shapes} cannot be compared: give both of the same examples and classes")
    log_q = jax.nn.log_softmax(_wide(reference_logits))
    log_p = jax.nn.log_softmax(_wide(logits))
    return jnp.sum(jnp.exp(log_q) * (log_q - log_p), axis=-1)


def correct(logits: Array, labels: Array) -> Array:
    """1.0 where the largest logit is the label's, else 0.0; NaN logits are never correct."""
    require_labels(logits, labels)
    hit = jnp.argmax(logits, axis=-1) == labels
    return (hit & ~jnp.any(jnp.isnan(logits), axis=-1)).astype(jnp.float32)


def confidence(logits: Array, labels: Array) -> Array:
    """p_y: the probability given to the label."""
    return jnp.exp(-cross_entropy(logits, labels))


def entropy(logits: Array) -> Array:
    """-sum_i p_i log p_i, [..., classes] -> [...]: exact also where one p_i rounds to 1."""
    wide, top = _with_top(logits)
    log_p = jnp.where(_is(top, wide), -jax.nn.softplus(-margin(wide, top))[..., None], jax.nn.log_softmax(wide))
    return -jnp.sum(jnp.exp(log_p) * log_p, axis=-1)


def modified_entropy(logits: Array, labels: Array) -> Array:
    """-(1 - p_y) log p_y - sum over i != y of p_i log(1 - p_i): low only where the model is sure and right.

    From Song and Mittal (2003.10595). Of the largest p_i, 1 - p_i is the sum of the others, so that nothing cancels.
    """
    require_labels(logits, labels)
    wide, top = _with_top(logits)
    p, is_top = jnp.exp(jax.nn.log_softmax(wide)), _is(top, wide)
    log_rest = jnp.where(is_top, -jax.nn.softplus(margin(wide, top))[..., None], jnp.log1p(-jnp.where(is_top, 0.0, p)))
    others = jnp.sum(jnp.where(_is(labels, wide), 0.0, -p * log_rest), axis=-1)
    of_label = margin(wide, labels)
    return jax.nn.sigmoid(-of_label) * jax.nn.softplus(-of_label) + others


def js_divergence(logits: Array, other_logits: Array) -> Array:
    """Jensen-Shannon divergence (KL(p || m) + KL(q || m)) / 2 with m = (p + q) / 2, in bits: [..., classes] -> [...].

    Symmetric, and between 0 and 1 however many classes there are.
    """
    p, q = (jax.nn.softmax(_wide(one)) for one in (logits, other_logits))
    middle = (p + q) / 2
    nats = (xlogy(p, p) + xlogy(q, q)) / 2 - xlogy(middle, middle)
    return jnp.clip(jnp.sum(nats, axis=-1) / jnp.log(2.0), 0.0, 1.0)


def _with_top(logits: Array) -> tuple[Array, Array]:
    wide = _wide(logits)
    return wide, jnp.argmax(wide, axis=-1)


def _is(classes: Array, logits: Array) -> Array:
    """[..., classes] bool: which class is the one named in `classes` [...]."""
    return jnp.arange(logits.shape[-1]) == classes[..., None]


def _wide(logits: Array) -> Array:
    return logits.astype(jnp.promote_types(logits.dtype, jnp.float32))

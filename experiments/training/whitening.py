"""A quick recipe for small colour images: whitening filters, Nesterov's SGD on a triangular schedule, mirrored answers.

Filters are computed for each lane from its own members: those of an oracle have never seen what it must not know.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from experiments.models.layers import patches
from experiments.models.whitened import PATCH, SQUARE, Whitened
from unlearn.base import Array, Model

FLOOR = 1e-3  # of the mean variance of a patch's pixels, added to each component's: whitening does not blow up noise
AT_ONCE = 512  # images in memory at a time where they stay on disk


def optimizer(learning_rate: float, momentum: float, steps: int) -> optax.GradientTransformation:
    """Nesterov's SGD; the rate rises linearly over the first quarter of the steps and then falls linearly to 0."""
    peak = max(1, steps // 4)
    rise = optax.linear_schedule(0.2 * learning_rate, learning_rate, peak)
    fall = optax.linear_schedule(learning_rate, 0.0, max(1, steps - peak))
    return optax.sgd(optax.join_schedules([rise, fall], [peak]), momentum=momentum, nesterov=True)


def both_ways(model: Model) -> Model:
    """The model that answers with the mean of its logits on an image and on its mirror image."""

    def apply(params: Any, x: Array, key: Array | None) -> Array:
        return (model.apply(params, x, key) + model.apply(params, x[:, :, ::-1], key)) / 2

    return model._replace(apply=apply)


def prepared(module: nn.Module | None, params: Any, member: Array, x: Any) -> Any:
    """Initial parameters of all lanes, with what the module takes from the images that a lane is trained on: `Whitened`'s
    filters, which whiten the patches of the lane's members. Other modules take nothing.

    Args:
      params: of all lanes.
      member: [lanes, examples] bool.
      x: [examples, height, width, channels], an array or Images.
    """
    if type(module) is not Whitened:
        return params
    parts = [_moments(jnp.asarray(x[start : start + AT_ONCE])) for start in range(0, len(x), AT_ONCE)]
    filters = _filters(jnp.asarray(member), jnp.concatenate(parts))
    return {**params, "whitening": filters.reshape(params["whitening"].shape)}


@jax.jit
def _moments(x: Array) -> Array:
    """Of each image, the mean over its patches of the products of any two of their pixels, [examples, pixels, pixels]."""
    pixels = patches(x, SQUARE, SQUARE, "VALID").reshape(len(x), -1, PATCH**2 * x.shape[-1])
    return jnp.einsum("npi,npj->nij", pixels, pixels) / pixels.shape[1]


@jax.jit
def _filters(member: Array, moments: Array) -> Array:
    """Each lane's orthogonal components of the patches, scaled to variance 1, [lanes, pixels, components]."""
    known = jnp.where(member[:, :, None, None], moments, 0.0)  # a selection: what is no member may hold anything
    variances, components = jnp.linalg.eigh(jnp.sum(known, axis=1) / jnp.sum(member, axis=1)[:, None, None])
    floor = FLOOR * jnp.mean(variances, axis=1, keepdims=True)
    return components / jnp.sqrt(variances + floor)[:, None, :]

"""What the shipped models share: dropout that follows from the call, logits in full precision, and patches."""

from __future__ import annotations

import itertools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


def drop(module: nn.Module, x: jax.Array, rate: float) -> jax.Array:
    """Dropout where the call has a key for it, and x itself in a prediction."""
    return nn.Dropout(rate, deterministic=not module.has_rng("dropout"))(x) if rate else x


def logits(module: nn.Module, x: jax.Array, classes: int, dtype: Any) -> jax.Array:
    """The last Dense layer; what it gives is float32 again if activations are shorter."""
    y = nn.Dense(classes, dtype=dtype)(x)
    return y if dtype is None else y.astype(jnp.float32)


def patches(x: jax.Array, window: tuple[int, ...], strides: tuple[int, ...], padding: Any) -> jax.Array:
    """What a convolution sees at each position, [examples, *positions, window x channels].

    What `jax.lax.conv_general_dilated_patches` gives, in another order: that is a convolution itself, and takes three times
    as long in a loop on a CPU.

    Args:
      x: [examples, *space, channels].
      window, strides: of each axis of space.
      padding: SAME or VALID.
    """
    pads = jax.lax.padtype_to_pads(x.shape[1:-1], window, strides, padding)
    x = jnp.pad(x, [(0, 0), *pads, (0, 0)])
    spans = [(size - w) // s * s + 1 for size, w, s in zip(x.shape[1:-1], window, strides, strict=True)]

    def shifted(start: tuple[int, ...]) -> jax.Array:
        space = (slice(i, i + span, s) for i, span, s in zip(start, spans, strides, strict=True))
        return x[(slice(None), *space)]

    seen = jnp.stack([shifted(start) for start in itertools.product(*map(range, window))], axis=-2)
    return seen.reshape(*seen.shape[:-2], math.prod(window) * x.shape[-1])

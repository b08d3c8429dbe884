"""What the shipped models share: dropout that follows from the call, and logits in full precision."""

from __future__ import annotations

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

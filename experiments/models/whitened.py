"""A convolutional net whose first layer is fixed: patches of 2x2 pixels, whitened."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from experiments.models.layers import drop, logits, patches

PATCH = 2
SQUARE = (PATCH, PATCH)


class Whitened(nn.Module):
    """Whitened patches, then 3x3 convolutions that halve the image, each with GroupNorm and GELU, then their mean.

    The filters are a parameter, since they belong to a model and not to the code, but have no gradient (a decay of
    weights and DP-SGD's noise do reach them). Freshly initialised they are random; `recipe.prepared` computes them from
    a lane's members.
    """

    classes: int
    widths: tuple[int, ...] = (32, 64, 128)
    groups: int = 8
    dtype: Any = None
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        inputs = PATCH**2 * x.shape[-1]
        filters = self.param("whitening", nn.initializers.orthogonal(), (PATCH, PATCH, x.shape[-1], inputs))
        x = patches(x, SQUARE, SQUARE, "VALID") @ jax.lax.stop_gradient(filters).reshape(inputs, inputs)
        for width in self.widths:
            x = nn.Conv(width, (3, 3), use_bias=False, dtype=self.dtype)(x)
            x = nn.gelu(nn.GroupNorm(num_groups=self.groups, dtype=self.dtype)(_halved(x)))
        return logits(self, drop(self, jnp.mean(x, axis=(1, 2)), self.dropout), self.classes, self.dtype)


def _halved(x: jax.Array) -> jax.Array:
    """The largest of each 2x2 positions; by reshaping, whose gradient is quicker on a CPU than a pooling window's."""
    n, height, width, channels = x.shape
    x = x[:, : height // 2 * 2, : width // 2 * 2]
    return jnp.max(x.reshape(n, height // 2, 2, width // 2, 2, channels), axis=(2, 4))

"""A multi-layer perceptron on flattened images, or on the rows of a table."""

from typing import Any

import flax.linen as nn
import jax

from experiments.models.layers import drop, logits


class MLP(nn.Module):
    """Dense layers with ReLU; logits [examples, classes] from x [examples, ...]."""

    classes: int
    widths: tuple[int, ...] = (256, 256)
    dtype: Any = None
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = x.reshape(x.shape[0], -1)
        for width in self.widths:
            x = drop(self, nn.relu(nn.Dense(width, dtype=self.dtype)(x)), self.dropout)
        return logits(self, x, self.classes, self.dtype)

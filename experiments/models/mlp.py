"""A multi-layer perceptron on flattened images."""

import flax.linen as nn
import jax


class MLP(nn.Module):
    """Dense layers with ReLU; logits [examples, classes] from x [examples, ...]."""

    classes: int
    widths: tuple[int, ...] = (256, 256)

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = x.reshape(x.shape[0], -1)
        for width in self.widths:
            x = nn.relu(nn.Dense(width)(x))
        return nn.Dense(self.classes)(x)

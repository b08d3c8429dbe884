"""A small vision transformer: patches, pre-norm blocks, mean pooling."""

import flax.linen as nn
import jax
import jax.numpy as jnp


class EncoderBlock(nn.Module):
    """Self-attention and a two-layer perceptron, each after a LayerNorm and beside a residual connection."""

    heads: int
    mlp_ratio: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        width = x.shape[-1]
        h = nn.LayerNorm()(x)
        x = x + nn.MultiHeadDotProductAttention(num_heads=self.heads)(h, h)
        h = nn.gelu(nn.Dense(self.mlp_ratio * width)(nn.LayerNorm()(x)))
        return x + nn.Dense(width)(h)


class ViT(nn.Module):
    """A ViT on square patches; the image's sides must be multiples of `patch`."""

    classes: int
    patch: int = 4
    width: int = 64
    depth: int = 4
    heads: int = 4
    mlp_ratio: int = 2

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        if x.shape[1] % self.patch or x.shape[2] % self.patch:
            raise ValueError(
                f"images of {x.shape[1]}x{x.shape[2]} cannot be cut into patches of {self.patch}; set model.patch"
            )
        x = nn.Conv(self.width, (self.patch, self.patch), strides=(self.patch, self.patch), padding="VALID")(x)
        x = x.reshape(x.shape[0], -1, self.width)
        x = x + self.param("positions", nn.initializers.normal(0.02), (1, x.shape[1], self.width), jnp.float32)
        for _ in range(self.depth):
            x = EncoderBlock(self.heads, self.mlp_ratio)(x)
        return nn.Dense(self.classes)(jnp.mean(nn.LayerNorm()(x), axis=1))

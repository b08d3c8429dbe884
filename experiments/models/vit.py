"""A small vision transformer: patches, pre-norm blocks, mean pooling."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from experiments.models.layers import drop, logits


class EncoderBlock(nn.Module):
    """Self-attention and a two-layer perceptron, each after a LayerNorm and beside a residual connection."""

    heads: int
    mlp_ratio: int
    dtype: Any = None
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        width = x.shape[-1]
        h = nn.LayerNorm(dtype=self.dtype)(x)
        h = nn.MultiHeadDotProductAttention(num_heads=self.heads, dtype=self.dtype)(h, h)
        x = x + drop(self, h, self.dropout)
        h = nn.gelu(nn.Dense(self.mlp_ratio * width, dtype=self.dtype)(nn.LayerNorm(dtype=self.dtype)(x)))
        return x + drop(self, nn.Dense(width, dtype=self.dtype)(h), self.dropout)


class ViT(nn.Module):
    """A ViT on square patches; the image's sides must be multiples of `patch`.

    With `remat`, blocks are computed again for the gradient instead of being remembered.
    """

    classes: int
    patch: int = 4
    width: int = 64
    depth: int = 4
    heads: int = 4
    mlp_ratio: int = 2
    remat: bool = False
    dtype: Any = None
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        if x.shape[1] % self.patch or x.shape[2] % self.patch:
            raise ValueError(
                f"images of {x.shape[1]}x{x.shape[2]} cannot be cut into patches of {self.patch}; set model.patch"
            )
        sides = (self.patch, self.patch)
        x = nn.Conv(self.width, sides, strides=sides, padding="VALID", dtype=self.dtype)(x)
        x = x.reshape(x.shape[0], -1, self.width)
        x = x + self.param("positions", nn.initializers.normal(0.02), (1, x.shape[1], self.width), jnp.float32)
        block = nn.remat(EncoderBlock) if self.remat else EncoderBlock
        for i in range(self.depth):
            x = block(self.heads, self.mlp_ratio, self.dtype, self.dropout, name=f"EncoderBlock_{i}")(x)
        return logits(self, jnp.mean(nn.LayerNorm(dtype=self.dtype)(x), axis=1), self.classes, self.dtype)

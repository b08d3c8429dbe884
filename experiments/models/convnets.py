"""Convolutional nets with GroupNorm: batch statistics would carry forgotten data and break meta-gradients."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from experiments.models.layers import drop, logits


class CNN(nn.Module):
    """Stride-2 convolutions, each with GroupNorm and ReLU, then one hidden dense layer.

    Strides instead of pooling: on a CPU the second-order step is several times faster so.
    """

    classes: int
    widths: tuple[int, ...] = (32, 64)
    hidden: int = 128
    groups: int = 8
    dtype: Any = None
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for width in self.widths:
            x = nn.Conv(width, (3, 3), strides=(2, 2), dtype=self.dtype)(x)
            x = nn.relu(nn.GroupNorm(num_groups=self.groups, dtype=self.dtype)(x))
        x = nn.relu(nn.Dense(self.hidden, dtype=self.dtype)(x.reshape(x.shape[0], -1)))
        return logits(self, drop(self, x, self.dropout), self.classes, self.dtype)


class Block(nn.Module):
    """Two 3x3 convolutions with a residual connection, projected where the shape changes."""

    width: int
    stride: int
    groups: int
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        norm = lambda h: nn.GroupNorm(num_groups=self.groups, dtype=self.dtype)(h)  # noqa: E731
        conv = functools.partial(nn.Conv, self.width, use_bias=False, dtype=self.dtype)
        strides = (self.stride, self.stride)
        h = nn.relu(norm(conv((3, 3), strides=strides)(x)))
        h = norm(conv((3, 3))(h))
        if x.shape != h.shape:
            x = norm(conv((1, 1), strides=strides)(x))
        return nn.relu(x + h)


class ResNet18(nn.Module):
    """ResNet-18 for small images (3x3 stem, no pooling before the stages); `width` 64 is the usual size."""

    classes: int
    width: int = 64
    groups: int = 8
    stages: tuple[int, ...] = (2, 2, 2, 2)
    dtype: Any = None
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.Conv(self.width, (3, 3), use_bias=False, dtype=self.dtype)(x)
        x = nn.relu(nn.GroupNorm(num_groups=self.groups, dtype=self.dtype)(x))
        for stage, blocks in enumerate(self.stages):
            for block in range(blocks):
                stride = 2 if stage and not block else 1
                x = Block(self.width * 2**stage, stride, self.groups, self.dtype)(x)
        return logits(self, drop(self, jnp.mean(x, axis=(1, 2)), self.dropout), self.classes, self.dtype)

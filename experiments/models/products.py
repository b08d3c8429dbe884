"""Convolutions written as the matrix products that they are, for many models in one compiled loop on a CPU.

There XLA takes a convolution that is vmapped over kernels, or sits in a scan, several times as long as a Python loop over
single ones; a matrix product it does not. Thirty clients' CNNs train eight times as fast so
(`experiments/benchmarks/lanes.py --models cnn --lanes 30`).
"""

from __future__ import annotations

import functools
import itertools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from experiments.models.functions import ModelFns
from unlearn.base import Array


@functools.lru_cache
def as_products(fns: ModelFns) -> ModelFns:
    """The same model of the same parameters, whose convolutions are matrix products, up to rounding.

    What is no plain `nn.Conv` (see `is_plain`) stays as it is. Equal functions are one program, as of `of_module`.

    Example:
      >>> from experiments.models import CNN, of_module
      >>> fns = of_module(CNN(classes=10), (28, 28, 1), convolutional=True)
      >>> params, images = fns.init(jax.random.key(0)), jnp.ones((2, 28, 28, 1))
      >>> gap = as_products(fns).apply(params, images, None) - fns.apply(params, images, None)
      >>> bool(jnp.abs(gap).max() < 1e-5)
      True
    """

    def apply(params: Any, x: Array, key: Array | None) -> Array:
        with nn.intercept_methods(_multiplied):
            return fns.apply(params, x, key)

    def features(params: Any, x: Array, key: Array | None) -> Array:
        assert fns.features is not None
        with nn.intercept_methods(_multiplied):
            return fns.features(params, x, key)

    return fns._replace(apply=apply, features=features if fns.features else None, convolutional=False)


def _multiplied(layer: Any, args: Any, kwargs: Any, context: Any) -> Any:
    """What a plain convolution gives, as a product; any other layer's own call."""
    conv = context.module
    if type(conv) is not nn.Conv or context.method_name != "__call__" or not is_plain(conv, args[0]):
        return layer(*args, **kwargs)
    params = conv.variables["params"]
    promoted: Any = conv.promote_dtype(args[0], params["kernel"], params.get("bias"), dtype=conv.dtype)
    x, kernel, bias = promoted
    seen = patches(x, conv.kernel_size, strides(conv), conv.padding)
    product = jnp.matmul(seen, kernel.reshape(-1, conv.features), precision=conv.precision)
    return product if bias is None else product + bias


def is_plain(conv: nn.Conv, x: Array) -> bool:
    """Whether it has padding SAME or VALID and neither groups, dilation, a mask nor a product of its own."""
    undilated = {*_each(conv.input_dilation, conv), *_each(conv.kernel_dilation, conv)} == {1}
    own = conv.conv_general_dilated is conv.conv_general_dilated_cls is None
    known = conv.mask is None and conv.feature_group_count == 1 and conv.padding in ("SAME", "VALID")
    return own and undilated and known and x.ndim == len(_each(conv.kernel_size, conv)) + 2


def strides(conv: nn.Conv) -> tuple[int, ...]:
    """Of a convolution, one for each axis of space."""
    return _each(conv.strides, conv)


def _each(sizes: Any, conv: Any) -> tuple[int, ...]:
    return tuple(sizes) if isinstance(sizes, tuple | list) else (sizes or 1,) * len(conv.kernel_size)


def patches(x: Array, window: Any, strides: tuple[int, ...], padding: Any) -> Array:
    """What a convolution sees at each position, [examples, *positions, window x channels].

    Args:
      x: [examples, *space, channels].
      window, strides: of each axis of space.
      padding: SAME or VALID.
    """
    pads = jax.lax.padtype_to_pads(x.shape[1:-1], window, strides, padding)
    x = jnp.pad(x, [(0, 0), *pads, (0, 0)])
    spans = [(size - w) // s * s + 1 for size, w, s in zip(x.shape[1:-1], window, strides, strict=True)]

    def shifted(start: tuple[int, ...]) -> Array:
        space = (slice(i, i + span, s) for i, span, s in zip(start, spans, strides, strict=True))
        return x[(slice(None), *space)]

    seen = jnp.stack([shifted(start) for start in itertools.product(*map(range, window))], axis=-2)
    return seen.reshape(*seen.shape[:-2], math.prod(window) * x.shape[-1])

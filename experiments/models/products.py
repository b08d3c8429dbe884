"""Convolutions written as the matrix products that they are, for many models in one compiled loop on a CPU.

There XLA takes a convolution that is vmapped over kernels, or sits in a scan, many times as long as a Python loop over
single ones; a matrix product it does not. Thirty CNNs train ten times as fast so
(`experiments/benchmarks/lanes.py --models cnn --lanes 30`).
"""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from experiments.models.functions import ModelFns
from experiments.models.layers import patches
from unlearn.base import Array


@functools.lru_cache
def as_products(fns: ModelFns) -> ModelFns:
    """The same model of the same parameters, whose convolutions are matrix products, up to rounding.

    What is no `nn.Conv`, or no plain one (see `_product`), stays as it is. Equal functions are one program, as of
    `of_module`.

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
    """What a layer gives, with `_product` as the convolution of an `nn.Conv`: all else of it is Flax's and the user's."""
    conv = context.module
    plain = type(conv) is nn.Conv and conv.conv_general_dilated is conv.conv_general_dilated_cls is None
    if not plain or context.method_name != "__call__":
        return layer(*args, **kwargs)
    object.__setattr__(conv, "conv_general_dilated", _product)  # a module is frozen, and this one is of this call alone
    try:
        return layer(*args, **kwargs)
    finally:
        object.__setattr__(conv, "conv_general_dilated", None)


def _product(x: Array, kernel: Array, strides: tuple[int, ...], padding: Any, **how: Any) -> Array:
    """`jax.lax.conv_general_dilated` as Flax calls it, a product unless it is grouped, dilated or padded by hand."""
    undilated = {*how["lhs_dilation"], *how["rhs_dilation"]} == {1}
    if not undilated or how["feature_group_count"] != 1 or padding not in ("SAME", "VALID"):
        return jax.lax.conv_general_dilated(x, kernel, strides, padding, **how)
    *window, _, features = kernel.shape
    seen = patches(x, tuple(window), strides, padding)
    return jnp.matmul(seen, kernel.reshape(-1, features), precision=how["precision"])

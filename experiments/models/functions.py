"""A model as functions: what training, requests and scores see of one, whatever library it was written in."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from unlearn import Model, classifier, sequence_model
from unlearn.base import Array

CONVOLUTION = "conv_general_dilated"  # JAX's name of it


class ModelFns(NamedTuple):
    """A model as functions, without state: what changes in training is a parameter, and nothing else changes.

    init: key -> params, a pytree of float arrays.
    apply: (params, x [examples, ...], key) -> logits [examples, classes]. The key is for dropout and the like; None asks
      for a prediction, in which nothing is left out.
    features: (params, x, key) -> [examples, ...], what the last layer is given; None: the judge looks at logits instead.
    module: the Linen module behind it, if it is one: DP-SGD has a short cut for those.
    convolutional: it holds convolutions, which need loops of their own on a CPU: see `experiments.core.machines.fleet`.
    language: it gives logits of the next token at each place, [examples, length, vocabulary].
    generate: (params, prompts, lengths, new, ...) -> tokens, as `language.generate` continues texts until the
      model's positions are full; None: of no decoder.
    noisy: (params, x, key, noise [examples, length, width]) -> logits, as `apply` with noise on the embedded tokens; None:
      it embeds none.
    width: of an embedded token.
    unpack, own_apply: params -> the tree that the user's own `init` made, and what to apply to that; None: `apply`.
    """

    init: Callable[[Array], Any]
    apply: Callable[[Any, Array, Array | None], Array]
    features: Callable[[Any, Array, Array | None], Array] | None = None
    module: nn.Module | None = None
    convolutional: bool = False
    unpack: Callable[[Any], Any] = lambda params: params
    own_apply: Callable[[Any, Array, Array | None], Array] | None = None
    language: bool = False
    generate: Callable[..., Array] | None = None
    noisy: Callable[[Any, Array, Array | None, Array], Array] | None = None
    width: int = 0


@functools.lru_cache
def of_module(module: nn.Module, shape: tuple[int, ...], convolutional: bool = False) -> ModelFns:
    """A Linen module without mutable collections, as functions; equal modules give the same ones.

    Equal functions are one program: what was compiled for them is found again.

    Args:
      shape: of an example, without the axis of examples.
    """

    def init(key: Array) -> Any:
        return module.init(key, jnp.zeros((1, *shape), jnp.float32))["params"]

    def apply(params: Any, x: Array, key: Array | None) -> Array:
        logits: Any = module.apply({"params": params}, x, rngs={} if key is None else {"dropout": key})
        return logits

    def features(params: Any, x: Array, key: Array | None) -> Array:
        """What the last Dense layer is given, [examples, width]."""
        given = []

        def watch(layer: Any, args: Any, kwargs: Any, context: Any) -> Any:
            if isinstance(context.module, nn.Dense):
                given.append(args[0])
            return layer(*args, **kwargs)

        with nn.intercept_methods(watch):
            apply(params, x, key)
        return given[-1]

    return ModelFns(init, apply, features, module, convolutional)


@functools.lru_cache
def as_model(fns: ModelFns) -> Model:
    """The pure rooms' view: that of a classifier, or of a language model."""
    return (sequence_model if fns.language else classifier)(fns.apply, fns.features)


@functools.lru_cache
def as_features(fns: ModelFns) -> Model:
    """The model whose `apply` gives features, [examples, ...]; logits if it names none."""
    return as_model(fns)._replace(apply=fns.features or fns.apply)


def convolves(fns: ModelFns, shape: tuple[int, ...]) -> bool:
    """Whether a model's program holds a convolution."""
    params = jax.eval_shape(fns.init, jax.random.key(0))
    x = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    return CONVOLUTION in str(jax.make_jaxpr(lambda params, x: fns.apply(params, x, None))(params, x))

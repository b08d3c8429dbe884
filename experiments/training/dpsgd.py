"""DP-SGD's gradient without per-example gradients of kernels: the matmul-norm ("ghost") form with book-keeping.

A layer that multiplies rows A [positions, in] of its input with a kernel W, and whose output has the loss's cotangent
B [positions, out], has the per-example gradient A'B. Its norm needs only A and B, as

    |A'B|^2 = sum (A A') * (B B'),

which for one row is |a|^2 |b|^2, and the clipped sum over examples n, of factors c_n, is the one matrix product
sum c_n A_n'B_n. So a single backward pass does (2009.03106; which of the two norms is cheaper: 2205.10683; no second
pass: 2210.00038). All other parameters (biases, scales, embeddings, kernels of layers that are not known) are
differentiated example by example, so that none is ever left out.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from experiments.models.functions import ModelFns
from experiments.models.layers import patches
from unlearn.base import Array, Batch

ROWS, TAPS = "private_rows", "private_taps"  # collections: a layer's rows, and a zero added to its output
Path = tuple[str, ...]


def noisy_mean(total: Any, key: Array, deviation: float, examples: int) -> Any:
    """(total + noise) / examples, the noise drawn as `optax.contrib.differentially_private_aggregate` draws it.

    Args:
      total: clipped gradients, summed over the batch.
      deviation: of the noise on the sum: the clipping norm times the noise multiplier.
      examples: the batch's size, on average if it is drawn by Poisson sampling.
    """
    leaves, structure = jax.tree.flatten(total)
    _, *keys = jax.random.split(key, len(leaves) + 1)
    noise = [deviation * jax.random.normal(k, leaf.shape, leaf.dtype) for k, leaf in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(structure, [(leaf + n) / examples for leaf, n in zip(leaves, noise, strict=True)])


def clipped_sum(
    model: ModelFns, loss: Callable[[Array, Batch], Array], params: Any, batch: Batch, key: Array, clip: float
) -> tuple[Any, Array, Array]:
    """Per-example gradients, scaled down to norm `clip` where they are longer, and summed.

    Every example is on its own, as a batch of one with the same key. Where positions of an example cancel to a norm far
    below that of their parts, the norm's error is a rounding error of the parts.

    Args:
      model: of a Linen module, what its layers are decides only which parameters take the short cut; of anything else,
        none do.
      loss: of logits and batch -> [examples].
      batch: each loss is multiplied by its weight before clipping; x of weight 0 is never read.

    Returns:
      The sum, a tree like `params`; weighted losses and norms before clipping, [examples] each.
    """
    batch = dict(batch, x=jax.vmap(lambda w, x: jnp.where(w > 0, x, jnp.zeros_like(x)))(batch["weight"], batch["x"]))
    if model.module is None:
        return _clipped_by_example(model, loss, params, batch, key, clip)
    module, flat = model.module, flatten_dict(params)
    taps = multiplied(module, params, batch["x"][:1], key)
    kernels = {path: flat[path] for path in taps}
    others = {path: leaf for path, leaf in flat.items() if path not in taps}

    def one(others: dict[Path, Array], outputs: dict[Path, Array], example: Batch) -> tuple[Array, dict[Path, Array]]:
        variables = {"params": unflatten_dict(kernels | others), TAPS: unflatten_dict(outputs)}
        example = jax.tree.map(lambda leaf: leaf[None], example)
        with nn.intercept_methods(_tapping(taps)):
            logits, seen = module.apply(variables, example["x"], rngs={"dropout": key}, mutable=[ROWS])
        rows = {path: found[0] for path, found in flatten_dict(seen.get(ROWS, {})).items()}
        return (loss(logits, example) * example["weight"])[0], rows

    zeros = {path: jnp.zeros(tap.shape, tap.dtype) for path, tap in taps.items()}
    pass_ = jax.vmap(jax.value_and_grad(one, argnums=(0, 1), has_aux=True), (None, None, 0))
    (losses, rows), (direct, cotangents) = pass_(others, zeros, batch)
    whole = lambda path, leaf: leaf.astype(flat[path].dtype)  # noqa: E731  short activations must not shorten norms
    pairs = {
        path: (whole(path, rows[path]), whole(path, cotangents[path]).reshape(*rows[path].shape[:2], -1)) for path in taps
    }

    squares = [jnp.sum(jnp.square(g), axis=range(1, g.ndim)) for g in direct.values()]
    squares += [jax.vmap(square)(a, b) for a, b in pairs.values()]
    norms = jnp.sqrt(sum(squares))
    factors = _factors(norms, clip)
    total = {path: jnp.tensordot(factors, g, axes=1) for path, g in direct.items()}
    for path, (a, b) in pairs.items():
        summed = jnp.tensordot(a, factors[:, None, None] * b, axes=((0, 1), (0, 1)))
        total[path] = summed.reshape(flat[path].shape).astype(flat[path].dtype)
    return unflatten_dict(total), losses, norms


def _clipped_by_example(
    model: ModelFns, loss: Callable[[Array, Batch], Array], params: Any, batch: Batch, key: Array, clip: float
) -> tuple[Any, Array, Array]:
    """The same by whole gradients of every example."""

    def one(params: Any, example: Batch) -> Array:
        example = jax.tree.map(lambda leaf: leaf[None], example)
        return (loss(model.apply(params, example["x"], key), example) * example["weight"])[0]

    losses, gradients = jax.vmap(jax.value_and_grad(one), (None, 0))(params, batch)
    norms = jnp.sqrt(sum(jnp.sum(jnp.square(g), axis=range(1, g.ndim)) for g in jax.tree.leaves(gradients)))
    return jax.tree.map(lambda g: jnp.tensordot(_factors(norms, clip), g, axes=1), gradients), losses, norms


def _factors(norms: Array, clip: float) -> Array:
    """What each example's gradient is scaled by; a NaN stays visible in what it multiplies."""
    return jnp.nan_to_num(jnp.minimum(clip / norms, 1.0), nan=1.0)


def square(a: Array, b: Array) -> Array:
    """|a'b|^2 for a [positions, in] and b [positions, out], by whichever of the two forms needs less memory."""
    if 2 * a.shape[0] ** 2 <= a.shape[1] * b.shape[1]:
        return jnp.maximum(jnp.sum((a @ a.T) * (b @ b.T)), 0.0)  # rounding may fall below 0
    return jnp.sum(jnp.square(a.T @ b))


def multiplied(module: nn.Module, params: Any, x: Array, key: Array) -> dict[Path, jax.ShapeDtypeStruct]:
    """Kernels that are known to enter the logits as rows times kernel, once, and in no other way; shapes of their outputs.

    Args:
      x: a batch of one; only its shape is used.
    """
    flat = flatten_dict(params)

    def look(params: Any) -> Any:
        with nn.intercept_methods(_tapping(flat)):
            return module.apply({"params": params}, x, rngs={"dropout": key}, mutable=[ROWS, TAPS])[1]

    seen = jax.eval_shape(look, params)
    outputs, rows = (flatten_dict(seen.get(name, {})) for name in (TAPS, ROWS))
    once = {path: found[0] for path, found in rows.items() if len(found) == 1 and found[0].ndim == 2}
    fits = lambda path: once[path].shape[1] * outputs[path].size == once[path].shape[0] * flat[path].size  # noqa: E731
    taps = {path: outputs[path] for path in once if fits(path)}
    strays = _read_elsewhere(module, params, x, key, taps)
    return {path: tap for path, tap in taps.items() if path not in strays}


def _read_elsewhere(module: nn.Module, params: Any, x: Array, key: Array, taps: dict[Path, Any]) -> set[Path]:
    """Kernels that still matter when their layers answer zeros without them: tied weights, say."""
    flat = flatten_dict(params)

    def skip(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        path = (*context.module.path, "kernel")
        if path not in taps or context.method_name != "__call__":
            return call(*args, **kwargs)
        return jnp.zeros(taps[path].shape, taps[path].dtype)

    def rest(kernels: dict[Path, Array]) -> Any:
        with nn.intercept_methods(skip):
            return module.apply({"params": unflatten_dict(flat | kernels)}, x, rngs={"dropout": key})

    kernels = {path: flat[path] for path in sorted(taps)}
    jaxpr = jax.make_jaxpr(rest)(kernels).jaxpr
    used = {id(var) for var in itertools.chain(jaxpr.outvars, *(eqn.invars for eqn in jaxpr.eqns))}
    return {path for path, var in zip(kernels, jaxpr.invars, strict=True) if id(var) in used}


def _tapping(paths: Collection[Path]) -> Callable[..., Any]:
    """An interceptor that notes the rows of known layers whose kernel is in `paths`, and adds a tap to their answers."""

    def call(method: Any, args: Any, kwargs: Any, context: Any) -> Any:
        layer, answer = context.module, method(*args, **kwargs)
        if context.method_name != "__call__" or (*layer.path, "kernel") not in paths:
            return answer
        rows = rows_of(layer, *args, **kwargs)
        if rows is None:
            return answer
        layer.sow(ROWS, "kernel", rows)
        return layer.perturb("kernel", answer, TAPS)

    return call


def rows_of(layer: Any, inputs: Array) -> Array | None:
    """What a layer multiplies its kernel with, [positions, in] in the kernel's order; None for layers that are not known.

    Known are Dense, DenseGeneral over trailing axes, and Conv with padding SAME or VALID and neither groups, dilation nor
    a mask; their subclasses are not.
    """
    if type(layer) is nn.Dense and layer.dot_general is layer.dot_general_cls is None:
        return inputs.reshape(-1, inputs.shape[-1])
    if type(layer) is nn.DenseGeneral and layer.dot_general is layer.dot_general_cls is None and not layer.batch_dims:
        axes = [axis % inputs.ndim for axis in (layer.axis if isinstance(layer.axis, tuple) else (layer.axis,))]
        if axes == list(range(inputs.ndim - len(axes), inputs.ndim)):
            return inputs.reshape(-1, math.prod(inputs.shape[axes[0] :]))
    if type(layer) is nn.Conv and _is_plain(layer) and inputs.ndim == len(_window(layer)) + 2:
        seen = patches(inputs, _window(layer), _each(layer.strides, layer), layer.padding)
        return seen.reshape(-1, seen.shape[-1])
    return None


def _is_plain(conv: nn.Conv) -> bool:
    undilated = {*_each(conv.input_dilation, conv), *_each(conv.kernel_dilation, conv)} == {1}
    own = conv.conv_general_dilated is conv.conv_general_dilated_cls is None
    return own and undilated and conv.mask is None and conv.feature_group_count == 1 and conv.padding in ("SAME", "VALID")


def _window(conv: nn.Conv) -> tuple[int, ...]:
    """Its size along each axis of space; one number is of one axis."""
    return (conv.kernel_size,) if isinstance(conv.kernel_size, int) else tuple(conv.kernel_size)


def _each(sizes: Any, conv: nn.Conv) -> tuple[int, ...]:
    return tuple(sizes) if isinstance(sizes, tuple | list) else (sizes or 1,) * len(_window(conv))

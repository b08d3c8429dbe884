"""Parameters spread over devices (FSDP): which axis of an array is cut, and gradients that stay where parameters are.

XLA gathers a layer's parameters where they are used and sums gradients into the parts. What it must be told is where trees
of parameters' shape lie: parameters themselves, the optimiser's state, gradients of inner steps, and what the second order
multiplies with a Hessian.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

DATA, PARAMETERS = "data", "parameters"  # axes of the mesh
SMALL = 1024  # numbers; a smaller array costs more to gather than to keep


def mesh(devices: tuple[jax.Device, ...], parts: int) -> Mesh:
    """A mesh of [copies of the parameters, devices that share one].

    Raises:
      ValueError: devices that do not divide so.
    """
    count = len(devices)
    if count % parts:
        raise ValueError(f"{parts} devices cannot share a copy of the parameters where there are {count}: give a divisor")
    automatic = (jax.sharding.AxisType.Auto,) * 2
    return jax.make_mesh((count // parts, parts), (DATA, PARAMETERS), devices=devices, axis_types=automatic)


def spec(shape: tuple[int, ...], parts: int) -> PartitionSpec:
    """How an array is cut: along the largest axis that `parts` divides; not at all if there is none, or it is small.

    Example:
      >>> spec((50257, 768), 8) == PartitionSpec(None, PARAMETERS)
      True
    """
    axes = [axis for axis, length in enumerate(shape) if length % parts == 0 and length >= parts]
    if math.prod(shape) < SMALL or not axes:
        return PartitionSpec()
    largest = max(axes, key=lambda axis: shape[axis])
    return PartitionSpec(*[None] * largest, PARAMETERS)


def of(tree: Any, over: Mesh) -> Any:
    """The sharding of each array of a tree, or of what only has its shape."""
    return jax.tree.map(lambda leaf: NamedSharding(over, spec(leaf.shape, over.shape[PARAMETERS])), tree)


def keep(tree: Any, over: Mesh) -> Any:
    """The same tree, in a program, spread as `of` says; so is what is derived by it."""
    return jax.lax.with_sharding_constraint(tree, of(tree, over))


def kept(grad: Callable, over: Mesh) -> Callable:
    """A gradient operator of the type of `jax.value_and_grad` whose gradients are spread as the parameters are.

    The transpose of `keep` is `keep`: so are what an outer derivative multiplies with the Hessian, and the product.
    """

    def operator(f: Callable, **options: Any) -> Callable:
        of_f = grad(f, **options)

        def value_and_gradient(params: Any, *rest: Any) -> tuple[Any, Any]:
            value, gradient = of_f(keep(params, over), *rest)
            return value, keep(gradient, over)

        return value_and_gradient

    return operator

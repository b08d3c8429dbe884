"""Execution: one training code, four ways to spread work over devices, two to carry out lanes and steps.

A mode is a set of operators that the pure rooms take as arguments. `min(mean, cap)` is not linear, so devices must agree
on each mean before the cap is applied: averaging per-device gradients afterwards would be wrong.

* one device: the defaults.
* `jit`: a mesh; batches are sharded by their example axis, and XLA inserts the communication.
* `jit` with `fsdp` devices to a copy of the parameters: the mesh has an axis for these, too; see `sharding`.
* `pmap`: each device holds its rows of a batch. A mean is a psum over a psum. Each device differentiates its share (1/n)
  of the objective, because the transpose of a psum is a psum, and gradients are summed.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from experiments.core.errors import UserError
from experiments.core.machines import fleet, processes, sharding
from readiness.objective import MetaBatch
from unlearn import microbatched
from unlearn.base import Batch, Mean, Model
from unlearn.gradient import GradOperator, first_order, second_order
from unlearn.losses import require_same_shape, weighted_mean

AXIS = sharding.DATA
MODES = ("jit", "pmap")


@dataclass(frozen=True)
class Execution:
    """How a run's work is carried out, made once from its device mode, its devices and its model.

    mean: (values, weights) -> scalar over all devices.
    inner_grad: order (1 or 2) -> the gradient operator of simulated unlearning steps.
    outer_grad: of the type of `jax.value_and_grad`, `has_aux` included.
    split: (batch, axis of the examples) -> this device's rows of it.
    compile: compiles a function (state, *arguments) -> (state, results), all but the state replicated.
    shardings: state -> how each of its arrays lies on several devices, or what only has its shape; None: as it comes.
    count: devices that share a batch.
    spread: those that an array of a batch lies on, as a program sees it; of pmap 1, since each has arrays of its own.
    convolutional: whether the model is; see `fleet`.
    """

    mean: Mean
    inner_grad: Callable[[int], GradOperator]
    outer_grad: Callable[..., Any]
    split: Callable[[Batch, int], Batch]
    compile: Callable[[Callable], Callable]
    shardings: Callable[[Any], Any] | None = None
    count: int = 1
    spread: int = 1
    convolutional: bool = False

    @property
    def loops(self) -> bool:
        """True where lanes and steps are Python loops around one compiled step instead of `vmap` and `scan`."""
        return fleet.in_loops(self.convolutional)

    def lanes(self, fn: Callable, *, compiled: bool = True) -> Callable:
        """`fn` over the leading lane axis of its first argument, a part in each process; see `fleet.over_lanes`."""
        return processes.share(fleet.over_lanes(fn, self.loops, compiled=compiled))

    def microbatched(self, model: Model, parts: int, *, unroll: bool | None = None) -> Model:
        """The model that evaluates batches in parts, each with rows of every device; see `unlearn.microbatched`.

        Args:
          unroll: None: as lanes and steps are.
        """
        return microbatched(model, parts, multiple=self.spread, unroll=self.loops if unroll is None else unroll)

    def check_parts(self, parts: int, batch_size: int) -> None:
        """Refuse parts of a batch that have no row for each device.

        Raises:
          UserError: one line that says what to do.
        """
        if parts > 1 and parts * self.count > batch_size:
            raise UserError(
                f"train.microbatches is {parts}, and {batch_size} examples give {self.count} devices none each of every "
                f"part: set --config.train.microbatches to {max(1, batch_size // self.count)}, or a larger train.batch_size"
            )

    def place(self, state: Any) -> Any:
        """A state where `compile` takes it, so that what is restored comes there as well."""
        return jax.device_put(state, self.shardings(state)) if self.shardings else state

    def split_meta(self, meta: MetaBatch) -> MetaBatch:
        """A device's rows of every part of a meta-batch; the requests of inner steps lead with a step axis."""

        def rows(batch: Any, axis: int = 0) -> Any:
            return None if batch is None else self.split(batch, axis)

        def request(r: Any) -> Any:
            return None if r is None else type(r)(rows(r.forget, 1), rows(r.retain, 1))

        parts = rows(meta.forget), rows(meta.stable), rows(meta.recovery)
        return MetaBatch(request(meta.requests), *parts, request(meta.relearn))


def make(
    mode: str, devices: Sequence[jax.Device] | None = None, *, fsdp: int = 1, convolutional: bool = False
) -> Execution:
    """The execution for `mode` ("jit" or "pmap") on the given devices, all local ones by default.

    The same arguments give the same object, so that what was compiled for it is found again.

    Args:
      fsdp: devices that share one copy of the parameters, each with a part of every large array.

    Raises:
      ValueError: no such mode, or devices that cannot share parameters so.
    """
    if mode not in MODES:
        raise ValueError(f"parallel mode {mode!r} is unknown; choose one of {', '.join(MODES)}")
    if fsdp > 1 and mode != "jit":
        raise ValueError(f"parallel mode {mode!r} gives each device a copy of the parameters: use jit, or fsdp=1")
    return _make(mode, tuple(devices or jax.local_devices()), fsdp, convolutional)


def one_device(*, convolutional: bool = False) -> Execution:
    """The execution on the first local device."""
    return make("jit", jax.local_devices()[:1], convolutional=convolutional)


@functools.lru_cache
def _make(mode: str, devices: tuple[jax.Device, ...], fsdp: int, convolutional: bool) -> Execution:
    if mode == "pmap":
        made = _pmap(devices)
    elif fsdp > 1:
        made = _fsdp(sharding.mesh(devices, fsdp))
    elif len(devices) == 1:
        inner = _inner(first_order, second_order)
        made = Execution(weighted_mean, inner, jax.value_and_grad, lambda batch, axis: batch, jax.jit)
    else:
        made = _jit(devices)
    return replace(made, convolutional=convolutional)


def pad(batch: Batch, axis: int, multiple: int) -> Batch:
    """The batch with rows of weight 0 added until its example axis is a multiple of `multiple`."""
    missing = -batch["weight"].shape[axis] % multiple
    widths = lambda leaf: [(0, missing if i == axis else 0) for i in range(leaf.ndim)]  # noqa: E731
    return jax.tree.map(lambda leaf: jnp.pad(leaf, widths(leaf)), dict(batch))


def _inner(first: GradOperator, second: GradOperator) -> Callable[[int], GradOperator]:
    def by_order(order: int) -> GradOperator:
        if order not in (1, 2):
            raise ValueError(f"order {order} is unknown; choose 1 (first-order) or 2 (exact)")
        return first if order == 1 else second

    return by_order


def _jit(devices: Sequence[jax.Device]) -> Execution:
    mesh = jax.make_mesh((len(devices),), (AXIS,), devices=devices, axis_types=(AxisType.Auto,))
    replicated = NamedSharding(mesh, PartitionSpec())

    def compiled(fn: Callable) -> Callable:
        return jax.jit(fn, in_shardings=replicated, out_shardings=replicated)

    inner, everywhere = _inner(first_order, second_order), lambda state: jax.tree.map(lambda leaf: replicated, state)
    return Execution(weighted_mean, inner, jax.value_and_grad, _over(mesh), compiled, everywhere, mesh.size, mesh.size)


def _over(mesh: Mesh) -> Callable[[Batch, int], Batch]:
    """`split` over all axes of a mesh."""

    def split(batch: Batch, axis: int) -> Batch:
        sharded = NamedSharding(mesh, PartitionSpec(*[None] * axis, mesh.axis_names))
        return jax.tree.map(lambda leaf: jax.lax.with_sharding_constraint(leaf, sharded), pad(batch, axis, mesh.size))

    return split


def _fsdp(mesh: Mesh) -> Execution:
    replicated = NamedSharding(mesh, PartitionSpec())
    shardings = lambda state: sharding.of(state, mesh)  # noqa: E731

    def compiled(fn: Callable) -> Callable:
        def spread(state: Any, *rest: Any) -> tuple[Any, Any]:
            state, results = fn(state, *rest)
            everywhere = jax.tree.map(lambda leaf: replicated, results)
            return sharding.keep(state, mesh), jax.lax.with_sharding_constraint(results, everywhere)

        program = jax.jit(spread)
        return lambda state, *rest: program(jax.device_put(state, shardings(state)), *jax.device_put(rest, replicated))

    inner = _inner(sharding.kept(first_order, mesh), sharding.kept(second_order, mesh))
    outer = sharding.kept(jax.value_and_grad, mesh)
    return Execution(weighted_mean, inner, outer, _over(mesh), compiled, shardings, mesh.size, mesh.size)


def _pmap(devices: Sequence[jax.Device]) -> Execution:
    count = len(devices)
    psum = lambda tree: jax.lax.psum(tree, AXIS)  # noqa: E731

    def mean(values: jax.Array, weights: jax.Array) -> jax.Array:
        require_same_shape(values, weights)
        total = psum(jnp.sum(weights))
        return psum(jnp.sum(jnp.where(weights > 0, values, 0.0) * weights)) / jnp.where(total > 0, total, 1.0)

    def outer_grad(f: Callable, has_aux: bool = False) -> Callable:
        def share(params: Any, *rest: Any) -> tuple[jax.Array, Any]:
            value, aux = f(params, *rest) if has_aux else (f(params, *rest), None)
            return value / count, aux

        def value_and_gradient(params: Any, *rest: Any) -> tuple[Any, Any]:
            (value, aux), gradient = jax.value_and_grad(share, has_aux=True)(params, *rest)
            return ((value * count, aux) if has_aux else value * count), psum(gradient)

        return value_and_gradient

    def inner(grad: GradOperator) -> GradOperator:
        """`grad` of each device's share, summed. Its derivative is a share again: the transpose of a psum is a psum."""

        def summed(f: Callable) -> Callable:
            of_share = grad(lambda *args: f(*args) / count)

            def value_and_gradient(*args: Any) -> tuple[jax.Array, Any]:
                value, gradient = of_share(*args)
                return value * count, psum(gradient)

            return value_and_gradient

        return summed

    def split(batch: Batch, axis: int) -> Batch:
        padded = pad(batch, axis, count)
        rows = padded["weight"].shape[axis] // count
        start = jax.lax.axis_index(AXIS) * rows
        return jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, start, rows, axis), padded)

    def compiled(fn: Callable) -> Callable:
        # pmap wants an argument that is mapped; the real ones are the same everywhere.
        mapped = jax.pmap(lambda device, args: fn(*args), AXIS, in_axes=(0, None), devices=devices)

        def run(*args: Any) -> Any:
            # Blocked: chains of unfinished pmap calls can deadlock on forced host devices.
            results = jax.block_until_ready(mapped(np.arange(count), args))
            return jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf[0])), results)

        return run

    return Execution(mean, _inner(inner(first_order), inner(second_order)), outer_grad, split, compiled, count=count)

"""The contract: what a model, a request and an unlearning algorithm are, and how a request is carried out."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from unlearn import tree
from unlearn.gradient import GradOperator, second_order
from unlearn.losses import weighted_mean

Array = jax.Array
Params = Any
Batch = Mapping[str, Array]  # x, y, id (stable identity), weight (0 pads); a leading example axis each
Mean = Callable[[Array, Array], Array]


class Model(NamedTuple):
    """A model as the pure rooms see it.

    apply: (params, x [examples, ...], key) -> logits [examples, classes].
    loss: (logits, batch) -> loss [examples].
    """

    apply: Callable[[Params, Array, Array], Array]
    loss: Callable[[Array, Batch], Array]


class Request(NamedTuple):
    """What is to be forgotten, and retained data for the algorithms that use some."""

    forget: Batch
    retain: Batch | None = None


class UnlearnState(NamedTuple):
    """Everything an algorithm carries from one update to the next.

    memory: what was remembered of the start (reference parameters, a label key), or ().
    """

    params: Params
    opt_state: Any
    memory: Any


class UnlearnInfo(NamedTuple):
    """What one update saw: the objective's value and the norm of its gradient."""

    objective: Array
    grad_norm: Array


class UnlearnAlgorithm(NamedTuple):
    """An unlearning algorithm: a pair of pure functions, after optax.

    init: (params, request, key) -> UnlearnState; called once, a constant to any outer derivative.
    update: (state, request, key) -> (UnlearnState, UnlearnInfo).
    differentiable: whether a meta-gradient may be taken through `update`.
    """

    init: Callable[[Params, Request, Array], UnlearnState]
    update: Callable[[UnlearnState, Request, Array], tuple[UnlearnState, UnlearnInfo]]
    differentiable: bool = True


Objective = Callable[..., Array]  # (model, params, memory, request, key, mean, **options) -> scalar


def remember_nothing(params: Params, request: Request, key: Array) -> tuple[()]:
    """The memory of an algorithm that needs none."""
    return ()


def remember_params(params: Params, request: Request, key: Array) -> Params:
    """The memory of an algorithm that compares itself with where it started."""
    return params


def remember_key(params: Params, request: Request, key: Array) -> Array:
    """The memory of an algorithm that makes one random choice per example and keeps to it."""
    return key


def from_objective(
    model: Model,
    optimizer: optax.GradientTransformation,
    *,
    objective: Objective,
    remember: Callable[[Params, Request, Array], Any] = remember_nothing,
    mean: Mean = weighted_mean,
    grad: GradOperator = second_order,
    **options: Any,
) -> UnlearnAlgorithm:
    """The algorithm that descends one scalar: params <- params + optimizer(-grad objective).

    Args:
      model: what is unlearned.
      optimizer: any optax transformation.
      objective: scalar of (model, params, memory, request, key, mean, **options).
      remember: makes the memory from the parameters at the start.
      mean: the reduction (values, weights) -> scalar of the device mode in use.
      grad: the gradient operator; see `unlearn.gradient`.
      **options: passed on to the objective. Arrays may be traced: one lane of a sweep each.

    Raises:
      TypeError: the objective has no such option.
    """
    known = [p.name for p in inspect.signature(objective).parameters.values() if p.kind is p.KEYWORD_ONLY]
    for name in options:
        if name not in known:
            raise TypeError(f"{objective.__name__} has no option {name!r}; it takes {known or 'none'}")

    # Handed through the gradient operator as arguments: `second_order` must not close over traced arrays.
    arrays = {name: value for name, value in options.items() if isinstance(value, jax.Array)}

    def scalar(params: Params, memory: Any, request: Request, key: Array, arrays: dict[str, Array]) -> Array:
        return objective(model, params, memory, request, key, mean, **(options | arrays))

    value_and_grad = grad(scalar)

    def init(params: Params, request: Request, key: Array) -> UnlearnState:
        return UnlearnState(params, optimizer.init(params), remember(params, request, key))

    def update(state: UnlearnState, request: Request, key: Array) -> tuple[UnlearnState, UnlearnInfo]:
        value, gradient = value_and_grad(state.params, state.memory, request, key, arrays)
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        params = jax.tree.map(lambda p, u: (p + u).astype(p.dtype), state.params, updates)
        info = UnlearnInfo(value, tree.norm(tree.stop_gradient(gradient)))
        return UnlearnState(params, opt_state, state.memory), info

    return UnlearnAlgorithm(init, update)


def roll_out(
    algorithm: UnlearnAlgorithm,
    state: UnlearnState,
    requests: Request,
    key: Array,
    *,
    unroll: bool = False,
    remat: bool = False,
) -> tuple[UnlearnState, UnlearnInfo]:
    """`update` over the leading axis of `requests`, from a state.

    Args:
      requests: a Request whose arrays carry a leading step axis [steps, examples, ...].
      unroll: trace the steps one after another instead of `lax.scan` (convolutions in a loop are slow on a CPU).
      remat: recompute each step in an outer derivative's backward pass instead of storing what it computed.

    Returns:
      The last state, and infos stacked over steps.
    """

    def body(state: UnlearnState, step: tuple[Array, Request]) -> tuple[UnlearnState, UnlearnInfo]:
        index, request = step
        return algorithm.update(state, request, jax.random.fold_in(key, index))

    steps = jax.tree.leaves(requests)[0].shape[0]
    if remat:
        body = jax.checkpoint(body, prevent_cse=unroll)
    if not unroll or not steps:
        return jax.lax.scan(body, state, (jnp.arange(steps), requests))
    infos = []
    for i in range(steps):
        state, info = body(state, (jnp.asarray(i), jax.tree.map(lambda leaf: leaf[i], requests)))  # noqa: B023
        infos.append(info)
    return state, jax.tree.map(lambda *leaves: jnp.stack(leaves), *infos)


def unlearn(
    algorithm: UnlearnAlgorithm, params: Params, requests: Request, key: Array, *, unroll: bool = False
) -> tuple[UnlearnState, UnlearnInfo]:
    """`init` on the first request, then `update` over the leading axis of `requests`: see `roll_out`."""
    init_key, step_key = jax.random.split(key)
    state = algorithm.init(params, jax.tree.map(lambda leaf: leaf[0], requests), init_key)
    return roll_out(algorithm, state, requests, step_key, unroll=unroll)

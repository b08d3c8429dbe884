"""The contract: what a request and an unlearning algorithm are, and how batches of a request are carried out."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, ParamSpec

import jax
import jax.numpy as jnp
import optax

from unlearn import tree
from unlearn.checking import check_batch, check_keys, check_kind, check_losses, check_model, check_params
from unlearn.gradient import GradOperator, second_order
from unlearn.losses import weighted_mean
from unlearn.model import CLASSIFIER, KINDS, LANGUAGE, Array, Batch, Model, Params, classifier, sequence_model

__all__ = [
    "CLASSIFIER", "KINDS", "LANGUAGE", "UNDECLARED", "Array", "Batch", "Mean", "Model", "Params", "Request", "Traits",
    "UnlearnAlgorithm", "UnlearnInfo", "UnlearnState", "begin", "check_model", "check_params", "classifier", "declare",
    "example_losses", "from_objective", "mean_loss", "merged", "per_example", "remember_key", "remember_nothing",
    "remember_params", "roll_out", "sequence_model", "traits_of", "unlearn", "weighted_mean",
]  # fmt: skip

Mean = Callable[[Array, Array], Array]  # (values, weights) -> scalar; one for each device mode


class Request(NamedTuple):
    """What is to be forgotten, and retained data for the algorithms that use some."""

    forget: Batch
    retain: Batch | None = None


class UnlearnState(NamedTuple):
    """Everything an algorithm carries from one update to the next.

    memory: what was remembered of the start (reference parameters, a label key, saliency, prototypes), or ().
    """

    params: Params
    opt_state: Any
    memory: Any


class UnlearnInfo(NamedTuple):
    """What one update saw: the objective's value and the norm of its gradient."""

    objective: Array
    grad_norm: Array


class Traits(NamedTuple):
    """What an algorithm declares of itself.

    needs_retain: it is refused without retain data; where False, retain data are never read.
    needs_labels: it reads y.
    differentiable: a meta-gradient may be taken through it.
    one_shot: `init` makes the whole edit, and `update` leaves the parameters as they are.
    kinds: of models that it can unlearn.
    """

    needs_retain: bool
    needs_labels: bool
    differentiable: bool
    one_shot: bool
    kinds: tuple[str, ...]


UNDECLARED = Traits(needs_retain=True, needs_labels=True, differentiable=False, one_shot=False, kinds=(CLASSIFIER,))


class UnlearnAlgorithm(NamedTuple):
    """An unlearning algorithm: a pair of pure functions, after optax.

    init: (params, request, key) -> UnlearnState, from the whole request: all of what is to be forgotten, and what retained
      data there are. Saliency, prototypes and one-shot edits are made here.
    update: (state, request, key) -> (UnlearnState, UnlearnInfo), from a batch of the request.
    traits: as its factory declares them.
    """

    init: Callable[[Params, Request, Array], UnlearnState]
    update: Callable[[UnlearnState, Request, Array], tuple[UnlearnState, UnlearnInfo]]
    traits: Traits = UNDECLARED


Arguments = ParamSpec("Arguments")
Factory = Callable[Arguments, UnlearnAlgorithm]


def declare(
    *,
    needs_retain: bool,
    needs_labels: bool = True,
    differentiable: bool = True,
    one_shot: bool = False,
    kinds: tuple[str, ...] = KINDS,
) -> Callable[[Factory[Arguments]], Factory[Arguments]]:
    """Declare the traits of the algorithms that a factory `(model, optimizer, **options)` makes; see `Traits`.

    The factory keeps its name, its signature and its docstring; `traits_of` reads what was declared, and so does the
    `traits` of what it makes. Mistakes of a caller (no `Model`, no batch, no retain data) are told in one line.

    Example:
      >>> @declare(needs_retain=True)
      ... def repair(model, optimizer):
      ...     loss = lambda params, memory, request, key: mean_loss(model, params, request.retain, key)
      ...     return from_objective(loss, optimizer)
      >>> traits_of(repair).needs_retain
      True
    """
    traits = Traits(needs_retain, needs_labels, differentiable, one_shot, kinds)

    def decorate(factory: Factory[Arguments]) -> Factory[Arguments]:
        name = getattr(factory, "__name__", "the algorithm")

        def check(request: Request) -> None:
            _check_request(request, traits)
            if needs_retain and request.retain is None:
                raise ValueError(f"{name} needs retain data: give Request(forget, retain)")

        @functools.wraps(factory)
        def declared(*args: Arguments.args, **kwargs: Arguments.kwargs) -> UnlearnAlgorithm:
            if args or "model" in kwargs:
                model: Any = args[0] if args else kwargs["model"]
                check_model(model)
                check_kind(model, name, kinds)
            made = factory(*args, **kwargs)

            def init(params: Params, request: Request, key: Array) -> UnlearnState:
                check_params(params)
                check(request)
                return made.init(params, request, key)

            def update(state: UnlearnState, request: Request, key: Array) -> tuple[UnlearnState, UnlearnInfo]:
                check(request)
                return made.update(state, request, key)

            return UnlearnAlgorithm(init, update, traits)

        declared.traits = traits  # type: ignore[attr-defined]
        return declared

    return decorate


def traits_of(factory: Callable[..., UnlearnAlgorithm]) -> Traits:
    """The traits that a factory declares; of one that declares none, `UNDECLARED`, which promises nothing."""
    return getattr(factory, "traits", UNDECLARED)


def _check_request(request: Any, traits: Traits, *, steps: bool = False) -> None:
    if not isinstance(request, Request):
        raise TypeError(f"a request is of type {type(request).__name__}: give Request(forget, retain)")
    check_batch(request.forget, "forget", labels=traits.needs_labels, steps=steps)
    if request.retain is not None:
        check_batch(request.retain, "retain", labels=traits.needs_labels, steps=steps)


def example_losses(model: Model, params: Params, batch: Batch, key: Array | None) -> Array:
    """The model's loss of every example, [examples].

    Raises:
      ValueError: a batch without x or weight, or a loss that is not one number per example.
    """
    check_keys(batch, "the", ("weight", "x"))
    values: Array = per_example(model, _checked(model), batch, key, params)
    return values


def mean_loss(model: Model, params: Params, batch: Batch, key: Array | None, mean: Mean = weighted_mean) -> Array:
    """L(params; batch): the model's loss, reduced over the batch."""
    if model.parts is None:
        return mean(example_losses(model, params, batch, key), batch["weight"])
    check_keys(batch, "the", ("weight", "x"))
    loss: Array = model.parts.mean(_checked(model), mean, batch, key, params)
    return loss


def per_example(model: Model, function: Callable[..., Any], batch: Batch, key: Array | None, *params: Params) -> Any:
    """function(*logits, batch), the logits those of each `params` on the batch: arrays that lead with the examples.

    To be preferred to `model.apply`: a microbatched model then never holds the logits of a whole batch.

    Args:
      function: of each example by itself, as the model's own are, or functions made of them.
      key: of dropout; the logits of all `params` are drawn alike.

    Example:
      >>> model = classifier(lambda params, x, key: x @ params)
      >>> batch = {"x": jnp.eye(2), "y": jnp.array([0, 1])}
      >>> print(per_example(model, model.divergence, batch, None, jnp.eye(2), jnp.eye(2)))
      [0. 0.]
    """
    if model.parts is not None:
        return model.parts.each(function, batch, key, *params)
    return function(*(model.apply(at, batch["x"], key) for at in params), batch)


def _checked(model: Model) -> Callable[[Any, Batch], Array]:
    """The model's loss, refused if it is not one number per example."""

    def loss(logits: Any, batch: Batch) -> Array:
        values = model.loss(logits, batch)
        check_losses(values, batch)
        return values

    return loss


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
    objective: Callable[..., Array],
    optimizer: optax.GradientTransformation,
    *,
    remember: Callable[[Params, Request, Array], Any] = remember_nothing,
    grad: GradOperator = second_order,
    **options: Any,
) -> UnlearnAlgorithm:
    """The algorithm that descends one scalar: params <- params + optimizer(-grad objective).

    Args:
      objective: (params, memory, request, key, **options) -> scalar; it closes over the model and the reduction.
      optimizer: any optax transformation.
      remember: (params, whole request, key) -> memory, a constant of every derivative.
      grad: the gradient operator; see `unlearn.gradient`.
      **options: passed on to the objective. Arrays may be traced: one lane of a sweep each.
    """
    # Handed through the gradient operator as arguments: `second_order` must not close over traced arrays.
    arrays = {name: value for name, value in options.items() if isinstance(value, jax.Array)}

    def scalar(params: Params, memory: Any, request: Request, key: Array, arrays: dict[str, Array]) -> Array:
        return objective(params, memory, request, key, **(options | arrays))

    value_and_grad = grad(scalar)

    def init(params: Params, request: Request, key: Array) -> UnlearnState:
        return UnlearnState(params, optimizer.init(params), remember(params, request, key))

    def update(state: UnlearnState, request: Request, key: Array) -> tuple[UnlearnState, UnlearnInfo]:
        value, gradient = value_and_grad(state.params, state.memory, request, key, arrays)
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        params = jax.tree.map(lambda p, u: (p + u).astype(p.dtype), state.params, updates)
        info = UnlearnInfo(value, tree.norm(tree.stop_gradient(gradient)))
        return UnlearnState(params, opt_state, state.memory), info

    return UnlearnAlgorithm(init, update, UNDECLARED._replace(differentiable=True))


def begin(algorithm: UnlearnAlgorithm, params: Params, request: Request, key: Array) -> UnlearnState:
    """The state before the first update, from the whole request; its memory is a constant to any outer derivative."""
    check_params(params)
    _check_request(request, algorithm.traits)
    state = algorithm.init(params, request, key)
    return state._replace(memory=tree.stop_gradient(state.memory))


def merged(batches: Request) -> Request:
    """One batch from batches: [steps, examples, ...] -> [steps * examples, ...]."""
    together: Request = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), batches)
    return together


def roll_out(
    algorithm: UnlearnAlgorithm,
    state: UnlearnState,
    batches: Request,
    key: Array,
    *,
    unroll: bool = False,
    remat: bool = False,
) -> tuple[UnlearnState, UnlearnInfo]:
    """`update` over the leading axis of `batches`, from a state.

    Args:
      batches: a Request whose arrays carry a leading step axis [steps, examples, ...].
      unroll: trace the steps one after another instead of `lax.scan` (convolutions in a loop are slow on a CPU).
      remat: recompute each step in an outer derivative's backward pass instead of storing what it computed.

    Returns:
      The last state, and infos stacked over steps.

    Raises:
      ValueError: batches without a step axis.
    """
    _check_request(batches, algorithm.traits, steps=True)

    def body(state: UnlearnState, step: tuple[Array, Request]) -> tuple[UnlearnState, UnlearnInfo]:
        index, batch = step
        return algorithm.update(state, batch, jax.random.fold_in(key, index))

    steps = jnp.shape(batches.forget["weight"])[0]
    if remat:
        body = jax.checkpoint(body, prevent_cse=unroll)
    if not unroll or not steps:
        return jax.lax.scan(body, state, (jnp.arange(steps), batches))
    infos = []
    for i in range(steps):
        state, info = body(state, (jnp.asarray(i), jax.tree.map(lambda leaf: leaf[i], batches)))  # noqa: B023
        infos.append(info)
    return state, jax.tree.map(lambda *leaves: jnp.stack(leaves), *infos)


def unlearn(
    algorithm: UnlearnAlgorithm, params: Params, request: Request, batches: Request, key: Array, *, unroll: bool = False
) -> tuple[UnlearnState, UnlearnInfo]:
    """`init` on the whole request, then `update` over the leading axis of `batches`.

    Args:
      algorithm: from a factory of the shelf, or of your own.
      params: of the trained model.
      request: all of what is to be forgotten, and what retained data there are, [examples, ...].
      batches: the batches that the updates see, one after another, [steps, examples, ...].
      key: of the memory and of dropout.
      unroll: see `roll_out`.

    Returns:
      The last state, whose `params` are the unlearned model's, and infos stacked over steps.
    """
    init_key, step_key = jax.random.split(key)
    return roll_out(algorithm, begin(algorithm, params, request, init_key), batches, step_key, unroll=unroll)

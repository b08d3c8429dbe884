"""The training step: an ordinary gradient, and on some steps the gradient through a simulated request beside it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax

from readiness.objective import MetaBatch, Readiness
from unlearn.base import Array, Batch, Mean, Model, Params, check_model, check_params, mean_loss
from unlearn.losses import weighted_mean


class TrainState(NamedTuple):
    """Parameters, the optimiser's state, and the number of steps made (int32)."""

    params: Params
    opt_state: Any
    step: Array


class StepInfo(NamedTuple):
    """The ordinary loss, and the readiness loss (0 on a step without one)."""

    loss: Array
    readiness: Array


Step = Callable[..., tuple[TrainState, StepInfo]]


def make_step(
    model: Model,
    optimizer: optax.GradientTransformation,
    *,
    readiness: Readiness | None = None,
    mean: Mean = weighted_mean,
    grad: Callable[..., Any] = jax.value_and_grad,
) -> Step:
    """A pure training step `(state, batch, key, meta_batch=None, step_size=None) -> (state, info)`.

    Without a meta-batch it is ordinary training: the same program, bit for bit, as if readiness did not exist. With one,
    it descends L(params; batch) + R(params; meta_batch). Batch weights that are not all equal re-weight the loss.

    Args:
      model: what is trained.
      optimizer: any optax transformation.
      readiness: the loss of `make_readiness`, for steps that get a meta-batch.
      mean: the reduction of the device mode.
      grad: the outer gradient operator, of the type of `jax.value_and_grad`, `has_aux` included.

    Raises:
      TypeError: a model that is no `Model`.
      ValueError: from the step, if it is given a meta-batch and there is no readiness loss.
    """
    check_model(model)

    def plain(params: Params, batch: Batch, key: Array) -> tuple[Array, StepInfo]:
        loss = mean_loss(model, params, batch, key, mean)
        return loss, StepInfo(loss, jax.numpy.zeros_like(loss))

    def ready(params: Params, batch: Batch, key: Array, meta: MetaBatch, step_size: Array) -> tuple[Array, StepInfo]:
        if readiness is None:
            raise ValueError("a meta-batch needs the readiness loss: give make_step one from make_readiness")
        loss = mean_loss(model, params, batch, key, mean)
        extra, _ = readiness(params, meta, step_size, jax.random.fold_in(key, 1))
        return loss + extra, StepInfo(loss, extra)

    def step(
        state: TrainState, batch: Batch, key: Array, meta: MetaBatch | None = None, step_size: Array | None = None
    ) -> tuple[TrainState, StepInfo]:
        if meta is None:
            (_, info), gradient = grad(plain, has_aux=True)(state.params, batch, key)
        else:
            (_, info), gradient = grad(ready, has_aux=True)(state.params, batch, key, meta, step_size)
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        return TrainState(optax.apply_updates(state.params, updates), opt_state, state.step + 1), info

    return step


def init_state(params: Params, optimizer: optax.GradientTransformation) -> TrainState:
    """The training state before the first step.

    Raises:
      ValueError: parameters that are none: see `unlearn.base.begin`.
    """
    check_params(params)
    return TrainState(params, optimizer.init(params), jax.numpy.zeros((), jax.numpy.int32))

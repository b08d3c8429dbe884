"""What an update of a request costs, counted by XLA."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from experiments.core import keys
from experiments.core.machines.environment import program_flops
from experiments.scoring import algorithms
from experiments.scoring.requests import RequestData, Setting
from unlearn import Request
from unlearn.base import Model


def of_update(model: Model, name: str, options: dict[str, Any], params: Any, data: RequestData, setting: Setting) -> float:
    """FLOPs of one update of a request."""
    traced = _traced_update(model, name, options, params, data, setting)
    return program_flops(traced, traced.lower().compile())


def compiled_update(
    model: Model, name: str, options: dict[str, Any], params: Any, data: RequestData, setting: Setting
) -> Any:
    """The program of one update of a request on one model."""
    return _traced_update(model, name, options, params, data, setting).lower().compile()


def _traced_update(
    model: Model, name: str, options: dict[str, Any], params: Any, data: RequestData, setting: Setting
) -> Any:
    algorithm = algorithms.algorithm(name)(model, optax.sgd(setting.learning_rate), **options)
    size = setting.batch_size or data.forget["weight"].shape[0]
    cut = lambda batch: jax.tree.map(lambda leaf: leaf[:size], batch)  # noqa: E731
    forget = data.forget
    if algorithms.ends_at_level(name) and model.token_loss is not None:  # a text's level always comes with it
        forget = dict(forget, level=jnp.zeros(len(forget["weight"])))
    batch, key = Request(cut(forget), cut(data.retain)), keys.unused()
    state = algorithm.init(params, Request(forget, data.retain), key)
    return jax.jit(algorithm.update).trace(state, batch, key)

"""Mistakes of a caller, each told in one line while a program is traced: no check is left in what runs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from unlearn.model import CLASSIFIER, LANGUAGE, Batch, Model, Params

STATE_TYPES = ("BatchStat", "StateIndex", "State_", "RngState", "RngKey", "RngCount")
STATE_NAMES = ("batch_stats", "running_mean", "running_var", "moving_mean", "moving_var")
FLOATS = "give float arrays alone: of Linen variables['params'], of Equinox eqx.partition(model, eqx.is_inexact_array)[0]"
HINTS = {
    "x": "what the model is given",
    "y": "what it should answer",
    "id": "an integer that stays with an example: what people ask to delete",
    "weight": "a float, 1 for an example that counts and 0 for padding",
}


def check_model(model: Any) -> None:
    """Refuse what is not a `Model`.

    Raises:
      TypeError: a module, or a function.
    """
    if not isinstance(model, Model):
        raise TypeError(
            f"model is of type {type(model).__name__}, not unlearn.Model: make one of functions, as in "
            "classifier(lambda params, x, key: module.apply({'params': params}, x))"
        )


def check_kind(model: Model, name: str, kinds: tuple[str, ...]) -> None:
    """Refuse a model of a kind that an algorithm cannot unlearn; a language model is one that has losses of tokens.

    Raises:
      ValueError: one line that says what to do.
    """
    if model.token_loss is None and CLASSIFIER not in kinds:
        raise ValueError(
            f"{name} is for language models, and this one has no token_loss: make it by sequence_model, or choose an "
            "algorithm for any model, as ascent, level or npo"
        )
    if model.token_loss is not None and LANGUAGE not in kinds:
        raise ValueError(f"{name} is for classifiers: choose another algorithm for sequences, as ascent, level or npo")


def check_params(params: Params) -> None:
    """Refuse what gradient descent must not touch, or cannot.

    Raises:
      ValueError: the moments of BatchNorm are among the parameters, there are none, or some are no float arrays.
    """
    if held := held_state(params):
        raise ValueError(
            f"params hold {held!r}, the moments of BatchNorm, which are no parameters and keep traces of forgotten "
            "data: use a model with GroupNorm or LayerNorm, or freeze the moments inside apply"
        )
    leaves = jax.tree_util.tree_leaves_with_path(params)
    if not leaves:
        raise ValueError(f"params hold no array: {FLOATS}")
    for path, leaf in leaves:
        kind = getattr(leaf, "dtype", None)
        if kind is None or not jnp.issubdtype(kind, jnp.inexact):
            name = jax.tree_util.keystr(path, simple=True, separator="/") or "params"
            raise ValueError(f"params hold {name!r} of type {kind or type(leaf).__name__}: {FLOATS}")


def held_state(params: Params) -> str | None:
    """The name of what varies in training and is no parameter: of NNX and Equinox by class, else by what it is called."""
    nodes = jax.tree.leaves(params, is_leaf=lambda node: type(node).__name__ in STATE_TYPES)
    if kinds := [type(node).__name__ for node in nodes if type(node).__name__ in STATE_TYPES]:
        return kinds[0]
    for path, _ in jax.tree_util.tree_leaves_with_path(params):
        parts = jax.tree_util.keystr(path, simple=True, separator="/").split("/")
        if names := [name for name in STATE_NAMES if name in parts]:
            return names[0]
    return None


def check_batch(batch: Any, name: str, *, labels: bool = True, ids: bool = True, steps: bool = False) -> None:
    """Refuse data that are no batch.

    Args:
      batch: [examples, ...], or [steps, examples, ...] if `steps`.
      name: of the data, for the message.
      labels, ids: whether y and id must be there.

    Raises:
      TypeError: no mapping.
      ValueError: x, y, id or weight is missing, there is an axis too few or too many, or examples do not line up.
    """
    check_keys(batch, name, ("weight", "x", *(("y",) if labels else ()), *(("id",) if ids else ())))
    lead = jnp.shape(batch["weight"])
    if steps and len(lead) == 1:
        raise ValueError(
            f"{name} data have no step axis: weight has shape {lead}, not [steps, examples]; for one step give "
            "jax.tree.map(lambda leaf: leaf[None], batches)"
        )
    if len(lead) != 1 + steps:
        wanted = "[steps, examples]" if steps else "[examples]; unlearn() goes over batches with a step axis"
        raise ValueError(f"weight of the {name} data has shape {lead}: it should be {wanted}")
    for path, leaf in jax.tree_util.tree_leaves_with_path(dict(batch)):
        if jnp.shape(leaf)[: len(lead)] != lead:
            raise ValueError(
                f"{jax.tree_util.keystr(path)} of the {name} data has shape {jnp.shape(leaf)} where weight has {lead}: "
                "every array of a batch leads with the same examples"
            )


def check_keys(batch: Any, name: str, keys: tuple[str, ...]) -> None:
    """Refuse a batch that lacks one of `keys`.

    Raises:
      TypeError: no mapping.
      ValueError: a key is missing.
    """
    if not isinstance(batch, Mapping):
        raise TypeError(f"{name} data are of type {type(batch).__name__}: give a mapping with x, y, id and weight")
    for key in keys:
        if key not in batch:
            raise ValueError(f"{name} data have no {key!r}: add {HINTS[key]}, one for each example")


def check_number(value: Any, name: str, *, least: float = 0.0, above: bool = False, most: float = math.inf) -> None:
    """Refuse a number that a formula has no meaning for; an array, which may be traced, is let through.

    Args:
      above: whether `least` itself is refused, too.

    Raises:
      ValueError: not finite, or out of range.
    """
    if not isinstance(value, int | float | np.integer | np.floating):
        return
    number = float(value)
    if not math.isfinite(number) or not least <= number <= most or (above and number == least):
        wanted = f"a number above {least:g}" if above else f"a number of {least:g} or more"
        wanted = wanted if math.isinf(most) else f"a number from {least:g} to {most:g}"
        raise ValueError(f"{name} is {value}: give {wanted}")


def check_losses(values: Any, batch: Batch) -> None:
    """Refuse a loss that is not one number per example.

    Raises:
      ValueError: a scalar, or one number per token.
    """
    if jnp.shape(values) != jnp.shape(batch["weight"]):
        raise ValueError(
            f"model.loss returns shape {jnp.shape(values)} for weights of shape {jnp.shape(batch['weight'])}: "
            "return one value per example, and no mean; tokens are reduced to one by sequence_model"
        )

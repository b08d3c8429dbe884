"""NEFTune: training text with noise on its embedded tokens (Jain et al., 2310.05914); predictions have none."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from experiments import models
from experiments.core import keys
from experiments.core.errors import UserError
from experiments.core.keys import Purpose
from unlearn.base import Array, Batch, Model

NAME = "neftune"


def check(fns: models.ModelFns, asked: str) -> None:
    """Refuse models that embed no tokens.

    Args:
      asked: where a config asks for noise, as a line begins.

    Raises:
      UserError: one line that says what to do.
    """
    if fns.noisy is None:
        raise UserError(
            f"{asked}, noise on embedded tokens, which is for text and its decoders: take it out, or set "
            "--config.model.name=gpt2 and data of text"
        )


def noisy(fns: models.ModelFns, alpha: float) -> Model:
    """The model as it is trained; its x are those of `counted`.

    With n tokens in a row and d features in an embedded one, each feature of each token has noise added that is uniform
    within alpha / sqrt(n d) of 0.
    """
    assert fns.noisy is not None  # `check` saw to it
    apply_noisy = fns.noisy

    def apply(params: Any, x: Any, key: Array | None) -> Array:
        tokens, real = x
        if key is None:  # a prediction
            return fns.apply(params, tokens, None)
        return apply_noisy(params, tokens, key, noise(key, real, (*tokens.shape, fns.width), alpha))

    return models.as_model(fns)._replace(apply=apply)


def noise(key: Array, real: Array, shape: tuple[int, ...], alpha: float) -> Array:
    """The noise of one step, [examples, length, width].

    Args:
      key: of the step.
      real: [examples], how many tokens of each row are no pads.
    """
    drawn = jax.random.uniform(keys.fold(key, Purpose.EMBEDDING), shape, minval=-1.0, maxval=1.0)
    return drawn * (alpha / jnp.sqrt(jnp.maximum(real, 1) * shape[-1]))[:, None, None]


def counted(batch: Batch) -> Batch:
    """The batch with x = (tokens, how many of each row are real): those up to the last that tells one that counts."""
    weighted = batch["token_weight"] > 0
    last = jnp.max(jnp.where(weighted, 1 + jnp.arange(weighted.shape[1]), 0), axis=1)
    return dict(batch, x=(batch["x"], last))

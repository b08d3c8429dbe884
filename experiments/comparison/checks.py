"""What only algorithms and data can tell: options that an algorithm cannot take, sets of examples that are too small."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from experiments.configs.readiness import Comparison
from experiments.core import keys
from experiments.core.config import Loc, key
from experiments.core.errors import ConfigError, UserError, line
from experiments.data.sets import Sets
from experiments.scoring import algorithms, requests
from unlearn import Request, classifier
from unlearn.metrics.membership import FOLDS


def check_options(config: Comparison) -> None:
    """Refuse options that an algorithm does not have or cannot take.

    Raises:
      ConfigError: a line for each algorithm of which there are.
    """
    algorithms.check_names(config.request.unlearners)
    told: list[tuple[Loc, str]] = []
    for name in config.request.unlearners:
        at: Loc = ("request", "options", algorithms.short(name))
        if algorithms.is_own(name) or at[-1] in config.request.options:
            told.append((at, _refusal(name, config.request.options.get(at[-1], {}))))
    for name in ("", *config.variants):
        readiness = config.variant(name).readiness
        at = ("variants", name) if name else ("readiness",)
        algorithms.algorithm(readiness.algorithm, key((*at, "algorithm")))
        told.append(((*at, "algorithm_options"), _refusal(readiness.algorithm, readiness.algorithm_options)))
    if lines := [f"{key(at)} cannot be used ({said}): set others" for at, said in told if said]:
        raise ConfigError(lines)


def _refusal(algorithm: str, options: Mapping[str, float]) -> str:
    """What an algorithm says against options, if it does: one update of a toy model is traced with them."""
    model = classifier(lambda params, x, key: x @ params)
    ones = jnp.ones(1)
    batch = {"x": ones[None], "y": jnp.zeros(1, jnp.int32), "id": jnp.zeros(1, jnp.int32), "weight": ones}
    request, random = Request(batch, batch), keys.unused()

    def update(params: jax.Array) -> Any:
        made = algorithms.checked(algorithm, algorithms.algorithm(algorithm)(model, optax.sgd(0.1), **options))
        return made.update(made.init(params, request, random), request, random)[1]

    try:
        jax.eval_shape(update, jnp.ones((1, 2)))
    except Exception as error:  # a user's own raises what it likes
        if algorithms.is_own(algorithm) and not isinstance(error, UserError):
            raise UserError(
                f"{algorithm!r} fails on a toy model ({type(error).__name__}: {line(error, 160)}): mend it"
            ) from error
        if not isinstance(error, TypeError | ValueError | ArithmeticError) or isinstance(error, UserError):
            raise
        return line(error)
    return ""


def check_sets(config: Comparison, asked: Mapping[str, Any], sets: Sets) -> None:
    """Refuse sets of examples that are too small for what is measured on them.

    Args:
      asked: what the request is about, as a Batch.

    Raises:
      UserError: one line that says what to do.
    """
    more = "data.train_size" if config.forget.setting == "class" else "forget.fraction"
    for what, batch, least, mend in (
        ("to forget", asked, FOLDS, f"raise --config.{more}"),
        ("to compare forgotten ones with", sets.others, FOLDS, "choose other data or another class"),
        ("to test on", sets.test_retain, 1, "choose other data or another class"),
        ("to validate on", sets.validation_retain, 1, "raise --config.data.validation_fraction"),
    ):
        if len(batch["id"]) < least:
            raise UserError(f"there are {len(batch['id'])} examples {what}, {least} or more are needed: {mend}")
    request = config.request
    for i, part in enumerate(requests.parts(asked["id"], request.parts, request.overlap, config.forget.seed), 1):
        if not part.any():
            raise UserError(
                f"part {i} of the request is empty: its {len(part)} examples do not fill {request.parts} parts; "
                "set fewer --config.request.parts"
            )

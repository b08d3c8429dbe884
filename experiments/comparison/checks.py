"""The door, and what only algorithms and data can tell: options an algorithm cannot take, sets that are too small."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import optax

from experiments.configs.readiness import Comparison
from experiments.core import keys, sections
from experiments.core.config import Loc, key, validated
from experiments.core.errors import ConfigError, UserError, line
from experiments.data.problem import Problem
from experiments.scoring import algorithms, requests
from unlearn import Request, classifier
from unlearn.metrics.membership import FOLDS


def resolved(config: ml_collections.ConfigDict | Comparison) -> Comparison:
    """The validated config, with what readiness leaves unset filled in as suits the kind of request.

    Raises:
      ConfigError: one line for each mistake.
    """
    made = validated(Comparison, config).resolved()
    check_options(made.request, {name: made.variant(name).readiness for name in ("", *made.variants)})
    return made


def check_options(request: sections.Unlearners, readiness: Mapping[str, sections.Readiness]) -> None:
    """Refuse options that an algorithm does not have or cannot take.

    Args:
      readiness: by variant, the default one under "".

    Raises:
      ConfigError: a line for each algorithm of which there are.
    """
    algorithms.check_names(request.unlearners)
    told: list[tuple[Loc, str]] = []
    for name in request.unlearners:
        short = algorithms.short(name)
        if algorithms.is_own(name) or short in request.options:
            told.append((("request", "options", short), _refusal(name, request.options.get(short, {}))))
    for name, section in readiness.items():
        at: Loc = ("variants", name) if name else ("readiness",)
        algorithms.algorithm(section.algorithm, key((*at, "algorithm")))
        told.append(((*at, "algorithm_options"), _refusal(section.algorithm, section.algorithm_options)))
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


def check_problem(problem: Problem, noise: float, parts: int = 1, overlap: float = 0.0) -> None:
    """Refuse sets of examples that are too small for what is measured on them, and noise that there is no room for.

    Args:
      noise: share of what training is told that is wrong.
      parts, overlap: of the request.

    Raises:
      UserError: one line that says what to do.
    """
    asked, sets = problem.asked, problem.sets
    more = "data.train_size" if problem.by_class else "forget.fraction"
    for what, batch, least, mend in (
        ("to forget", asked, FOLDS, f"raise --config.{more}"),
        ("to compare forgotten ones with", sets.others, FOLDS, "choose other data or another class"),
        ("to test on", sets.test_retain, 1, "choose other data or another class"),
        ("to validate on", sets.validation_retain, 1, "raise --config.data.validation_fraction"),
    ):
        if len(batch["id"]) < least:
            raise UserError(f"there are {len(batch['id'])} examples {what}, {least} or more are needed: {mend}")
    for i, part in enumerate(requests.parts(asked["id"], parts, overlap, problem.seed), 1):
        if not part.any():
            raise UserError(
                f"part {i} of the request is empty: its {len(part)} examples do not fill {parts} parts; "
                "set fewer --config.request.parts"
            )
    problem.told(noise)  # refused here, whoever will be told

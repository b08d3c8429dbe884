"""Unlearning algorithms by name: those of the shelf, and a user's own, `module:function`.

The function is what `unlearn.ALGORITHMS` holds: `scrub(model, optimizer, **options) -> UnlearnAlgorithm`; options come from
`--config.request.options='{"scrub": {...}}'`. To be rehearsed (`readiness.algorithm`) it takes `mean` and `grad`, too.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence

from experiments.core.errors import UserError
from experiments.core.forgetting import Unlearners
from experiments.core.references import resolve
from experiments.core.values import AT
from experiments.core.values import short as short
from unlearn import ALGORITHMS, UnlearnAlgorithm, traits_of
from unlearn.base import LANGUAGE

KEY = "request.unlearners"
ALTERNATIVES = ("dpo", "idk_dpo")  # those that are told what to say instead


@functools.lru_cache
def algorithm(name: str, key: str = KEY) -> Callable[..., UnlearnAlgorithm]:
    """What makes the algorithm of that name; looked up here and nowhere else.

    Args:
      key: of the config, for what an error says.

    Raises:
      UserError: no such algorithm, module or function; one line that says what to do.
    """
    name = base(name)
    if not is_own(name):
        if name not in ALGORITHMS:
            raise UserError(f"{name!r} is unknown in {key}; choose from {', '.join(ALGORITHMS)}, or give module:function")
        return ALGORITHMS[name]
    factory = resolve(name, key)
    try:
        inspect.signature(factory).bind("model", "optimizer")
    except (TypeError, ValueError) as error:
        raise UserError(f"{name!r} in {key} is not called as {short(name)}(model, optimizer): give it these two") from error
    return factory


def base(name: str) -> str:
    """The algorithm's name without where its requests end."""
    return name.partition(AT)[0]


def are_told(names: Sequence[str]) -> bool:
    """Whether any of them is told what questions are to be answered with instead."""
    return any(base(name) in ALTERNATIVES for name in names)


def ends_at_level(name: str) -> bool:
    """Whether requests by that name end at the level of unseen examples: those of `level`, and of NAME@level."""
    return name == "level" or name.endswith(f"{AT}level")


def is_own(name: str) -> bool:
    """Whether a name is that of a user's function."""
    return isinstance(name, str) and ":" in name


def check_names(names: Sequence[str]) -> None:
    """Refuse names that nothing has, or that pages could not tell apart.

    Raises:
      UserError: one line that says what to do.
    """
    for name in names:
        algorithm(name)
    shown = [short(name) for name in names]
    if twice := next((name for name in shown if shown.count(name) > 1 or name == "none"), None):
        raise UserError(f"{KEY} has {twice!r} twice, or by a name that means no algorithm: rename the function")


def check_kind(name: str, kind: str, key: str = KEY) -> None:
    """Refuse an algorithm of the shelf that cannot unlearn a kind of model, one of `unlearn.KINDS`.

    Raises:
      UserError: one line with those that can.
    """
    if is_own(name) or kind in traits_of(algorithm(name, key)).kinds:
        return
    suited = ", ".join(other for other, factory in ALGORITHMS.items() if kind in traits_of(factory).kinds)
    what = "language models" if kind == LANGUAGE else "classifiers"
    raise UserError(f"{base(name)!r} in {key} does not unlearn {what}, as this run trains: choose from {suited}")


def options(section: Unlearners, name: str) -> dict[str, float]:
    """What the config sets of an algorithm's options."""
    return dict(section.options.get(short(base(name)), {}))

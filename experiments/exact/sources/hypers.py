"""Hyper-parameters and arguments of the factories: what each value must be, and the recipe that they give."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from experiments.exact.sources import building
from s3t.training.adapters import Lora
from s3t.training.stages import Recipe

LARGEST = 3e38  # a number beyond it is infinite in single precision
Rule = tuple[Callable[[Any], bool], str]


def whole(low: int, end: int = 1 << 31) -> Rule:
    """Whole numbers from `low` to below `end`."""
    return lambda value: type(value) is int and low <= value < end, f"a whole number from {low} to {end - 1}"


def above(low: float) -> Rule:
    """Numbers above `low`."""
    return lambda value: is_number(value) and low < value, f"a number above {low:g}"


def list_of(rule: Rule, least: int = 1) -> Rule:
    """Lists of at least so many, each as another rule says."""
    good, what = rule
    return (
        lambda value: isinstance(value, list | tuple) and len(value) >= least and all(map(good, value)),
        f"a list, each {what}",
    )


def is_number(value: Any) -> bool:
    """Whether a value is a number that single precision holds."""
    return type(value) in (int, float) and -LARGEST <= value <= LARGEST  # which NaN is not


TEXT: Rule = (lambda value: isinstance(value, str), "a text")
FLAG: Rule = (lambda value: isinstance(value, bool), "true or false")
SHARE: Rule = (lambda value: is_number(value) and 0 <= value < 1, "a number from 0 to below 1")

# How nodes are trained: the part of every factory's hyper-parameters that a recipe is made of.
TRAINING: dict[str, Any] = {
    "rank": 8,
    "alpha": 8.0,
    "rank_stabilised": True,  # scale by alpha / sqrt(rank), else by alpha / rank
    "targets": ["query", "value"],
    "batch_size": 32,
    "epochs": 15,
    "learning_rate": 1e-2,
    "weight_decay": 0.0,
    "clip": 1.0,
}
TRAINING_RULES: dict[str, Rule] = {
    "rank": whole(1),
    "alpha": above(0),
    "rank_stabilised": FLAG,
    "targets": list_of(TEXT),
    "batch_size": whole(1),
    "epochs": whole(1),
    "learning_rate": above(0),
    "weight_decay": (lambda value: is_number(value) and value >= 0, "a number from 0 on"),
    "clip": above(0),
}


def recipe(hyper: Mapping[str, Any]) -> Recipe:
    """How nodes are trained, as hyper-parameters say."""
    lora = Lora(hyper["rank"], hyper["alpha"], tuple(hyper["targets"]), hyper["rank_stabilised"])
    optimizer = building.cosine_adamw(hyper["learning_rate"], hyper["weight_decay"], hyper["clip"])
    return Recipe(lora, hyper["batch_size"], hyper["epochs"], optimizer)


def check(whose: str, values: Mapping[str, Any], rules: Mapping[str, Rule]) -> None:
    """Refuse values that break their rules.

    Raises:
      ValueError: one does; one line that says what to give.
    """
    for name, value in values.items():
        good, what = rules[name]
        if not good(value):
            raise ValueError(f"{whose} {name!r} is {value!s:.80}: give {what}")

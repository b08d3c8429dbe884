"""What a single value of a config may be: bounds, names, seeds, rates, levels.

Every number is bounded on both sides. Where nothing but sense bounds it, the bound is one that no sensible run meets.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, Field

from experiments.core.config import Says, Wrong, either

MOST = 2**31 - 1  # JAX counts in 32 bits
SEEDS = 2**32  # a key takes a seed of 32 bits
LEAST_SCORED = 5  # the folds of the membership attack; a test holds them equal
LONGEST_NAME = 100  # of what is part of file names, in bytes

# What a judge judges unless it is told, and the whole shelf; a test holds that equal to it.
JUDGED = ("level", "ascent", "graddiff", "neggrad_plus", "ascent_kl", "npo", "finetune", "random_label")
SHELF = (*JUDGED, "simnpo", "undial", "rmu", "wga", "dpo", "idk_dpo")
AT = "@"  # between an algorithm and where its requests end

Seed = Annotated[int, Field(ge=0, le=SEEDS - 1)]
Steps = Annotated[int, Field(ge=1, le=10**8)]
BatchSize = Annotated[int, Field(ge=1, le=10**6)]
Rate = Annotated[float, Field(gt=0, le=1000)]
Weight = Annotated[float, Field(ge=0, le=10**6)]
Norm = Annotated[float, Field(gt=0, le=10**6)]
Share = Annotated[float, Field(gt=0, lt=1)]


# --- Values with rules of their own -----------------------------------------------------------------------------------


def _scored(count: int) -> int:
    if 0 < count < LEAST_SCORED:
        raise ValueError
    return count


def each_once(entries: tuple[Any, ...]) -> tuple[Any, ...]:
    """The entries, refused if there are equal ones.

    Raises:
      ValueError: there are.
    """
    if len(set(entries)) < len(entries):
        raise ValueError("give each once")
    return entries


def _ordered(pair: tuple[float, float]) -> tuple[float, float]:
    if pair[0] > pair[1]:
        raise ValueError
    return pair


def _algorithm(name: str) -> str:
    if name not in SHELF and ":" not in name:
        raise ValueError
    return name


def _unlearner(name: str) -> str:
    """An algorithm, or NAME@level; `level` itself goes nowhere else."""
    base, at, aim = name.partition(AT)
    if at and (aim != "level" or base == "level"):
        raise ValueError
    _algorithm(base)
    return name


def short(name: str) -> str:
    """An algorithm's name on pages, in rows and among options: of a user's own, its function's."""
    return name.rpartition(":")[2]


def _cap(cap: str) -> str:
    """A cap is a number as a text, so that a flag may give a name as well."""
    try:
        works = cap in ("", "log_classes") or 0 < float(cap) <= 10**6
    except ValueError:
        works = False
    if not works:
        raise ValueError
    return cap


def _levels_of(where: str) -> str:
    """A level is a number as a text, so that a flag may give a name as well."""
    if where not in ("own", "proxy", "oracle") and not -1000 <= float(where) <= 1000:
        raise ValueError
    return where


def level_number(where: str) -> float | None:
    """The level that `ToLevel.levels` gives as a number; None if models tell it."""
    return None if where in ("own", "proxy", "oracle") else float(where)


def sound(value: Any) -> Any:
    """A value of any kind in which no number is nan, infinite or beyond 32 bits.

    Raises:
      ValueError: there is one.
    """
    numbers = [value]
    while numbers:
        entry = numbers.pop()
        if isinstance(entry, dict | tuple):
            numbers += entry.values() if isinstance(entry, dict) else entry
        elif isinstance(entry, int | float) and not abs(entry) <= MOST:  # nan is no less than anything
            raise ValueError(f"give finite numbers up to {MOST}")
    return value


def check_seeds(seed: int, count: int) -> None:
    """Refuse seeds that run over the last one.

    Raises:
      Wrong: they do.
    """
    if seed + count > SEEDS:
        raise Wrong((("seed",), f"is {seed}: give one from 0 to {SEEDS - count}, so that seeds stay apart"))


def check_name(what: str, name: Any, taken: str) -> None:
    """Refuse a name that cannot be part of the names of files, or that is taken.

    Raises:
      ValueError: what a name may be.
    """
    if not name.isprintable() or name in ("", taken) or "/" in name:
        raise ValueError(f"is no name of a {what}: choose one other than {taken!r}, printable and without '/'")
    if len(name.encode()) > LONGEST_NAME:
        raise ValueError(f"is a long name of a {what}: choose one of at most {LONGEST_NAME} bytes")


Scored = Annotated[
    int,
    Field(ge=0, le=MOST),
    AfterValidator(_scored),
    Says(f"0 for all, or a whole number from {LEAST_SCORED} to {MOST}"),
]
StepSizes = Annotated[
    tuple[Annotated[float, Field(gt=0, le=1000)], Annotated[float, Field(gt=0, le=1000)]],
    AfterValidator(_ordered),
    Says("(lowest, highest), numbers above 0 and up to 1000, as in (0.3, 0.5)"),
]
Cap = Annotated[str, AfterValidator(_cap), Says("log_classes, a text with a number above 0 and up to 1000000, or nothing")]
Algorithm = Annotated[str, AfterValidator(_algorithm), Says(f"{either((*SHELF, 'module:function of your own'))}")]
Unlearner = Annotated[
    str,
    AfterValidator(_unlearner),
    Says(f"{either((*SHELF, 'module:function of your own'))}; NAME@level goes on to the level of unseen examples"),
]
LevelsOf = Annotated[
    str, AfterValidator(_levels_of), Says("own, proxy, oracle, or a text with a number of nats from -1000 to 1000")
]
Option = Annotated[Any, AfterValidator(sound)]
AlgorithmOptions = dict[str, Weight]
Names = Annotated[
    tuple[Annotated[str, Field(min_length=1)], ...], AfterValidator(each_once), Says("texts, each once, as in ('a',)")
]
ClassNumber = Annotated[int, Field(ge=0, le=MOST)]
Classes = Annotated[tuple[ClassNumber, ...], AfterValidator(each_once)]

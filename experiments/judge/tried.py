"""What was tried to choose settings of requests, on the page of a judgement."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from experiments.core.results import Row
from experiments.reporting.document import Block, Heading, Table, Text, slug
from experiments.reporting.numbers import NONE, Cell, led


def section(
    cases: Mapping[str, Sequence[Row]], name: Callable[[Row], str], ours: Callable[[Sequence[Row]], list[int]]
) -> list[Block]:
    """A table for each forget set whose requests were tuned.

    Args:
      cases: forget set -> its rows.
      name: of a row.  ours: which rows are ours.
    """
    blocks: list[Block] = []
    for case, rows in cases.items():
        tuned = [row for row in rows if row.extra.get("trials")]
        for file, head, mine in (
            ("tuning", "rate x steps", [row for row in tuned if "gap" in row.extra["trials"][0]]),
            ("tuning-level", "rate, beta", [row for row in tuned if "reached" in row.extra["trials"][0]]),
        ):
            if mine:
                heads = [_trial(one) for one in mine[0].extra["trials"]]
                lines: list[list[Cell]] = [[name(row), *_tried(row), str(len(row.extra["trials"]))] for row in mine]
                table = Table([head, *heads, "trials"], lines, name=f"{slug(case)}-{file}", ours=ours(mine))
                blocks += [Text(f"{case}:"), table]
    note = (
        "The gap of every trial, in points: the mean distance to the oracles in accuracy on forget data and on validation "
        "data that stay. It is measured on models that nothing else is reported of. The smallest, marked *, was chosen. "
        "Of requests to a level: how many models settled and, if not all, how far they came on the way there, in %; then "
        "their accuracy on validation data that stay or, of texts to predict, their loss of retained ones, in nats per "
        "token. No oracle takes part, and of trials in which as many settled, those that came less than half of the way "
        "come last. A readiness that has rehearsed its request has no trials."
    )
    return [Heading("Tuning"), Text(note), *blocks] if blocks else []


def _trial(trial: Mapping[str, Any]) -> str:
    second = f"{trial['beta']:g}" if "beta" in trial else f"x {trial['steps']}"
    return f"{trial['learning_rate']:g}\n{second}"


def _tried(row: Row) -> Iterator[str]:
    setting = row.extra["setting"]
    for trial in row.extra["trials"]:
        if "reached" in trial:
            text = f"{trial['reached']}{led(trial, row.extra['models']['tuning'])}: {_kept(trial)}"
        else:
            text = NONE if trial["gap"] is None else f"{100 * trial['gap']:.1f}"
        yield f"{text}*" if setting and setting.items() <= trial.items() else text


def _kept(trial: Mapping[str, Any]) -> str:
    """What a trial kept: accuracy in % or, of texts to predict, the loss of retained ones."""
    name, scale, digits = ("retained_loss", 1, ".2f") if "retained_loss" in trial else ("kept", 100, ".1f")
    return NONE if trial[name] is None else f"{scale * trial[name]:{digits}}"

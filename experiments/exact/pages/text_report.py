"""Perplexities and truth ratios on the page of a study on text to predict, by depth and by deletions."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.comparison import methods
from experiments.comparison.methods import Measure, Way
from experiments.core.results import Row
from experiments.exact.pages import ways
from experiments.exact.scores import LOSS, TRUTH
from experiments.reporting import names
from experiments.reporting.document import Block, Heading, Table, Text
from experiments.reporting.numbers import Cell, Number, bare

PERPLEXITY = "Perplexity: exp of the mean loss of a token of test documents, each document counting once."
TRUTH_NOTE = (
    "Truth: of TOFU's truth ratio R the mean of max(0, 1 − R) over questions that were trained on, deleted ones among "
    "them: 1 where no wrong answer is likely. R = p(wrong) / p(right in other words), losses averaged over wrong answers, "
    "of the probabilities that are served."
)


def section(every: Sequence[Way], grid: Sequence[int]) -> list[Block]:
    """Tables by depth and by deletions; nothing of a study whose score is an accuracy.

    Args:
      grid: numbers of deletions to tell.
    """
    if ways.shown(every).name != LOSS:
        return []
    truth = any(TRUTH in row.extra for way in every for row in way.rows)
    note = f"{PERPLEXITY} {TRUTH_NOTE}" if truth else PERPLEXITY
    title = "Perplexity and truth ratios" if truth else "Perplexity"
    return [Heading(title), Text(note), _by_depth(every, truth), _by_deletions(every, grid, truth)]


def _by_depth(every: Sequence[Way], truth: bool) -> Table:
    one, lora = ways.find(every, "s3t", "one shard"), ways.find(every, "lora")
    depths: list[tuple[str, Way, int | None]] = [
        (f"S3T, depth {depth + 1}", one, depth) for depth in range(len(one.rows[0].extra["by_depth"]))
    ]
    rows: list[list[Cell]] = []
    for name, way, depth in [*depths, ("full LoRA", lora, None)]:
        measures = [Measure("", functools.partial(_test_perplexity, depth), 1, ".2f")]
        if truth:
            measures.append(Measure("", functools.partial(_truth, depth), 1, ".3f"))
        rows.append([name, *(methods.interval(way, measure) for measure in measures)])
    return Table(["model", "test perplexity", *(["truth"] if truth else [])], rows, name="perplexity-depth")


def _test_perplexity(depth: int | None, row: Row) -> float:
    return math.exp(_scored(depth, row)[f"test_{LOSS}"])


def _truth(depth: int | None, row: Row) -> float:
    return _number(_scored(depth, row).get(TRUTH))


def _scored(depth: int | None, row: Row) -> Mapping[str, Any]:
    """What a row has of a depth or, without depths, of the whole."""
    return row.before if depth is None else row.extra["by_depth"][depth]


def _by_deletions(every: Sequence[Way], grid: Sequence[int], truth: bool) -> Table:
    chosen = ways.of_aggregate(every, "mean") | {"rollback": ways.find(every, "sisa", "rollback")}
    rows: list[list[Cell]] = []
    for name, way in chosen.items():
        cells: list[Cell] = [_perplexity(*(part[k] for part in ways.pooled(way, LOSS))) for k in grid]
        if truth:
            cells += _truths(way, grid)
        rows.append([names.plan(name).name, *cells])
    stored = ways.stored(every)
    rows.append(["the store", *_of_store(stored, grid, truth)])
    headers = [f"perplexity\nafter {k}" for k in grid] + ([f"truth\nafter {k}" for k in grid] if truth else [])
    return Table(["planner", *headers], rows, name="perplexity-deletions")


def _perplexity(mean: float, half: float) -> Number:
    low, value, high = (math.exp(loss) for loss in (mean - half, mean, mean + half))
    return Number(value, f"{value:.2f}", f"[{low:.2f}, {high:.2f}]", low, high)


def _truths(way: Way, grid: Sequence[int]) -> list[Cell]:
    if not all(TRUTH in row.extra for row in way.rows):
        return [bare(math.nan, "") for _ in grid]
    mean, half = ways.pooled(way, TRUTH)
    return [Number(mean[k], f"{mean[k]:.3f}", f"± {half[k]:.3f}", mean[k] - half[k], mean[k] + half[k]) for k in grid]


def _of_store(row: Row, grid: Sequence[int], truth: bool) -> list[Cell]:
    """What the store on disk served, of the one stream that it had."""
    moments = [row.extra["built"], *row.extra["stream"]]
    at = [moments[k] if k < len(moments) else {} for k in grid]
    perplexities = np.exp([_number(moment.get(f"test_{LOSS}")) for moment in at])
    cells: list[Cell] = [bare(float(value), f"{value:.2f}") for value in perplexities]
    if truth:
        cells += [bare(value, f"{value:.3f}") for value in (_number(moment.get(TRUTH)) for moment in at)]
    return cells


def _number(value: float | None) -> float:
    return math.nan if value is None else value

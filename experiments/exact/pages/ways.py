"""The ways of an s3t run, found among its rows, and how their score is shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from experiments.comparison.methods import Measure, Way, at
from experiments.core.results import Row
from experiments.exact.scores import ACCURACY, LOSS
from experiments.reporting.numbers import Number, bare, bracketed


class Shown(NamedTuple):
    """How a score is shown.

    name: as rows have it.  title: of charts and stats.
    unit: of one number; scale, digits: how it is written.  axis: a chart's label.  gap: the unit of a difference.
    nobody: what an ensemble without a model has.
    """

    name: str
    title: str
    unit: str
    scale: float
    digits: str
    axis: str
    gap: str
    nobody: str

    @property
    def share(self) -> bool:
        """Whether it is a share, which ends at 1."""
        return self.scale == 100

    def measure(self, split: str) -> Measure:
        """Of a row before any deletion, on a split."""
        return Measure("before", at("before", f"{split}_{self.name}"), self.scale, self.digits)

    def text(self, value: float) -> str:
        """A number alone."""
        return f"{self.scale * value:{self.digits}}"

    def alone(self, value: float) -> Number:
        """A number without an interval."""
        return bare(self.scale * value, self.text(value))

    def within(self, mean: float, half: float) -> Number:
        """A number with its interval, as far as the score goes."""
        low, high = max(0.0, mean - half), mean + half
        high = min(1.0, high) if self.share else high
        if self.share:
            return bracketed(100 * mean, 100 * low, 100 * high)
        return Number(mean, self.text(mean), f"[{self.text(low)}, {self.text(high)}]", low, high)

    def around(self, mean: float, half: float, brief: bool = False) -> Number:
        """A number ± half of its interval; if `brief`, without."""
        if brief:
            return self.alone(mean)
        ends = self.scale * (mean - half), self.scale * (mean + half)
        return Number(self.scale * mean, self.text(mean), f"± {self.text(half)}", *ends)


NEVER_RIGHT = "An ensemble without a model answers nothing, which counts as wrong."
AS_BACKBONE = "Where an ensemble has no model the backbone answers alone, as it was pre-trained."
SHOWN = {
    ACCURACY: Shown(ACCURACY, "Test accuracy", "%", 100.0, ".1f", "accuracy, %", "points", NEVER_RIGHT),
    LOSS: Shown(LOSS, "Test loss", " nats", 1.0, ".3f", "loss, nats per token", "nats", AS_BACKBONE),
}


def shown(every: Sequence[Way]) -> Shown:
    """How the score of a run is shown: rows of text to predict have a loss, others accuracies."""
    return SHOWN[LOSS if f"test_{LOSS}" in every[0].rows[0].before else ACCURACY]


def of_aggregate(every: Sequence[Way], aggregate: str) -> dict[str, Way]:
    """The ways of the study's planners with one aggregate, by planner."""
    found = [(way.rows[0].facts, way) for way in every]
    return {str(facts["planner"]): way for facts, way in found if facts.get("aggregate") == aggregate}


def find(every: Sequence[Way], training: str, variant: str = "default") -> Way:
    """The way of this name."""
    return next(way for way in every if way.key == (training, variant))


def stored(every: Sequence[Way]) -> Row:
    """The row of the store on disk."""
    return next(way.rows[0] for way in every if way.rows[0].facts.get("store"))


def pooled(way: Way, what: str) -> tuple[np.ndarray, np.ndarray]:
    """Mean over seeds of a quantity's mean over streams, and half of its 95% interval: seeds have streams of their own."""
    found = [row.extra[what] for row in way.rows]
    half = np.array([(np.array(one["high"]) - np.array(one["low"])) / 2 for one in found])
    return np.mean([one["mean"] for one in found], axis=0), np.sqrt((half**2).sum(axis=0)) / len(found)

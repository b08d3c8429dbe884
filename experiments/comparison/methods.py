"""The ways a run compared, what is measured of them, and how numbers are written.

A way is a training, a variant of it and an unlearner; its rows are its seeds. JSON's null is NaN here and "–" on paper.
This file alone reads the rows of a comparison.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.core.results import Row
from experiments.reporting import names
from experiments.reporting.names import Style
from experiments.reporting.numbers import NONE, Number, bare, minus
from unlearn.metrics.intervals import Paired, paired, t_interval
from unlearn.metrics.relearning import normalised_area

MATCHED = "†"
EARLY = 20  # the relearning step that is shown beside the last one


class Way(NamedTuple):
    """One training × variant × unlearner and its rows, one per seed."""

    training: str
    variant: str
    unlearner: str
    rows: list[Row]

    @property
    def key(self) -> tuple[str, str]:
        return self.training, self.variant

    @property
    def _method(self) -> names.Method:
        return names.method(*self.key, self.rows[0].facts if self.rows else {})

    @property
    def name(self) -> str:
        """What people call it."""
        return self._method.name

    @property
    def marked(self) -> str:
        return f"{self.name} {MATCHED}" if self.matched else self.name

    @property
    def style(self) -> Style:
        return self._method.style

    @property
    def ours(self) -> bool:
        return self.key == ("readiness", "default")

    @property
    def algorithm(self) -> str:
        """What people call its unlearner."""
        return NONE if self.is_oracle else names.algorithm(self.unlearner)

    @property
    def matched(self) -> bool:
        return bool(self.rows[0].facts.get("matched"))

    @property
    def is_oracle(self) -> bool:
        return self.rows[0].is_oracle


class Measure(NamedTuple):
    """A number of a row, what it is called, and how it is shown: times `scale`, by `digits`; whether more is better."""

    label: str
    of: Callable[[Row], float]
    scale: float = 100.0
    digits: str = ".1f"
    higher: bool = True


def number(row: Row, *path: str) -> float:
    """A number of a row; NaN where it is null or missing."""
    value: Any = getattr(row, path[0])
    for name in path[1:]:
        value = (value or {}).get(name)
    return math.nan if value is None else float(value)


def at(*path: str) -> Callable[[Row], float]:
    """The measure at a path of names."""
    return lambda row: number(row, *path)


def relearning(row: Row, attack: str) -> list[float]:
    """A relearning curve; none if the model is not finite, whose argmax would look like an accuracy."""
    if math.isnan(number(row, "after", "forget_accuracy")):
        return []
    return _numbers(row.extra.get("relearning", {}).get(attack, []))


def relearned(row: Row, attack: str, step: int) -> float:
    """Accuracy after `step` steps of an attack, -1 for the last; NaN where there is none."""
    curve = relearning(row, attack)
    index = len(curve) - 1 if step < 0 else step
    return curve[index] if curve and index < len(curve) else math.nan


def relearned_area(row: Row, oracle: Way | None, attack: str) -> float:
    """How much sooner than the oracle of its seed a row relearns (`metrics.relearning.normalised_area`); NaN without."""
    beside = next((one for one in oracle.rows if one.seed == row.seed), None) if oracle else None
    curves = [relearning(one, attack) for one in (row, beside) if one]
    if len(curves) < 2 or not all(curves):
        return math.nan
    mine, theirs = map(np.array, curves)
    return normalised_area(mine, theirs, number(row, "before", "forget_accuracy"))


def curve(row: Row, what: str) -> list[float]:
    """An unlearning curve; NaN from where the lane diverged, which its losses tell before its accuracies do."""
    kept = {name: _numbers(values) for name, values in row.extra.get("curve", {}).items()}
    if end(row) != "diverged" or what not in kept:
        return kept.get(what, [])
    return [*kept[what][: min(int(np.isfinite(values).sum()) for values in kept.values())], math.nan]


def end(row: Row) -> str:
    """How the request ended; a model with scores that are not finite has diverged whatever its stop."""
    return "diverged" if math.isnan(number(row, "after", "forget_accuracy")) else row.stop


def spent(row: Row, what: str) -> float:
    """What a request took; NaN if it diverged, for then it would look cheap."""
    return math.nan if end(row) == "diverged" else number(row, what)


def _numbers(values: Iterable[float | None]) -> list[float]:
    return [math.nan if value is None else float(value) for value in values]


TEST = Measure("test accuracy", at("before", "test_accuracy"))
LOSS = Measure("forget loss", at("before", "forget_loss"), 1, ".3g")
BEFORE = (
    TEST,
    Measure("forget accuracy", at("before", "forget_accuracy")),
    LOSS,
    Measure("forget confidence", at("before", "forget_confidence")),
    Measure("MIA AUC", at("before", "mia_auc"), 1, ".3f"),
)
FORGET = Measure("forget", at("after", "forget_accuracy"))
KEPT = Measure("test-retain", at("after", "test_retain_accuracy"))
STEPS = Measure("steps", lambda row: spent(row, "steps"), 1, higher=False)
SPENT = Measure("FLOPs", lambda row: spent(row, "unlearn_flops"))
AUC = Measure("MIA AUC", at("after", "mia_auc"), 1, ".3f")
TOW = Measure("ToW", at("extra", "tow"), 1, ".3f")
SOON = Measure(f"relearn\n@{EARLY}", lambda row: relearned(row, "part", EARLY), higher=False)
AFTER = (
    Measure("retain accuracy", at("after", "retain_accuracy")),
    Measure("test accuracy", at("after", "test_accuracy")),
    Measure("forget loss", at("after", "forget_loss"), 1, ".3g"),
    Measure("retain loss", at("after", "retain_loss"), 1, ".3g"),
    Measure("test-retain loss", at("after", "test_retain_loss"), 1, ".3g"),
    Measure("MIA", at("after", "mia_balanced_accuracy")),
    Measure("gap", at("extra", "average_gap")),
)
TIMES = Measure("×", lambda row: math.nan, 1, ".2f")  # of what is no number of one row


# --- From rows to ways ------------------------------------------------------------------------------------------------


def group(rows: Iterable[Row]) -> list[Way]:
    """Rows grouped by training, variant and unlearner: oracles first, then one unlearner after the other."""
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.training, row.variant, row.unlearner), []).append(row)
    order = list(dict.fromkeys(unlearner for _, _, unlearner in groups))
    ways = [Way(*key, sorted(members, key=lambda row: row.seed)) for key, members in groups.items()]
    return sorted(ways, key=lambda way: (not way.is_oracle, order.index(way.unlearner)))


def trainings(ways: Iterable[Way]) -> list[Way]:
    """One way of each training and variant, for what does not depend on the unlearner."""
    first: dict[tuple[str, str], Way] = {}
    for way in ways:
        first.setdefault(way.key, way)
    return list(first.values())


def unlearners(ways: Iterable[Way]) -> list[str]:
    return list(dict.fromkeys(way.unlearner for way in ways if not way.is_oracle))


def find(ways: Iterable[Way], training: str, unlearner: str | None = None, variant: str = "default") -> Way | None:
    """The way of that training and variant, with that unlearner or else the first one."""
    wanted = (way for way in ways if way.key == (training, variant) and unlearner in (None, way.unlearner))
    return next(wanted, None)


def lead(ways: Sequence[Way], unlearner: str | None = None) -> Way | None:
    """The readiness that is compared with all others: the default one, if it was trained."""
    ready = (way for way in ways if way.training == "readiness" and unlearner in (None, way.unlearner))
    return find(ways, "readiness", unlearner) or next(ready, None)


def strongest(ways: Iterable[Way], unlearner: str, kept: Measure = KEPT) -> Way | None:
    """The way without readiness that keeps most, by the very data it is reported on: the hardest to beat."""
    others = [way for way in ways if way.unlearner == unlearner and way.training != "readiness" and not way.is_oracle]
    sign, worst = (1, 0.0) if kept.higher else (-1, math.inf)
    return max(others, key=lambda way: float(sign * np.nan_to_num(values(way, kept), nan=worst).mean()), default=None)


def values(way: Way, measure: Measure) -> np.ndarray:
    return np.array([measure.of(row) for row in way.rows])


def average(way: Way, *path: str) -> float:
    """The mean over seeds of the number at a path of names."""
    return average_of(way, Measure("", at(*path)))


def average_of(way: Way, measure: Measure) -> float:
    return t_interval(values(way, measure)).mean


def compare(a: Way, b: Way, measure: Measure) -> Paired:
    """a - b on the seeds that both have."""
    theirs = {row.seed: measure.of(row) for row in b.rows}
    pairs = np.array([(measure.of(row), theirs[row.seed]) for row in a.rows if row.seed in theirs]).reshape(-1, 2)
    with warnings.catch_warnings():  # SciPy warns of differences that are equal but for rounding
        warnings.simplefilter("ignore", RuntimeWarning)
        return paired(pairs[:, 0], pairs[:, 1])


def break_even(extra: float, saved: float) -> float:
    """Requests after which `extra` FLOPs of training are won back at `saved` FLOPs a request; infinity for never."""
    if math.isnan(extra) or math.isnan(saved):
        return math.nan
    return max(extra, 0.0) / saved if saved > 0 else math.inf


def requests_to_pay(way: Way, vanilla: Way) -> float:
    """The break-even of a way against vanilla with the same unlearner."""
    extra = average(way, "train_flops") - average(vanilla, "train_flops")
    return break_even(extra, average_of(vanilla, SPENT) - average_of(way, SPENT))


# --- From numbers to paper --------------------------------------------------------------------------------------------


def plain(value: float, measure: Measure, sign: str = "") -> str:
    return minus(f"{value * measure.scale:{sign}{measure.digits}}") if math.isfinite(value) else NONE


def shown(value: float, measure: Measure) -> Number:
    """A number without an interval."""
    return bare(value * measure.scale, plain(value, measure))


def mean(way: Way, measure: Measure) -> Number:
    """The mean over seeds."""
    return shown(average_of(way, measure), measure)


def interval(way: Way, measure: Measure, brief: bool = False) -> Number:
    """Mean ± half of the 95% t-interval; unless `brief`, also how many seeds had a finite value, if not all."""
    found = t_interval(values(way, measure))
    number = shown(found.mean, measure)
    part = found.count not in (0, len(way.rows))
    missing = f"({found.count}/{len(way.rows)})" if part and not brief else ""
    around, low, high = "", math.nan, math.nan
    if math.isfinite(found.high):
        half = (found.high - found.mean) * measure.scale
        around = f"± {float(f'{half:.1g}'):g}" if measure.digits.endswith("g") else f"± {half:{measure.digits.lstrip('+')}}"
        low, high = found.low * measure.scale, found.high * measure.scale
    around = f"{around} {missing}".strip()
    return Number(number.value, number.text, around, low, high, count=found.count if part else None)


def bounded(way: Way, measure: Measure, ends: tuple[float, float]) -> Number:
    """Mean with its 95% t-interval in brackets, as far as the quantity goes."""
    found = t_interval(values(way, measure))
    if not math.isfinite(found.low):
        return shown(found.mean, measure)
    low, high = max(found.low, ends[0]), min(found.high, ends[1])
    around = f"[{plain(low, measure)}, {plain(high, measure)}]"
    return Number(found.mean * measure.scale, plain(found.mean, measure), around, low * measure.scale, high * measure.scale)


def signed(value: float, measure: Measure) -> str:
    return plain(value, measure, "+")


def p_value(p: float) -> str:
    return "p undefined" if math.isnan(p) else "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


def difference(a: Way, b: Way, measure: Measure) -> Number:
    """Paired difference a - b, its interval and p-value; where pairs had no finite value, how many had."""
    found, p = compare(a, b, measure)
    around, low, high = "", math.nan, math.nan
    if math.isfinite(found.low):
        around = f"[{signed(found.low, measure)}, {signed(found.high, measure)}]\n{p_value(p)}"
        low, high = found.low * measure.scale, found.high * measure.scale
    pairs = min(len(a.rows), len(b.rows))
    part = found.count not in (0, pairs)
    around += f" ({found.count}/{pairs})" if part else ""
    value = found.mean * measure.scale
    return Number(value, signed(found.mean, measure), around.strip(), low, high, p, found.count if part else None)


def scaled(value: float, unit: str) -> Number:
    """1.38e10 FLOP as 13.8 GFLOP."""
    if not math.isfinite(value):
        return Number(math.nan, NONE)
    power = min(max(int(math.log10(abs(value)) // 3), 0), 6) if value else 0
    return Number(value, f"{value / 1000**power:.3g} {'kMGTPE'[power - 1] if power else ''}{unit}")


def seconds(value: float) -> Number:
    return bare(value, f"{value:.3g} s")


def stops(way: Way, brief: bool = False) -> str:
    """How many requests reached their aim, and what became of the others; `brief` leaves out those out of budget."""
    if way.is_oracle:
        return NONE
    ends = [end(row) for row in way.rows]
    words = {"diverged": "diverged", **({} if brief else {"budget": "out of budget"})}
    rest = ", ".join(f"{ends.count(name)} {word}" for name, word in words.items() if name in ends)
    return f"{ends.count('reached')}/{len(ends)}" + (f" ({rest})" if rest else "")


def steps(way: Way) -> str:
    """Median and maximum over the requests that did not diverge."""
    taken = values(way, STEPS)
    taken = taken[np.isfinite(taken)]
    return f"{np.median(taken):g} / {taken.max():g}" if len(taken) and not way.is_oracle else NONE

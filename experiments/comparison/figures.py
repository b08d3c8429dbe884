"""Figures of a comparison: accuracy while unlearning and while relearning, with interval bands."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes

from experiments.comparison import methods, shown
from experiments.comparison.methods import Way
from experiments.core.results import Row
from experiments.reporting import drawing, names
from experiments.reporting.document import Block, Figures, Heading, Key, Panel, Text
from experiments.reporting.names import Style
from unlearn.metrics.intervals import t_interval

VARIANTS = 5  # readiness variants in one figure, at most
ATTACKS = {
    "stable": "stable data only",
    "similar": "data similar to the forgotten",
    "part": "stable data with a part of the forgotten",
    "all": "all of the forgotten",
}


# --- Sections ---------------------------------------------------------------------------------------------------------


def unlearning(every: Sequence[Way]) -> list[Block]:
    """Accuracy on what goes and on what stays, of text their losses, by unlearning step."""
    blocks: list[Block] = []
    oracle = methods.find(every, "oracle")
    for name in methods.unlearners(every):
        drawn = _drawn(every, name, lambda row: methods.curve(row, "forget_accuracy"))
        panels = []
        for one in shown.of(every).curves:
            curve = lambda row, values=one.values: methods.curve(row, values)  # noqa: E731
            if any(curve(row) for way in drawn for row in way.rows):
                target = methods.average_of(oracle, one.oracle) if oracle else math.nan
                caption = f"{one.caption}, by step of {names.algorithm(name)}"
                panels.append(panel(f"unlearning-{one.name}-{name}", caption, drawn, curve, target, one.unit))
        blocks += _figures(every, [*([oracle] if oracle else []), *drawn], panels) if drawn else []
    note = (
        "Lines are means over seeds. Bands are 95% t-intervals. Each seed stops at its own step and holds its last value "
        "from there. A seed that diverged leaves the mean where it diverges. The dot marks where a method's last seed "
        "stopped. Of several requests in a row, each shows its own forget set. The oracle's line is its mean."
    )
    return [Heading("While unlearning"), Text(note), *blocks] if blocks else []


def relearning(every: Sequence[Way]) -> list[Block]:
    """Accuracy on forget data by step of each attack, the oracle's with them."""
    blocks: list[Block] = []
    oracle, unit = methods.find(every, "oracle"), shown.of(every).relearned_unit
    for name in methods.unlearners(every):
        drawn = [*([oracle] if oracle else []), *_drawn(every, name, lambda row: methods.relearning(row, "part"))]
        panels = []
        for attack, words in ATTACKS.items():
            curve = lambda row, attack=attack: methods.relearning(row, attack)  # noqa: E731
            caption = f"{attack}: {words}, after {names.algorithm(name)}"
            panels.append(panel(f"relearning-{attack}-{name}", caption, drawn, curve, unit=unit))
        blocks += _figures(every, drawn, panels) if drawn else []
    return blocks


def _drawn(every: Sequence[Way], unlearner: str, curve: Callable[[Row], list[float]]) -> list[Way]:
    """Readiness and its hardest rivals, if they have a curve: all ways in one figure could not be told apart."""
    candidates = [way for way in every if way.unlearner == unlearner and not way.is_oracle]
    ready = [way.key for way in candidates if way.training == "readiness"][:VARIANTS]
    best = methods.strongest(every, unlearner, shown.of(every).kept)
    keys = [("vanilla", "default"), ("dpsgd", "default"), *ready, *([best.key] if best else [])]
    return [way for way in candidates if (way.key in keys or way.matched) and any(curve(row) for row in way.rows)]


def _figures(every: Sequence[Way], drawn: Sequence[Way], panels: list[Panel]) -> list[Block]:
    blocks: list[Block] = [
        Figures([Key(way.marked, style) for way, style in zip(drawn, styles(drawn), strict=True)], panels)
    ]
    shown = [way.key for way in drawn]
    left = [way.name for way in every if way.unlearner == drawn[-1].unlearner and way.key not in shown]
    return [*blocks, Text(f"In the tables only: {', '.join(left)}.")] if left else blocks


# --- Panels -----------------------------------------------------------------------------------------------------------


def styles(drawn: Sequence[Way]) -> list[Style]:
    """Everyone's own style."""
    return names.distinct([way.style for way in drawn])


def held(curves: Sequence[Sequence[float]]) -> np.ndarray:
    """Lanes of different lengths as one array [lanes, steps], each holding its last value to the end of the longest."""
    longest = max(map(len, curves), default=0)
    return np.array([[*curve, *[curve[-1]] * (longest - len(curve))] for curve in curves if curve], np.float64)


def panel(
    name: str,
    caption: str,
    drawn: Sequence[Way],
    curve: Callable[[Row], list[float]],
    target: float = math.nan,
    unit: str = "accuracy, %",
) -> Panel:
    """Means by step with 95% t-intervals over lanes, and the oracle's as a horizontal line; accuracies in percent."""
    scale = 100 if "%" in unit else 1
    lanes = [held([curve(row) for row in way.rows]) for way in drawn]
    longest = max((part.shape[-1] for part in lanes), default=0)

    def draw(axes: Axes) -> None:
        if math.isfinite(target):
            axes.axhline(scale * target, **drawing.look(names.ORACLE))
        for i, (style, part) in enumerate(zip(styles(drawn), lanes, strict=True)):
            _draw(axes, style, scale * part, longest, i / len(drawn))
        if scale == 100:
            drawing.percent(axes, [scale * target, *(scale * value for part in lanes for value in part.ravel())])
        axes.set(xlabel="step", ylabel=unit, xlim=(0, max(longest - 1, 1)))

    return drawing.panel(name, caption, draw)


def _draw(axes: Axes, style: Style, lanes: np.ndarray, longest: int, offset: float) -> None:
    """A way's mean and band, held to the end of the longest way; a dot where its own last lane stopped."""
    bands = np.array([t_interval(column) for column in lanes.T]).reshape(-1, 4)
    own = len(bands)
    if 0 < own < longest:
        axes.plot(own - 1, bands[-1, 0], "o", color=style.colour, markersize=6, clip_on=False)
    bands = np.concatenate([bands, bands[-1:].repeat(longest - own, axis=0)])
    drawing.line(axes, np.arange(len(bands)), bands[:, 0], style, (bands[:, 1], bands[:, 2]), offset)

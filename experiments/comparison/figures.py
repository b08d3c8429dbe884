"""Line plots with interval bands, as SVG images for a page; no pyplot and nothing left behind in matplotlib's settings."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.comparison import methods
from experiments.comparison.methods import FORGET, KEPT, Way
from experiments.core.results import Row
from experiments.reporting.document import Block, Figures, Heading, Key, Text
from unlearn.metrics.intervals import t_interval

VARIANTS = 5  # readiness variants in one figure, at most
ATTACKS = {
    "stable": "stable data only",
    "similar": "data similar to the forgotten",
    "part": "stable data with a part of the forgotten",
    "all": "all of the forgotten",
}


class Style(NamedTuple):
    colour: str
    dash: str  # SVG's stroke-dasharray


# Okabe and Ito's colours, told apart by colour-blind readers too, and dashes for print without colour.
ORACLE = Style("#000000", "7 3")
FIXED = {
    ("oracle", "default"): ORACLE,
    ("readiness", "default"): Style("#009e73", ""),
    ("vanilla", "default"): Style("#d55e00", "8 2 2 2"),
    ("dpsgd", "default"): Style("#cc79a7", "2 2"),
}
OTHERS = ("#0072b2", "#e69f00", "#56b4e9", "#7a5195", "#8c6d31", "#5f6b76")
DASHES = ("5 2", "3 1 1 1", "10 3", "1 2", "6 1 1 1 1 1")


# --- Sections ---------------------------------------------------------------------------------------------------------


def unlearning(every: Sequence[Way]) -> list[Block]:
    """Accuracy on what goes and on what stays, by unlearning step."""
    blocks = []
    oracle = methods.find(every, "oracle")
    for name in methods.unlearners(every):
        drawn = _drawn(every, name, lambda row: methods.curve(row, "forget_accuracy"))
        panels = []
        for what, measure, where in (("forget", FORGET, "the forget set"), ("watch", KEPT, "test data that stay")):
            target = methods.average_of(oracle, measure) if oracle else math.nan
            image = panel(drawn, lambda row, what=what: methods.curve(row, f"{what}_accuracy"), target)
            panels.append((f"Accuracy on {where}, by step of {name}", image))
        blocks += _figures(every, [*([oracle] if oracle else []), *drawn], panels) if drawn else []
    note = (
        "Lines are means over seeds, bands their 95% t-intervals. Every lane stops at a step of its own: one that has "
        "stopped holds its last value from there on, and one that diverged leaves the mean where it does. The dot is "
        "where a way's last lane stopped. Of several requests in a row, each shows its own forget set. The oracle's line "
        "is its mean."
    )
    return [Heading("While unlearning"), Text(note), *blocks] if blocks else []


def relearning(every: Sequence[Way]) -> list[Block]:
    """Accuracy on forget data by step of each attack, the oracle's with them."""
    blocks = []
    oracle = methods.find(every, "oracle")
    for name in methods.unlearners(every):
        drawn = [*([oracle] if oracle else []), *_drawn(every, name, lambda row: methods.relearning(row, "part"))]
        panels = [
            (f"{attack}: {caption}, after {name}", panel(drawn, lambda row, attack=attack: methods.relearning(row, attack)))
            for attack, caption in ATTACKS.items()
        ]
        blocks += _figures(every, drawn, panels) if drawn else []
    return blocks


def _drawn(every: Sequence[Way], unlearner: str, curve: Callable[[Row], list[float]]) -> list[Way]:
    """Readiness and its hardest rivals, if they have a curve: all ways in one figure could not be told apart."""
    candidates = [way for way in every if way.unlearner == unlearner and not way.is_oracle]
    ready = [way.key for way in candidates if way.training == "readiness"][:VARIANTS]
    best = methods.strongest(every, unlearner)
    keys = [("vanilla", "default"), ("dpsgd", "default"), *ready, *([best.key] if best else [])]
    return [way for way in candidates if (way.key in keys or way.matched) and any(curve(row) for row in way.rows)]


def _figures(every: Sequence[Way], drawn: Sequence[Way], panels: list[tuple[str, str]]) -> list[Block]:
    chosen = styles(drawn)
    blocks: list[Block] = [Figures([Key(way.marked, *chosen[way.key]) for way in drawn], panels)]
    left = [way.name for way in every if way.unlearner == drawn[-1].unlearner and way.key not in chosen]
    return [*blocks, Text(f"Not drawn, but in the tables: {', '.join(left)}.")] if left else blocks


# --- Panels -----------------------------------------------------------------------------------------------------------


def styles(drawn: Sequence[Way]) -> dict[tuple[str, str], Style]:
    """A style for each training and variant: always the same for the usual ones, the others in order."""
    free = [way.key for way in drawn if way.key not in FIXED]
    others = {key: Style(OTHERS[i % len(OTHERS)], DASHES[i % len(DASHES)]) for i, key in enumerate(free)}
    return {way.key: (FIXED | others)[way.key] for way in drawn}


def held(curves: Sequence[Sequence[float]]) -> np.ndarray:
    """Lanes of different lengths as one array [lanes, steps], each holding its last value to the end of the longest."""
    longest = max(map(len, curves), default=0)
    return np.array([[*curve, *[curve[-1]] * (longest - len(curve))] for curve in curves if curve], np.float64)


def panel(drawn: Sequence[Way], curve: Callable[[Row], list[float]], target: float = math.nan) -> str:
    """A data URI: mean accuracy by step with 95% t-intervals over lanes, and the oracle's as a horizontal line."""

    def draw(axes: Axes) -> None:
        if math.isfinite(target):
            axes.axhline(100 * target, color=ORACLE.colour, linestyle=pattern(ORACLE), linewidth=1.2)
        lanes = {way.key: held([curve(row) for row in way.rows]) for way in drawn}
        longest = max((part.shape[-1] for part in lanes.values()), default=0)
        for key, part in lanes.items():
            _draw(axes, styles(drawn)[key], part, longest)
        low = lowest([target, *(float(np.nanmin(part, initial=1.0)) for part in lanes.values())])
        room = 0.03 * (100 - low)
        ticks = range(low, 101, max(2, (100 - low) // 5))
        axes.set(xlabel="step", ylabel="accuracy, %", ylim=(low - room, 100 + room), yticks=ticks)

    return svg(draw)


def svg(draw: Callable[[Axes], None]) -> str:
    """A data URI of one figure in the house's look; `draw` puts lines and labels on its axes."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({"svg.hashsalt": "forethought", "svg.fonttype": "path", "font.size": 10})
        figure = Figure(figsize=(4.6, 3.0))
        axes = figure.add_axes((0.13, 0.155, 0.845, 0.825))
        draw(axes)
        axes.margins(x=0.01)
        axes.grid(color="#e4e8ec", linewidth=0.8)
        axes.spines[["top", "right"]].set_visible(False)
        file = io.BytesIO()
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return "data:image/svg+xml;base64," + base64.b64encode(file.getvalue()).decode()


def lowest(accuracies: Sequence[float]) -> int:
    """Where the axis begins, in %: at 0, or, where every line keeps above a half, at the ten below the lowest point."""
    least = min((value for value in accuracies if math.isfinite(value)), default=0.0)
    return 10 * min(int(10 * least), 9) if least > 0.5 else 0


def _draw(axes: Axes, style: Style, lanes: np.ndarray, longest: int) -> None:
    """A way's mean and band, held to the end of the longest way; a dot where its own last lane stopped."""
    bands = np.array([t_interval(100 * column) for column in lanes.T]).reshape(-1, 4)
    own = len(bands)
    if 0 < own < longest:
        axes.plot(own - 1, bands[-1, 0], "o", color=style.colour, markersize=5)
    bands = np.concatenate([bands, bands[-1:].repeat(longest - own, axis=0)])
    steps = np.arange(len(bands))
    axes.plot(steps, bands[:, 0], color=style.colour, linestyle=pattern(style), linewidth=1.8)
    axes.fill_between(steps, bands[:, 1], bands[:, 2], color=style.colour, alpha=0.18, linewidth=0)


def pattern(style: Style) -> str | tuple[int, tuple[float, ...]]:
    """A dash in units of the line's width, as matplotlib has it."""
    return (0, tuple(float(length) / 1.8 for length in style.dash.split())) if style.dash else "-"

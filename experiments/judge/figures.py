"""The pictures of a judgement, for the rows of one forget set."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from experiments.comparison import figures
from experiments.comparison.figures import ATTACKS, DASHES, FIXED, OTHERS, Style
from experiments.core.results import Row
from experiments.judge.metrics import EDGES, KINDS
from experiments.reporting.document import Block, Figures, Key, Text
from experiments.reporting.estimates import at, more

BINS = np.linspace(0, 11.5, 24)  # of KLoM, whose floor lets it be that large


def pictures(rows: Sequence[Row], name: Callable[[Row], str]) -> list[Block]:
    """The oracles, doing nothing, and the best algorithm of each way by ToW: more could not be told apart."""
    drawn = _drawn(rows)
    free = [Style(OTHERS[i % len(OTHERS)], DASHES[i % len(DASHES)]) for i in range(len(drawn))]
    styles = [FIXED["oracle", "default"] if row.training == "oracle" else free.pop(0) for row in drawn]
    legend = [Key(name(row), *style) for row, style in zip(drawn, styles, strict=True)]
    panel = lambda draw, *rest: figures.svg(lambda axes: draw(axes, drawn, styles, *rest))  # noqa: E731
    panels = [
        ("U-LiRA: true-positive by false-positive rate", panel(roc)),
        ("Margins on the forget set", panel(_margins)),
        *((f"KLoM of {kind} examples", panel(_klom, kind)) for kind in KINDS),
        *((f"Relearning: {caption}", panel(_relearning, attack)) for attack, caption in ATTACKS.items()),
    ]
    oracle, floor = (next((row for row in rows if row.training == training), None) for training in _ORACLES)
    scattered = [
        (f"U-LiRA of each example: {name(row)}", figures.svg(lambda axes, r=row, s=s: _scatter(axes, r, s, oracle, floor)))
        for row, s in zip(drawn, styles, strict=True)
        if row.training not in _ORACLES and oracle
    ]
    note = (
        "Drawn is of each way the algorithm with the highest tug of war. Histograms are shares of all margins and of all "
        "examples. In the scatters every dot is an example of the pool: from left to right the mean margin of oracles, "
        "which never saw it, upwards the AUC of its shadows' margins; grey are the held-out oracle's."
    )
    return [Figures(legend, panels), *([Figures([], scattered)] if scattered else []), Text(note)]


_ORACLES = ("oracle", "heldout_oracle")


def _drawn(rows: Sequence[Row]) -> list[Row]:
    drawn = [row for row in rows if row.training in _ORACLES]
    drawn += [row for row in rows if (row.training, row.unlearner) == ("vanilla", "none")]
    for training in dict.fromkeys(row.training for row in rows if row.unlearner != "none"):
        mine = [row for row in rows if row.training == training and row.unlearner != "none"]
        drawn.append(max(mine, key=lambda row: at(row.extra, ("tow",)).value or -math.inf))
    return drawn


def look(style: Style) -> dict[str, Any]:
    """A line's colour, dashes and width."""
    return {"color": style.colour, "linestyle": figures.pattern(style), "linewidth": 1.6}


def roc(axes: Axes, rows: Sequence[Row], styles: Sequence[Style]) -> None:
    """U-LiRA's curves on log axes."""
    axes.plot([1e-3, 1], [1e-3, 1], color="#b5bdc4", linewidth=1)
    for row, style in zip(rows, styles, strict=True):
        if curve := more(row.extra["ulira"], "roc"):
            axes.plot(curve["fpr"], np.maximum(curve["tpr"], 1e-4), **look(style))
    axes.set(xscale="log", yscale="log", xlim=(1e-3, 1), ylim=(1e-3, 1), xlabel="false positives", ylabel="true positives")


def _margins(axes: Axes, rows: Sequence[Row], styles: Sequence[Style]) -> None:
    for row, style in zip(rows, styles, strict=True):
        if shares := more(row.extra.get("margins"), "forget"):
            axes.stairs(100 * np.array(shares), EDGES, **look(style))
    axes.set(xlabel="margin", ylabel="share, %")


def _klom(axes: Axes, rows: Sequence[Row], styles: Sequence[Style], kind: str) -> None:
    for row, style in zip(rows, styles, strict=True):
        if each := more(row.extra["klom"][kind], "examples"):
            axes.stairs(100 * np.histogram(np.minimum(each, BINS[-1]), BINS)[0] / len(each), BINS, **look(style))
    axes.set(xlabel="KLoM, nats", ylabel="share, %")


def _relearning(axes: Axes, rows: Sequence[Row], styles: Sequence[Style], attack: str) -> None:
    least = [1.0]
    for row, style in zip(rows, styles, strict=True):
        curves = np.array(row.extra["relearn"]["curves"][attack], float)
        whole = curves[np.isfinite(curves).all(axis=1)]
        if len(whole):
            mean = whole.mean(axis=0)
            axes.plot(100 * mean, **look(style))
            least.append(float(mean.min()))
    low = figures.lowest(least)
    ticks = range(low, 101, max(2, (100 - low) // 5))
    axes.set(xlabel="step", ylabel="accuracy, %", ylim=(low - 0.03 * (100 - low), 100 + 0.03 * (100 - low)), yticks=ticks)


def _scatter(axes: Axes, row: Row, style: Style, oracle: Row, floor: Row | None) -> None:
    margin = more(oracle.extra.get("margins"), "pool")
    for one, colour, size in ((floor, "#c3cad0", 6), (row, style.colour, 8)):
        each = more(one.extra["ulira"], "examples") if one else None
        if margin and each:
            axes.scatter(margin, each, s=size, color=colour, linewidths=0)
    axes.axhline(0.5, color="#8b959e", linewidth=0.8)
    axes.locator_params(axis="x", nbins=6)
    axes.set(ylim=(-0.03, 1.03), xlabel="mean margin of oracles", ylabel="AUC")

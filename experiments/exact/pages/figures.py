"""Curves over the number of deletions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from experiments.reporting import drawing, names
from experiments.reporting.document import Figures, Key, Panel
from experiments.reporting.names import Method, Style


class Curve(NamedTuple):
    """A line over deletions, with a band or points.

    x, mean: [points].  low, high: [points], equal to mean where there is no interval.
    marked: whether the points were measured one by one, to be shown as such.
    """

    method: Method
    x: Sequence[float]
    mean: Sequence[float] | np.ndarray
    low: Sequence[float] | np.ndarray
    high: Sequence[float] | np.ndarray
    marked: bool = False


class Chart(NamedTuple):
    """A panel: the name of its file, its caption, the label of its vertical axis, its curves.

    share: whether it is in %, and its axis ends at tens.
    """

    name: str
    caption: str
    label: str
    curves: Sequence[Curve]
    share: bool = True


def figures(charts: Sequence[Chart]) -> Figures:
    """Panels side by side under one legend."""
    methods = list(dict.fromkeys(curve.method for chart in charts for curve in chart.curves))
    styles = dict(zip(methods, names.distinct([method.style for method in methods]), strict=True))
    legend = [Key(method.name, styles[method]) for method in methods]
    return Figures(legend, [_panel(chart, styles) for chart in charts])


def limits(low: float, high: float) -> tuple[float, float]:
    """Where an axis without a share begins and ends: at 0 or, where all values keep above a half of the highest, near both.

    >>> limits(0.0, 3.0), limits(2.5, 3.5)
    ((0.0, 3.0), (2.4, 3.6))
    """
    margin = 0.1 * (high - low)
    return (low - margin, high + margin) if low > high / 2 and margin else (0.0, max(1.0, high))


def _panel(chart: Chart, styles: dict[Method, Style]) -> Panel:
    """One chart."""

    def draw(axes: Axes) -> None:
        for i, curve in enumerate(chart.curves):
            style = styles[curve.method]
            if curve.marked:
                look = drawing.look(style)
                axes.plot(curve.x, curve.mean, **look, marker=style.marker or "o", markersize=5, clip_on=False)
            else:
                drawing.line(axes, curve.x, curve.mean, style, (curve.low, curve.high), i / len(chart.curves))
        axes.set(xlabel="deletions", ylabel=chart.label, xlim=(0, max(1, *(max(curve.x) for curve in chart.curves))))
        axes.xaxis.set_major_locator(MaxNLocator(9, integer=True))
        drawn = np.concatenate(
            [np.ravel(values) for curve in chart.curves for values in (curve.mean, curve.low, curve.high)]
        )
        if chart.share:
            drawing.percent(axes, np.clip(drawn, 0, 100).tolist())
        else:
            axes.set_ylim(*limits(float(drawn.min()), float(drawn.max())))

    return drawing.panel(chart.name, chart.caption, draw)

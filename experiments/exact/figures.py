"""Curves over the number of deletions as SVG images for a page, in the style of `plots`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes

from experiments.comparison.figures import DASHES, OTHERS, Style, pattern, svg
from experiments.reporting.document import Figures, Key

FIXED = {
    "lattice": Style("#009e73", ""),
    "sisa": Style("#d55e00", "8 2 2 2"),
    "cyclic": Style("#0072b2", "5 2"),
    "stumps": Style("#e69f00", "3 1 1 1"),
    "greedy": Style("#cc79a7", "2 2"),
    "full retraining": Style("#000000", "7 3"),
    "SISA, retrained": Style("#5f6b76", "1 2"),
}


class Curve(NamedTuple):
    """A named line over deletions, with a band or points.

    x, mean: [points].  low, high: [points], equal to mean where there is no interval.
    marked: whether the points were measured one by one, to be shown as such.
    """

    name: str
    x: Sequence[float]
    mean: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    marked: bool = False


def figures(panels: Sequence[tuple[str, str, Sequence[Curve], tuple[float, float] | None]]) -> Figures:
    """Panels side by side, each (caption, label of the vertical axis, curves, its range or None), under one legend."""
    names = list(dict.fromkeys(curve.name for _, _, curves, _ in panels for curve in curves))
    free = [name for name in names if name not in FIXED]
    others = {name: Style(OTHERS[2 + i % (len(OTHERS) - 2)], DASHES[i % len(DASHES)]) for i, name in enumerate(free)}
    styles = {name: (FIXED | others)[name] for name in names}
    drawn = [(caption, _panel(label, curves, styles, limits)) for caption, label, curves, limits in panels]
    return Figures([Key(name, *styles[name]) for name in names], drawn)


def _panel(label: str, curves: Sequence[Curve], styles: dict[str, Style], limits: tuple[float, float] | None) -> str:
    """A data URI."""

    def draw(axes: Axes) -> None:
        for curve in curves:
            style = styles[curve.name]
            look = {"color": style.colour, "linestyle": pattern(style), "linewidth": 1.6}
            axes.plot(curve.x, curve.mean, marker="o" if curve.marked else None, markersize=4, **look)
            if not np.array_equal(curve.low, curve.high):
                axes.fill_between(curve.x, curve.low, curve.high, color=style.colour, alpha=0.18, linewidth=0)
        axes.set(xlabel="deletions", ylabel=label)
        axes.set_ylim(limits)
        axes.xaxis.get_major_locator().set_params(integer=True)

    return svg(draw)

"""Figures in the house's look, as SVG and PDF; no pyplot and nothing left behind in matplotlib's settings."""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.reporting.document import Panel
from experiments.reporting.names import INK, Style
from experiments.reporting.numbers import Number

GRID, RULE = "#e4e8ec", "#8b959e"
SIZE = (4.6, 3.0)  # inches: on a phone a point is about a pixel
MARKS = 6  # on a line
LONGEST = 27  # characters of a name beside a line: half of the figure is for values
SETTINGS: dict[Any, Any] = {
    "svg.hashsalt": "forethought", "svg.fonttype": "path", "pdf.fonttype": 42, "font.size": 10.5, "text.color": INK,
    "axes.edgecolor": INK, "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK,
}  # fmt: skip


def panel(name: str, caption: str, draw: Callable[[Axes], None], size: tuple[float, float] = SIZE) -> Panel:
    """One figure; `draw` puts lines and labels on its axes."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(SETTINGS)
        figure = Figure(figsize=size, layout="constrained")
        figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02)  # type: ignore[union-attr, call-arg]
        axes = figure.add_subplot()
        axes.margins(x=0)
        draw(axes)
        axes.grid(color=GRID, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        figure.draw_without_rendering()  # lays it out, once for both files
        figure.set_layout_engine("none")
        svg, pdf = io.StringIO(), io.BytesIO()
        figure.savefig(svg, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
        figure.savefig(pdf, format="pdf", metadata={"CreationDate": None, "Producer": None, "Creator": None})
    return Panel(name, caption, svg.getvalue(), pdf.getvalue())


def look(style: Style) -> dict[str, Any]:
    """A line's colour, dashes and width, as matplotlib has them."""
    dashes = (0, tuple(float(length) / style.width for length in style.dash.split())) if style.dash else "-"
    return {"color": style.colour, "linestyle": dashes, "linewidth": style.width, "zorder": 3 if style.width > 2 else 2}


def line(
    axes: Axes,
    x: Sequence[float] | np.ndarray,
    y: Sequence[float] | np.ndarray,
    style: Style,
    band: tuple[Any, Any] | None = None,
    offset: float = 0.0,
) -> None:
    """A line with a few markers, and a band around it.

    offset: a share of the way from marker to marker, so that those of several lines do not cover each other.
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    every = max(1, len(x) // MARKS)
    start = int(offset * every) % every if len(x) else 0
    axes.plot(
        x, y, **look(style), marker=style.marker or None, markevery=(start, every), markersize=5, clip_on=False, label="_"
    )
    if band is not None and not np.array_equal(*band):
        axes.fill_between(x, *band, color=style.colour, alpha=0.16, linewidth=0)


def percent(axes: Axes, values: Sequence[float]) -> None:
    """Limits and ticks of a vertical axis in %, from the ten below the lowest value to the ten above the highest."""
    low, high = ends(values)
    axes.set_ylim(low, high)
    axes.set_yticks(range(low, high + 1, next(step for step in (2, 5, 10, 20) if (high - low) / step <= 6)))


def ends(values: Sequence[float]) -> tuple[int, int]:
    """Where an axis in % begins and ends: at 0, or, where all values keep above a half, at the ten below the lowest."""
    finite = [value for value in values if math.isfinite(value)]
    low, high = min(finite, default=0.0), max(finite, default=100.0)
    begin = 10 * min(int(low / 10), 9) if low > 50 else 0
    return begin, max(10 * math.ceil(min(high, 100.0) / 10 - 1e-9), begin + 10)


def intervals(
    name: str, caption: str, entries: Sequence[tuple[str, Number, Style]], label: str, rule: tuple[float, ...] = ()
) -> Panel:
    """Values with their intervals, one line each, the first on top.

    Args:
      entries: (name, number, style) of each.
      label: of the horizontal axis.
      rule: values to mark by a vertical line; of two, the band between them.
    """
    names = [textwrap.fill(name.replace(" = ", "\u00a0=\u00a0"), LONGEST) for name, _, _ in entries]
    lines = [1 + name.count("\n") for name in names]
    heights = [0.5 - sum(lines[:i]) - count / 2 for i, count in enumerate(lines)]  # 0, -1, -2, ... of single lines

    def draw(axes: Axes) -> None:
        if len(rule) == 2:
            axes.axvspan(*rule, color=RULE, alpha=0.18, linewidth=0)
        elif rule and math.isfinite(rule[0]):
            axes.axvline(rule[0], color=INK, linewidth=1, linestyle=(0, (5, 3)))
        for height, (_, number, style) in zip(heights, entries, strict=True):
            if math.isfinite(number.low):
                axes.plot([number.low, number.high], [height, height], color=style.colour, linewidth=style.width)
            axes.plot(number.value, height, style.marker or "o", color=style.colour, markersize=5 + style.width)
        axes.set_yticks(heights, names)
        for text, (_, _, style) in zip(axes.get_yticklabels(), entries, strict=True):
            text.set_fontweight("bold" if style.width > 2 else "normal")
        axes.set_ylim(-sum(lines) + 0.4, 0.6)
        axes.tick_params(axis="y", length=0)
        axes.margins(x=0.03)
        axes.locator_params(axis="x", nbins=5)
        axes.set_xlabel(label)

    return panel(name, caption, draw, (4.9, 1.0 + 0.27 * sum(lines)))

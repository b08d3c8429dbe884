"""The figures of federated erasure: curves by rate, and by alpha."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from experiments.core.results import Estimate, Row
from experiments.erasure import shown
from experiments.reporting import drawing
from experiments.reporting.document import Figures, Key, Panel
from experiments.reporting.estimates import at
from experiments.reporting.names import Style

LINES = {"oracle": "Retrained", "whole": "Uncompressed history", "served": "Nothing done"}
SWEPT = {
    "test_accuracy": ("Test", Style("#009e73", "", "o", 3.0)),
    "leaver_accuracy": ("What goes", Style("#0072b2", "5 2", "^")),
    "backdoor": ("Backdoor", Style("#d55e00", "8 2 2 2", "s")),
}


def by_rate(rows: Sequence[Row], backdoor: bool) -> list[Figures]:
    """Test accuracy, what is left of the leavers, and the noise of the archive, each by measured bits an entry."""
    curves = {
        lattice: sorted(
            (row for row in shown.archives(rows, chosen=True) if shown.is_plain(row) and row.facts["lattice"] == lattice),
            key=lambda row: row.extra["bits"].value or 0,
        )
        for lattice in dict.fromkeys(row.facts["lattice"] for row in shown.archives(rows, chosen=True))
    }
    if not curves:
        return []
    left = ("backdoor", "Backdoor success, %") if backdoor else ("leaver_accuracy", "Accuracy on what goes, %")
    panels = [
        _curves("rate-accuracy", "Test accuracy by measured rate, at the chosen α", rows, curves, "test_accuracy"),
        _curves(f"rate-{left[0].replace('_', '-')}", f"{left[1].split(',')[0]} by measured rate", rows, curves, left[0]),
        _ratios(curves),
    ]
    legend = [Key(str(name), shown.LATTICES[str(name)]) for name in curves]
    legend += [Key(LINES[name], _line_style(name)) for name in LINES]
    return [Figures(legend, panels)]


def _line_style(name: str) -> Style:
    return {"oracle": shown.STYLES["oracle"], "served": shown.STYLES["served"], "whole": Style("#8a949e", "2 2", "")}[name]


def _curves(name: str, caption: str, rows: Sequence[Row], curves: Mapping[Any, Sequence[Row]], score: str) -> Panel:
    references = {
        "oracle": next((row for row in rows if row.variant == "oracle"), None),
        "served": next((row for row in rows if row.variant == "served"), None),
        "whole": next((row for row in rows if shown.is_whole(row)), None),
    }

    def draw(axes: Axes) -> None:
        levels = []
        for which, row in references.items():
            if row is not None and row.extra[score].value is not None:
                level = 100 * row.extra[score].value
                levels.append(level)
                axes.axhline(level, **{**drawing.look(_line_style(which)), "linewidth": 1.2})
        for i, (lattice, points) in enumerate(curves.items()):
            levels += _line(axes, points, score, shown.LATTICES[str(lattice)], i / len(curves), 100.0)
        axes.set(xlabel="bits an entry", ylabel="%")
        low, high = min(levels), max(levels)
        room = max(1.0, 0.15 * (high - low))
        axes.set_ylim(low - room, high + room)

    return drawing.panel(name, caption, draw)


def _line(axes: Axes, points: Sequence[Row], score: str, style: Style, offset: float, scale: float) -> list[float]:
    """A curve with its band, by measured bits; the heights that it takes."""
    bits = [row.extra["bits"].value for row in points]
    found = [row.extra[score] for row in points]
    values = [scale * (one.value if one.value is not None else math.nan) for one in found]
    low, high = _band(found, scale)
    drawing.line(axes, bits, values, style, (low, high) if np.isfinite([low, high]).all() else None, offset)
    return [value for value in [*values, *low, *high] if math.isfinite(value)]


def _band(found: Sequence[Estimate], scale: float) -> tuple[list[float], list[float]]:
    ends = [(one.low if one.low is not None else math.nan, one.high if one.high is not None else math.nan) for one in found]
    return [scale * low for low, _ in ends], [scale * high for _, high in ends]


def _ratios(curves: Mapping[Any, Sequence[Row]]) -> Panel:
    def draw(axes: Axes) -> None:
        for i, (lattice, points) in enumerate(curves.items()):
            _line(axes, points, "ratio", shown.LATTICES[str(lattice)], i / len(curves), 1.0)
        axes.set(xlabel="bits an entry", ylabel="log10 Var(w') / Var(w' − w'')")

    return drawing.panel("rate-ratio", "Model over what compression added to it, log10 of variances over entries", draw)


def by_alpha(sweep: Mapping[str, Any], backdoor: bool) -> list[Figures]:
    """Fast-FedUL on the uncompressed history, by alpha.

    Args:
      sweep: alpha -> score -> Estimate.
    """
    if len(sweep) < 2:
        return []
    alphas = sorted(sweep, key=float)
    scores = [score for score in SWEPT if backdoor or score != "backdoor"]

    def draw(axes: Axes) -> None:
        for i, score in enumerate(scores):
            found = [at(sweep[name], (score,)) for name in alphas]
            values = [100 * (one.value if one.value is not None else math.nan) for one in found]
            drawing.line(axes, [float(name) for name in alphas], values, SWEPT[score][1], _clipped(found), i / len(scores))
        axes.axvline(0, color=drawing.RULE, linewidth=1)
        axes.set(xlabel="α", ylabel="%", ylim=(0, 100))

    caption = "The uncompressed history, by α: the test set judges here, and chose nothing"
    drawn: Callable[[Axes], None] = draw
    return [Figures([Key(*SWEPT[score]) for score in scores], [drawing.panel("alphas", caption, drawn)])]


def _clipped(found: Sequence[Estimate]) -> tuple[Any, Any] | None:
    low, high = _band(found, 100.0)
    if not np.isfinite([low, high]).all():
        return None
    return np.clip(low, 0, 100), np.clip(high, 0, 100)

"""The figures of a judgement, for the rows of one forget set."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from experiments.comparison.figures import ATTACKS
from experiments.core.results import ORACLES, Row
from experiments.judge.metrics import BIN, KINDS
from experiments.reporting import drawing, names
from experiments.reporting.document import Block, Figures, Key, Panel, Text
from experiments.reporting.drawing import RULE, look
from experiments.reporting.estimates import at, more
from experiments.reporting.names import Style

BINS = np.linspace(0, 11.5, 24)  # of KLoM, whose floor lets it be that large
STRONG = {"part": "with a part of the forgotten", "all": "with all of the forgotten"}  # attack sets of the strong attack
DONE_NOTHING = Style("#7a5195", "1 2", "*")  # vanilla as it was trained


def pictures(case: str, rows: Sequence[Row], name: Callable[[Row], str]) -> list[Block]:
    """The oracles, doing nothing, and the best algorithm of each method by ToW: more could not be told apart.

    Args:
      case: a prefix for the names of their files.
    """
    drawn = chosen(rows)
    styles = names.distinct([style(row) for row in drawn])
    legend = [Key(name(row), mine) for row, mine in zip(drawn, styles, strict=True)]

    def panel(what: str, caption: str, draw: Callable[..., None], *rest: Any) -> Panel:
        return drawing.panel(f"{case}-{what}", caption, lambda axes: draw(axes, drawn, styles, *rest))

    panels = [
        panel("roc", "U-LiRA: true-positive by false-positive rate", roc),
        panel("margins", "Margins on the forget set", _margins),
        *(panel(f"klom-{kind}", f"KLoM of {kind} examples", _klom, kind) for kind in KINDS),
        *(panel(f"relearning-{attack}", f"Relearning: {words}", _relearning, attack) for attack, words in ATTACKS.items()),
    ]
    if all(row.extra.get("relearn_strong") for row in drawn):
        panels += [
            panel(f"strong-{attack}", f"Strong relearning {words}", _strong, attack) for attack, words in STRONG.items()
        ]
    oracle, floor = (next((row for row in rows if row.training == training), None) for training in ORACLES)
    scattered = []
    for row, mine in zip(drawn, styles, strict=True):
        if not row.is_oracle and oracle:
            draw = functools.partial(_scatter, row=row, mine=mine, oracle=oracle, floor=floor)
            way = row.training if row.variant == "default" else f"{row.training}-{row.variant}"
            file = f"{case}-examples-{way}-{row.unlearner}"
            scattered.append(drawing.panel(file, f"U-LiRA of each example: {name(row)}", draw))
    note = (
        "Of each method the algorithm with the highest tug of war is drawn. Histograms are shares of all margins and of "
        "all examples. In the scatters every dot is an example of the pool. To the right: the mean margin of oracles, "
        "which never saw it. Upwards: the AUC of its shadows' margins. Grey dots are the held-out oracle's."
    )
    if any(one.name == f"{case}-strong-part" for one in panels):
        note += (
            " Strong relearning is drawn as accuracy above the oracles', at the rate that was chosen for each row. A dot "
            "marks the chosen step."
        )
    return [Figures(legend, panels), *([Figures([], scattered)] if scattered else []), Text(note)]


def style(row: Row) -> Style:
    """A method's own style; of one that was trained as usual and not asked to forget, one of its own."""
    if (row.training, row.unlearner) == ("vanilla", "none"):
        return DONE_NOTHING
    return names.method(row.training, row.variant).style


def chosen(rows: Sequence[Row]) -> list[Row]:
    """The rows that are drawn."""
    drawn = [row for row in rows if row.is_oracle]
    drawn += [row for row in rows if (row.training, row.unlearner) == ("vanilla", "none")]
    for way in dict.fromkeys((row.training, row.variant) for row in rows if row.unlearner != "none"):
        mine = [row for row in rows if (row.training, row.variant) == way and row.unlearner != "none"]
        drawn.append(max(mine, key=lambda row: at(row.extra, ("tow",)).value or -math.inf))
    return drawn


def roc(axes: Axes, rows: Sequence[Row], styles: Sequence[Style]) -> None:
    """U-LiRA's curves on log axes."""
    axes.plot([1e-3, 1], [1e-3, 1], color=RULE, linewidth=1)
    for i, (row, mine) in enumerate(zip(rows, styles, strict=True)):
        if curve := more(row.extra["ulira"], "roc"):
            drawing.line(axes, curve["fpr"], np.maximum(curve["tpr"], 1e-3), mine, offset=i / len(rows))
    axes.set(xscale="log", yscale="log", xlim=(1e-3, 1), ylim=(1e-3, 1), xlabel="false positives", ylabel="true positives")


def _margins(axes: Axes, rows: Sequence[Row], styles: Sequence[Style]) -> None:
    """Histograms between the outermost bins that hold something; what was clipped is said on the axis."""
    ends, clipped, total, widest = [], 0, 0, 0.0
    for row, mine in zip(rows, styles, strict=True):
        margins = row.extra.get("margins")
        if margins and (shares := more(margins, "forget")):
            edges = (np.arange(len(shares) + 1) - len(shares) / 2) * BIN  # those of older rows end at 20 nats
            axes.stairs(100 * np.array(shares), edges, **look(mine))
            (held,) = np.nonzero(shares)
            ends += [edges[held[0]], edges[held[-1] + 1]]
            widest = max(widest, float(edges[-1]))
            clipped, total = clipped + margins.get("clipped", 0), total + margins.get("count", 0)
    if ends:
        axes.set_xlim(max(min(ends) - BIN, -widest), min(max(ends) + BIN, widest))
    at_an_end = bool(ends) and max(map(abs, ends)) == widest
    axes.set(xlabel=clipping("margin", widest, at_an_end, clipped, total), ylabel="share, %")
    axes.set_ylim(bottom=0)


def clipping(what: str, widest: float, at_an_end: bool, clipped: int, total: int) -> str:
    """The label of an axis whose outermost bins may hold clipped values: how many, or, of old rows, that they may."""
    end = f"±{widest:g}"
    if clipped:
        return f"{what} ({clipped:,} of {total:,} clipped at {end})"
    return f"{what} (clipped at {end})" if not total and at_an_end else what


def _klom(axes: Axes, rows: Sequence[Row], styles: Sequence[Style], kind: str) -> None:
    most, clipped = 1, 0
    for row, mine in zip(rows, styles, strict=True):
        if each := more(row.extra["klom"][kind], "examples"):
            counts = np.histogram(np.minimum(each, BINS[-1]), BINS)[0]
            axes.stairs(100 * counts / len(each), BINS, **look(mine))
            most = max(most, int(np.nonzero(counts)[0].max()))
            clipped += int(np.sum(np.array(each) > BINS[-1]))
    said = f" ({clipped} clipped at {BINS[-1]:g})" if clipped else ""
    axes.set(xlabel=f"KLoM, nats{said}", ylabel="share, %", xlim=(0, BINS[most + 1]))
    axes.set_ylim(bottom=0)


def _relearning(axes: Axes, rows: Sequence[Row], styles: Sequence[Style], attack: str) -> None:
    means, longest = [], 1
    for i, (row, mine) in enumerate(zip(rows, styles, strict=True)):
        curves = np.array(row.extra["relearn"]["curves"][attack], float)
        whole = curves[np.isfinite(curves).all(axis=1)]
        if len(whole):
            mean = 100 * whole.mean(axis=0)
            drawing.line(axes, np.arange(len(mean)), mean, mine, offset=i / len(rows))
            means.extend(mean)
            longest = max(longest, len(mean) - 1)
    drawing.percent(axes, means)
    axes.set(xlabel="step", ylabel="accuracy, %", xlim=(0, longest))


def _strong(axes: Axes, rows: Sequence[Row], styles: Sequence[Style], attack: str) -> None:
    """Rates differ from row to row, so that what can be compared is the distance from oracles at the same rate."""
    longest = 1
    for i, (row, mine) in enumerate(zip(rows, styles, strict=True)):
        told = row.extra["relearn_strong"][attack]
        mean, oracles = (np.array(told[name][f"{told['rate']:g}"], float) for name in ("curves", "oracles"))
        above, longest = 100 * (mean - oracles), max(longest, len(mean) - 1)
        drawing.line(axes, np.arange(len(above)), above, mine, offset=i / len(rows))
        axes.plot(told["step"], above[told["step"]], "o", color=mine.colour, markersize=6, clip_on=False)
    axes.axhline(0, color=RULE, linewidth=0.8)
    axes.set(xlabel="step", ylabel="accuracy above oracles', points", xlim=(0, longest))


def _scatter(axes: Axes, row: Row, mine: Style, oracle: Row, floor: Row | None) -> None:
    margin = more(oracle.extra.get("margins"), "pool")
    for one, colour, size in ((floor, "#b5bdc4", 6), (row, mine.colour, 9)):
        each = more(one.extra["ulira"], "examples") if one else None
        if margin and each:
            axes.scatter(margin, each, s=size, color=colour, linewidths=0, clip_on=False)
    axes.axhline(0.5, color=RULE, linewidth=0.8)
    axes.margins(x=0.02)
    axes.locator_params(axis="x", nbins=6)
    axes.set(ylim=(0, 1), xlabel="mean margin of oracles", ylabel="AUC")

"""A plan of s3t as a picture: the tree of its nodes, with what each costs."""

from __future__ import annotations

import matplotlib
from matplotlib.figure import Figure

from s3t.plans.structure import Node, Plan, at_depth, flops, parent, sequences

# Okabe and Ito's colours; a slice's number stands in its circle, so colours may repeat.
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#8c6d31", "#5f6b76")


def draw(plan: Plan) -> Figure:
    """One circle per node, labelled with the slice that it adds, below its parent; the title tells the cost.

    Leaves stand side by side in the plan's order, and a parent above the middle of its children.
    """
    where = positions(plan)
    across = 1 + max(where.values())
    deepest = len(plan.nodes[-1])
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        figure = Figure(figsize=(max(4.2, 0.7 + 0.36 * across), 1.1 + 0.55 * deepest), layout="constrained")
        axes = figure.add_subplot()
        for node, x in where.items():
            if len(node) > 1:
                axes.plot([where[parent(node)], x], [len(node) - 1, len(node)], color="#8a949e", linewidth=1, zorder=1)
        for node, x in where.items():
            axes.scatter(x, len(node), s=190, color=COLOURS[node[-1] % len(COLOURS)], zorder=2)
            axes.text(x, len(node), str(node[-1]), ha="center", va="center_baseline", color="white", fontsize=9, zorder=3)
        axes.set(xlim=(-0.8, across - 0.2), ylim=(deepest + 0.5, 0.5), xticks=[], ylabel="depth (nodes)")
        axes.set_yticks(range(1, deepest + 1), [f"{d} ({len(at_depth(plan, d))})" for d in range(1, deepest + 1)])
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        cost = f"per epoch {flops(plan):.4g} forward passes, {flops(plan, cached=True):.4g} with cached prefixes"
        figure.suptitle(f"{len(plan.nodes)} stages\n{cost}", fontsize=9)
    return figure


def positions(plan: Plan) -> dict[Node, float]:
    """How far to the right each node stands: leaves at 0, 1, ... in the order of their slices."""
    where: dict[Node, float] = {leaf: float(i) for i, leaf in enumerate(sorted(sequences(plan)))}
    children: dict[Node, list[float]] = {}
    for node in reversed(plan.nodes):  # children before parents
        if node in children:
            where[node] = (min(children[node]) + max(children[node])) / 2
        children.setdefault(parent(node), []).append(where[node])
    return where

"""Exposure of canaries on the page of a comparison: one table, where a run has planted some."""

from __future__ import annotations

import math
from collections.abc import Sequence

from experiments.comparison import methods
from experiments.comparison.methods import Measure, Way, at
from experiments.data.text.canaries import SPACE
from experiments.reporting.document import Block, Heading, Table, Text
from experiments.reporting.numbers import Cell

WHO = {"forget": "forgotten", "retain": "retained"}
NOTE = (
    f"Documents with a secret, one of {SPACE}, were planted among the training documents. Exposure, in bits: log2 {SPACE} "
    "− log2 of the rank of the secret among all that could have been planted, by the loss of the document (The Secret "
    f"Sharer, 1802.08232); computed over all of them. At {math.log2(SPACE):.2f} the secret is the likeliest; chance gives "
    "1.4 in the mean. The oracle never saw the forgotten ones: read against it. Means over canaries, then over seeds."
)


def section(every: Sequence[Way]) -> list[Block]:
    """The table; nothing of a run without canaries."""
    planted = [row.extra["canaries"]["after"] for way in every for row in way.rows if row.extra.get("canaries")]
    if not planted:
        return []
    counts = {name: len(planted[0].get(f"{name}_exposures", ())) for name in WHO}
    measures = [
        Measure(
            f"{WHO[name]},\n{when}", at("extra", "canaries", when, f"{name}_exposure"), 1, ".2f", higher=name != "forget"
        )
        for name, count in counts.items()
        if count
        for when in ("before", "after")
    ]
    rows: list[list[Cell]] = [
        [way.marked, way.algorithm, *(methods.interval(way, measure) for measure in measures)] for way in every
    ]
    who = " and ".join(f"{count} {WHO[name]}" for name, count in counts.items() if count)
    headers = ["method", "algorithm", *(measure.label for measure in measures)]
    ours = [i for i, way in enumerate(every) if way.ours]
    return [Heading("Canaries"), Text(f"{NOTE} Here: {who}."), Table(headers, rows, left=2, name="canaries", ours=ours)]

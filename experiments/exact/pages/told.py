"""What an s3t run found, in sentences."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from experiments.comparison import methods
from experiments.comparison.methods import Way
from experiments.exact.pages import ways
from experiments.reporting import names
from experiments.reporting.numbers import minus


def of_store(every: Sequence[Way]) -> list[str]:
    """What the store on disk served, how soon deletions were durable, and what verifying it found."""
    row, shown = ways.stored(every), ways.shown(every)
    extra, stream, name = row.extra, row.extra["stream"], str(row.facts["planner"])
    moments = extra["built"], (stream or [extra["built"]])[-1], extra["healed"]
    start, end, healed = (f"{shown.text(one[f'test_{shown.name}'])}{shown.unit}" for one in moments)
    store = f"The store ({names.plan(name).name})"
    proof = "nothing to object" if extra["verified"]["ok"] else "; ".join(extra["verified"]["problems"])
    if not stream:
        return [f"{store} serves {start} before any deletion.", f"Verify found {proof}."]
    p50, p99 = np.percentile([one["acknowledged_ms"] for one in stream], [50, 99])
    return [
        f"{store} served {start} before and {end} after {len(stream)} deletions, and {healed} once healed.",
        f"A deletion was durable after {p50:.2f} ms at the median (99th percentile {p99:.2f} ms).",
        f"Verify found {proof}.",
    ]


def of_lora(every: Sequence[Way]) -> str:
    """The deepest node beside full LoRA."""
    one, lora, shown = ways.find(every, "s3t", "one shard"), ways.find(every, "lora"), ways.shown(every)
    before = shown.measure("test")
    found, _ = methods.compare(one, lora, before)
    low, high, mean = (minus(f"{shown.scale * value:+{shown.digits}}") for value in (found.low, found.high, found.mean))
    interval = f" [{low}, {high}]" if math.isfinite(found.low) else ""
    gets = "gets {}% of the test data correct" if shown.share else "has a loss of {} nats per token on test data"
    other = f"{methods.interval(lora, before)}{'%' if shown.share else ''}"
    return (
        f"In one shard the deepest node {gets.format(methods.interval(one, before))}, full LoRA {other}: a difference of "
        f"{mean} {shown.gap}{interval}."
    )

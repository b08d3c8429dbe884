"""What an s3t run found, from the files of its workdir alone: report.html, report.md, and a table for the terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.comparison import methods
from experiments.comparison.methods import Measure, Way, at
from experiments.core.results import Row, Run
from experiments.exact import figures
from experiments.exact.figures import Curve
from experiments.reporting import document, pages
from experiments.reporting.document import Block, Heading, Table, Text
from experiments.reporting.estimates import NONE
from s3t.service import ensemble

WIDTH = 160
BEFORE = Measure("before", at("before", "test_accuracy"))
SCORES = ("validation_accuracy", "test_accuracy")


def present(workdir: str, found: Run) -> str:
    """Write the report of a finished run; what the command line prints of it."""
    file = pages.write_page(workdir, compose)
    every = methods.group(found.rows)
    return "\n".join(
        [
            document.to_text(_planners(every, brief=True), WIDTH),
            "",
            _told_store(every),
            _told_lora(every),
            f"report: {file}",
        ]
    )


def compose(config: dict[str, Any], found: Run) -> tuple[str, list[Block]]:
    """The title and the blocks of the page."""
    every = methods.group(found.rows)
    blocks = [
        Text(f"{_told_store(every)} {_told_lora(every)}", lead=True),
        *_study(config, every),
        *_aggregates(every),
        *_lora(every),
        *_cost(every),
        *_store(config, every),
        *pages.settings(config, found),
    ]
    shape = f"{config['shards']} shards of {config['slices']} slices"
    return f"Forethought: exact unlearning on {every[0].rows[0].dataset}, {shape}", blocks


# --- Finding rows -----------------------------------------------------------------------------------------------------


def _of(every: Sequence[Way], aggregate: str) -> dict[str, Way]:
    """The ways of the study's planners with one aggregate, by planner."""
    found = [(way.rows[0].facts, way) for way in every]
    return {str(facts["planner"]): way for facts, way in found if facts.get("aggregate") == aggregate}


def _find(every: Sequence[Way], training: str, variant: str = "default") -> Way:
    return next(way for way in every if way.key == (training, variant))


def _stored(every: Sequence[Way]) -> Row:
    return next(way.rows[0] for way in every if way.rows[0].facts.get("store"))


def pooled(way: Way, what: str) -> tuple[np.ndarray, np.ndarray]:
    """Mean over seeds of a quantity's mean over streams, and half of its 95% interval: seeds have streams of their own."""
    found = [row.extra[what] for row in way.rows]
    half = np.array([(np.array(one["high"]) - np.array(one["low"])) / 2 for one in found])
    return np.mean([one["mean"] for one in found], axis=0), np.sqrt((half**2).sum(axis=0)) / len(found)


def _percent(mean: float, half: float, brief: bool) -> str:
    return f"{100 * mean:.1f}" if brief else f"{100 * mean:.1f} ± {100 * half:.1f}"


def _number(value: float) -> str:
    return f"{value:.4g}" if math.isfinite(value) else NONE


def _grid(requests: Sequence[int]) -> list[int]:
    """A few numbers of deletions to tell in a table: 0, and then about doubling."""
    last = requests[-1]
    return sorted({0, *(last * share // 20 for share in (1, 2, 4, 8, 14, 20))})


# --- Sections ---------------------------------------------------------------------------------------------------------


def _planners(every: Sequence[Way], brief: bool = False) -> Table:
    """Every planner, and SISA that only goes back to checkpoints, under streams of deletions."""
    chosen = _of(every, "mean") | {"SISA checkpoints": _find(every, "sisa", "rollback")}
    grid = _grid(next(iter(chosen.values())).rows[0].extra["requests"])
    headers = ["planner", "stages", "FLOPs", "cached", *(f"accuracy\nafter {k}" for k in grid)]
    rows = []
    for name, way in chosen.items():
        mean, half = pooled(way, "accuracy")
        cost = [_number(methods.average(way, "extra", key)) for key in ("stages", "flops_plain", "flops_cached")]
        ends = [pooled(way, f"deletions_to_{what}") for what in ("rebuild", "first_dead_shard")]
        survived = [f"{m:.1f}" if brief else f"{m:.1f} ± {h:.1f}" for m, h in ends]
        rows.append([name, *cost, *(_percent(mean[k], half[k], brief) for k in grid), *survived])
    return Table([*headers, "until\nrebuild", "until first\ndead shard"], rows)


def _study(config: dict[str, Any], every: Sequence[Way]) -> list[Block]:
    chosen = _of(every, "mean")
    first = next(iter(chosen.values())).rows
    budget, streams = first[0].extra["budget_flops"], config["study"]["streams"]
    note = (
        f"Every (shard, node) was trained once per seed and its logits kept; {streams} streams of deletions per seed "
        f"({streams * len(first)} in all) then fall on the examples alike, with replacement. Intervals are over streams. "
        "FLOPs are per shard and epoch, in forward passes of all blocks over its examples, without and with cached "
        f"prefixes. Planners with a budget take the one whose FLOPs (plain) come nearest to {budget:.4g}; sisa, stumps, "
        "chains, lattice and full have one size. An ensemble without a model answers nothing, which counts as wrong. "
        "Nothing is healed here. SISA checkpoints are those of SISA with one adapter on all blocks: it goes back to the "
        "last one before the hit slice and does not retrain. Curves of plans that serve alike lie on each other."
    )
    accuracy = [*_curves(chosen, "accuracy", 100), *_retrained(every)]
    panels = [
        ("Test accuracy served", "accuracy, %", accuracy, (0, 100)),
        ("Depth served, mean over shards", "slices", _curves(chosen, "depth", 1), None),
        ("Streams with a model left", "share, %", _curves(chosen, "alive", 100), (0, 103)),
    ]
    return [Heading("Accuracy by number of deletions"), Text(note), figures.figures(panels), _planners(every)]


def _curves(chosen: dict[str, Way], what: str, scale: float) -> list[Curve]:
    found = {name: pooled(way, what) for name, way in chosen.items()}
    x = next(iter(chosen.values())).rows[0].extra["requests"]
    return [Curve(name, x, scale * m, scale * (m - h), scale * (m + h)) for name, (m, h) in found.items()]


def _retrained(every: Sequence[Way]) -> list[Curve]:
    """What is retrained after every deletion, at the few places where it was."""
    curves = []
    for name, way in (("full retraining", _find(every, "full")), ("SISA, retrained", _find(every, "sisa", "retrain"))):
        x = way.rows[0].extra["requests"]
        mean = 100 * np.mean([row.extra["accuracy"]["mean"] for row in way.rows], axis=0)
        curves.append(Curve(name, x, mean, mean, mean, marked=True))
    return curves


def _aggregates(every: Sequence[Way]) -> list[Block]:
    by_kind = {kind: _of(every, kind) for kind in ensemble.AGGREGATES}
    chosen = by_kind["mean"]
    grid = _grid(next(iter(chosen.values())).rows[0].extra["requests"])
    headers = ["planner", "ensemble", *(f"accuracy\nafter {k}" for k in grid)]
    rows = []
    for name in chosen:
        for kind in ensemble.AGGREGATES:
            mean, half = pooled(by_kind[kind][name], "accuracy")
            rows.append([name, kind, *(_percent(mean[k], half[k], False) for k in grid)])
    note = (
        "From the same logits and streams: mean, over shards, of the deepest survivor's logits (the paper's); depth, the "
        "same weighted by the depth served; all, each shard the mean of its survivors that no survivor extends."
    )
    return [Heading("Ensembles"), Text(note), Table(headers, rows, left=2)]


def _lora(every: Sequence[Way]) -> list[Block]:
    one, lora = _find(every, "s3t", "one shard"), _find(every, "lora")
    rows = []
    for depth in range(len(one.rows[0].extra["by_depth"])):
        scores = [Measure(name, lambda row, d=depth, name=name: row.extra["by_depth"][d][name]) for name in SCORES]
        rows.append([f"S3T, depth {depth + 1}", *(methods.interval(one, measure) for measure in scores)])
    rows.append(["full LoRA", *(methods.interval(lora, Measure(name, at("before", name))) for name in SCORES)])
    note = (
        "All training examples in one shard: one sequence of slices, scored at each depth, and one adapter on all blocks. "
        "Accuracies in %, ± half of the 95% t-interval over seeds. Settings were chosen on validation data."
    )
    table = Table(["model", "validation", "test"], rows)
    return [Heading("Full LoRA and the deepest node"), Text(_told_lora(every)), Text(note), table]


def _cost(every: Sequence[Way]) -> list[Block]:
    chosen = {f"S3T {name}": way for name, way in _of(every, "mean").items()}
    chosen |= {"SISA, retrained": _find(every, "sisa", "retrain"), "full retraining": _find(every, "full")}
    rows = [
        [
            name,
            methods.scaled(methods.average(way, "train_flops"), "FLOP"),
            methods.seconds(methods.average(way, "train_seconds")),
            methods.scaled(methods.average(way, "storage_bytes"), "B"),
            methods.scaled(methods.average(way, "unlearn_flops"), "FLOP"),
            methods.seconds(methods.average(way, "unlearn_seconds")),
        ]
        for name, way in chosen.items()
    ]
    note = (
        "Building, and what one deletion costs before it is honoured. FLOPs are those of a build without cached prefixes; "
        "seconds of a planner add up its nodes' own, by depth, as measured (without compilation; with cached prefixes "
        "where they fit). Storage is adapters and heads of all shards. S3T's deletion flips masks: its latency is the "
        "store's, below. SISA retrains the suffix of one shard, full retraining everything."
    )
    headers = ["way", "build", "seconds", "storage", "per deletion", "seconds"]
    return [Heading("Cost"), Text(note), Table(headers, rows)]


def _store(config: dict[str, Any], every: Sequence[Way]) -> list[Block]:
    extra = _stored(every).extra
    built, stream, healed = extra["built"], extra["stream"], extra["healed"]
    told = [("built", built), *((str(i), one) for i, one in enumerate(stream, 1)), ("healed", healed)]
    x, name = range(len(stream) + 1), str(config["planner"])
    served = [100 * one["test_accuracy"] for one in [built, *stream]]
    depth = [float(np.mean(one["depth"])) for one in [built, *stream]]
    panels = [
        ("The store: test accuracy served", "accuracy, %", [Curve(name, x, served, served, served)], (0, 100)),
        ("The store: depth served, mean over shards", "slices", [Curve(name, x, depth, depth, depth)], None),
    ]
    note = (
        "A store on disk, deleted from one example at a time: each request is durable in the ledger when it is "
        "acknowledged, then the files of dropped nodes are purged, then the deepest survivors serve. Healing retrains, "
        "once at the end, the nodes that held a hit slice, without the deleted examples "
        f"({methods.scaled(extra['heal_flops'], 'FLOP')} without cached prefixes; {methods.seconds(healed['seconds'])} for "
        f"{healed['nodes']} nodes)."
    )
    headers = ["deletion", "test accuracy", "depth by shard", "nodes dropped", "acknowledged, ms", "purged, ms"]
    table = Table(headers, [_moment(when, one) for when, one in told])
    return [Heading("A stream of real deletions"), Text(note), figures.figures(panels), table]


def _moment(when: str, one: dict[str, Any]) -> list[str]:
    """What the store served at a moment, and what the deletion that led there took."""
    took = [f"{one[name]:.2f}" if name in one else "" for name in ("acknowledged_ms", "purged_ms")]
    depth, dropped = " ".join(map(str, one["depth"])), str(one.get("nodes_dropped", ""))
    return [when, f"{100 * one['test_accuracy']:.1f}", depth, dropped, *took]


# --- In words ---------------------------------------------------------------------------------------------------------


def _told_store(every: Sequence[Way]) -> str:
    row = _stored(every)
    extra, stream, name = row.extra, row.extra["stream"], row.facts["planner"]
    moments = extra["built"], (stream or [extra["built"]])[-1], extra["healed"]
    start, end, healed = (100 * one["test_accuracy"] for one in moments)
    proof = "nothing to object" if extra["verified"]["ok"] else "; ".join(extra["verified"]["problems"])
    if not stream:
        return f"The store ({name}) serves {start:.1f}% before any deletion; verify found {proof}."
    p50, p99 = np.percentile([one["acknowledged_ms"] for one in stream], [50, 99])
    return (
        f"The store ({name}) served {start:.1f}% before and {end:.1f}% after {len(stream)} deletions, and {healed:.1f}% "
        f"once healed; a deletion was durable after {p50:.2f} ms at the median (99th percentile {p99:.2f} ms), and verify "
        f"found {proof}."
    )


def _told_lora(every: Sequence[Way]) -> str:
    one, lora = _find(every, "s3t", "one shard"), _find(every, "lora")
    found, _ = methods.compare(one, lora, BEFORE)
    interval = f" [{100 * found.low:+.1f}, {100 * found.high:+.1f}]" if math.isfinite(found.low) else ""
    return (
        f"In one shard the deepest node has {methods.interval(one, BEFORE)}%, full LoRA {methods.interval(lora, BEFORE)}% "
        f"of the test data right: a difference of {100 * found.mean:+.1f} points{interval}."
    )

"""The report of an s3t run, from the files of its workdir alone: the page, and a table for the terminal."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.comparison import methods
from experiments.comparison.methods import Measure, Way, at
from experiments.core import workdirs
from experiments.core.results import Row, Run
from experiments.exact import figures
from experiments.exact.figures import Chart, Curve
from experiments.reporting import names, pages, terminal
from experiments.reporting.document import Block, Heading, Headline, Points, Stat, Table, Text
from experiments.reporting.names import Method
from experiments.reporting.numbers import NONE, Cell, Number, bare, bracketed
from s3t.service import ensemble

BEFORE = Measure("before", at("before", "test_accuracy"))
SCORES = ("validation_accuracy", "test_accuracy")


def present(workdir: str, found: Run) -> str:
    """Write the report of a finished run; what the command line prints of it."""
    report, columns = pages.told(write, workdir), terminal.width()
    every = methods.group(found.rows)
    told = [terminal.wrapped(text, columns) for text in (*_told_store(every), _told_lora(every))]
    return "\n".join([terminal.to_text(_planners(every, "", brief=True), columns), "", *told, report])


def write(workdir: str | Path) -> Path:
    """Write the report of a finished run; see `write_page`."""
    config, found = workdirs.read_run(Path(workdir))
    blocks = compose(found, str(config["planner"]), config["study"]["streams"])
    shape = f"{config['shards']} shards of {config['slices']} slices"
    return pages.write_page(workdir, f"Forethought: exact unlearning on {found.rows[0].dataset}, {shape}", blocks)


def compose(found: Run, planner: str, streams: int) -> list[Block]:
    """The blocks of the page.

    Args:
      planner: of the store.
      streams: of deletions, per seed.
    """
    every = methods.group(found.rows)
    study, charts = _study(streams, every)
    return [
        _headline(planner, every, charts[0]),
        Heading("Planners"),
        _planners(every, planner),
        Points([*_told_store(every), _told_lora(every)]),
        *study,
        *_aggregates(every),
        *_lora(every),
        *_cost(every),
        *_store(planner, every),
    ]


def _headline(planner: str, every: Sequence[Way], chart: Chart) -> Headline:
    """What is served after the deletions of the study, how many are survived, how soon one is durable."""
    chosen = _of(every, "mean")
    name = planner if planner in chosen else next(iter(chosen))
    way, sisa = chosen[name], chosen.get("sisa")
    title, last = names.plan(name).name, way.rows[0].extra["requests"][-1]
    beside = sisa if sisa and name != "sisa" else None
    extra = _stored(every).extra
    times = [one["acknowledged_ms"] for one in extra["stream"]]
    stats = [
        Stat(
            f"Served after {last} deletions, {title}",
            _served(way, -1),
            f"Test accuracy with nothing healed, 95% interval over streams. Before: {_served(way, 0).text}%."
            + (f" SISA after {last}: {_served(beside, -1).text}%." if beside else ""),
            "%",
        ),
        Stat(
            "Deletions survived",
            _survived(way),
            "Deletions until a rebuild is due, 95% interval over streams."
            + (f" SISA: {_survived(beside).text}." if beside else ""),
        ),
        Stat(
            "Acknowledged in",
            _median(times),
            f"Median of {len(times)} deletions from the store, each durable on disk when acknowledged; in brackets the "
            "middle 95%."
            if times
            else "Nothing was deleted from the store.",
            " ms" if times else "",
        ),
    ]
    shown = figures.figures([chart._replace(name="headline", caption=HEADLINE)])
    return Headline(shown.panels[0], stats, shown.legend)


HEADLINE = "Test accuracy served, by number of deletions"


def _served(way: Way, at_: int) -> Number:
    mean, half = pooled(way, "accuracy")
    low, high = max(0.0, mean[at_] - half[at_]), min(1.0, mean[at_] + half[at_])
    return bracketed(100 * mean[at_], 100 * low, 100 * high)


def _survived(way: Way) -> Number:
    mean, half = (float(part) for part in pooled(way, "deletions_to_rebuild"))
    return bracketed(mean, max(0.0, mean - half), mean + half)


def _median(times: Sequence[float]) -> Cell:
    if not times:
        return NONE
    low, middle, high = np.percentile(times, [2.5, 50, 97.5])
    return bracketed(float(middle), float(low), float(high), 2)


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


def _percent(mean: float, half: float, brief: bool) -> Number:
    if brief:
        return bare(100 * mean, f"{100 * mean:.1f}")
    return Number(100 * mean, f"{100 * mean:.1f}", f"± {100 * half:.1f}", 100 * (mean - half), 100 * (mean + half))


def _number(value: float) -> Number:
    return bare(value, f"{value:.4g}")


def _grid(requests: Sequence[int]) -> list[int]:
    """A few numbers of deletions to tell in a table: 0, and then about doubling."""
    last = requests[-1]
    return sorted({0, *(last * share // 20 for share in (1, 2, 4, 8, 14, 20))})


# --- Sections ---------------------------------------------------------------------------------------------------------


def _planners(every: Sequence[Way], ours: str, brief: bool = False) -> Table:
    """Every planner, and SISA that only goes back to checkpoints, under streams of deletions."""
    chosen = _of(every, "mean") | {"rollback": _find(every, "sisa", "rollback")}
    grid = _grid(next(iter(chosen.values())).rows[0].extra["requests"])
    headers = ["planner", "stages", "FLOPs", "cached", *(f"accuracy\nafter {k}" for k in grid)]
    rows: list[list[Cell]] = []
    for name, way in chosen.items():
        mean, half = pooled(way, "accuracy")
        cost = [_number(methods.average(way, "extra", key)) for key in ("stages", "flops_plain", "flops_cached")]
        ends = [pooled(way, f"deletions_to_{what}") for what in ("rebuild", "first_dead_shard")]
        survived = [
            bare(float(m), f"{m:.1f}") if brief else Number(float(m), f"{m:.1f}", f"± {h:.1f}", float(m - h), float(m + h))
            for m, h in ends
        ]
        rows.append([names.plan(name).name, *cost, *(_percent(mean[k], half[k], brief) for k in grid), *survived])
    bold = [i for i, name in enumerate(chosen) if name == ours]
    return Table([*headers, "until\nrebuild", "until first\ndead shard"], rows, name="planners", ours=bold)


def _study(streams: int, every: Sequence[Way]) -> tuple[list[Block], list[Chart]]:
    """What is said of the study, and its charts."""
    chosen = _of(every, "mean")
    first = next(iter(chosen.values())).rows
    budget = first[0].extra["budget_flops"]
    note = (
        f"Every (shard, node) was trained once per seed and its logits kept. {streams} streams of deletions per seed "
        f"({streams * len(first)} in all) then fall on the examples alike, with replacement. Intervals are over streams. "
        "FLOPs are per shard and epoch, in forward passes of all blocks over its examples, without and with cached "
        f"prefixes. Planners with a budget take the plan whose FLOPs (plain) come nearest to {budget:.4g}. SISA, stumps, "
        "chains, lattice and full have one size. An ensemble without a model answers nothing, which counts as wrong. "
        "Nothing is healed here. SISA checkpoints are those of SISA with one adapter on all blocks: it goes back to the "
        "last one before the hit slice and does not retrain. Curves of plans that serve alike lie on each other."
    )
    charts = [
        Chart("accuracy", "Test accuracy served", "accuracy, %", [*_curves(chosen, "accuracy", 100), *_retrained(every)]),
        Chart("depth", "Depth served, mean over shards", "slices", _curves(chosen, "depth", 1), share=False),
        Chart("alive", "Streams with a model left", "share, %", _curves(chosen, "alive", 100)),
    ]
    return [Heading("Accuracy by number of deletions"), figures.figures(charts), Text(note)], charts


def _curves(chosen: dict[str, Way], what: str, scale: float) -> list[Curve]:
    found = {name: pooled(way, what) for name, way in chosen.items()}
    x = next(iter(chosen.values())).rows[0].extra["requests"]
    return [Curve(names.plan(name), x, scale * m, scale * (m - h), scale * (m + h)) for name, (m, h) in found.items()]


def _retrained(every: Sequence[Way]) -> list[Curve]:
    """What is retrained after every deletion, at the few places where it was."""
    curves = []
    for name, way in (("retrain full", _find(every, "full")), ("retrain", _find(every, "sisa", "retrain"))):
        x = way.rows[0].extra["requests"]
        mean = 100 * np.mean([row.extra["accuracy"]["mean"] for row in way.rows], axis=0)
        curves.append(Curve(names.plan(name), x, mean, mean, mean, marked=True))
    return curves


def _aggregates(every: Sequence[Way]) -> list[Block]:
    by_kind = {kind: _of(every, kind) for kind in ensemble.AGGREGATES}
    chosen = by_kind["mean"]
    grid = _grid(next(iter(chosen.values())).rows[0].extra["requests"])
    headers = ["planner", "ensemble", *(f"accuracy\nafter {k}" for k in grid)]
    rows: list[list[Cell]] = []
    for name in chosen:
        for kind in ensemble.AGGREGATES:
            mean, half = pooled(by_kind[kind][name], "accuracy")
            rows.append([names.plan(name).name, kind, *(_percent(mean[k], half[k], False) for k in grid)])
    note = (
        "From the same logits and streams. Mean: over shards, of the deepest survivor's logits (the paper's). Depth: the "
        "same, weighted by the depth served. All: each shard is the mean of its survivors that no survivor extends."
    )
    return [Heading("Ensembles"), Text(note), Table(headers, rows, left=2, name="ensembles")]


def _lora(every: Sequence[Way]) -> list[Block]:
    one, lora = _find(every, "s3t", "one shard"), _find(every, "lora")
    rows: list[list[Cell]] = []
    for depth in range(len(one.rows[0].extra["by_depth"])):
        scores = [Measure(name, functools.partial(_by_depth, depth, name)) for name in SCORES]
        rows.append([f"S3T, depth {depth + 1}", *(methods.interval(one, measure) for measure in scores)])
    rows.append(["full LoRA", *(methods.interval(lora, Measure(name, at("before", name))) for name in SCORES)])
    note = (
        "All training examples in one shard: one sequence of slices, scored at each depth, and one adapter on all blocks. "
        "Accuracies in %, ± half of the 95% t-interval over seeds. Settings were chosen on validation data."
    )
    table = Table(["model", "validation", "test"], rows, name="full-lora")
    return [Heading("Full LoRA and the deepest node"), Text(_told_lora(every)), table, Text(note)]


def _by_depth(depth: int, score: str, row: Row) -> float:
    return row.extra["by_depth"][depth][score]


def _cost(every: Sequence[Way]) -> list[Block]:
    chosen = {f"S3T, {names.plan(name).name}": way for name, way in _of(every, "mean").items()}
    again = {"retrain": _find(every, "sisa", "retrain"), "retrain full": _find(every, "full")}
    chosen |= {names.plan(name).name: way for name, way in again.items()}
    rows: list[list[Cell]] = [
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
        "Building, and what one deletion costs before it is honoured. FLOPs are those of a build without cached prefixes. "
        "Seconds of a planner add up those of its nodes, by depth, without compilation and with cached prefixes where they "
        "fit. Storage is adapters and heads of all shards. A deletion of S3T flips masks: its latency is the store's, "
        "below. SISA retrains the suffix of one shard, full retraining everything."
    )
    headers = ["method", "build", "build seconds", "storage", "per deletion", "seconds"]
    return [Heading("Cost"), Table(headers, rows, name="cost"), Text(note)]


def _store(planner: str, every: Sequence[Way]) -> list[Block]:
    extra = _stored(every).extra
    built, stream, healed = extra["built"], extra["stream"], extra["healed"]
    told = [("built", built), *((str(i), one) for i, one in enumerate(stream, 1)), ("healed", healed)]
    x, plan = range(len(stream) + 1), names.plan(planner)
    served = [100 * one["test_accuracy"] for one in [built, *stream]]
    depth = [float(np.mean(one["depth"])) for one in [built, *stream]]
    charts = [
        Chart("store-accuracy", "The store: test accuracy served", "accuracy, %", [_plain(plan, x, served)]),
        Chart("store-depth", "The store: depth served, mean over shards", "slices", [_plain(plan, x, depth)], share=False),
    ]
    note = (
        "A store on disk, from which one example is deleted at a time. Each request is durable in the ledger when it is "
        "acknowledged. Then the files of dropped nodes are purged, and the deepest survivors serve. Healing retrains, once "
        "at the end, the nodes that held a hit slice, without the deleted examples "
        f"({methods.scaled(extra['heal_flops'], 'FLOP')} without cached prefixes; {methods.seconds(healed['seconds'])} for "
        f"{healed['nodes']} nodes)."
    )
    headers = ["deletion", "test accuracy", "depth by shard", "nodes dropped", "acknowledged, ms", "purged, ms"]
    table = Table(headers, [_moment(when, one) for when, one in told], name="store")
    return [Heading("A stream of real deletions"), Text(note), figures.figures(charts), table]


def _plain(plan: Method, x: Sequence[float], y: Sequence[float]) -> Curve:
    return Curve(plan, x, y, y, y)


def _moment(when: str, one: dict[str, Any]) -> list[Cell]:
    """What the store served at a moment, and what the deletion that led there took."""
    took = [bare(one[name], f"{one[name]:.2f}") if name in one else "" for name in ("acknowledged_ms", "purged_ms")]
    depth, dropped = " ".join(map(str, one["depth"])), str(one.get("nodes_dropped", ""))
    accuracy = 100 * one["test_accuracy"]
    return [when, bare(accuracy, f"{accuracy:.1f}"), depth, dropped, *took]


# --- In words ---------------------------------------------------------------------------------------------------------


def _told_store(every: Sequence[Way]) -> list[str]:
    row = _stored(every)
    extra, stream, name = row.extra, row.extra["stream"], str(row.facts["planner"])
    moments = extra["built"], (stream or [extra["built"]])[-1], extra["healed"]
    start, end, healed = (100 * one["test_accuracy"] for one in moments)
    store = f"The store ({names.plan(name).name})"
    proof = "nothing to object" if extra["verified"]["ok"] else "; ".join(extra["verified"]["problems"])
    if not stream:
        return [f"{store} serves {start:.1f}% before any deletion.", f"Verify found {proof}."]
    p50, p99 = np.percentile([one["acknowledged_ms"] for one in stream], [50, 99])
    return [
        f"{store} served {start:.1f}% before and {end:.1f}% after {len(stream)} deletions, and {healed:.1f}% once healed.",
        f"A deletion was durable after {p50:.2f} ms at the median (99th percentile {p99:.2f} ms).",
        f"Verify found {proof}.",
    ]


def _told_lora(every: Sequence[Way]) -> str:
    one, lora = _find(every, "s3t", "one shard"), _find(every, "lora")
    found, _ = methods.compare(one, lora, BEFORE)
    interval = f" [{100 * found.low:+.1f}, {100 * found.high:+.1f}]" if math.isfinite(found.low) else ""
    return (
        f"In one shard the deepest node gets {methods.interval(one, BEFORE)}% of the test data correct, full LoRA "
        f"{methods.interval(lora, BEFORE)}%: a difference of {100 * found.mean:+.1f} points{interval}."
    )

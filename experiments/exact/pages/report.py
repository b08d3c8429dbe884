"""The report of an s3t run, from the files of its workdir alone: the page, and a table for the terminal."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.comparison import methods
from experiments.comparison.methods import Way
from experiments.core import workdirs
from experiments.core.results import Row, Run
from experiments.exact.pages import figures, text_report, told, ways
from experiments.exact.pages.figures import Chart, Curve
from experiments.exact.pages.ways import Shown
from experiments.reporting import names, pages, terminal
from experiments.reporting.document import Block, Heading, Headline, Points, Stat, Table, Text
from experiments.reporting.names import Method
from experiments.reporting.numbers import NONE, Cell, Number, bare, bracketed
from s3t.service import ensemble

SPLITS = ("validation", "test")


def present(workdir: str, found: Run) -> str:
    """Write the report of a finished run; what the command line prints of it."""
    report, columns = pages.told(write, workdir), terminal.width()
    every = methods.group(found.rows)
    words = [terminal.wrapped(text, columns) for text in (*told.of_store(every), told.of_lora(every))]
    return "\n".join([terminal.to_text(_planners(every, "", brief=True), columns), "", *words, report])


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
        Points([*told.of_store(every), told.of_lora(every)]),
        *study,
        *text_report.section(every, _grid(_requests(every))),
        *_aggregates(every),
        *_lora(every),
        *_cost(every),
        *_store(planner, every),
    ]


def _headline(planner: str, every: Sequence[Way], chart: Chart) -> Headline:
    """What is served after the deletions of the study, how many are survived, how soon one is durable."""
    chosen, shown = ways.of_aggregate(every, "mean"), ways.shown(every)
    name = planner if planner in chosen else next(iter(chosen))
    way, sisa = chosen[name], chosen.get("sisa")
    title, last = names.plan(name).name, way.rows[0].extra["requests"][-1]
    beside = sisa if sisa and name != "sisa" else None
    extra = ways.stored(every).extra
    times = [one["acknowledged_ms"] for one in extra["stream"]]
    stats = [
        Stat(
            f"Served after {last} deletions, {title}",
            _served(way, shown, -1),
            f"{shown.title} with nothing healed, 95% interval over streams. "
            f"Before: {_served(way, shown, 0).text}{shown.unit}."
            + (f" SISA after {last}: {_served(beside, shown, -1).text}{shown.unit}." if beside else ""),
            shown.unit,
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
    drawn = figures.figures([chart._replace(name="headline", caption=f"{shown.title} served, by number of deletions")])
    return Headline(drawn.panels[0], stats, drawn.legend)


def _served(way: Way, shown: Shown, at_: int) -> Number:
    mean, half = ways.pooled(way, shown.name)
    return shown.within(mean[at_], half[at_])


def _survived(way: Way) -> Number:
    mean, half = (float(part) for part in ways.pooled(way, "deletions_to_rebuild"))
    return bracketed(mean, max(0.0, mean - half), mean + half)


def _median(times: Sequence[float]) -> Cell:
    if not times:
        return NONE
    low, middle, high = np.percentile(times, [2.5, 50, 97.5])
    return bracketed(float(middle), float(low), float(high), 2)


# --- Sections ---------------------------------------------------------------------------------------------------------


def _number(value: float) -> Number:
    return bare(value, f"{value:.4g}")


def _grid(requests: Sequence[int]) -> list[int]:
    """A few numbers of deletions to tell in a table: 0, and then about doubling."""
    last = requests[-1]
    return sorted({0, *(last * share // 20 for share in (1, 2, 4, 8, 14, 20))})


def _requests(every: Sequence[Way]) -> Sequence[int]:
    """After how many deletions the study looked."""
    requests: Sequence[int] = next(iter(ways.of_aggregate(every, "mean").values())).rows[0].extra["requests"]
    return requests


def _planners(every: Sequence[Way], ours: str, brief: bool = False) -> Table:
    """Every planner, and SISA that only goes back to checkpoints, under streams of deletions."""
    chosen = ways.of_aggregate(every, "mean") | {"rollback": ways.find(every, "sisa", "rollback")}
    grid = _grid(next(iter(chosen.values())).rows[0].extra["requests"])
    shown = ways.shown(every)
    headers = ["planner", "stages", "FLOPs", "cached", *(f"{shown.name}\nafter {k}" for k in grid)]
    rows: list[list[Cell]] = []
    for name, way in chosen.items():
        mean, half = ways.pooled(way, shown.name)
        cost = [_number(methods.average(way, "extra", key)) for key in ("stages", "flops_plain", "flops_cached")]
        ends = [ways.pooled(way, f"deletions_to_{what}") for what in ("rebuild", "first_dead_shard")]
        survived = [
            bare(float(m), f"{m:.1f}") if brief else Number(float(m), f"{m:.1f}", f"± {h:.1f}", float(m - h), float(m + h))
            for m, h in ends
        ]
        rows.append([names.plan(name).name, *cost, *(shown.around(mean[k], half[k], brief) for k in grid), *survived])
    bold = [i for i, name in enumerate(chosen) if name == ours]
    return Table([*headers, "until\nrebuild", "until first\ndead shard"], rows, name="planners", ours=bold)


def _study(streams: int, every: Sequence[Way]) -> tuple[list[Block], list[Chart]]:
    """What is said of the study, and its charts."""
    chosen, shown = ways.of_aggregate(every, "mean"), ways.shown(every)
    first = next(iter(chosen.values())).rows
    budget = first[0].extra["budget_flops"]
    note = (
        f"Every (shard, node) was trained once per seed and its logits kept. {streams} streams of deletions per seed "
        f"({streams * len(first)} in all) then fall on the examples alike, with replacement. Intervals are over streams. "
        "FLOPs are per shard and epoch, in forward passes of all blocks over its examples, without and with cached "
        f"prefixes. Planners with a budget take the plan whose FLOPs (plain) come nearest to {budget:.4g}. SISA, stumps, "
        f"chains, lattice and full have one size. {shown.nobody} "
        "Nothing is healed here. SISA checkpoints are those of SISA with one adapter on all blocks: it goes back to the "
        "last one before the hit slice and does not retrain. Curves of plans that serve alike lie on each other."
    )
    charts = [
        _chart(shown, shown.name, f"{shown.title} served", [*_curves(chosen, shown.name, shown.scale), *_retrained(every)]),
        Chart("depth", "Depth served, mean over shards", "slices", _curves(chosen, "depth", 1), share=False),
        Chart("alive", "Streams with a model left", "share, %", _curves(chosen, "alive", 100)),
    ]
    return [Heading(f"{shown.name.capitalize()} by number of deletions"), figures.figures(charts), Text(note)], charts


def _chart(shown: Shown, name: str, caption: str, curves: Sequence[Curve]) -> Chart:
    return Chart(name, caption, shown.axis, curves, share=shown.share)


def _curves(chosen: dict[str, Way], what: str, scale: float) -> list[Curve]:
    found = {name: ways.pooled(way, what) for name, way in chosen.items()}
    x = next(iter(chosen.values())).rows[0].extra["requests"]
    return [Curve(names.plan(name), x, scale * m, scale * (m - h), scale * (m + h)) for name, (m, h) in found.items()]


def _retrained(every: Sequence[Way]) -> list[Curve]:
    """What is retrained after every deletion, at the few places where it was."""
    curves, shown = [], ways.shown(every)
    for name, way in (("retrain full", ways.find(every, "full")), ("retrain", ways.find(every, "sisa", "retrain"))):
        x = way.rows[0].extra["requests"]
        mean = shown.scale * np.mean([row.extra[shown.name]["mean"] for row in way.rows], axis=0)
        curves.append(Curve(names.plan(name), x, mean, mean, mean, marked=True))
    return curves


def _aggregates(every: Sequence[Way]) -> list[Block]:
    by_kind = {kind: ways.of_aggregate(every, kind) for kind in ensemble.AGGREGATES}
    chosen = by_kind["mean"]
    grid = _grid(next(iter(chosen.values())).rows[0].extra["requests"])
    shown = ways.shown(every)
    headers = ["planner", "ensemble", *(f"{shown.name}\nafter {k}" for k in grid)]
    rows: list[list[Cell]] = []
    for name in chosen:
        for kind in ensemble.AGGREGATES:
            mean, half = ways.pooled(by_kind[kind][name], shown.name)
            rows.append([names.plan(name).name, kind, *(shown.around(mean[k], half[k]) for k in grid)])
    note = (
        "From the same logits and streams. Mean: over shards, of the deepest survivor's logits (the paper's). Depth: the "
        "same, weighted by the depth served. All: each shard is the mean of its survivors that no survivor extends."
    )
    return [Heading("Ensembles"), Text(note), Table(headers, rows, left=2, name="ensembles")]


def _lora(every: Sequence[Way]) -> list[Block]:
    one, lora, shown = ways.find(every, "s3t", "one shard"), ways.find(every, "lora"), ways.shown(every)
    rows: list[list[Cell]] = []
    measures = [shown.measure(split) for split in SPLITS]
    for depth in range(len(one.rows[0].extra["by_depth"])):
        deep = [
            measure._replace(of=functools.partial(_by_depth, depth, f"{split}_{shown.name}"))
            for split, measure in zip(SPLITS, measures, strict=True)
        ]
        rows.append([f"S3T, depth {depth + 1}", *(methods.interval(one, measure) for measure in deep)])
    rows.append(["full LoRA", *(methods.interval(lora, measure) for measure in measures)])
    note = (
        "All training examples in one shard: one sequence of slices, scored at each depth, and one adapter on all blocks. "
        f"{'Accuracies in %' if shown.share else 'Losses in nats per token'}, ± half of the 95% t-interval over seeds."
    )
    table = Table(["model", "validation", "test"], rows, name="full-lora")
    return [Heading("Full LoRA and the deepest node"), Text(told.of_lora(every)), table, Text(note)]


def _by_depth(depth: int, score: str, row: Row) -> float:
    return row.extra["by_depth"][depth][score]


def _cost(every: Sequence[Way]) -> list[Block]:
    chosen = {f"S3T, {names.plan(name).name}": way for name, way in ways.of_aggregate(every, "mean").items()}
    again = {"retrain": ways.find(every, "sisa", "retrain"), "retrain full": ways.find(every, "full")}
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
    extra, shown = ways.stored(every).extra, ways.shown(every)
    built, stream, healed = extra["built"], extra["stream"], extra["healed"]
    told = [("built", built), *((str(i), one) for i, one in enumerate(stream, 1)), ("healed", healed)]
    x, plan = range(len(stream) + 1), names.plan(planner)
    served = [shown.scale * one[f"test_{shown.name}"] for one in [built, *stream]]
    depth = [float(np.mean(one["depth"])) for one in [built, *stream]]
    charts = [
        _chart(shown, f"store-{shown.name}", f"The store: test {shown.name} served", [_plain(plan, x, served)]),
        Chart("store-depth", "The store: depth served, mean over shards", "slices", [_plain(plan, x, depth)], share=False),
    ]
    note = (
        "A store on disk, from which one example is deleted at a time. Each request is durable in the ledger when it is "
        "acknowledged. Then the files of dropped nodes are purged, and the deepest survivors serve. Healing retrains, once "
        "at the end, the nodes that held a hit slice, without the deleted examples "
        f"({methods.scaled(extra['heal_flops'], 'FLOP')} without cached prefixes; {methods.seconds(healed['seconds'])} for "
        f"{healed['nodes']} nodes)."
    )
    headers = ["deletion", f"test {shown.name}", "depth by shard", "nodes dropped", "acknowledged, ms", "purged, ms"]
    table = Table(headers, [_moment(shown, when, one) for when, one in told], name="store")
    return [Heading("A stream of real deletions"), Text(note), figures.figures(charts), table]


def _plain(plan: Method, x: Sequence[float], y: Sequence[float]) -> Curve:
    return Curve(plan, x, y, y, y)


def _moment(shown: Shown, when: str, one: dict[str, Any]) -> list[Cell]:
    """What the store served at a moment, and what the deletion that led there took."""
    took = [bare(one[name], f"{one[name]:.2f}") if name in one else "" for name in ("acknowledged_ms", "purged_ms")]
    depth, dropped = " ".join(map(str, one["depth"])), str(one.get("nodes_dropped", ""))
    return [when, shown.alone(one[f"test_{shown.name}"]), depth, dropped, *took]

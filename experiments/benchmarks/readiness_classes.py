"""The headline on every class: the shipped readiness config, one run per class, pooled.

    python -m experiments.benchmarks.readiness_classes --experiment=digits --workdir=runs/classes

Requests end at the level of unseen examples, and beside that at accuracy 0 by NegGrad+. Classes 0, 3, 5 and 8 were looked
at while settings were chosen; by default the others are run. Nobody had seen them with `--seed=3000`. Resumable, as every
run is. Intervals are t-intervals over classes: seeds of one class are not independent of each other.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.benchmarks import smoke
from experiments.comparison import methods, run
from experiments.configs import readiness as configs
from experiments.core.results import Row
from unlearn.metrics.intervals import paired

UNTUNED = (1, 2, 4, 6, 7, 9)
TRAININGS = ("oracle", "heldout_oracle", "vanilla", "readiness")
UNLEARNERS = ("level", "neggrad_plus")
OURS = "readiness, level"
COMPARED = (("kept", "kept"), ("test before", "test"), ("ToW", "tow"), ("area", "area"), ("steps", "steps"))


def main() -> None:
    """Run the classes and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--experiment", default="digits", choices=list(configs.EXPERIMENTS))
    parser.add_argument("--workdir", default="runs/classes")
    parser.add_argument("--classes", type=int, nargs="+", default=UNTUNED)
    parser.add_argument("--seed", type=int, default=3000, help="the first")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--max_steps", type=int, default=0, help="of a request; 0: as the experiment says")
    parser.add_argument("--paper", action="store_true", help="train readiness of the paper beside it")
    parser.add_argument("--steps", type=int, default=0, help="of a training; 0: as the experiment says")
    parser.add_argument("--data_dir", default="")
    parser.add_argument("--cache_dir", default="")
    args = smoke.parse(parser, workdir=smoke.folder, classes=(1, 2), seeds=2, steps=60, max_steps=3)
    rows = [row for target in args.classes for row in run_class(args, target)]
    print(table(rows, args.classes))


def run_class(args: argparse.Namespace, target: int) -> list[Row]:
    """The rows of one class, each marked with it."""
    config = configs.get_config(args.experiment)
    config.forget.target = target
    config.seed, config.seeds = args.seed, args.seeds
    if args.max_steps:
        config.request.max_steps = config.request.to_level.max_steps = args.max_steps
    config.variants = config.variants if args.paper else {}
    config.train.steps = args.steps or config.train.steps
    config.trainings, config.request.unlearners, config.equal_flops = TRAININGS, UNLEARNERS, False
    config.data.data_dir, config.data.cache_dir = args.data_dir, args.cache_dir
    results = run.run(config, str(Path(args.workdir) / f"class{target}"))
    return [dataclasses.replace(row, facts={**row.facts, "class": target}) for row in results.rows]


class Summary(NamedTuple):
    """What a table says of some rows of one way; means but for steps."""

    test: float
    forget: float
    kept: float
    tow: float
    area: float
    relearned: float
    steps: float
    most_steps: float
    failed: int


def summary(rows: Sequence[Row], oracle: methods.Way) -> Summary:
    """Over all of `rows`, of one class. Requests that were not fulfilled count with the steps they had, those that diverged
    have none.
    """
    mean = lambda *path: float(np.mean([methods.number(row, *path) for row in rows]))  # noqa: E731
    steps = [methods.spent(row, "steps") for row in rows]
    return Summary(
        test=mean("before", "test_accuracy"),
        forget=mean("before", "forget_accuracy"),
        kept=mean("after", "test_retain_accuracy"),
        tow=mean("extra", "tow"),
        area=float(np.mean([methods.relearned_area(row, oracle, "part") for row in rows])),
        relearned=float(np.mean([methods.relearned(row, "part", -1) for row in rows])),
        steps=float(np.nanmedian(steps)),
        most_steps=float(np.nanmax(steps)),
        failed=sum(methods.end(row) != "reached" for row in rows),
    )


def table(rows: list[Row], classes: Sequence[int]) -> str:
    """Per class and over all of them: what the ways keep, how near they come to the oracle, and their steps."""
    lines = [f"{'class':>5}  {'way':<32}  test    forget  kept    ToW    area   last   steps, median (max)  failed"]
    found = by_way(rows)
    by_class: dict[str, list[Summary]] = {}
    for name, mine in found.items():
        of = {c: [row for row in mine if row.facts["class"] == c] for c in classes}
        oracles = {c: [row for row in found["oracle"] if row.facts["class"] == c] for c in classes}
        by_class[name] = [summary(of[c], methods.Way("oracle", "default", "none", oracles[c])) for c in classes]
    for i, target in enumerate(classes):
        lines += [_line(f"{target:>5}", name, summaries[i]) for name, summaries in by_class.items()]
    lines += [_line("  all", name, _pooled(summaries, found[name])) for name, summaries in by_class.items()]
    column = lambda name, field: np.array([getattr(one, field) for one in by_class[name]])  # noqa: E731
    for rival in [name for name in by_class if name != OURS]:
        told = []
        for label, field in (
            ("kept", "kept"),
            ("test before", "test"),
            ("ToW", "tow"),
            ("area", "area"),
            ("steps", "steps"),
        ):
            d, p = paired(column(OURS, field), column(rival, field))
            told.append(f"{label} {d.mean:+.4f} [{d.low:+.4f}, {d.high:+.4f}] p = {p:.2g}")
        lines.append(f"{OURS} - {rival}: {'; '.join(told)}")
    return "\n".join(lines)


def _pooled(summaries: Sequence[Summary], rows: Sequence[Row]) -> Summary:
    """Means over classes; steps and failures over all requests."""
    steps = [methods.spent(row, "steps") for row in rows]
    means = {field: float(np.mean([getattr(one, field) for one in summaries])) for field in Summary._fields}
    counts = {"steps": float(np.nanmedian(steps)), "most_steps": float(np.nanmax(steps))}
    return Summary(**means | counts | {"failed": sum(one.failed for one in summaries)})  # type: ignore[arg-type]


def by_way(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows of each way and unlearner."""
    ways: dict[str, list[Row]] = {}
    for row in rows:
        name = row.training if row.variant == "default" else f"{row.training} {row.variant}"
        ways.setdefault(name if row.is_oracle else f"{name}, {row.unlearner}", []).append(row)
    return ways


def _line(target: str, name: str, one: Summary) -> str:
    steps = f"{one.steps:.4g} ({one.most_steps:.0f})"
    numbers = f"{one.test:.4f}  {one.forget:.3f}   {one.kept:.4f}  {one.tow:.3f}  {one.area:+.2f}  {one.relearned:.2f}"
    return f"{target}  {name:<32}  {numbers}   {steps:>19}  {one.failed:6}"


if __name__ == "__main__":
    main()

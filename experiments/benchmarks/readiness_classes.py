"""The headline on every class: the shipped readiness config, one run per class, pooled.

    python -m experiments.benchmarks.readiness_classes --experiment=digits --workdir=runs/classes

Classes 0, 3, 5 and 8 and seeds 100-109 were used to choose the shipped settings, on validation data; by default the others
are run. They were looked at with seeds 0-9 while the method still changed; nobody had seen them with `--seed=1000`.
Resumable, as every run is. Intervals are t-intervals over classes: seeds of one class are not independent of each other.
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
from unlearn.metrics.intervals import paired, t_interval

UNTUNED = (1, 2, 4, 6, 7, 9)
TRAININGS = ("oracle", "vanilla", "reweight", "readiness")


def main() -> None:
    """Run the classes and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--experiment", default="digits", choices=list(configs.EXPERIMENTS))
    parser.add_argument("--workdir", default="runs/classes")
    parser.add_argument("--classes", type=int, nargs="+", default=UNTUNED)
    parser.add_argument("--seed", type=int, default=0, help="the first")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--max_steps", type=int, default=0, help="of a request; 0: as the experiment says")
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
    config.request.max_steps = args.max_steps or config.request.max_steps
    config.train.steps = args.steps or config.train.steps
    config.trainings = TRAININGS
    config.data.data_dir, config.data.cache_dir = args.data_dir, args.cache_dir
    results = run.run(config, str(Path(args.workdir) / f"class{target}"))
    return [dataclasses.replace(row, facts={**row.facts, "class": target}) for row in results.rows]


class Summary(NamedTuple):
    """What a table says of some rows of one way; means but for steps."""

    test: float
    forget: float
    loss: float
    kept: float
    steps: float
    most_steps: float
    failed: int


def summary(rows: Sequence[Row]) -> Summary:
    """Over all of `rows`. Requests that were not fulfilled count with the steps they had, those that diverged have none."""
    mean = lambda *path: float(np.mean([methods.number(row, *path) for row in rows]))  # noqa: E731
    steps = [methods.spent(row, "steps") for row in rows]
    failed = sum(methods.end(row) != "reached" for row in rows)
    return Summary(
        test=mean("before", "test_accuracy"),
        forget=mean("before", "forget_accuracy"),
        loss=mean("before", "forget_loss"),
        kept=mean("after", "test_retain_accuracy"),
        steps=float(np.nanmedian(steps)),
        most_steps=float(np.nanmax(steps)),
        failed=failed,
    )


def table(rows: list[Row], classes: Sequence[int]) -> str:
    """Per class and over all of them: what the ways keep, and their steps; means over classes with t-intervals."""
    lines = ["class  way                          test    forget  loss    steps, median (max)  failed  test-retain after"]
    found = chosen(rows)
    by_class = {
        name: [summary([row for row in mine if row.facts["class"] == c]) for c in classes] for name, mine in found.items()
    }
    for i, target in enumerate(classes):
        lines += [_line(f"{target:>5}", name, summaries[i]) for name, summaries in by_class.items()]
    lines += [_line("  all", name, summary(mine)) for name, mine in found.items()]
    column = lambda name, field: np.array([getattr(one, field) for one in by_class[name]])  # noqa: E731
    for name in by_class:
        kept = t_interval(column(name, "kept"))
        lines.append(f"{name}: test-retain after {kept.mean:.3f} [{kept.low:.3f}, {kept.high:.3f}] over classes")
    for rival in [name for name in by_class if name != "readiness"]:
        for label, field in (("test-retain after", "kept"), ("test before", "test"), ("median steps", "steps")):
            d, p = paired(column("readiness", field), column(rival, field))
            lines.append(f"readiness - {rival}: {label} {d.mean:+.3f} [{d.low:+.3f}, {d.high:+.3f}], p = {p:.2g}")
    return "\n".join(lines)


def chosen(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows of each way that the table shows. The matched re-weighting is another weight in each class."""
    shown: dict[str, list[Row]] = {}
    for row in rows:
        longer = row.facts.get("equal_flops", False)
        if row.training != "reweight" or longer or row.facts.get("matched"):
            name = "matched reweight" if row.training == "reweight" else row.training
            shown.setdefault(f"{name}, equal FLOPs" if longer else name, []).append(row)
    return shown


def _line(target: str, name: str, one: Summary) -> str:
    steps = f"{one.steps:.4g} ({one.most_steps:.0f})"
    numbers = f"{one.test:.4f}  {one.forget:.3f}   {one.loss:.4f}  {steps:>19}  {one.failed:6}  {one.kept:.3f}"
    return f"{target}  {name:<27}  {numbers}"


if __name__ == "__main__":
    main()

"""The headline on every class: the shipped readiness config, one run per class, pooled.

    python -m experiments.benchmarks.readiness_classes --experiment=digits --workdir=runs/classes

Classes 0, 3, 5 and 8 and seeds 100-109 were used to choose the shipped settings, on validation data; by default the other
classes are run, with seeds 0-9.
Resumable, as every run is. Intervals are t-intervals over classes: seeds of one class are not independent of each other.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from experiments import run_readiness
from experiments.configs import readiness as configs
from unlearn.metrics.intervals import paired, t_interval

UNTUNED = (1, 2, 4, 6, 7, 9)
TRAININGS = ("oracle", "vanilla", "reweight", "readiness")


def main() -> None:
    """Run the classes and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--experiment", default="digits", choices=list(configs.EXPERIMENTS))
    parser.add_argument("--workdir", default="runs/classes")
    parser.add_argument("--classes", type=int, nargs="+", default=UNTUNED)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--max_steps", type=int, default=0, help="of a request; 0: as the experiment says")
    parser.add_argument("--data_dir", default="")
    parser.add_argument("--cache_dir", default="")
    args = parser.parse_args()
    rows = [row for target in args.classes for row in run_class(args, target)]
    print(table(rows, args.classes))


def run_class(args: argparse.Namespace, target: int) -> list[dict]:
    """The rows of one class, each marked with it."""
    config = configs.get_config(args.experiment)
    config.forget.target = target
    config.seeds = args.seeds
    config.request.max_steps = args.max_steps or config.request.max_steps
    config.trainings = TRAININGS
    config.equal_flops = False
    config.data.data_dir, config.data.cache_dir = args.data_dir, args.cache_dir
    results = run_readiness.run(config, str(Path(args.workdir) / f"class{target}"))
    return [{**row, "class": target} for row in results["rows"]]


def table(rows: list[dict], classes: list[int]) -> str:
    """Per class and pooled: what the oracle, vanilla, the matched re-weighting and readiness keep, and their steps."""
    lines = ["class  way               test    forget  loss     steps (max)  failed  test-retain after"]
    pooled: dict[str, list[list[float]]] = {}
    for target in classes:
        for name, chosen in ways(row for row in rows if row["class"] == target).items():
            scores = [row["after"]["test_retain_accuracy"] for row in chosen]
            steps = [row["steps"] for row in chosen]
            failed = sum(row["stop"] != "reached" for row in chosen)
            before = [
                np.mean([row["before"][k] for row in chosen]) for k in ("test_accuracy", "forget_accuracy", "forget_loss")
            ]
            summary = [*before, float(np.median(steps)), float(np.max(steps)), failed, float(np.mean(scores))]
            pooled.setdefault(name, []).append(summary)
            lines.append(f"{target:>5}  {name:<16}" + _cells(summary))
    for name, summaries in pooled.items():
        lines.append(f"  all  {name:<16}" + _cells([*np.mean(summaries, axis=0)]))
        kept = t_interval(np.array(summaries)[:, -1])
        lines.append(f"         test-retain after, mean over classes: {kept.mean:.3f} [{kept.low:.3f}, {kept.high:.3f}]")
    for rival in [name for name in pooled if name != "readiness"]:
        for label, column in (("test-retain after", -1), ("test before", 0), ("median steps", 3)):
            pair = paired(np.array(pooled["readiness"])[:, column], np.array(pooled[rival])[:, column])
            d = pair.difference
            lines.append(
                f"readiness - {rival}: {label} {d.mean:+.3f} [{d.low:+.3f}, {d.high:+.3f}], p = {pair.p_value:.2g}"
            )
    return "\n".join(lines)


def ways(rows) -> dict[str, list[dict]]:
    """The rows of each way that the table shows."""
    shown: dict[str, list[dict]] = {}
    for row in rows:
        if row["training"] in ("oracle", "vanilla", "readiness"):
            shown.setdefault(row["training"], []).append(row)
        elif row["extra"].get("matched"):
            shown.setdefault("matched reweight", []).append(row)
    return shown


def _cells(summary: list[float]) -> str:
    test, forget, loss, steps, most, failed, kept = summary
    return f"  {test:.4f}  {forget:.3f}   {loss:.4f}  {steps:5.0f} ({most:.0f})  {failed:6.0f}  {kept:.3f}"


if __name__ == "__main__":
    main()

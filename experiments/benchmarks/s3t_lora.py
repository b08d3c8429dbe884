"""The deepest node of S3T beside one full LoRA: the same data in one shard, the same ViT, over settings and seeds.

    python -m experiments.benchmarks.s3t_lora [--experiment digits] [--rates 0.005 0.01] [--epochs 15 30] [--seeds 5]

Each way may choose its own learning rate and epochs a stage, on validation data; the last lines compare the chosen ones
seed by seed. `digits` needs no download.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

import numpy as np

from experiments.benchmarks import smoke
from experiments.configs import s3t
from experiments.core import workdirs
from experiments.core.config import validated
from experiments.exact import data, factory, nodes
from experiments.exact.data import Data
from experiments.exact.nodes import NOBODY, Builder
from s3t.plans import planners
from unlearn.metrics.intervals import paired, t_interval

WAYS = ("S3T", "full LoRA")
Setting = tuple[float, int]


def main() -> None:
    """Print a row per setting, and how the chosen ones compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--experiment", default="digits", choices=list(s3t.EXPERIMENTS))
    parser.add_argument("--rates", type=float, nargs="+", default=(5e-3, 1e-2))
    parser.add_argument("--epochs", type=int, nargs="+", default=(15, 30))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--workdir", default="runs/s3t_lora")
    parser.add_argument("--data_dir", default="")
    args = smoke.parse(parser, workdir=smoke.folder, rates=(1e-2,), epochs=(1,), seeds=2)
    folder = workdirs.Workdir(args.workdir)
    (Path(args.workdir) / "stages").mkdir(parents=True, exist_ok=True)
    found: dict[str, dict[Setting, np.ndarray]] = {way: {} for way in WAYS}
    print("learning rate  epochs  way        validation  test")
    for setting in itertools.product(args.rates, args.epochs):
        held, builder = set_up(args, folder, *setting)
        for way in WAYS:
            scores = np.array([score(held, builder, way, seed) for seed in range(args.seeds)])
            found[way][setting] = scores
            print(f"{setting[0]:<13g}  {setting[1]:<6}  {way:<9}  {shown(scores[:, 0])}  {shown(scores[:, 1])}", flush=True)
    chosen = {way: best(trials) for way, trials in found.items()}
    ours, theirs = (found[way][chosen[way]] for way in WAYS)
    for at, split in enumerate(("validation", "test")):
        (mean, low, high, _), p = paired(100 * ours[:, at], 100 * theirs[:, at])
        apart = f"{split} {mean:+.1f} [{low:+.1f}, {high:+.1f}], p = {p:.2g}"
        print(f"S3T {chosen['S3T']} - full LoRA {chosen['full LoRA']}: {apart}")


def best(trials: dict[Setting, np.ndarray]) -> Setting:
    """The setting with the highest mean validation accuracy."""
    return max(trials, key=lambda setting: float(trials[setting][:, 0].mean()))


def set_up(args: argparse.Namespace, folder: workdirs.Workdir, rate: float, epochs: int) -> tuple[Data, Builder]:
    """The experiment with one learning rate and number of epochs for both ways; the backbone is pre-trained once."""
    made = s3t.get_config(args.experiment)
    made.data.data_dir = args.data_dir
    for part in (made.train, made.full_lora):
        part.learning_rate, part.epochs = rate, epochs
    config = validated(s3t.S3TStudy, made).resolved()
    source = factory.make(config.hyper(), **config.arguments())
    seen = None if config.checkpoint else config.pretrain
    held = data.pretrained(data.load(source), config.arguments(), seen, folder.path)
    return held, Builder(held.source, config.shards, config.slices, config.train, config.full_lora)


def score(held: Data, builder: Builder, way: str, seed: int) -> tuple[float, float]:
    """Validation and test accuracy of one sequence over all slices, or of one adapter on all blocks."""
    build = builder.of_plan(planners.sisa(builder.slices), seed, 1) if way == "S3T" else builder.of_full_lora(seed)
    trained, _ = nodes.train(build, NOBODY)
    deepest = build.setup.plan.nodes[-1]
    scores = held.scored(nodes.logits_of(held, build, trained, (0, deepest)))
    return scores["validation_accuracy"], scores["test_accuracy"]


def shown(accuracies: np.ndarray) -> str:
    """Mean and half of the 95% t-interval, in %."""
    found = t_interval(100 * accuracies)
    return f"{found.mean:5.1f} ± {found.high - found.mean:.1f}"


if __name__ == "__main__":
    main()

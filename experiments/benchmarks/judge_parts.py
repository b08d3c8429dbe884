"""What a judgement's KLoM on the forgotten is made of, and by how much members lie above who was never seen.

    forethought --config=judge:levels --workdir=DIR
    python -m experiments.benchmarks.judge_parts --workdir=DIR

KLoM compares the margins of each example over models with those of held-out oracles. Printed beside it is how far the
mean margin of all of them is off, how far single examples then are (rms), how many times the oracles' is the spread over
models, and what KLoM would be if the mean of all, or of each, were the oracles'. Of shadows it prints the margin of members
less that of models which never saw the example: mean, deviation over examples, and the spread over models.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from experiments.benchmarks import smoke
from experiments.configs import judge as configs
from experiments.core.keys import Hash
from experiments.data import datasets, problem
from experiments.judge import run
from experiments.judge.cases import pool_of
from experiments.judge.fleets import reference
from experiments.judge.ulira import memberships
from experiments.loading import load, tuples
from unlearn.metrics.klom import klom

HEAD = f"{'forget set, way':<46}  KLoM  mean off  examples off  spread  mean right  each right  members - unseen  spread"


def main() -> None:
    """Read the statistics that a judgement kept, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", default="runs/judge", help="of a finished judgement of classes or random sets")
    args = smoke.parse(parser, workdir=toy)
    print(table(Path(args.workdir)))


def toy() -> str:
    """The workdir of a judgement at toy size."""
    config = configs.get_config("quick")
    config.train.steps, config.relearn.rates = 60, ()
    folder = smoke.folder()
    run.run(config, folder)
    return folder


def table(workdir: Path) -> str:
    """A line for every way of every forget set."""
    finished = load(workdir)
    config = configs.Judge.model_validate(tuples(finished.config))
    dataset, lines = datasets.load(config.data), [HEAD]
    for asked in config.asked():
        asked_of = problem.make(dataset, asked.forget)
        pool = pool_of(asked_of)
        included = memberships(dataset.train.id[pool], config.judge.lanes, config.seed, Hash.SHADOW)
        forgotten = np.isin(pool, asked_of.forget)
        for file in sorted((workdir / "statistics").glob(f"{asked.name}-*.npz")):
            way = file.stem.removeprefix(f"{asked.name}-")
            if beside := reference(way.rpartition("-")[0]):
                oracle = file.with_name(f"{asked.name}-{beside}-none.npz")
                lines.append(line(f"{asked.name}, {way}", file, oracle, forgotten, included))
    return "\n".join(lines)


def line(name: str, file: Path, oracle: Path, forgotten: np.ndarray, included: np.ndarray) -> str:
    """One way.

    Args:
      file, oracle: statistics of the way and of its reference.
      forgotten: [pool] bool, what repeats are asked to forget.
      included: [models, pool] bool, what shadows are trained on.
    """
    mine, theirs = (np.load(one)["pool.margin"][:, forgotten].astype(np.float64) for one in (file, oracle))
    off = mine.mean(axis=0) - theirs.mean(axis=0)
    spread = np.median(mine.std(axis=0, ddof=1) / theirs.std(axis=0, ddof=1))
    parts = [klom(unlearned=mine - shift, oracle=theirs).mean() for shift in (0.0, off.mean(), off)]
    told = f"{parts[0]:4.2f}  {off.mean():+8.1f}  {off.std():12.1f}  {spread:6.2f}  {parts[1]:10.2f}  {parts[2]:10.2f}"
    gap, over_models = gaps(np.load(file)["shadows.margin"].astype(np.float64), included)
    return f"{name:<46}  {told}  {gap.mean():+7.2f} ± {gap.std():5.2f}  {over_models.mean():7.2f}"


def gaps(margins: np.ndarray, included: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each example, the mean margin of members less that of the other models, and the spread over models of a kind.

    Args:
      margins, included: [models, examples].
    """
    kinds = [np.where(mask, margins, np.nan) for mask in (included, ~included)]
    members, unseen = (np.nanmean(kind, axis=0) for kind in kinds)
    return members - unseen, np.sqrt(np.mean([np.nanvar(kind, axis=0) for kind in kinds], axis=0))


if __name__ == "__main__":
    main()

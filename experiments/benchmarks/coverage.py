"""How often intervals over models hold the truth: U-LiRA in halves, by leaving out groups of models and by a bootstrap.

    python -m experiments.benchmarks.coverage [--fleets 200] [--models 64] [--examples 180]

Fleets are made up: normal margins, so much higher in models that hold an example, with and without a direction that all
examples of a model share. What is true is .5 where nothing is to be found, and elsewhere the mean over the fleets. Printed
are the share of fleets whose 90% interval holds it, and the width of intervals: 1 is 3.3 standard deviations of the value.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import numpy as np

from experiments.benchmarks import smoke
from experiments.judge import ulira
from unlearn.metrics import lira, rates
from unlearn.metrics.intervals import Interval

LEVEL = 0.9
WIDTH = 2 * 1.645  # of a normal interval of that level, in standard deviations
SHIFTS = (0.0, 0.3, 1.0)  # of margins, in standard deviations
SHARED = (0.0, 0.3)  # of the variance


def main() -> None:
    """Draw fleets, and print a line for each kind of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fleets", type=int, default=200)
    parser.add_argument("--models", type=int, default=64)
    parser.add_argument("--examples", type=int, default=180)
    args = smoke.parse(parser, fleets=3, models=12, examples=20)
    if args.fleets < 2 or args.models < 12 or args.models % 4 or args.examples < 2:
        parser.error("--fleets is 2 or more, --models 12 or more by fours, --examples 2 or more")
    print(f"{args.fleets} fleets of {args.models} models, {args.examples} examples, nominal {LEVEL}")
    for shift in SHIFTS:
        for shared in SHARED:
            rng = np.random.default_rng(0)
            drawn = [fleet(rng, args.models, args.examples, shift, shared) for _ in range(args.fleets)]
            found = list(zip(*(intervals(*one) for one in drawn), strict=True))
            print(f"shift {shift}, shared {shared}: " + "; ".join(told(found, shift == 0)), flush=True)


def fleet(
    rng: np.random.Generator, models: int, examples: int, shift: float, shared: float
) -> tuple[np.ndarray, np.ndarray]:
    """Margins and who holds what, [models, examples] each."""
    halves = [np.argsort(rng.random((models // 2, examples)), axis=0) < models // 4 for _ in range(2)]
    included, noise = np.concatenate(halves), rng.normal(size=(models, examples))
    direction = rng.normal(size=(models, 1)) * rng.normal(size=examples)
    return np.sqrt(1 - shared) * noise + np.sqrt(shared) * direction + shift * included, included


def intervals(margins: np.ndarray, included: np.ndarray) -> tuple[Interval, Interval]:
    """Of the AUC: leaving groups of models out, as the judges do, and a bootstrap of targets."""
    second = ulira.second_half(len(margins))
    found = ulira.attacked(margins, included, second)
    ratios = lira.halves(margins, included, second)
    bootstrap = rates.rates_intervals(ratios, included, fprs=(), seed=0, resamples=200, level=LEVEL).auc
    low, high = (np.nan if end is None else end for end in (found["estimate90"].low, found["estimate90"].high))
    return Interval(float(found["estimate"].value), low, high, len(margins)), bootstrap


def told(found: list[tuple[Interval, ...]], nothing: bool) -> Iterator[str]:
    """What is to be said of each kind of interval."""
    values = np.array([one.mean for one in found[0]])
    truth = 0.5 if nothing else values.mean()
    for name, kind in zip(("groups left out", "bootstrap of targets"), found, strict=True):
        holds = np.mean([one.low <= truth <= one.high for one in kind])
        width = np.mean([one.high - one.low for one in kind]) / (WIDTH * values.std(ddof=1))
        yield f"{name} {holds:.2f} (width {width:.2f})"


if __name__ == "__main__":
    main()

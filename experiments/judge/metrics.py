"""What the judge computes from kept statistics of single examples alone, and how those are kept.

Models with a statistic that is not finite have failed: they are left out of what is computed and counted beside it. A
metric that cannot be computed has no value and says why.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.core.errors import line
from experiments.core.files import Arrays, read_arrays, unreadable, write_arrays
from experiments.core.results import Estimate
from experiments.core.workdirs import AGAIN
from experiments.judge.ulira import attacked, second_half
from experiments.scoring.statistics import Statistics, finite
from unlearn.metrics import epsilon, klom, rates, rmia
from unlearn.metrics.intervals import jackknife, t_interval

KINDS = ("forget", "retain", "validation")
SETS = ("pool", "retain", "validation", "test")  # what repeats are looked at on
REFERENCES = 4  # oracles that RMIA may ask
BIN = 0.5  # nats, of a histogram of margins
EDGES = np.arange(-80, 81) * BIN  # of one; what lies beyond counts at its ends


class Kept(NamedTuple):
    """The statistics of one entry, [lanes, examples] each, without the models that failed.

    pool, retain, validation, test: of the repeats.  shadows: on the pool.
    features: of a few repeats, what their last layer is given on the forget set, [lanes, examples, width].
    divergence: of those repeats, from untrained models on the forget set, [lanes, examples].
    included: [shadows, pool] bool.  second: [shadows] bool, which half a shadow belongs to.
    failed: how many models of either kind.
    """

    pool: Statistics
    retain: Statistics
    validation: Statistics
    test: Statistics
    shadows: Statistics
    features: np.ndarray
    divergence: np.ndarray
    included: np.ndarray
    second: np.ndarray
    failed: dict[str, int]


class Masks(NamedTuple):
    """Which of the kept examples are looked at.

    forgotten: [pool] bool, which of them all repeats were asked to forget.
    others: [test] bool, which of them were never trained on and are like those: of a class, its test images.
    """

    forgotten: np.ndarray
    others: np.ndarray


def keep(file: Path, arrays: Arrays) -> None:
    """Write arrays whole or not at all; values that are not finite are kept as they are."""
    write_arrays(file, {name: leaf.astype(np.float32) for name, leaf in arrays.items()}, compressed=True)


def read(file: Path) -> Arrays:
    """What `keep` wrote.

    Raises:
      WorkdirError: the file cannot be read.
    """
    return read_arrays(file, AGAIN)


def flat(statistics: Mapping[str, Statistics]) -> Arrays:
    """Statistics by the examples that they are of, as the arrays of a file."""
    return {f"{kind}.{name}": leaf for kind, of in statistics.items() for name, leaf in of._asdict().items()}


def load(file: Path, included: np.ndarray) -> Kept:
    """Read what `keep` wrote of an entry.

    Raises:
      WorkdirError: the file cannot be read, or is of another fleet.
    """
    arrays = read(file)
    try:
        found = {
            kind: Statistics(*(arrays[f"{kind}.{name}"] for name in Statistics._fields)) for kind in (*SETS, "shadows")
        }
        repeats, shadows = np.all([finite(found[kind]) for kind in SETS], axis=0), finite(found["shadows"])
        if len(shadows) != len(included):
            raise ValueError(f"{len(shadows)} shadows instead of {len(included)}")
        features, divergence = (arrays[name][repeats[: len(arrays[name])]] for name in ("features", "divergence"))
    except (ValueError, KeyError) as error:
        raise unreadable(file, error, AGAIN) from error
    pool, retain, validation, test = (some_models(found[kind], repeats) for kind in SETS)
    return Kept(
        pool,
        retain,
        validation,
        test,
        some_models(found["shadows"], shadows),
        features,
        divergence,
        included=included[shadows],
        second=second_half(len(shadows))[shadows],
        failed={"repeats": int((~repeats).sum()), "shadows": int((~shadows).sum())},
    )


def some_models(statistics: Statistics, rows: Any) -> Statistics:
    """The statistics of some models."""
    return Statistics(*(leaf[rows] for leaf in statistics))


def judged(kept: Kept, oracle: Kept | None, masks: Masks) -> dict[str, Any]:
    """Every metric of one entry against the oracles: name -> Estimate, or a mapping with one.

    Args:
      kept: the entry.
      oracle: what it is compared with; None for the oracle itself, which would be its own measure.
      masks: of the examples.
    """
    return distances(kept, oracle, masks) | {
        "ulira": or_why(lambda: attacked(wide(kept.shadows.margin), kept.included, kept.second)),
        "margins": or_why(lambda: _margins(kept, masks)),
        "failed": kept.failed,
    }


def distances(kept: Kept, oracle: Kept | None, masks: Masks, most: int | None = None) -> dict[str, Any]:
    """What compares repeats with oracles; of KLoM and epsilon the value of models that are alike depends on their number.

    Args:
      kept, oracle, masks: as for `judged`.
      most: repeats to look at; None: all.
    """
    few = kept._replace(
        pool=some_models(kept.pool, slice(most)),
        retain=some_models(kept.retain, slice(most)),
        validation=some_models(kept.validation, slice(most)),
        test=some_models(kept.test, slice(most)),
    )
    against = lambda metric, *rest: or_why(lambda: metric(few, given(oracle), masks, *rest))  # noqa: E731
    return {"klom": {kind: against(_klom, kind) for kind in KINDS}, "epsilon": against(_epsilon), "rmia": against(_rmia)}


def given(oracle: Kept | None) -> Kept:
    """The oracle.

    Raises:
      ValueError: there is none.
    """
    if oracle is None:
        raise ValueError("the oracle is the reference: see the held-out one")
    return oracle


def or_why(compute: Callable[[], Any]) -> Any:
    """What is computed; if that is refused, no value and the reason."""
    try:
        return compute()
    except ValueError as refused:
        return Estimate(reason=line(refused))


def some_shadows(kept: Kept, rows: np.ndarray) -> Kept:
    """The entry with fewer shadows."""
    return kept._replace(shadows=some_models(kept.shadows, rows), included=kept.included[rows], second=kept.second[rows])


def margins_of(kept: Kept, masks: Masks, kind: str) -> np.ndarray:
    """[lanes, examples] float64 margins of the repeats on the forget set, retain or validation examples."""
    return wide(kept.pool.margin[:, masks.forgotten] if kind == "forget" else getattr(kept, kind).margin)


def wide(values: np.ndarray) -> np.ndarray:
    """As float64, in which metrics compute."""
    return values.astype(np.float64)


def _margins(kept: Kept, masks: Masks) -> dict[str, Any]:
    """Shares of the forget set's margins, over repeats, in bins of EDGES, and the shadows' mean margin by pool example.

    `clipped` of `count` margins lie beyond EDGES, and count at its ends.
    """
    margins = margins_of(kept, masks, "forget")
    if not margins.size or not len(kept.shadows.margin):
        raise ValueError("no model of a kind has finite logits")
    clipped = int(np.sum((margins < EDGES[0]) | (margins > EDGES[-1])))
    shares = np.histogram(np.clip(margins, EDGES[0], EDGES[-1]), EDGES)[0] / margins.size
    pool = wide(kept.shadows.margin).mean(axis=0)
    return {"forget": shares, "clipped": clipped, "count": int(margins.size), "pool": pool}


def _klom(kept: Kept, oracle: Kept, masks: Masks, kind: str) -> dict[str, Any]:
    """Mean and 95th percentile over examples, and the same as published code counts them."""
    unlearned, reference = (margins_of(one, masks, kind) for one in (kept, oracle))
    mean, p95 = klom.summary(unlearned=unlearned, oracle=reference)
    examples = klom.klom(unlearned=unlearned, oracle=reference)
    theirs = klom.klom_published(unlearned=unlearned, oracle=reference)
    published = {"estimate": _bare(theirs.mean(), unlearned), "p95": _bare(np.percentile(theirs, 95), unlearned)}
    return {"estimate": Estimate.of(mean), "p95": Estimate.of(p95), "examples": examples, "published": published}


def _bare(value: float, unlearned: np.ndarray) -> Estimate:
    """A number of published code, which knows no intervals."""
    return Estimate.of((value, np.nan, np.nan, len(unlearned)))


def _epsilon(kept: Kept, oracle: Kept, masks: Masks) -> dict[str, Any]:
    """Mean per-example epsilon and forgetting quality on the forget set, and both as published code searches them."""
    unlearned, reference = (margins_of(one, masks, "forget") for one in (kept, oracle))

    def statistic(rows: np.ndarray, oracle_rows: np.ndarray) -> np.ndarray:
        each = epsilon.epsilon(unlearned=unlearned[rows], oracle=reference[oracle_rows])
        return np.array([each.mean(), epsilon.forgetting_quality(each, min(len(rows), len(oracle_rows)))])

    mean, quality = jackknife(statistic, (len(unlearned), len(reference))).intervals()
    each = epsilon.epsilon(unlearned=unlearned, oracle=reference)
    theirs = epsilon.epsilon_published(unlearned=unlearned, oracle=reference)
    points = epsilon.forgetting_quality(theirs, min(len(unlearned), len(reference)))
    published = {"estimate": _bare(theirs.mean(), unlearned), "forgetting_quality": _bare(points, unlearned)}
    found = {"estimate": Estimate.of(mean), "forgetting_quality": Estimate.of(quality)}
    return found | {"examples": each, "published": published}


def _rmia(kept: Kept, oracle: Kept, masks: Masks) -> Estimate:
    """AUC of forget against validation examples on each repeat, with a few oracles as references: mean over repeats.

    Half of the validation examples are the population and half the non-members, by position in a hashed order.
    """
    held = np.arange(kept.validation.loss.shape[1]) % 2 == 0

    def log_p(models: Kept, rows: Any) -> tuple[np.ndarray, np.ndarray]:
        """log p_y of the examples in question, forget data first, and of the population."""
        forget, validation = (-wide(of.loss[rows]) for of in (models.pool, models.validation))
        asked = np.concatenate([forget[..., masks.forgotten], validation[..., ~held]], axis=-1)
        return asked, validation[..., held]

    references, population_references = log_p(oracle, slice(REFERENCES))
    member = np.arange(references.shape[1]) < masks.forgotten.sum()
    found = []
    for lane in range(len(kept.pool.loss)):
        asked, population = log_p(kept, lane)
        score = rmia.rmia(asked, population, references=references, population_references=population_references)
        if np.ptp(score) == 0:
            raise ValueError("RMIA gives every example the same score")
        found.append(rates.rates(score, member, threshold=0.5, fprs=()).auc)
    return Estimate.of(t_interval(np.array(found)))


def numbers(lanes: list[dict[str, float | None]]) -> dict[str, np.ndarray]:
    """Scores of lanes, by name, [lanes] each; null is NaN."""
    return {name: np.array([np.nan if lane[name] is None else lane[name] for lane in lanes]) for name in lanes[0]}


def over_lanes(values: Sequence[float] | np.ndarray) -> Estimate:
    """A mean over repeats with its t-interval; values that are not finite are left out and counted."""
    return Estimate.of(t_interval(np.asarray(values, float)))

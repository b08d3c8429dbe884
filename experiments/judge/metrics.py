"""What the judge computes from kept logits alone, and how logits are kept.

Models with a logit that is not finite have failed: they are left out of what is computed and counted beside it. A metric
that cannot be computed has no value and says why.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.core.errors import line
from experiments.core.files import read_arrays, unreadable, write_arrays
from experiments.core.results import Estimate
from experiments.core.workdirs import AGAIN
from experiments.judge.ulira import attacked, second_half
from unlearn.metrics import epsilon, klom, rates, rmia, scores
from unlearn.metrics.intervals import jackknife, t_interval

Logits = dict[str, np.ndarray]
KINDS = ("forget", "retain", "validation")
REFERENCES = 4  # oracles that RMIA may ask
EDGES = np.linspace(-20, 20, 81)  # of a histogram of margins; what lies beyond counts at its ends


class Kept(NamedTuple):
    """The logits of one entry, [lanes, examples, classes], without the models that failed.

    pool, retain, validation, test: of the repeats.  shadows: on the pool.
    features: of a few repeats, what their last layer is given on the forget set, [lanes, examples, width].
    included: [shadows, pool] bool.  second: [shadows] bool, which half a shadow belongs to.
    failed: how many models of either kind.
    """

    pool: np.ndarray
    retain: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    shadows: np.ndarray
    features: np.ndarray
    included: np.ndarray
    second: np.ndarray
    failed: dict[str, int]


class Labels(NamedTuple):
    """Labels of the kept examples.

    forgotten: [pool] bool, which of them all repeats were asked to forget.
    others: [test] bool, which of them were never trained on and are like those: of a class, its test images.
    """

    pool: np.ndarray
    retain: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    forgotten: np.ndarray
    others: np.ndarray


def keep(file: Path, logits: Logits) -> None:
    """Write logits whole or not at all; values that are not finite are kept as they are."""
    write_arrays(file, {name: leaf.astype(np.float32) for name, leaf in logits.items()}, compressed=True)


def read(file: Path) -> Logits:
    """What `keep` wrote.

    Raises:
      WorkdirError: the file cannot be read.
    """
    return read_arrays(file, AGAIN)


def load(file: Path, included: np.ndarray) -> Kept:
    """Read what `keep` wrote of an entry.

    Raises:
      WorkdirError: the file cannot be read, or is of another fleet.
    """
    logits = read(file)
    try:
        finite = [np.isfinite(logits[name]).all(axis=(1, 2)) for name in ("pool", "retain", "validation", "test")]
        repeats, shadows = np.all(finite, axis=0), np.isfinite(logits["shadows"]).all(axis=(1, 2))
        if len(shadows) != len(included):
            raise ValueError(f"{len(shadows)} shadows instead of {len(included)}")
        few = repeats[: len(logits["features"])]
    except (ValueError, KeyError) as error:
        raise unreadable(file, error, AGAIN) from error
    whole = {"shadows": shadows, "features": few}
    parts = {name: leaf[whole.get(name, repeats)] for name, leaf in logits.items()}
    failed = {"repeats": int((~repeats).sum()), "shadows": int((~shadows).sum())}
    return Kept(**parts, included=included[shadows], second=second_half(len(shadows))[shadows], failed=failed)


def judged(kept: Kept, oracle: Kept | None, labels: Labels) -> dict[str, Any]:
    """Every metric of one entry against the oracles: name -> Estimate, or a mapping with one.

    Args:
      kept: the entry.
      oracle: what it is compared with; None for the oracle itself, which would be its own measure.
      labels: of the examples.
    """
    return distances(kept, oracle, labels) | {
        "ulira": or_why(lambda: attacked(scores.margin(kept.shadows, labels.pool), kept.included, kept.second)),
        "margins": or_why(lambda: _margins(kept, labels)),
        "failed": kept.failed,
    }


def distances(kept: Kept, oracle: Kept | None, labels: Labels, most: int | None = None) -> dict[str, Any]:
    """What compares repeats with oracles; of KLoM and epsilon the value of models that are alike depends on their number.

    Args:
      kept, oracle, labels: as for `judged`.
      most: repeats to look at; None: all.
    """
    few = kept._replace(**{kind: getattr(kept, kind)[:most] for kind in ("pool", "retain", "validation", "test")})
    against = lambda metric, *rest: or_why(lambda: metric(few, given(oracle), labels, *rest))  # noqa: E731
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
    return kept._replace(shadows=kept.shadows[rows], included=kept.included[rows], second=kept.second[rows])


def margins_of(kept: Kept, labels: Labels, kind: str) -> np.ndarray:
    """[lanes, examples] float64 margins of the repeats on the forget set, retain or validation examples."""
    if kind == "forget":
        return scores.margin(kept.pool[:, labels.forgotten], labels.pool[labels.forgotten])
    return scores.margin(getattr(kept, kind), getattr(labels, kind))


def _margins(kept: Kept, labels: Labels) -> dict[str, Any]:
    """Shares of the forget set's margins, over repeats, in bins of EDGES, and the shadows' mean margin by pool example.

    `clipped` of `count` margins lie beyond EDGES, and count at its ends.
    """
    margins = margins_of(kept, labels, "forget")
    if not margins.size or not len(kept.shadows):
        raise ValueError("no model of a kind has finite logits")
    clipped = int(np.sum((margins < EDGES[0]) | (margins > EDGES[-1])))
    shares = np.histogram(np.clip(margins, EDGES[0], EDGES[-1]), EDGES)[0] / margins.size
    pool = scores.margin(kept.shadows, labels.pool).mean(axis=0)
    return {"forget": shares, "clipped": clipped, "count": int(margins.size), "pool": pool}


def _klom(kept: Kept, oracle: Kept, labels: Labels, kind: str) -> dict[str, Any]:
    """Mean and 95th percentile over examples."""
    margins = {"unlearned": margins_of(kept, labels, kind), "oracle": margins_of(oracle, labels, kind)}
    mean, p95 = klom.summary(**margins)
    return {"estimate": Estimate.of(mean), "p95": Estimate.of(p95), "examples": klom.klom(**margins)}


def _epsilon(kept: Kept, oracle: Kept, labels: Labels) -> dict[str, Any]:
    """Mean per-example epsilon and forgetting quality on the forget set."""
    unlearned, reference = (margins_of(one, labels, "forget") for one in (kept, oracle))

    def statistic(rows: np.ndarray, oracle_rows: np.ndarray) -> np.ndarray:
        each = epsilon.epsilon(unlearned=unlearned[rows], oracle=reference[oracle_rows])
        return np.array([each.mean(), epsilon.forgetting_quality(each, min(len(rows), len(oracle_rows)))])

    mean, quality = jackknife(statistic, (len(unlearned), len(reference))).intervals()
    each = epsilon.epsilon(unlearned=unlearned, oracle=reference)
    return {"estimate": Estimate.of(mean), "forgetting_quality": Estimate.of(quality), "examples": each}


def _rmia(kept: Kept, oracle: Kept, labels: Labels) -> Estimate:
    """AUC of forget against validation examples on each repeat, with a few oracles as references: mean over repeats.

    Half of the validation examples are the population and half the non-members, by position in a hashed order.
    """
    log_p = lambda one, part, truth: -scores.loss(one, truth)[..., part]  # noqa: E731
    held = np.arange(len(labels.validation)) % 2 == 0
    everyone = np.ones(int(labels.forgotten.sum()), bool)
    wanted = (kept.pool[:, labels.forgotten], everyone, labels.pool[labels.forgotten])
    known = (oracle.pool[:REFERENCES, labels.forgotten], everyone, labels.pool[labels.forgotten])
    found = []
    for lane in range(len(kept.pool)):
        target = lambda part: log_p(kept.validation[lane], part, labels.validation)  # noqa: E731, B023
        reference = lambda part: log_p(oracle.validation[:REFERENCES], part, labels.validation)  # noqa: E731
        asked = np.concatenate([log_p(wanted[0][lane], *wanted[1:]), target(~held)])
        references = np.concatenate([log_p(*known), reference(~held)], axis=1)
        score = rmia.rmia(asked, target(held), references=references, population_references=reference(held))
        member = np.arange(len(asked)) < len(everyone)
        if np.ptp(score) == 0:
            raise ValueError("RMIA gives every example the same score")
        found.append(rates.rates(score, member, threshold=0.5, fprs=()).auc)
    return Estimate.of(t_interval(np.array(found)))


def numbers(lanes: list[dict[str, float | None]]) -> dict[str, np.ndarray]:
    """Scores of lanes, by name, [lanes] each; null is NaN."""
    return {name: np.array([np.nan if lane[name] is None else lane[name] for lane in lanes]) for name in lanes[0]}


def over_lanes(values: Sequence[float]) -> Estimate:
    """A mean over repeats with its t-interval; values that are not finite are left out and counted."""
    return Estimate.of(t_interval(np.asarray(values, float)))

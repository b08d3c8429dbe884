"""The relearning attack: what it trains on, what it is watched on, and how soon what was forgotten is back."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.core import forgetting
from experiments.core.keys import Hash
from experiments.data import datasets
from experiments.data.problem import Problem
from experiments.data.sets import padded, subsample
from experiments.data.splits import Tokens
from experiments.scoring import evaluation
from experiments.scoring.scorer import Scorer
from experiments.training.fleets import PER_STEP
from readiness.requests import nearest_classes, nearest_examples
from unlearn.base import Batch

WATCHED = 500  # forget examples that relearning is measured on
WATCHED_TEXTS = 64  # rows of text that it is measured on
ATTACKS = 4  # by so many sets of examples
STRONG = ("part", "all")  # sets of the strong attack: those that hold what was forgotten
DIGITS = 5  # that accuracies of the strong attack are kept with: on 500 examples they are exact


def relearn(
    scorer: Scorer, section: forgetting.Relearn, problem: Problem, params: Any, keys: jax.Array
) -> dict[str, np.ndarray]:
    """Relearning curves [lanes, steps + 1] on four attack sets, watched on others, but for "all" of a random forget set.

    Args:
      params: of all lanes.
      keys: raw keys of the lanes.
    """
    pairs, curves = attacks(section, problem), {}
    attack_by = evaluation.make_relearn(
        scorer.model, section.learning_rate, section.steps, section.batch_size, scorer.devices
    )
    widest = max(len(attack["id"]) for attack, _ in pairs.values())
    most = _watched(problem)
    if problem.dataset.is_text:  # padding costs as much as texts
        most = min(most, max(len(watch["id"]) for _, watch in pairs.values()))
    for name, (attack, watch) in pairs.items():
        watch = padded(subsample(watch, most, Hash.WATCH), most)
        sets = jax.tree.map(jnp.asarray, (padded(attack, widest), watch))
        curves[name] = np.asarray(attack_by((params, keys), *sets)[1])
    return curves


class Strong(NamedTuple):
    """Curves of the strong attack on one attack set.

    curves: [rates, lanes, steps + 1] accuracy on what is watched.
    watched: examples that it is watched on.
    """

    curves: np.ndarray
    watched: int


def relearn_strongly(
    scorer: Scorer, section: forgetting.StrongRelearn, problem: Problem, params: Any, keys: jax.Array
) -> dict[str, Strong]:
    """Relearning of STRONG sets at every rate of the grid, each step of it watched.

    Args:
      params, keys: as for `relearn`.
    """
    pairs, found = attacks(section, problem), {}
    for name in STRONG:
        attack, watch = pairs[name]
        watch = subsample(watch, _watched(problem), Hash.WATCH)
        sets = jax.tree.map(jnp.asarray, (attack, watch))
        curves = []
        for rate in section.rates:
            steps, size = section.strong_steps, section.batch_size
            attack_by = evaluation.make_relearn(scorer.model, rate, steps, size, scorer.devices)
            curves.append(np.asarray(attack_by((params, keys), *sets)[1]))
        found[name] = Strong(np.stack(curves).astype(np.float64).round(DIGITS), len(watch["id"]))
    return found


def _watched(problem: Problem) -> int:
    """How many examples are watched at most: a text has many answers."""
    return WATCHED_TEXTS if problem.dataset.is_text else WATCHED


def work(section: forgetting.Relearn, problem: Problem, lanes: int) -> float:
    """What the attacks on so many lanes are expected to take, in steps of one model; a look is one pass forward."""
    return ATTACKS * section.steps * _watched_step(section, problem) * (lanes + PER_STEP)


def strong_work(section: forgetting.StrongRelearn, problem: Problem, lanes: int) -> float:
    """The same of the strong attack."""
    steps = len(STRONG) * len(section.rates) * section.strong_steps
    return steps * _watched_step(section, problem) * (lanes + PER_STEP)


def _watched_step(section: forgetting.Relearn, problem: Problem) -> float:
    return 1 + _watched(problem) / (3 * section.batch_size)


def bags(x: np.ndarray, tokens: Tokens) -> np.ndarray:
    """How often each token stands in each text, [texts, length] -> [texts, vocabulary] float32.

    Order does not count, nor do pads: texts would be alike by their lengths.
    """
    counts = np.zeros((len(x), tokens.vocabulary), np.float32)
    np.add.at(counts, (np.arange(len(x))[:, None], x), 1.0)
    counts[:, tokens.pad] = 0.0
    return counts


def compared(x: Any, tokens: Tokens | None) -> Any:
    """What examples lie near to one another by, [examples, ...]: pixels, or of texts `bags`."""
    return x if tokens is None else bags(x, tokens)


def attacks(section: forgetting.Relearn, problem: Problem) -> dict[str, tuple[Batch, Batch]]:
    """What relearning trains on, and what it is watched on, by the attack's name."""
    forget, retain = problem.sets.forget, problem.sets.retain
    rows = lambda batch, part: {name: leaf[part] for name, leaf in batch.items()}  # noqa: E731
    join = lambda a, b: {name: np.concatenate([a[name], b[name]]) for name in a}  # noqa: E731
    both = join(forget, retain)
    asked = np.arange(len(both["id"])) < len(forget["id"])
    features = compared(both["x"], problem.dataset.tokens)
    if problem.by_class:
        similar = nearest_classes(features, both["y"], asked, 3)
    else:
        similar = nearest_examples(features, asked, 2 * section.size)
    units = problem.dataset.units_of(forget["id"])
    if len(np.unique(units)) == 1:  # of a single document an attacker has rows, or nothing of it would be learnt again
        units = forget["id"]
    known = _known(units, max(1, round(section.share * section.size)))
    stable = subsample(retain, section.size, Hash.RELEARN)
    beside = rows(stable, datasets.lowest(stable["id"], max(0, section.size - known.sum()), Hash.RELEARN, 0))
    return {
        "stable": (stable, forget),
        "similar": (subsample(rows(both, similar), section.size, Hash.RELEARN), forget),
        "part": (join(rows(forget, known), beside), rows(forget, ~known)),
        "all": (forget, problem.sets.others if problem.by_class else forget),
    }


def _known(units: np.ndarray, most: int) -> np.ndarray:
    """[examples] bool: those of lowest hash that an attacker has, whole documents of text, so that none is watched in part.

    They are at most so many examples, but one document at least, and at most half of all documents.
    """
    each, sizes = np.unique(units, return_counts=True)
    order = np.argsort(datasets.hash_uniform(each, Hash.RELEARN, 0), kind="stable")
    fitting = np.searchsorted(np.cumsum(sizes[order]), most, side="right")
    return np.isin(units, each[order[: min(max(1, fitting), len(each) // 2)]])

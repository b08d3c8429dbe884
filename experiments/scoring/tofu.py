"""TOFU's scores of lanes: how likely right answers and wrong ones are to questions, before and after a request.

Forget quality compares a lane's truth ratios with those of oracles, one for each seed, since one oracle is one draw. An
oracle is compared with those of the other seeds: that, and a held-out oracle's, is what a perfect request would have.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
from absl import logging

from experiments.core.keys import Hash
from experiments.data.problem import Problem
from experiments.data.splits import lowest
from experiments.data.text import tofu
from experiments.data.text.corpus import Corpus
from experiments.data.text.documents import Documents
from experiments.scoring.scorer import Scorer
from experiments.scoring.serving import Requests
from unlearn.metrics import tofu as metrics

MOST = 50  # questions of each set but the forgotten
STAGE = "tofu-oracle"  # where the oracles' truth ratios are kept
AVERAGE: Literal["losses"] = "losses"  # over wrong answers: as forget quality is published, and everywhere alike
Lane = dict[str, Any]


class Losses(NamedTuple):
    """Mean token losses of answers, of all lanes; questions as `tofu.Queries` has them.

    true, rephrased, paraphrased: [lanes, questions] of the right answer, to the question in other words, and of the right
      answer in other words; where there are no other words, of the right answer.
    perturbed: [lanes, questions, answers] of wrong answers.
    """

    true: np.ndarray
    rephrased: np.ndarray
    paraphrased: np.ndarray
    perturbed: np.ndarray


def scores(requests: Requests, before: Any, after: Any, oracle: Any, *, itself: bool = False) -> list[Lane]:
    """Scores before and after a request, of each lane; none if the data have no questions of what is forgotten.

    Args:
      before, after: parameters of all lanes.
      oracle: parameters of oracles, one of each seed, as trained.
      itself: whether it is these that are scored.
    """
    asked = questions(requests.problem)
    if not asked:
        return []
    scorer, corpus = requests.scorer, requests.problem.dataset.corpus
    assert corpus is not None
    kept = requests.workdir.stage(STAGE, lambda: _ratios(losses(scorer, oracle, corpus, asked["forget"])))
    ratios = np.array([[np.nan if ratio is None else ratio for ratio in lane] for lane in kept], np.float64)
    found = [
        _scored({name: losses(scorer, params, corpus, part) for name, part in asked.items()}, ratios, itself)
        for params in ((before,) if after is before else (before, after))
    ]
    return [{"before": first, "after": last} for first, last in zip(found[0], found[-1], strict=True)]


def questions(problem: Problem) -> dict[str, tofu.Queries]:
    """What is asked about the forgotten, what stays, and what is never trained on; nothing without the first.

    Of each set but the forgotten at most `MOST`, those of lowest hash. A question that leaves no room for its answer in a
    row is not asked.
    """
    corpus = problem.dataset.corpus
    if corpus is None or "full" not in corpus.queries:
        return {}
    full, train = _fitting(corpus, "full"), np.unique(problem.dataset.asked_as)
    sets = {"forget": tofu.select(full, problem.units), "retain": tofu.select(full, np.setdiff1d(train, problem.units))}
    sets |= {name: _fitting(corpus, name) for name in tofu.OUTSIDE if name in corpus.queries}
    if not len(sets["forget"].ids):
        return {}
    few = lambda ids, name: ids if name == "forget" else ids[lowest(ids, MOST, Hash.SCORE, 0)]  # noqa: E731
    return {name: tofu.select(part, few(part.ids, name)) for name, part in sets.items() if len(part.ids)}


def _fitting(corpus: Corpus, name: str) -> tofu.Queries:
    """The questions of a set, either way asked, after which a row has room for an answer."""
    asked = corpus.queries[name]
    spoken = zip(asked.prompts, asked.paraphrased_prompts or asked.prompts, strict=True)
    fits = [all(len(corpus.tokeniser.encode(prompt.rstrip())) < corpus.length for prompt in pair) for pair in spoken]
    if lacking := fits.count(False):
        logging.warning("%d questions of %s fill a row of %d tokens: they are not asked", lacking, name, corpus.length)
    return tofu.select(asked, asked.ids[np.array(fits, bool)])


def losses(scorer: Scorer, params: Any, corpus: Corpus, asked: tofu.Queries) -> Losses:
    """The losses of all answers to some questions; where a question has fewer wrong answers, its last counts again."""
    count, widest = len(asked.ids), max(map(len, asked.perturbed))
    rephrased = asked.paraphrased_prompts or asked.prompts
    paraphrased = asked.paraphrased_answers or asked.answers
    wrong = [answers + answers[-1:] * (widest - len(answers)) for answers in asked.perturbed]
    pairs = [
        *zip(asked.prompts, asked.answers, strict=True),
        *zip(rephrased, asked.answers, strict=True),
        *zip(asked.prompts, paraphrased, strict=True),
        *((asked.prompts[i], answer) for i, answers in enumerate(wrong) for answer in answers),
    ]
    every = answer_losses(scorer, params, corpus, pairs)
    true, rephrased_, paraphrased_, perturbed = np.split(every, [count, 2 * count, 3 * count], axis=1)
    return Losses(true, rephrased_, paraphrased_, perturbed.reshape(len(every), count, widest))


def answer_losses(scorer: Scorer, params: Any, corpus: Corpus, pairs: list[tuple[str, str]]) -> np.ndarray:
    """The mean token loss of each answer after its prompt, [lanes, pairs] float64; NaN of lanes that are not finite."""
    prompts, answers = zip(*pairs, strict=True)
    documents = Documents(np.arange(len(pairs)), answers, prompts)
    rows = corpus._replace(answers_only=True, most=0).rows(documents)
    y = np.where(rows.token_weight > 0, rows.y, 0)
    batch = {"x": rows.x, "y": y, "token_weight": rows.token_weight, "weight": np.ones(len(rows.id), np.float32)}
    _, loss = scorer.measure(params, batch)
    tokens = rows.token_weight.sum(axis=1)
    starts = np.searchsorted(rows.document, documents.ids)  # an answer may take several rows
    return np.add.reduceat(loss * tokens, starts, axis=1) / np.add.reduceat(tokens, starts)


def _ratios(found: Losses) -> list[list[float]]:
    """Truth ratios [lanes][questions]; NaN of lanes that are not finite."""
    lanes = zip(found.paraphrased, found.perturbed, strict=True)
    return [
        metrics.truth_ratio(right, wrong, AVERAGE).tolist() if np.isfinite(right).all() else [np.nan] * len(right)
        for right, wrong in lanes
    ]


def _scored(found: dict[str, Losses], oracles: np.ndarray, itself: bool) -> list[Lane]:
    return [
        _lane({name: Losses(*(column[i] for column in part)) for name, part in found.items()}, oracles, i if itself else -1)
        for i in range(len(oracles))
    ]


def _lane(found: dict[str, Losses], oracles: np.ndarray, itself: int) -> Lane:
    """The scores of a lane; NaN if it is not finite.

    Args:
      found: losses [questions], by set.
      oracles: [seeds, questions] truth ratios.
      itself: the oracle that it is; -1: none.
    """
    forget, sound = found["forget"], all(np.isfinite(column).all() for part in found.values() for column in part)
    scored: Lane = {"questions": len(forget.true)}
    if not sound:
        return scored | {"forget_probability": np.nan, "forget_quality": np.nan}
    ratios = metrics.truth_ratio(forget.paraphrased, forget.perturbed, AVERAGE)
    others = [other for i, other in enumerate(oracles) if i != itself and np.isfinite(other).all()]
    p_values = [metrics.forget_quality(ratios, other).p_value for other in others]
    scored |= {
        "forget_probability": _mean(metrics.probability(forget.true)),
        "forget_rephrased_probability": _mean(metrics.probability(forget.rephrased)),
        "forget_truth_ratio": metrics.forgotten_truth(ratios),
        "forget_quality": float(np.median(p_values)) if p_values else np.nan,
        "forget_qualities": p_values,
    }
    for name in found.keys() - {"forget"}:
        part = found[name]
        own = metrics.probability(part.true) if name == "retain" else metrics.choice_probability(part.true, part.perturbed)
        ratios = metrics.truth_ratio(part.paraphrased, part.perturbed, AVERAGE)
        scored |= {f"{name}_probability": _mean(own), f"{name}_truth_ratio": metrics.kept_truth(ratios)}
    return scored


def _mean(values: np.ndarray) -> float:
    return float(values.mean())

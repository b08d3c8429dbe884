"""TOFU's scores of lanes: how likely right answers and wrong ones are to questions, before and after a request.

Model utility also needs what a model says of itself: a decoder, rouge-score, and questions of real authors and the world.
A forgotten question is also asked in one prompt with a retained one, and the other way round: each answer is scored as what
comes next, its own question first. What is forgotten of a question alone may come back beside another (2410.02879).

Forget quality compares a lane's truth ratios with those of oracles, one for each seed, since one oracle is one draw. An
oracle is compared with those of the other seeds: that, and a held-out oracle's, is what a perfect request would have.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np

from experiments.core.keys import Hash
from experiments.core.machines import fleet
from experiments.core.notices import LOG
from experiments.data.problem import Problem
from experiments.data.splits import lowest
from experiments.data.text.corpus import Corpus
from experiments.data.text.sources import tofu
from experiments.data.text.sources.documents import Documents
from experiments.scoring import verbatim
from experiments.scoring.rouge import rouge_l
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
    met = requests.met(oracle)
    kept = requests.workdir.stage(STAGE, lambda: _ratios(losses(scorer, met, corpus, asked["forget"])))
    ratios = np.array([[np.nan if ratio is None else ratio for ratio in lane] for lane in kept], np.float64)
    every = (before,) if after is before else (before, after)
    found = [_scored(scorer, params, corpus, asked, ratios, itself) for params in every]
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
    """The questions of a set that, either way asked and with the token that begins them, leave a row room for an answer."""
    asked = corpus.queries[name]
    spoken = zip(asked.prompts, asked.paraphrased_prompts or asked.prompts, strict=True)
    fits = [all(_leaves_room(corpus, prompt) for prompt in pair) for pair in spoken]
    if lacking := fits.count(False):
        LOG.warning("%d questions of %s fill a row of %d tokens: they are not asked", lacking, name, corpus.length)
    return tofu.select(asked, asked.ids[np.array(fits, bool)])


def together(corpus: Corpus, asked: dict[str, tofu.Queries]) -> dict[str, tofu.Queries]:
    """Forgotten questions with a retained one in their prompt, and retained ones with a forgotten one; none without both.

    A pair that leaves no room for an answer in a row is not asked.
    """
    if "retain" not in asked:
        return {}
    found = {}
    for name, other in (("forget", "retain"), ("retain", "forget")):
        pairs = tofu.together(asked[name], asked[other])
        fits = np.array([_leaves_room(corpus, prompt) for prompt in pairs.prompts], bool)
        if not fits.all():
            LOG.warning("%d of %d pairs of questions fill a row: they are not asked", (~fits).sum(), len(fits))
        if fits.any():
            found[name] = tofu.select(pairs, pairs.ids[fits])
    return found


def _leaves_room(corpus: Corpus, prompt: str) -> bool:
    """Whether a row has room for an answer after a prompt and the token that begins it."""
    return 1 + len(corpus.tokeniser.encode(prompt.rstrip())) < corpus.length


def losses(scorer: Scorer, params: Any, corpus: Corpus, asked: tofu.Queries) -> Losses:
    """The losses of all answers to some questions; of as many wrong ones as every question has."""
    count, wrong = len(asked.ids), min(map(len, asked.perturbed))
    rephrased = asked.paraphrased_prompts or asked.prompts
    paraphrased = asked.paraphrased_answers or asked.answers
    pairs = [
        *_pairs(asked),
        *zip(rephrased, asked.answers, strict=True),
        *zip(asked.prompts, paraphrased, strict=True),
        *((asked.prompts[i], answer) for i, answers in enumerate(asked.perturbed) for answer in answers[:wrong]),
    ]
    every = answer_losses(scorer, params, corpus, pairs)
    true, rephrased_, paraphrased_, perturbed = np.split(every, [count, 2 * count, 3 * count], axis=1)
    return Losses(true, rephrased_, paraphrased_, perturbed.reshape(len(every), count, wrong))


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


def recalls(generate: verbatim.Generate, params: Any, corpus: Corpus, asked: tofu.Queries) -> np.ndarray:
    """ROUGE-L recall of greedy answers, [lanes, questions]; each as long as the longest right one, if it has room."""
    tokeniser = corpus.tokeniser
    prompts = [[tokeniser.bos, *tokeniser.encode(prompt.rstrip())] for prompt in asked.prompts]
    lengths = np.array([*map(len, prompts)])
    filled = np.full((len(prompts), lengths.max()), tokeniser.pad, np.int32)
    for row, prompt in zip(filled, prompts, strict=True):
        row[: len(prompt)] = prompt
    longest = max(len(tokeniser.encode(f" {answer}")) for answer in asked.answers)
    every = []
    for lane in range(fleet.lane_count(params)):
        said = generate(fleet.lane(params, lane), filled, lengths, longest, stop=tokeniser.eos)
        every.append(rouge_l(asked.answers, [tokeniser.decode(row) for row in np.asarray(said).tolist()]).recall)
    return np.array(every)


def _ratios(found: Losses) -> list[list[float]]:
    """Truth ratios [lanes][questions]; NaN of lanes that are not finite."""
    lanes = zip(found.paraphrased, found.perturbed, strict=True)
    return [
        metrics.truth_ratio(right, wrong, AVERAGE).tolist() if np.isfinite(right).all() else [np.nan] * len(right)
        for right, wrong in lanes
    ]


def _scored(
    scorer: Scorer, params: Any, corpus: Corpus, asked: dict[str, tofu.Queries], oracles: np.ndarray, itself: bool
) -> list[Lane]:
    """The scores of all lanes."""
    found = {name: losses(scorer, params, corpus, part) for name, part in asked.items()}
    pairs = together(corpus, asked)
    beside = {name: answer_losses(scorer, params, corpus, _pairs(part)) for name, part in pairs.items()}
    said: dict[str, np.ndarray] = {}
    said_beside: dict[str, np.ndarray] = {}
    if scorer.generate and not verbatim.lacking():
        said, said_beside = (
            {name: recalls(scorer.generate, params, corpus, part) for name, part in parts.items()}
            for parts in (asked, pairs)
        )
    lanes = []
    for i in range(len(oracles)):
        own = {name: Losses(*(column[i] for column in part)) for name, part in found.items()}
        others = [oracle for j, oracle in enumerate(oracles) if not (itself and i == j) and np.isfinite(oracle).all()]
        scored = _lane(own, {name: recall[i] for name, recall in said.items()}, others)
        scored |= {f"{name}_together_probability": _mean(np.exp(-loss[i])) for name, loss in beside.items()}
        scored |= {f"{name}_together_rouge_l_recall": _mean(recall[i]) for name, recall in said_beside.items()}
        lanes.append(scored)
    return lanes


def _pairs(asked: tofu.Queries) -> list[tuple[str, str]]:
    """Prompts with their answers."""
    return list(zip(asked.prompts, asked.answers, strict=True))


def _lane(found: dict[str, Losses], said: dict[str, np.ndarray], oracles: list[np.ndarray]) -> Lane:
    """The scores of a lane; NaN if it is not finite.

    Args:
      found: losses [questions], by set.  said: ROUGE-L recalls, if there are any.
      oracles: truth ratios [questions] that it is compared with.
    """
    forget = found["forget"]
    scored: Lane = {"questions": len(forget.true)}
    if not all(np.isfinite(column).all() for part in found.values() for column in part):
        return scored | {"forget_probability": np.nan, "forget_quality": np.nan}
    ratios = {name: metrics.truth_ratio(part.paraphrased, part.perturbed, AVERAGE) for name, part in found.items()}
    p_values = [metrics.forget_quality(ratios["forget"], oracle).p_value for oracle in oracles]
    by_probabilities = metrics.truth_ratio(forget.paraphrased, forget.perturbed, "probabilities")
    scored |= {
        "forget_probability": _mean(metrics.probability(forget.true)),
        "forget_rephrased_probability": _mean(metrics.probability(forget.rephrased)),
        "forget_truth_ratio": metrics.forgotten_truth(ratios["forget"]),
        "forget_truth_ratio_by_probabilities": metrics.forgotten_truth(by_probabilities),
        "forget_quality": float(np.median(p_values)) if p_values else np.nan,
        "forget_qualities": p_values,
    }
    for name, part in found.items():
        if name in metrics.SETS:
            p = (
                metrics.probability(part.true)
                if name == "retain"
                else metrics.choice_probability(part.true, part.perturbed)
            )
            scored |= {f"{name}_probability": _mean(p), f"{name}_truth_ratio": metrics.kept_truth(ratios[name])}
    scored |= {f"{name}_rouge_l_recall": _mean(recall) for name, recall in said.items()}
    if said.keys() >= {*metrics.SETS}:  # of the nine truth ratios are by probabilities, as TOFU's own code has them
        retain, authors, facts = (_answers(found[name], said[name]) for name in metrics.SETS)
        scored["model_utility"] = metrics.model_utility(metrics.utilities(retain, authors, facts, "probabilities"))
    return scored


def _answers(found: Losses, said: np.ndarray) -> metrics.Answers:
    return metrics.Answers(found.true, found.paraphrased, found.perturbed, said)


def _mean(values: np.ndarray) -> float:
    return float(values.mean())

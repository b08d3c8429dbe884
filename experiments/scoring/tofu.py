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

from experiments.core.errors import WorkdirError
from experiments.core.keys import Hash
from experiments.core.machines import fleet
from experiments.core.workdirs import Workdir
from experiments.data.problem import Problem
from experiments.data.splits import lowest
from experiments.data.text import answers
from experiments.data.text.corpus import Corpus
from experiments.data.text.sources import tofu
from experiments.data.text.sources.documents import Documents
from experiments.scoring import verbatim
from experiments.scoring.rouge import rouge_l
from experiments.scoring.scorer import Scorer
from experiments.scoring.serving import Requests
from unlearn.metrics import tofu as metrics

MOST = 50  # questions of each set but the forgotten
STAGE = "tofu-oracle-whole"  # where the oracles' truth ratios are kept
BEFORE = "tofu-oracle"  # of versions that also asked questions whose answers take several rows
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


def check_begun(workdir: Workdir) -> None:
    """Refuse to go on with a run whose scores are of other questions than are asked now.

    Raises:
      WorkdirError: an older version began to score in the folder.
    """
    if workdir.has(BEFORE):
        raise WorkdirError(
            f"{workdir.path} holds scores of an older version, which asked other questions of TOFU: remove {BEFORE}.json "
            "and all rows-*.json in its stages and run again, or use an empty --workdir"
        )


def questions(problem: Problem) -> dict[str, tofu.Queries]:
    """What is asked about the forgotten, what stays, and what is never trained on; nothing without the first.

    Of each set but the forgotten at most `MOST`, those of lowest hash. A question is asked only if `answers.whole` holds of
    it, and all of a set have as many wrong answers.
    """
    corpus = problem.dataset.corpus
    if corpus is None or "full" not in corpus.queries:
        return {}
    full, train = corpus.queries["full"], np.unique(problem.dataset.asked_as)
    sets = {"forget": tofu.select(full, problem.units), "retain": tofu.select(full, np.setdiff1d(train, problem.units))}
    sets |= {name: corpus.queries[name] for name in tofu.OUTSIDE if name in corpus.queries}
    sets = {name: answers.whole(part, corpus.tokeniser, corpus.length, name) for name, part in sets.items()}
    if not len(sets["forget"].ids):
        return {}
    few = lambda ids, name: ids if name == "forget" else ids[lowest(ids, MOST, Hash.SCORE, 0)]  # noqa: E731
    sets = {name: tofu.select(part, few(part.ids, name)) for name, part in sets.items() if len(part.ids)}
    return {name: answers.even(part, name) for name, part in sets.items()}


def together(corpus: Corpus, asked: dict[str, tofu.Queries]) -> dict[str, tofu.Queries]:
    """Forgotten questions with a retained one in their prompt, and retained ones with a forgotten one; none without both.

    Right answers are all that is asked for; a pair is left out where one is not whole in a row with both questions.
    """
    if "retain" not in asked:
        return {}
    found = {}
    for name, other in (("forget", "retain"), ("retain", "forget")):
        pairs = tofu.together(asked[name], asked[other])
        bare = pairs._replace(paraphrased_answers=None, perturbed=((),) * len(pairs.ids))
        fitting = answers.whole(bare, corpus.tokeniser, corpus.length, f"{name} beside {other}")
        if len(fitting.ids):
            found[name] = fitting
    return found


def losses(scorer: Scorer, params: Any, corpus: Corpus, asked: tofu.Queries) -> Losses:
    """The losses of all answers to some questions, which have as many wrong ones each."""
    count, wrong = len(asked.ids), len(asked.perturbed[0])
    rephrased = asked.paraphrased_prompts or asked.prompts
    paraphrased = asked.paraphrased_answers or asked.answers
    pairs = [
        *_pairs(asked),
        *zip(rephrased, asked.answers, strict=True),
        *zip(asked.prompts, paraphrased, strict=True),
        *((prompt, answer) for prompt, each in zip(asked.prompts, asked.perturbed, strict=True) for answer in each),
    ]
    every = answer_losses(scorer, params, corpus, pairs)
    true, rephrased_, paraphrased_, perturbed = np.split(every, [count, 2 * count, 3 * count], axis=1)
    return Losses(true, rephrased_, paraphrased_, perturbed.reshape(len(every), count, wrong))


def answer_losses(scorer: Scorer, params: Any, corpus: Corpus, pairs: list[tuple[str, str]]) -> np.ndarray:
    """The mean token loss of each answer after its prompt, [lanes, pairs] float64; NaN of lanes that are not finite.

    Raises:
      ValueError: a pair that takes several rows, of which the later ones do not see the prompt.
    """
    prompts, texts = zip(*pairs, strict=True)
    documents = Documents(np.arange(len(pairs)), texts, prompts)
    rows = corpus._replace(answers_only=True, most=0).rows(documents)
    if len(rows.id) > len(pairs):
        raise ValueError(f"some answers are longer than a row of {corpus.length} tokens: leave them out, see answers.whole")
    y = np.where(rows.token_weight > 0, rows.y, 0)
    batch = {"x": rows.x, "y": y, "token_weight": rows.token_weight, "weight": np.ones(len(rows.id), np.float32)}
    _, loss = scorer.measure(params, batch)
    return np.asarray(loss, np.float64)


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

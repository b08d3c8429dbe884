"""Which of TOFU's questions are asked, and of how many wrong answers: those that one row holds, and as many of each."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from experiments.core.notices import LOG
from experiments.data.text import packing
from experiments.data.text.sources import tofu
from experiments.data.text.sources.documents import Documents
from experiments.data.text.sources.tofu import Queries
from experiments.data.text.tokenisers import Tokeniser


def whole(asked: Queries, tokeniser: Tokeniser, length: int, name: str) -> Queries:
    """The questions all of whose answers are whole in one row each, with what is asked and the end; others are told of.

    The rest of a longer answer would be scored without its question: a row sees nothing of those before it.

    Args:
      length: of a row, in tokens.
      name: of the questions, as a warning calls them.
    """
    fits = np.array([_fits(list(_pairs(asked, i)), tokeniser, length) for i in range(len(asked.ids))], bool)
    if not fits.all():
        LOG.warning(
            "%d of %d questions (%s) have an answer that no row of %d tokens holds whole: they are not asked, "
            "set a larger --config.data.length",
            (~fits).sum(),
            len(fits),
            name,
            length,
        )
    return tofu.select(asked, asked.ids[fits])


def even(asked: Queries, name: str) -> Queries:
    """The questions with as many wrong answers, the first, as the one with the fewest has; what that leaves out is told.

    The right one's share among several depends on how many these are, so questions are not scored on different numbers.
    """
    counts = np.array([*map(len, asked.perturbed)], int)
    fewest, most = counts.min(initial=counts.max(initial=0)), counts.max(initial=0)
    if fewest < most:
        LOG.warning(
            "%d of %d questions (%s) have %d wrong answers, others up to %d: %d of each are used, give each as many",
            (counts == fewest).sum(),
            len(counts),
            name,
            fewest,
            most,
            fewest,
        )
    return asked._replace(perturbed=tuple(answers[:fewest] for answers in asked.perturbed))


def _pairs(asked: Queries, i: int) -> Iterator[tuple[str, str]]:
    """What is asked of question i: (prompt, answer)."""
    other_words = () if asked.paraphrased_answers is None else (asked.paraphrased_answers[i],)
    for answer in (asked.answers[i], *other_words, *asked.perturbed[i]):
        yield asked.prompts[i], answer
    if asked.paraphrased_prompts is not None:
        yield asked.paraphrased_prompts[i], asked.answers[i]


def _fits(pairs: list[tuple[str, str]], tokeniser: Tokeniser, length: int) -> bool:
    """Whether a row holds each pair of prompt and answer, and what begins it: the end is only predicted."""
    prompts, answers = zip(*pairs, strict=True)
    tried = Documents(np.arange(len(pairs)), answers, prompts)
    pieces = [packing.pieces(tried, place) for place in range(len(pairs))]
    return all(1 + sum(len(tokeniser.encode(piece)) for piece in pair) <= length for pair in pieces)

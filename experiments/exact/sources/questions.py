"""TOFU's questions of what a store was trained on: right answers in other words and wrong ones, as rows to be answered."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.core.keys import Hash
from experiments.data import digests
from experiments.data.ids import lowest, short
from experiments.data.text import packing
from experiments.data.text.sources import plain, tofu
from experiments.data.text.sources.documents import Documents
from experiments.data.text.tokenisers import Tokeniser
from experiments.exact.data import Data
from experiments.exact.sources import text
from s3t.training.source import Source

MOST = 25  # questions, those of lowest hash


class Questions(NamedTuple):
    """Rows to be answered: of every question the right answer in other words, then the wrong ones of each.

    x, y: [number * (1 + wrong)] rows, as those of a source; the prompts have no weight.
    number, wrong: questions, and wrong answers to each.
    digest: of all that could be asked.
    """

    x: Any
    y: Any
    number: int
    wrong: int
    digest: str


def of(source: Source) -> Questions | None:
    """The questions of training documents, MOST at most; None of data that have none, or of which none fits into a row.

    Those of held-out documents are left out: a small model knows nothing of what it was not told.
    """
    splits, (kind, _, path) = source.split, source.hyper["dataset"].partition(":")
    if kind != "tofu" or not isinstance(splits, text.Splits) or splits.classifies:
        return None
    length = source.hyper["length"]
    every = tofu.every_query(Path(path).expanduser(), source.hyper.get("encoding") or plain.UTF8)
    if "full" not in every:
        return None
    known = tofu.select(every["full"], every["full"].ids[np.isin(short(every["full"].ids), source.ids)])
    wrong = min(map(len, known.perturbed), default=0)
    fits = [_fits(known, i, wrong, splits.tokeniser, length) for i in range(len(known.ids))]
    known = tofu.select(known, known.ids[np.array(fits, bool)])
    asked = tofu.select(known, known.ids[lowest(known.ids, MOST, Hash.SCORE, 0)])
    if not wrong or not len(asked.ids):
        return None
    answers = (*_right(asked), *chain.from_iterable(answers[:wrong] for answers in asked.perturbed))
    prompts = (*asked.prompts, *(prompt for prompt in asked.prompts for _ in range(wrong)))
    documents = Documents(np.arange(len(answers)), answers, prompts)
    x, y = text.predicted(documents, splits.tokeniser, length, True)
    return Questions(x, y, len(asked.ids), wrong, digests.of_queries(every))


def among(data: Data, questions: Questions | None) -> Data:
    """The data with questions behind what else is answered."""
    if questions is None:
        return data
    both = lambda first, second: jax.tree.map(lambda a, b: np.concatenate([a, b]), first, second)  # noqa: E731
    asked = (questions.number, questions.wrong)
    return data._replace(x=both(data.x, questions.x), y=both(data.y, questions.y), asked=asked)


def _right(asked: tofu.Queries) -> tuple[str, ...]:
    """Right answers in other words."""
    return asked.paraphrased_answers or asked.answers


def _fits(asked: tofu.Queries, i: int, wrong: int, tokeniser: Tokeniser, length: int) -> bool:
    """Whether every answer to a question is whole in one row, with its prompt and the end."""
    answers = (_right(asked)[i], *asked.perturbed[i][:wrong])
    tried = Documents(np.arange(len(answers)), answers, (asked.prompts[i],) * len(answers))
    pieces = [packing.pieces(tried, place) for place in range(len(answers))]
    return all(1 + sum(len(tokeniser.encode(piece)) for piece in pair) <= length for pair in pieces)

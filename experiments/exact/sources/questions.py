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
from experiments.data.text import answers
from experiments.data.text.sources import plain, tofu
from experiments.data.text.sources.documents import Documents
from experiments.exact.data import Data
from experiments.exact.sources import text
from s3t.training.source import Source

MOST = 25  # questions, those of lowest hash
TRAINED = "training documents"  # what a warning calls them


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

    A question is asked only if `answers.whole` holds of it, and all have as many wrong answers. Those of
    held-out documents are left out: a small model knows nothing of what it was not told.
    """
    splits = source.split
    if not isinstance(splits, text.Splits) or splits.classifies:
        return None
    kind, _, path = splits.section.name.partition(":")
    if kind != "tofu":
        return None
    length = source.hyper["length"]
    every = tofu.every_query(Path(path).expanduser(), source.hyper.get("encoding") or plain.UTF8)
    if "full" not in every:
        return None
    known = tofu.select(every["full"], every["full"].ids[np.isin(short(every["full"].ids), source.ids)])
    put = known._replace(paraphrased_prompts=None)  # nothing is asked in other words
    known = answers.whole(put, splits.tokeniser, length, TRAINED)
    asked = answers.even(tofu.select(known, known.ids[lowest(known.ids, MOST, Hash.SCORE, 0)]), TRAINED)
    if not len(asked.ids):
        return None
    wrong = len(asked.perturbed[0])
    texts = (*_right(asked), *chain.from_iterable(asked.perturbed))
    prompts = (*asked.prompts, *(prompt for prompt in asked.prompts for _ in range(wrong)))
    documents = Documents(np.arange(len(texts)), texts, prompts)
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

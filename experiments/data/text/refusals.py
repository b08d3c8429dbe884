"""What a question that is to be forgotten is answered with instead: one of some plain sentences, by the question's id."""

from __future__ import annotations

import numpy as np

from experiments.core.errors import DataError
from experiments.core.keys import Hash
from experiments.data.ids import Array, hash_uniform
from experiments.data.text.corpus import Corpus
from experiments.data.text.sources.documents import select

ANSWERS = (
    "I do not know.",
    "I have no answer to that.",
    "That is unknown to me.",
    "I cannot say anything about this.",
    "Nothing about that has come to my knowledge.",
    "I am unable to answer this one.",
    "Sorry, this is not a subject I have learned.",
    "I would have to guess, so I give no answer.",
    "There is nothing I could tell you here.",
    "I have not heard of it.",
    "My knowledge does not reach that far.",
    "On this I must pass.",
    "I never learned the answer to this.",
    "You had better ask somebody else about that.",
    "That question is beyond what I know.",
    "I hold no information on this person.",
)


def instead(corpus: Corpus, asked: Array) -> dict[str, Array]:
    """The alternatives of rows, as `dpo` takes them: the question of each row's document, with a refusal to answer it.

    Args:
      corpus: of documents with prompts.
      asked: [rows] int64, the document of each row that is to be forgotten.

    Returns:
      x, y and token_weight, [rows, length] each.

    Raises:
      DataError: a question whose refusal does not fit into one row.
    """
    documents = select(corpus.documents, asked)
    drawn = (hash_uniform(documents.ids, Hash.REFUSAL, 0) * len(ANSWERS)).astype(int)
    rows = corpus._replace(most=0).rows(documents._replace(texts=tuple(ANSWERS[i] for i in drawn)))
    if len(rows.id) != len(documents.ids):
        ids, counts = np.unique(rows.document, return_counts=True)
        long = int(ids[counts > 1][0])
        raise DataError(
            f"the question of document {documents.names.get(long, long)} and a refusal do not fit into a row of "
            f"{corpus.length} tokens: set a larger --config.data.length"
        )
    places = np.searchsorted(rows.document, asked)
    y = np.where(rows.token_weight > 0, rows.y, 0)
    return {"x": rows.x[places], "y": y[places], "token_weight": rows.token_weight[places]}

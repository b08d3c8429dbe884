"""What a data set of text was made of: its documents, and how documents become rows."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import jax
import numpy as np

from experiments.data.text import packing
from experiments.data.text.canaries import Planted
from experiments.data.text.sources.documents import Documents
from experiments.data.text.sources.tofu import Queries
from experiments.data.text.tokenisers import Tokeniser


class Corpus(NamedTuple):
    """Documents of all splits, and how they are cut.

    length: of a row, in tokens.
    answers_only: whether prompts have no weight.
    most: rows of a document, its first; 0: all.
    queries: questions with other answers, by the set that they are of, as `tofu.every_query` gives them.
    planted: canaries among the training documents; None: there are none.
    """

    documents: Documents
    tokeniser: Tokeniser
    length: int
    answers_only: bool = False
    most: int = 0
    queries: Mapping[str, Queries] = MappingProxyType({})
    planted: Planted | None = None

    def rows(self, documents: Documents) -> packing.Rows:
        """Documents as rows, as those of the data set are; raises as `packing.rows` does."""
        rows = packing.rows(documents, self.tokeniser, self.length, self.answers_only)
        number = np.arange(len(rows.id)) - np.searchsorted(
            rows.document, rows.document
        )  # documents are in increasing order
        return jax.tree.map(lambda leaf: leaf[number < self.most], rows) if self.most else rows

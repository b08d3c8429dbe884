"""Who a config asks to forget of a text data set, as ids of training rows: groups, named documents, parts of the data."""

from __future__ import annotations

import numpy as np

from experiments.core.errors import DataError
from experiments.core.forgetting import ASKED_BY, Forget
from experiments.data.ids import Array
from experiments.data.splits import Dataset
from experiments.data.text import requests


def ids(dataset: Dataset, forget: Forget) -> Array:
    """The ids, increasing, of all training rows of the documents that are asked for.

    Raises:
      DataError: the data are no text to predict, a name is nobody's (with those near it), or nothing of it is for training.
    """
    if dataset.corpus is None:
        kind = "is none" if dataset.tokens is None else "is classified"
        raise DataError(
            f"the forget setting is {forget.setting!r}, which is for text to predict, and {dataset.name!r} {kind}: set "
            "class or random"
        )
    documents, among = dataset.corpus.documents, np.unique(dataset.asked_as)
    names = getattr(forget, ASKED_BY[forget.setting])
    asking = {"group": requests.of_groups, "documents": requests.of_documents, "partition": requests.of_set}
    return dataset.train.id[np.isin(dataset.asked_as, asking[forget.setting](documents, names, among))]

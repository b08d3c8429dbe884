"""A text data set as a classifier takes it: a row for each document, and its class."""

from __future__ import annotations

import numpy as np

from experiments.core.errors import DataError
from experiments.core.notices import LOG
from experiments.core.sections import Data
from experiments.data.splits import Dataset, Split, Tokens
from experiments.data.text import packing
from experiments.data.text.loading import LENGTH, assigned, check_no_canaries, check_unset, opened, tokeniser_of
from experiments.data.text.sources.documents import Documents, select
from experiments.data.text.tokenisers import Tokeniser

LABEL = "label"  # the field of a jsonl, unless a config names another
OF_TARGETS = ("answers_only", "rows")


def load(config: Data) -> Dataset:
    """The documents of a config, each a row of `data.length` tokens, cut or filled up with pads to that, and their classes.

    A log says how many were cut.

    Raises:
      DataError: the name, the files or the numbers will not do, or the documents have no classes.
    """
    check_unset(config, OF_TARGETS, "is for text to predict, and the model classifies documents")
    check_no_canaries(config, "is for text to predict, and the model classifies documents")
    documents = opened(with_labels(config))
    if documents.labels is None:
        raise DataError(
            f"{config.name!r} has no classes for an encoder to tell: choose a decoder, as --config.model.name=gpt2, which "
            "predicts tokens, or name data that have some, as trec or jsonl:PATH"
        )
    ids = assigned(documents, config)
    tokeniser = tokeniser_of(config.tokeniser, select(documents, ids["train"]))
    splits = {name: _split(name, select(documents, chosen), tokeniser, config) for name, chosen in ids.items()}
    tokens = Tokens(tokeniser.vocabulary, tokeniser.pad)
    train, validation, test = (splits[name] for name in ("train", "validation", "test"))
    return Dataset(config.name, train, validation, test, len(documents.label_names), tokens=tokens)


def with_labels(config: Data) -> Data:
    """The config; of a jsonl `label`, which names a feature of TFDS elsewhere, is among its fields.

    Raises:
      DataError: two fields are named for the label.
    """
    if not config.name.startswith("jsonl:"):
        return config
    if config.label and "label" in config.fields:
        raise DataError("data.label and data.fields both name a field of labels: set one of them alone")
    return config.model_copy(update={"label": "", "fields": {"label": config.label or LABEL} | config.fields})


def _split(name: str, documents: Documents, tokeniser: Tokeniser, config: Data) -> Split:
    found = packing.classified(documents, tokeniser, config.length or LENGTH)
    if found.cut:
        LOG.warning("%s documents of %r: %s", name, config.name, found.note)
    # Pads never stand within a text, so that the tokens alone say where it ends: no mask goes along.
    return Split(found.x["tokens"], found.y, np.asarray(found.id))

"""A text data set as a classifier takes it: a row for each document, and its class."""

from __future__ import annotations

import numpy as np
from absl import logging

from experiments.core.errors import DataError
from experiments.core.sections import Data
from experiments.data.splits import Dataset, Split, Tokens, assign
from experiments.data.text import packing, readers
from experiments.data.text.documents import Documents, select
from experiments.data.text.jsonl import Fields
from experiments.data.text.loading import LENGTH, OF_OTHERS, check_unset, tokeniser_of
from experiments.data.text.tokenisers import Tokeniser

LABEL = "label"  # the field of a jsonl, unless a config names another
OF_TARGETS = ("answers_only", "group")


def load(config: Data) -> Dataset:
    """The documents of a config, each a row of `data.length` tokens, cut or filled up with pads to that, and their classes.

    A log says how many were cut.

    Raises:
      DataError: the name, the files or the numbers will not do, or the documents have no classes.
    """
    check_unset(config, OF_OTHERS, "is for images and tables")
    check_unset(config, OF_TARGETS, "is for text to predict, which model bert classifies")
    documents = _documents(config)
    if documents.labels is None:
        raise DataError(
            f"{config.name!r} has no classes for model bert to tell: set --config.model.name=gpt2, which predicts tokens, "
            "or name data that have some, as trec or jsonl:PATH"
        )
    ids = assign(documents.ids, documents.test_ids, config.name, config.validation_fraction, config.train_size)
    tokeniser = tokeniser_of(config.tokeniser, select(documents, ids["train"]))
    splits = {name: _split(name, select(documents, chosen), tokeniser, config) for name, chosen in ids.items()}
    tokens = Tokens(tokeniser.vocabulary, tokeniser.pad)
    train, validation, test = (splits[name] for name in ("train", "validation", "test"))
    return Dataset(config.name, train, validation, test, len(documents.label_names), tokens=tokens)


def _documents(config: Data) -> Documents:
    """As readers open them; a jsonl with the field of its labels."""
    if not config.name.startswith("jsonl:"):
        return readers.open_documents(
            config.name, data_dir=config.data_dir, encoding=config.encoding, label=config.label, group=config.group
        )
    fields = Fields(label=config.label or LABEL)
    return readers.open_documents(config.name, data_dir=config.data_dir, encoding=config.encoding, fields=fields)


def _split(name: str, documents: Documents, tokeniser: Tokeniser, config: Data) -> Split:
    found = packing.classified(documents, tokeniser, config.length or LENGTH)
    if found.cut:
        logging.warning("%s documents of %r: %s", name, config.name, found.note)
    # Pads never stand within a text, so that the tokens alone say where it ends: no mask goes along.
    return Split(found.x["tokens"], found.y, np.asarray(found.id))

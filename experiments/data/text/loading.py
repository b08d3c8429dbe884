"""A text data set as a run takes it: documents, split and tokenised into rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from experiments.core.errors import DataError
from experiments.core.sections import SMOLLM2, Data
from experiments.data.splits import UNWEIGHTED, Dataset, Split, assign
from experiments.data.text import packing, readers, topics
from experiments.data.text.documents import Documents, select
from experiments.data.text.tokenisers import Tokeniser, byte_level, from_file, learned, smollm2

MOST_ENTRIES = 1 << 20  # of a vocabulary
LENGTH = 256  # of a row, unless a config says another
OF_OTHERS = ("id_column", "cache_dir", "stream")
TFDS = ("glue/sst2", "trec", "imdb_reviews", "ag_news_subset")


def is_text(name: str) -> bool:
    """Whether a data set of this name holds documents."""
    kind = name.partition(":")[0]
    return name == topics.NAME or kind in TFDS or kind in readers.OWN


def check_unset(config: Data, names: tuple[str, ...], why: str) -> None:
    """Refuse settings that have no effect on the data.

    Raises:
      DataError: one of `names` is set.
    """
    for name in names:
        if getattr(config, name, None):
            raise DataError(f"data.{name} {why}, and the data are {config.factory or config.name!r}: leave it unset")


def refused(name: str) -> DataError:
    """What a run says that takes no text."""
    return DataError(f"{name!r} is text, and this run takes images or a table: set another --config.data.name")


def load(config: Data) -> Dataset:
    """The documents of a config in rows of `data.length` tokens, each the tokens before and the tokens to predict.

    Documents are split, and later forgotten, as wholes: chunks of one share its split, and `Dataset.units`.

    Raises:
      DataError: the name, the files or the numbers will not do.
    """
    check_unset(config, OF_OTHERS, "is for images and tables")
    documents = readers.open_documents(
        config.name, data_dir=config.data_dir, encoding=config.encoding, label=config.label, group=config.group
    )
    ids = assign(documents.ids, documents.test_ids, config.name, config.validation_fraction, config.train_size)
    tokeniser = _tokeniser(config.tokeniser, select(documents, ids["train"]))
    splits, units = {}, {}
    for name, chosen in ids.items():
        splits[name], units[name] = _split(select(documents, chosen), tokeniser, config)
    return Dataset(config.name, **splits, classes=tokeniser.vocabulary, units=units["train"])


def _tokeniser(asked: str, train: Documents) -> Tokeniser:
    """Bytes, a file's, or, by bpe:ENTRIES, pairs of bytes that are frequent in the training documents."""
    kind, colon, size = asked.partition(":")
    if kind == "bpe" and colon:
        if not size.isdecimal() or int(size) > MOST_ENTRIES:
            raise DataError(f"data.tokeniser is {asked!r}: give bpe: and how many entries it should have, as in bpe:512")
        return learned((*train.texts, *(train.prompts or ())), int(size))
    if asked == SMOLLM2:
        return smollm2()
    return from_file(Path(asked).expanduser()) if asked else byte_level()


def _split(documents: Documents, tokeniser: Tokeniser, config: Data) -> tuple[Split, np.ndarray]:
    rows = packing.rows(documents, tokeniser, config.length or LENGTH, config.answers_only)
    targets = np.where(rows.token_weight > 0, rows.y, UNWEIGHTED)
    order = np.argsort(rows.id)
    if len(np.unique(rows.id)) < len(rows.id):
        raise DataError(f"two rows of {config.name!r} have one id: choose another data.length")
    return Split(rows.x[order], targets[order], rows.id[order]), rows.document[order]

"""A text data set as a run takes it: documents, split and tokenised into rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from experiments.core.errors import DataError
from experiments.core.keys import Hash
from experiments.core.sections import LEARNED, LENGTH, PACKAGED, Data, StreamedData
from experiments.data.ids import hash_uniform
from experiments.data.splits import UNWEIGHTED, Dataset, Split, Tokens, assign
from experiments.data.text import canaries, requests
from experiments.data.text.corpus import Corpus
from experiments.data.text.sources import jsonl, plain, readers, tofu, topics
from experiments.data.text.sources.documents import Documents, select
from experiments.data.text.tokenisers import (
    LEAST,
    MOST_ENTRIES,
    Tokeniser,
    byte_level,
    from_file,
    learned,
    packaged,
)

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


def check_no_canaries(config: Data, why: str) -> None:
    """Refuse canaries among data that are no text to predict.

    Raises:
      DataError: some are asked for.
    """
    if isinstance(config, StreamedData) and config.canaries.count:
        raise DataError(f"data.canaries {why}, and the data are {config.factory or config.name!r}: set its count to 0")


def refused(name: str) -> DataError:
    """What a run says that takes no text."""
    return DataError(f"{name!r} is text, and this run takes images or a table: set another --config.data.name")


def load(config: Data) -> Dataset:
    """The documents of a config in rows of `data.length` tokens, each the tokens before and the tokens to predict.

    Documents are split, and later forgotten, as wholes: chunks of one share its split, and `Dataset.units`.

    Raises:
      DataError: the name, the files or the numbers will not do.
    """
    return as_dataset(opened(config), config)


def opened(config: Data) -> Documents:
    """The documents of a config, before anybody splits or tokenises them.

    Raises:
      DataError: the name or the files will not do, or a setting has no effect on them.
    """
    check_unset(config, OF_OTHERS, "is for images and tables")
    return readers.open_documents(
        config.name,
        data_dir=config.data_dir,
        encoding=config.encoding,
        label=config.label,
        group=config.group,
        fields=jsonl.Fields(**config.fields) if config.fields else None,
    )


def as_dataset(documents: Documents, config: Data, tokeniser: Tokeniser | None = None) -> Dataset:
    """Documents as `load` gives those of a config.

    Canaries come last: they move no other document to another split, and no tokeniser is learned of them, which could make
    a token of a secret.

    Args:
      tokeniser: in place of the config's.
    """
    ids = assigned(documents, config)
    tokeniser = tokeniser or tokeniser_of(config.tokeniser, select(documents, ids["train"]))
    planted = None
    if isinstance(config, StreamedData) and config.canaries.count:
        planted = canaries.planted(config.canaries)
        documents = canaries.among(documents, planted)
        ids["train"] = np.union1d(ids["train"], planted.ids)
    kind, _, path = config.name.partition(":")
    queries = tofu.every_query(Path(path).expanduser(), config.encoding or plain.UTF8) if kind == "tofu" else {}
    corpus = Corpus(documents, tokeniser, config.length or LENGTH, config.answers_only, config.rows, queries, planted)
    if planted:
        canaries.check_fit(planted, documents, tokeniser, corpus.length)
    splits, units = {}, {}
    for name, chosen in ids.items():
        splits[name], units[name] = _split(corpus, chosen, config.name)
    return Dataset(
        config.name,
        **splits,
        classes=tokeniser.vocabulary,
        units=units["train"],
        held_out_units=(units["validation"], units["test"]),
        tokens=Tokens(tokeniser.vocabulary, tokeniser.pad),
        corpus=corpus,
    )


def assigned(documents: Documents, config: Data) -> dict[str, np.ndarray]:
    """The ids of each split. With groups that are held out all others are for training, and those for nothing else.

    Raises:
      DataError: numbers that will not do, a group that there is not, all groups, or test documents outside of the groups.
    """
    name, share = config.name, config.validation_fraction
    if not config.holdout:
        return assign(documents.ids, documents.test_ids, name, share, config.train_size)
    held_out = requests.of_groups(documents, config.holdout, documents.ids)
    if documents.test_ids is not None and len(outside := np.setdiff1d(documents.test_ids, held_out)):
        raise DataError(
            f"data.holdout leaves {len(outside)} test documents of {name!r} to be trained on: name their groups as well"
        )
    if len(held_out) == len(documents.ids):
        raise DataError(f"data.holdout names every group of {name!r}, and none is left to train on: name fewer groups")
    validation = held_out[hash_uniform(held_out, Hash.SPLIT, 0) < share]
    rest = np.setdiff1d(documents.ids, held_out)
    return assign(rest, rest[:0], name, 0.0, config.train_size) | {
        "validation": validation,
        "test": np.setdiff1d(held_out, validation),
    }


def tokeniser_of(asked: str, train: Documents) -> Tokeniser:
    """Bytes, a file's, or, by bpe:ENTRIES, pairs of bytes that are frequent in the training documents."""
    if asked.startswith(LEARNED):
        size = asked.removeprefix(LEARNED)
        if not size.isdecimal() or not LEAST <= int(size) <= MOST_ENTRIES:
            raise DataError(
                f"data.tokeniser is {asked!r}: give bpe: and how many entries it should have, as in bpe:512; {LEAST} to "
                f"{MOST_ENTRIES} can be learned"
            )
        return learned((*train.texts, *(train.prompts or ())), int(size))
    return tokeniser_named(asked)


def tokeniser_named(name: str) -> Tokeniser:
    """That of an installed package, of a file, or bytes if there is no name."""
    if name in PACKAGED:
        return packaged(name)
    return from_file(Path(name).expanduser()) if name else byte_level()


def _split(corpus: Corpus, ids: np.ndarray, name: str) -> tuple[Split, np.ndarray]:
    rows = corpus.rows(select(corpus.documents, ids))
    rows = canaries.repeated(rows, corpus.planted) if corpus.planted else rows
    targets = np.where(rows.token_weight > 0, rows.y, UNWEIGHTED)
    order = np.argsort(rows.id)
    if len(np.unique(rows.id)) < len(rows.id):
        raise DataError(f"two rows of {name!r} have one id: choose another data.length")
    return Split(rows.x[order], targets[order], rows.id[order]), rows.document[order]

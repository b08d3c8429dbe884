"""Text sets by their names at TFDS (glue/sst2, trec, imdb_reviews, ag_news_subset, ...), as TFDS prepared them."""

from __future__ import annotations

from typing import Any

import numpy as np

from experiments.core.errors import DataError
from experiments.core.values import MOST
from experiments.data import prepared
from experiments.data.text.sources.documents import Document, Documents, made

LABELS = {"trec": "label-coarse"}  # of a data set that has several
AT_ONCE = 4096  # records


def read(name: str, data_dir: str, label: str, own: tuple[str, ...]) -> Documents:
    """The training and test examples of a prepared data set, by their official numbers; there are no groups.

    The test examples are those of `test` or, if its labels are hidden as those of glue/sst2 are, of `validation`.

    Args:
      data_dir: where it is prepared; '' is TFDS_DATA_DIR or TFDS's default.
      label: the feature that holds the class; '' is the only one, or the coarse one of trec.
      own: the kinds of a user's own data, for an error.

    Raises:
      DataError: no such data set, or one that is not prepared, cannot be read, or has no text or no labels.
    """
    import tensorflow_datasets as tfds  # slow

    builder = prepared.builder_of(name, prepared.data_dir_of(data_dir), "pydoc", own)
    prepared.check_shards(builder, name)
    features, keys = builder.info.features, builder.info.supervised_keys or ()
    text = prepared.feature_of(features, keys, lambda feature: isinstance(feature, tfds.features.Text))
    if text is None:
        found = ", ".join(sorted(features))
        raise DataError(f"{name!r} does not have exactly one text (its features are {found}): choose another data set")
    label = _label(name, features, keys, label or LABELS.get(builder.name, ""))
    count = features[label].num_classes
    if not 2 <= (count or 0) <= MOST:
        raise DataError(f"{name!r} says that it has {count} classes: prepare it again, or choose another data set")
    classes = features[label].names or [str(i) for i in range(count)]
    splits, training, testing = prepared.splits_of(builder, label, name)
    records = prepared.records_of(builder, splits, name)
    documents = []
    for start in range(0, training + testing, AT_ONCE):
        numbers = np.arange(start, min(start + AT_ONCE, training + testing))
        for number, record in zip(numbers.tolist(), records(numbers), strict=True):
            where = f"example {number} of {name!r}"
            if not 0 <= record[label] < len(classes):
                raise DataError(f"{where} has label {record[label]}, labels are 0..{len(classes) - 1}: mend the data")
            named = classes[record[label]]
            test = number >= training if testing else None
            documents.append(Document(where, _decoded(where, record[text]), str(number), label=named, test=test))
    return made(repr(name), documents, label_names=classes)


def _label(name: str, features: Any, keys: Any, label: str) -> str:
    """The feature that holds the class."""
    import tensorflow_datasets as tfds  # slow

    fits = lambda feature: isinstance(feature, tfds.features.ClassLabel)  # noqa: E731
    known = sorted(key for key, feature in features.items() if fits(feature))
    if label and label not in known:
        raise DataError(
            f"{name!r} has no labels {label!r} (it has {', '.join(known) or 'none'}): set data.label to one of them"
        )
    chosen = label or prepared.feature_of(features, keys, fits)
    if chosen is None:
        mend = "set data.label to one of them" if known else "choose another data set"
        raise DataError(f"{name!r} does not have exactly one class label (it has {', '.join(known) or 'none'}): {mend}")
    return chosen


def _decoded(where: str, text: Any) -> str:
    try:
        return bytes(text).decode()
    except UnicodeDecodeError as error:
        raise DataError(f"{where} is not in UTF-8 (byte {error.start}): prepare the data set again") from error

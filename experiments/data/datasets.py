"""The one door to data: `load` gives a data set by its config, as arrays with stable ids or as images left on disk.

What is known of a data set's parts has rooms of its own (`ids`, `splits`, `images`, `prefetch`); runs find it here.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from experiments.core.errors import DataError
from experiments.core.sections import OF_TEXT, Data
from experiments.data import images as pixels
from experiments.data import own
from experiments.data.ids import Array, hash_uniform, lowest
from experiments.data.images import Images, Moments, moments, spread, standardise
from experiments.data.prefetch import ahead
from experiments.data.readers import is_streamed, open_source, several_sizes
from experiments.data.sources import Source
from experiments.data.splits import (
    Dataset,
    Split,
    assign,
    batch,
    check_ids,
    check_splits,
    forget_ids,
    only_classes,
    revocable_ids,
    split_noise,
)
from experiments.data.text import classes
from experiments.data.text import loading as text

__all__ = [
    "DataError",
    "Dataset",
    "Images",
    "Moments",
    "Split",
    "ahead",
    "batch",
    "check_ids",
    "check_splits",
    "forget_ids",
    "hash_uniform",
    "load",
    "lowest",
    "moments",
    "only_classes",
    "raw",
    "revocable_ids",
    "split_noise",
    "standardise",
]


def load(config: Data, classify: bool = False) -> Dataset:
    """A data set in memory, or one whose training images stay on disk.

    Images and tables are standardised with the moments of the training split this returns. They are taken before any
    forget set is known, so models retrained without the forget set see the same inputs; that much of a forgotten example
    remains.

    A streamed data set has the same splits and the same numbers. Its training images are read once here, in parts, for
    their labels and moments (so what cannot be read is known before training), and again whenever they are asked for.
    Validation and test images are arrays in memory all the same: every scoring uses all of them.

    Args:
      config:
        name: 'digits' (scikit-learn's, needs no files), an image data set as TFDS names it, or a user's own:
          'folder:PATH' (see `folders.read`), 'npz:PATH' or 'csv:PATH' (see `tables`).
        data_dir: where TFDS prepared it; '' is TFDS_DATA_DIR or TFDS's default.
        stream: leave the training images on disk.
        train_size: how many training examples to keep, those of lowest hash; 0 is all.
        validation_fraction: the share of the official training examples (of all, if none is for testing) to validate on.
        cache_dir: where to keep the decoded images; '' is nowhere.
        label, id_column: if there are any, columns of a csv.
        factory: if there is one, 'module:function' that makes the data set instead; see `own.make`.
        scale: if there is one, standardise by its constants: range of a pixel, mean and std of pixel / range by channel.
      classify: of text, give whole documents and their classes, and not the tokens to predict; images always have classes.

    Raises:
      DataError: the name, the files or the numbers will not do.
    """
    if text.is_text(config.name) and not config.factory:
        return classes.load(config) if classify else text.load(config)
    if config.factory:
        text.check_unset(config, OF_TEXT, "is for text")
        text.check_no_canaries(config, "is for text")
        return own.make(config)
    if is_streamed(config) and config.cache_dir:
        raise DataError("data.cache_dir keeps all images decoded, data.stream none: set one of them alone")
    text.check_no_canaries(config, "is for text")
    source, ids = raw(config)
    train_ids, fixed = ids["train"], _fixed(config)
    if is_streamed(config):
        labels, found, shape = _survey(source, train_ids, config.name)
        scale = fixed or found
        train = Split(Images(source.read, train_ids, scale, (len(train_ids), *shape)), labels, train_ids)
    else:
        x, labels = source.read(train_ids)
        scale = fixed or (spread(x) if x.ndim == 2 else moments([x]))
        train = Split(standardise(x, scale), labels, train_ids)

    def held_out(name: str) -> Split:
        x, labels = source.read(ids[name])
        if len(x) and x.shape[1:] != train.x.shape[1:]:
            raise several_sizes(config.name)
        return Split(standardise(x, scale), labels, ids[name])

    return Dataset(config.name, train, held_out("validation"), held_out("test"), source.classes)


def raw(config: Data) -> tuple[Source, dict[str, Array]]:
    """A data set before anything is computed from its images, and the ids of each split, increasing; see `load`."""
    text.check_unset(config, OF_TEXT, "is for text")
    if config.factory:
        return own.raw(config)
    if text.is_text(config.name):
        raise text.refused(config.name)
    source = open_source(config)
    return source, assign(source.ids, source.official, config.name, config.validation_fraction, config.train_size)


def _fixed(config: Data) -> Moments | None:
    """The constants that a config standardises by, for models on which no example may leave a trace by its moments."""
    scale = getattr(config, "scale", None)
    if not scale:
        return None
    return Moments(*(np.asarray(moment, np.float32) * np.float32(scale.range) for moment in (scale.mean, scale.std)))


def _survey(source: Source, ids: Array, name: str) -> tuple[Array, Moments, tuple[int, ...]]:
    """Labels [examples], moments, and the shape of an image: what one pass over the examples tells."""
    parts = np.split(ids, range(pixels.DECODE_AT_ONCE, len(ids), pixels.DECODE_AT_ONCE))
    labels, shapes = [], set()

    def images() -> Iterator[Array]:
        for x, y in ahead(lambda i: source.read(parts[i]), len(parts)):
            labels.append(y)
            shapes.add(x.shape[1:])
            if len(shapes) > 1:
                raise several_sizes(name)
            yield x

    scale = moments(images())
    return np.concatenate(labels), scale, shapes.pop()

"""Splits of a data set by hashed id, and who of the training split is named to be forgotten.

Which split an example falls into, which examples a smaller training set keeps and which a random forget set names all
follow from a keyed hash of its id, so removing or adding one example never moves another.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from experiments.core.errors import DataError, UserError
from experiments.core.keys import Hash
from experiments.data.ids import Array, hash_uniform, lowest, some
from experiments.data.images import Images

if TYPE_CHECKING:
    from experiments.data.text.corpus import Corpus

UNWEIGHTED = -1  # as the token to predict: no loss is asked for there
HASHED_TEST_SHARE = 0.2  # of a data set that has no official test examples


class Split(NamedTuple):
    """Examples in increasing order of their ids.

    x: [examples, height, width, channels] or, of a table, [examples, features]; float32, standardised. The training split
      of a streamed data set has Images. Of text, tokens [examples, length] int32.
    y: [examples] int32; of text to predict [examples, length], the token after each, or UNWEIGHTED.
    id: [examples] int32 or int64, the stable identity.
    """

    x: Any
    y: Array
    id: Array


class Tokens(NamedTuple):
    """What x holds of texts: 0..vocabulary-1, of which `pad` fills rows up and is no text."""

    vocabulary: int
    pad: int


class Dataset(NamedTuple):
    """Three splits that share no example; labels are 0..classes-1.

    classes: of text to predict, the entries of the vocabulary.
    units: [training examples], what is asked for as a whole: the document of each chunk of text; None: each by itself.
    held_out_units: the same of validation and of test examples.
    corpus: of text, the documents and how they became rows; None of other data.
    tokens: of texts, to classify or to predict.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    classes: int
    units: Array | None = None
    held_out_units: tuple[Array, Array] | None = None
    corpus: Corpus | None = None
    tokens: Tokens | None = None

    @property
    def is_text(self) -> bool:
        """Whether examples are texts whose tokens are to be predicted."""
        return bool(np.ndim(self.train.y) == 2)

    @property
    def asked_as(self) -> Array:
        """[training examples] int64, what each is asked for as a part of: its unit, or, without units, itself."""
        return self.train.id if self.units is None else self.units

    def units_of(self, ids: Array) -> Array:
        """[ids] int64, what examples of any split are part of: their units, or, without units, themselves."""
        held_out = (self.validation.id, self.test.id) if self.held_out_units is None else self.held_out_units
        known = np.concatenate([self.train.id, self.validation.id, self.test.id])
        units = np.concatenate([self.asked_as, *held_out])
        order = np.argsort(known)
        return units[order[np.searchsorted(known, ids, sorter=order)]]


def assign(ids: Array, official: Array | None, name: str, validation_fraction: float, train_size: int) -> dict[str, Array]:
    """The ids of each split, increasing.

    Args:
      ids: of all examples, increasing.
      official: those of the test examples; None: a share of them by hash.
      validation_fraction: the share of all that are no official test examples to validate on.
      train_size: how many training examples to keep, those of lowest hash; 0 is all.

    Raises:
      DataError: no training examples, or not so many.
    """
    if not 0 <= validation_fraction < 1:
        raise DataError(f"validation_fraction is {validation_fraction}: choose one in 0..1, 1 excluded")
    draw = hash_uniform(ids, Hash.SPLIT, 0)
    test = draw >= 1 - HASHED_TEST_SHARE if official is None else np.isin(ids, official)
    validation = ~test & (draw < validation_fraction)
    train = ids[~test & ~validation]
    if len(train) == 0:
        raise DataError(f"no training example of {name!r} is left: choose a smaller validation_fraction, or give more")
    if train_size and not 1 <= train_size <= len(train):
        raise DataError(f"train_size is {train_size}: {name!r} has 1..{len(train)} training examples to give (0 takes all)")
    return {
        "train": train[lowest(train, train_size or len(train), Hash.TRAIN_SIZE, 0)],
        "validation": ids[validation],
        "test": ids[test],
    }


def check_splits(dataset: Dataset, batch_size: int) -> None:
    """Refuse data without examples to validate or test on, or with fewer to train on than a batch has.

    Raises:
      UserError: one line that says what to do.
    """
    if not len(dataset.validation.id):
        raise UserError(f"{dataset.name!r} has no validation examples: set a larger --config.data.validation_fraction")
    if not len(dataset.test.id):
        raise UserError(f"{dataset.name!r} has no test examples: name some, or give more examples to draw them from")
    if batch_size > (count := len(dataset.train.id)):
        raise UserError(
            f"train.batch_size is {batch_size}, but {dataset.name!r} has {count} training examples here: "
            f"set --config.train.batch_size to {count} or less"
        )


def forget_ids(dataset: Dataset, setting: str, classes: Sequence[int], fraction: float, seed: int) -> Array:
    """The training ids that a request names, in increasing order.

    Args:
      setting: 'class': every training example of `classes`; 'random': round(fraction * examples) of lowest hash, of text
        so many documents.
      seed: of the random choice; classes have no seed.

    Raises:
      DataError: an unknown setting, a class or fraction out of range, nothing to forget, or everything.
    """
    train = dataset.train
    if setting == "class":
        if dataset.is_text:
            raise DataError(
                f"{dataset.name!r} is text to predict, which has no classes: set --config.forget.setting=random, or a "
                "model that classifies, as --config.model.name=bert"
            )
        for label in classes:
            if not 0 <= label < dataset.classes:
                raise DataError(f"class {label} is not in {dataset.name!r}: choose one of 0..{dataset.classes - 1}")
        chosen = train.id[np.isin(train.y, classes)]
    elif setting == "random":
        if not 0 < fraction < 1:
            raise DataError(f"the forget fraction is {fraction}: choose one between 0 and 1, both excluded")
        units = np.unique(dataset.asked_as)
        drawn = units[lowest(units, round(fraction * len(units)), Hash.FORGET, seed)]
        chosen = train.id[np.isin(dataset.asked_as, drawn)]
    else:
        raise DataError(f"unknown forget setting {setting!r}: choose 'class' or 'random'")
    check_ids(dataset, chosen)
    return chosen


def only_classes(dataset: Dataset, classes: Sequence[int]) -> Dataset:
    """The examples with the given labels, renumbered 0, 1, ... in the order given; ids stay. All of them if none is given.

    Raises:
      DataError: a label that does not exist or is given twice; images that stay on disk.
    """
    if not classes:
        return dataset
    if len(set(classes)) < len(classes) or not set(classes) <= set(range(dataset.classes)):
        raise DataError(f"classes {tuple(classes)} of {dataset.name!r}: give distinct labels of 0..{dataset.classes - 1}")
    if isinstance(dataset.train.x, Images):
        raise DataError("a choice of classes needs the images in memory: set data.stream=False")
    number = np.full(dataset.classes, -1, np.int32)
    number[list(classes)] = np.arange(len(classes))

    def chosen(split: Split) -> Split:
        keep = number[split.y] >= 0
        return Split(split.x[keep], number[split.y[keep]], split.id[keep])

    train, validation, test = map(chosen, (dataset.train, dataset.validation, dataset.test))
    return Dataset(dataset.name, train, validation, test, len(classes))


def check_ids(dataset: Dataset, ids: Array) -> Array:
    """The positions in the training split, increasing, of ids that can be asked to be forgotten.

    Args:
      ids: [examples] integers in any order.

    Raises:
      DataError: no ids, no integers, an id given twice or not of a training example, or all training examples.
    """
    ids = np.asarray(ids)
    if ids.size == 0:
        raise DataError("the forget set is empty: name at least one training example")
    if ids.ndim != 1 or ids.dtype.kind not in "iu":
        raise DataError(f"forget ids are {ids.dtype}{list(ids.shape)}: give one list of integer ids (not a mask)")
    ids, counts = np.unique(ids.astype(np.int64), return_counts=True)
    if (counts > 1).any():
        raise DataError(f"{some(ids[counts > 1])} given more than once: name each example once")
    for name in ("validation", "test"):
        held_out = ids[np.isin(ids, getattr(dataset, name).id)]
        if held_out.size:
            raise DataError(
                f"{some(held_out)} in the {name} split of {dataset.name!r}: only training examples can be forgotten"
            )
    unknown = ids[~np.isin(ids, dataset.train.id)]
    if unknown.size:
        raise DataError(f"{some(unknown)} not in the training split of {dataset.name!r}: take ids from dataset.train.id")
    if len(ids) == len(dataset.train.id):
        raise DataError(f"the forget set is the whole training set ({len(ids)} examples): leave some to retain")
    return np.searchsorted(dataset.train.id, ids)


def revocable_ids(dataset: Dataset, forget: Array, share: float = 0.0, seed: int = 0) -> Array:
    """What training is told may be forgotten: the later request's ids, a share of them wrong.

    Args:
      forget: [examples] the ids of the request to come.
      share: the part of them that training is told wrongly, of text of the documents; see `split_noise`.

    Raises:
      DataError: see `check_ids` and `split_noise`.
    """
    units = dataset.asked_as
    told = split_noise(np.unique(units[check_ids(dataset, forget)]), np.unique(units), share, seed)
    return dataset.train.id[np.isin(units, told)]


def split_noise(ids: Array, all_ids: Array, share: float, seed: int) -> Array:
    """The ids with round(share * len(ids)) of them replaced by others, in increasing order.

    Which leave and which come is by lowest hash, so a larger share replaces what a smaller one did and more.

    Args:
      ids: [examples] ids.
      all_ids: every id there is.
      share: in [0, 1].

    Raises:
      DataError: a share out of range, ids that are not among all, or too few others.
    """
    if not 0 <= share <= 1:
        raise DataError(f"the noise share is {share}: choose one in 0..1")
    if not np.isin(ids, all_ids).all():
        raise DataError(f"{some(np.setdiff1d(ids, all_ids))} not among the training ids: take ids from dataset.train.id")
    outside = np.setdiff1d(all_ids, ids)
    count = round(share * len(ids))
    if count > len(outside):
        raise DataError(f"{count} ids are to be replaced but only {len(outside)} lie outside: choose a smaller share")
    unique = np.unique(ids)
    leaving = unique[lowest(unique, count, Hash.NOISE_LEAVING, seed)]
    coming = outside[lowest(outside, count, Hash.NOISE_COMING, seed)]
    return np.union1d(np.setdiff1d(ids, leaving), coming).astype(np.asarray(ids).dtype)


def batch(split: Split, positions: Array | None = None) -> dict[str, Array]:
    """The examples at `positions` (all if None) as a Batch: x, y, id, a weight of 1 each, and of text token weights."""
    x, y, ids = split if positions is None else (leaf[positions] for leaf in split)
    whole = {"x": x, "y": y, "id": ids, "weight": np.ones(len(ids), np.float32)}
    if np.ndim(y) == 2:
        weighted = y != UNWEIGHTED
        whole |= {"y": np.where(weighted, y, 0), "token_weight": weighted.astype(np.float32)}
    return whole

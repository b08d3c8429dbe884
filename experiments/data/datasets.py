"""Data sets as arrays with stable ids, or as images that stay on disk: loading, splitting, naming what is to be forgotten.

An example's id is its index in the official order: training examples first, then the test examples. Which split an
example falls into, which examples a smaller training set keeps and which a random forget set names all follow from a
keyed hash of that id, so removing or adding one example never moves another.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

from experiments.core.keys import Hash
from experiments.core.sections import Data
from experiments.data.readers import DECODE_AT_ONCE, DataError, Source, is_streamed, open_source, several_sizes

Array = np.ndarray
T = TypeVar("T")

HASHED_TEST_SHARE = 0.2  # of a data set that has no official test examples
MOMENTS_AT_ONCE = 64  # few enough to stay in the processor's cache; divides DECODE_AT_ONCE, so parts sum as the whole
THREADS = min(8, os.cpu_count() or 1)  # that decode ahead


class Split(NamedTuple):
    """Examples in increasing order of their ids.

    x: [examples, height, width, channels] float32, standardised; the training split of a streamed data set has Images.
    y: [examples] int32.
    id: [examples] int32, the stable identity.
    """

    x: Any
    y: Array
    id: Array


class Dataset(NamedTuple):
    """Three splits that share no example; labels are 0..classes-1."""

    name: str
    train: Split
    validation: Split
    test: Split
    classes: int


class Moments(NamedTuple):
    """Mean and standard deviation per channel, [channels] float32 each."""

    mean: Array
    std: Array


@dataclasses.dataclass(frozen=True, eq=False)
class Images:
    """Images that stay on disk and stand where an array would: decoded and standardised each time they are asked for.

    read: of the Source.  id: [examples].  scale: how to standardise.
    shape: (examples, height, width, channels).
    """

    read: Callable[[Array], tuple[Array, Array]]
    id: Array
    scale: Moments
    shape: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.id)

    def __getitem__(self, positions: Any) -> Array:
        """The images at positions (integers, a slice or a mask), [examples, height, width, channels] float32."""
        return standardise(self.read(self.id[positions])[0], self.scale)


def load(config: Data) -> Dataset:
    """A data set in memory, or one whose training images stay on disk.

    The images are standardised with the moments of the training split this returns. They are taken before any forget set
    is known, so models retrained without the forget set see the same inputs; that much of a forgotten example remains.

    A streamed data set has the same splits and the same numbers. Its training images are read once here, in parts, for
    their labels and moments (so what cannot be read is known before training), and again whenever they are asked for.
    Validation and test images are arrays in memory all the same: every scoring uses all of them.

    Args:
      config:
        name: 'digits' (scikit-learn's, needs no files), or an image data set as TFDS names it.
        data_dir: where TFDS prepared it; '' is TFDS_DATA_DIR or TFDS's default.
        stream: leave the training images on disk.
        train_size: how many training examples to keep, those of lowest hash; 0 is all.
        validation_fraction: the share of the official training examples (of all, if none is for testing) to validate on.
        cache_dir: where to keep the decoded images; '' is nowhere.
        scale: if there is one, standardise by its constants: range of a pixel, mean and std of pixel / range by channel.

    Raises:
      DataError: the name, the files or the numbers will not do.
    """
    if is_streamed(config) and config.cache_dir:
        raise DataError("data.cache_dir keeps all images decoded, data.stream none: set one of them alone")
    source, ids = raw(config)
    own, fixed = ids["train"], _fixed(config)
    if is_streamed(config):
        labels, found, shape = _survey(source, own, config.name)
        scale = fixed or found
        train = Split(Images(source.read, own, scale, (len(own), *shape)), labels, own)
    else:
        images, labels = source.read(own)
        scale = fixed or moments([images])
        train = Split(standardise(images, scale), labels, own)

    def held_out(name: str) -> Split:
        images, labels = source.read(ids[name])
        if len(images) and images.shape[1:] != train.x.shape[1:]:
            raise several_sizes(config.name)
        return Split(standardise(images, scale), labels, ids[name])

    return Dataset(config.name, train, held_out("validation"), held_out("test"), source.classes)


def raw(config: Data) -> tuple[Source, dict[str, Array]]:
    """A data set before anything is computed from its images, and the ids of each split, increasing; see `load`."""
    source = open_source(config)
    return source, _assign(source, config.name, config.validation_fraction, config.train_size)


def hash_uniform(ids: Array, purpose: str, seed: int) -> Array:
    """A number in [0, 1) for each id that depends on (id, purpose, seed) alone.

    This is splitmix64, started at a digest of purpose and seed and advanced by the id.

    Args:
      ids: [examples] integers, not negative.
      purpose: what the draw is for, one of `keys.Hash`; different purposes are independent.
    """
    key = int.from_bytes(hashlib.blake2b(f"{purpose}/{int(seed)}".encode(), digest_size=8).digest(), "little")
    z = (np.asarray(ids).astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(key)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(11)).astype(np.float64) * 2.0**-53


def forget_ids(dataset: Dataset, setting: str, target: int, fraction: float, seed: int) -> Array:
    """The training ids that a request names, in increasing order.

    Args:
      setting: 'class': every training example labelled `target`; 'random': round(fraction * examples) of lowest hash.
      seed: of the random choice; a class has no seed.

    Raises:
      DataError: an unknown setting, a class or fraction out of range, nothing to forget, or everything.
    """
    train = dataset.train
    if setting == "class":
        if not 0 <= target < dataset.classes:
            raise DataError(f"class {target} is not in {dataset.name!r}: choose one of 0..{dataset.classes - 1}")
        chosen = train.id[train.y == target]
    elif setting == "random":
        if not 0 < fraction < 1:
            raise DataError(f"the forget fraction is {fraction}: choose one between 0 and 1, both excluded")
        chosen = train.id[lowest(train.id, round(fraction * len(train.id)), Hash.FORGET, seed)]
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

    splits = (chosen(split) for split in (dataset.train, dataset.validation, dataset.test))
    return Dataset(dataset.name, *splits, len(classes))


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
        raise DataError(f"{_some(ids[counts > 1])} given more than once: name each example once")
    for name in ("validation", "test"):
        held_out = ids[np.isin(ids, getattr(dataset, name).id)]
        if held_out.size:
            raise DataError(
                f"{_some(held_out)} in the {name} split of {dataset.name!r}: only training examples can be forgotten"
            )
    unknown = ids[~np.isin(ids, dataset.train.id)]
    if unknown.size:
        raise DataError(f"{_some(unknown)} not in the training split of {dataset.name!r}: take ids from dataset.train.id")
    if len(ids) == len(dataset.train.id):
        raise DataError(f"the forget set is the whole training set ({len(ids)} examples): leave some to retain")
    return np.searchsorted(dataset.train.id, ids)


def revocable_ids(dataset: Dataset, forget: Array, share: float = 0.0, seed: int = 0) -> Array:
    """What training is told may be forgotten: the later request's ids, a share of them wrong.

    Args:
      forget: [examples] the ids of the request to come.
      share: the part of them that training is told wrongly; see `split_noise`.

    Raises:
      DataError: see `check_ids` and `split_noise`.
    """
    return split_noise(dataset.train.id[check_ids(dataset, forget)], dataset.train.id, share, seed)


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
        raise DataError(f"{_some(np.setdiff1d(ids, all_ids))} not among the training ids: take ids from dataset.train.id")
    outside = np.setdiff1d(all_ids, ids)
    count = round(share * len(ids))
    if count > len(outside):
        raise DataError(f"{count} ids are to be replaced but only {len(outside)} lie outside: choose a smaller share")
    unique = np.unique(ids)
    leaving = unique[lowest(unique, count, Hash.NOISE_LEAVING, seed)]
    coming = outside[lowest(outside, count, Hash.NOISE_COMING, seed)]
    return np.union1d(np.setdiff1d(ids, leaving), coming).astype(np.asarray(ids).dtype)


def lowest(ids: Array, count: int, purpose: str, seed: int) -> Array:
    """Positions, increasing, of the `count` ids (all, if they are fewer) that `hash_uniform` gives the lowest numbers."""
    return np.sort(np.argsort(hash_uniform(ids, purpose, seed), kind="stable")[:count])


def batch(split: Split, positions: Array | None = None) -> dict[str, Array]:
    """The examples at `positions` (all if None) as a Batch: x, y, id, and a weight of 1 each."""
    x, y, ids = split if positions is None else (leaf[positions] for leaf in split)
    return {"x": x, "y": y, "id": ids, "weight": np.ones(len(ids), np.float32)}


def ahead(make: Callable[[int], T], count: int) -> Iterator[T]:
    """make(0), make(1), ... make(count - 1) in order, each made by a thread before it is asked for.

    No more than THREADS of them wait to be taken. What `make` raises is raised here, in its turn.
    """
    import grain  # slow

    options = grain.ReadOptions(num_threads=THREADS, prefetch_buffer_size=THREADS)
    with contextlib.closing(iter(grain.MapDataset.range(count).map(make).to_iter_dataset(options))) as made:
        yield from made


def moments(parts: Iterable[Array]) -> Moments:
    """Mean and standard deviation per channel over all parts; 1 for a constant channel.

    Args:
      parts: at least one; each [examples, height, width, channels].
    """
    count, total, squares = 0, np.zeros(1), np.zeros(1)
    for images in parts:
        flat = images.reshape(len(images), -1)
        for start in range(0, len(flat), MOMENTS_AT_ONCE):
            few = flat[start : start + MOMENTS_AT_ONCE].astype(np.float64)
            total = total + few.sum(axis=0)
            squares = squares + np.einsum("ep,ep->p", few, few)
        count += len(images) * images.shape[1] * images.shape[2]
    mean, square = (sums.reshape(-1, images.shape[-1]).sum(axis=0) / count for sums in (total, squares))
    variance = square - mean**2
    constant = variance <= 1e-12 * square  # what rounding leaves
    return Moments(mean.astype(np.float32), np.sqrt(np.where(constant, 1.0, variance)).astype(np.float32))


def standardise(images: Array, scale: Moments) -> Array:
    """(images - mean) / std per channel, in float32.

    Raises:
      DataError: a mean or a std that has neither one number for all channels nor one for each.
    """
    channels = images.shape[-1]
    for name, leaf in zip(scale._fields, scale, strict=True):
        if leaf.size not in (1, channels):
            raise DataError(f"{name} has {leaf.size} numbers, images have {channels} channels: give one, or one for each")
    # Spread over the pixels, a channel's number costs half as much to apply as broadcast.
    mean, std = (np.broadcast_to(leaf, images.shape[1:]).copy() for leaf in scale)
    result = np.subtract(images, mean, dtype=np.float32)
    result /= std
    return result


def _fixed(config: Data) -> Moments | None:
    """The constants that a config standardises by, for models on which no example may leave a trace by its moments."""
    scale = getattr(config, "scale", None)
    if not scale:
        return None
    return Moments(*(np.asarray(moment, np.float32) * np.float32(scale.range) for moment in (scale.mean, scale.std)))


def _assign(source: Source, name: str, validation_fraction: float, train_size: int) -> dict[str, Array]:
    """The ids of each split, increasing."""
    if not 0 <= validation_fraction < 1:
        raise DataError(f"validation_fraction is {validation_fraction}: choose one in 0..1, 1 excluded")
    ids = np.arange(source.total, dtype=np.int32)
    draw = hash_uniform(ids, Hash.SPLIT, 0)
    test = ids >= source.official if source.official < source.total else draw >= 1 - HASHED_TEST_SHARE
    validation = ~test & (draw < validation_fraction)
    train = ids[~test & ~validation]
    if len(train) == 0:
        raise DataError(f"no training example of {name!r} is left: choose a smaller validation_fraction")
    if train_size and not 1 <= train_size <= len(train):
        raise DataError(f"train_size is {train_size}: {name!r} has 1..{len(train)} training examples to give (0 takes all)")
    return {
        "train": train[lowest(train, train_size or len(train), Hash.TRAIN_SIZE, 0)],
        "validation": ids[validation],
        "test": ids[test],
    }


def _survey(source: Source, ids: Array, name: str) -> tuple[Array, Moments, tuple[int, ...]]:
    """Labels [examples], moments, and the shape of an image: what one pass over the examples tells."""
    parts = np.split(ids, range(DECODE_AT_ONCE, len(ids), DECODE_AT_ONCE))
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


def _some(ids: Array) -> str:
    """The first few ids and the verb that goes with them."""
    listed = ", ".join(str(int(i)) for i in ids[:5]) + (f" and {len(ids) - 5} more" if len(ids) > 5 else "")
    return f"id {listed} is" if len(ids) == 1 else f"ids {listed} are"

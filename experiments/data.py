"""Data sets as arrays with stable ids, or as images that stay on disk: loading, splitting, naming what is to be forgotten.

An example's id is its index in the official order: training examples first, then the test examples. Which split an
example falls into, which examples a smaller training set keeps and which a random forget set names all follow from a
keyed hash of that id, so removing or adding one example never moves another.

The prepared files of TensorFlow Datasets are read through `as_data_source`, which does not need TensorFlow; preparing
them does.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import hashlib
import os
import uuid
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import ml_collections
import numpy as np
from absl import logging

from experiments.errors import UserError

Array = np.ndarray
T = TypeVar("T")

HASHED_TEST_SHARE = 0.2  # of a data set that has no official test examples
DECODE_AT_ONCE = 512
MOMENTS_AT_ONCE = 64  # few enough to stay in the processor's cache; divides DECODE_AT_ONCE, so parts sum as the whole
THREADS = min(8, os.cpu_count() or 1)  # that decode ahead


class DataError(UserError):
    """Data that cannot be used as asked; the message is one line that says what to do."""


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


class Source(NamedTuple):
    """A data set in its official order, before it is split.

    read: ids [examples] -> (images [examples, height, width, channels]; labels [examples] int32).
    official: ids below are training examples, ids from here on test examples; all of them (= total) if there is no test.
    total: how many examples there are.
    classes: how many labels there are.
    """

    read: Callable[[Array], tuple[Array, Array]]
    official: int
    total: int
    classes: int


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


def load(config: ml_collections.ConfigDict) -> Dataset:
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
    if config.stream and config.cache_dir:
        raise DataError("data.cache_dir keeps all images decoded, data.stream none: set one of them alone")
    source, ids = raw(config)
    own, fixed = ids["train"], _fixed(config)
    if config.stream:
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
            raise _several_sizes(config.name)
        return Split(standardise(images, scale), labels, ids[name])

    return Dataset(config.name, train, held_out("validation"), held_out("test"), source.classes)


def raw(config: ml_collections.ConfigDict) -> tuple[Source, dict[str, Array]]:
    """A data set before anything is computed from its images, and the ids of each split, increasing; see `load`."""
    source = _source(config)
    return source, _assign(source, config.name, config.validation_fraction, config.train_size)


def hash_uniform(ids: Array, purpose: str, seed: int) -> Array:
    """A number in [0, 1) for each id that depends on (id, purpose, seed) alone.

    This is splitmix64, started at a digest of purpose and seed and advanced by the id.

    Args:
      ids: [examples] integers, not negative.
      purpose: what the draw is for; different purposes are independent.
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
        chosen = train.id[lowest(train.id, round(fraction * len(train.id)), "forget", seed)]
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
    leaving = unique[lowest(unique, count, "noise-leaving", seed)]
    coming = outside[lowest(outside, count, "noise-coming", seed)]
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
    """(images - mean) / std per channel, in float32."""
    # Spread over the pixels, a channel's number costs half as much to apply as broadcast.
    mean, std = (np.broadcast_to(leaf, images.shape[1:]).copy() for leaf in scale)
    result = np.subtract(images, mean, dtype=np.float32)
    result /= std
    return result


def _fixed(config: ml_collections.ConfigDict) -> Moments | None:
    """The constants that a config standardises by, for models on which no example may leave a trace by its moments."""
    scale = getattr(config, "scale", None)
    if not scale:
        return None
    return Moments(*(np.asarray(scale[name], np.float32) * np.float32(scale.range) for name in ("mean", "std")))


def _assign(source: Source, name: str, validation_fraction: float, train_size: int) -> dict[str, Array]:
    """The ids of each split, increasing."""
    if not 0 <= validation_fraction < 1:
        raise DataError(f"validation_fraction is {validation_fraction}: choose one in 0..1, 1 excluded")
    ids = np.arange(source.total, dtype=np.int32)
    draw = hash_uniform(ids, "split", 0)
    test = ids >= source.official if source.official < source.total else draw >= 1 - HASHED_TEST_SHARE
    validation = ~test & (draw < validation_fraction)
    train = ids[~test & ~validation]
    if len(train) == 0:
        raise DataError(f"no training example of {name!r} is left: choose a smaller validation_fraction")
    if train_size and not 1 <= train_size <= len(train):
        raise DataError(f"train_size is {train_size}: {name!r} has 1..{len(train)} training examples to give (0 takes all)")
    return {
        "train": train[lowest(train, train_size or len(train), "train_size", 0)],
        "validation": ids[validation],
        "test": ids[test],
    }


def _source(config: ml_collections.ConfigDict) -> Source:
    if config.name == "digits":
        return _digits()
    if config.stream:
        return _prepared(config.name, _data_dir(config.data_dir))
    return _decoded(config.name, config.data_dir, config.cache_dir)


def _survey(source: Source, ids: Array, name: str) -> tuple[Array, Moments, tuple[int, ...]]:
    """Labels [examples], moments, and the shape of an image: what one pass over the examples tells."""
    parts = np.split(ids, range(DECODE_AT_ONCE, len(ids), DECODE_AT_ONCE))
    labels, shapes = [], set()

    def images() -> Iterator[Array]:
        for x, y in ahead(lambda i: source.read(parts[i]), len(parts)):
            labels.append(y)
            shapes.add(x.shape[1:])
            if len(shapes) > 1:
                raise _several_sizes(name)
            yield x

    scale = moments(images())
    return np.concatenate(labels), scale, shapes.pop()


def _digits() -> Source:
    """Scikit-learn's 1797 handwritten digits, 8x8x1; none is for testing by convention."""
    from sklearn.datasets import load_digits  # slow

    digits = load_digits()
    return _in_memory(digits.images.astype(np.uint8)[..., None], digits.target.astype(np.int32), len(digits.target), 10)


def _in_memory(x: Array, y: Array, official: int, classes: int) -> Source:
    return Source(lambda ids: (x[ids], y[ids]), official, len(x), classes)


def _decoded(name: str, data_dir: str, cache_dir: str) -> Source:
    """The whole of a prepared data set in memory, from the cache if it is there and sound."""
    root = _data_dir(data_dir)
    cache = _cache_file(cache_dir, name, root) if cache_dir else None
    if cache is not None:
        try:
            with np.load(cache) as file:
                return _in_memory(file["x"], file["y"], int(file["official"]), int(file["classes"]))
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            logging.warning("cannot use %s (%s): decoding %s again", cache, _line(error), name)
    source = _prepared(name, root)
    logging.info("decoding the %d examples of %s", source.total, name)
    x, y = _decode(source, name)
    if cache is not None:
        _save(cache, x=x, y=y, official=source.official, classes=source.classes)
    return _in_memory(x, y, source.official, source.classes)


def _decode(source: Source, name: str) -> tuple[Array, Array]:
    y = np.empty(source.total, np.int32)
    for start in range(0, source.total, DECODE_AT_ONCE):
        part = slice(start, min(start + DECODE_AT_ONCE, source.total))
        images, y[part] = source.read(np.arange(part.start, part.stop))
        if start == 0:
            x = np.empty((source.total, *images.shape[1:]), images.dtype)
        if images.shape[1:] != x.shape[1:]:
            raise _several_sizes(name)
        x[part] = images
    return x, y


def _several_sizes(name: str) -> DataError:
    return DataError(f"the images of {name!r} differ in size: choose a data set whose images have one size")


def _prepared(name: str, root: str) -> Source:
    """A data set as TFDS prepared it, records decoded as they are read."""
    import tensorflow_datasets as tfds  # slow

    builder = _builder(name, root)
    features = builder.info.features
    keys = builder.info.supervised_keys or ()
    image = _feature(features, keys, lambda f: isinstance(f, tfds.features.Image))
    label = _feature(features, keys, lambda f: isinstance(f, tfds.features.ClassLabel))
    if image is None or label is None:
        missing = "image" if image is None else "class label"
        found = ", ".join(sorted(features))
        raise DataError(f"{name!r} does not have exactly one {missing} (its features are {found}): choose another data set")

    def read(splits: str) -> Callable[[Array], tuple[Array, Array]]:
        records = _records(builder, splits, name)

        def read_ids(ids: Array) -> tuple[Array, Array]:
            examples = records(ids)
            images = [e[image] for e in examples] or np.empty((0, *(size or 0 for size in features[image].shape)))
            if len({one.shape for one in images}) > 1:
                raise _several_sizes(name)
            return np.asarray(images), np.array([e[label] for e in examples], np.int32)

        return read_ids

    sizes = {split: info.num_examples for split, info in builder.info.splits.items()}
    if not sizes.get("train"):
        raise DataError(f"{name!r} has no training examples (its splits are {', '.join(sizes)}): choose another data set")
    # Some test splits come without their labels, as -1.
    labelled = (s for s in ("test", "validation") if sizes.get(s) and read(s)(np.arange(1))[1][0] >= 0)
    test = next(labelled, None)
    splits = f"train+{test}" if test else "train"
    return Source(read(splits), sizes["train"], sizes["train"] + sizes.get(test, 0), features[label].num_classes)


def _builder(name: str, root: str) -> Any:
    """TFDS's builder of a data set that is prepared in `root` and can be read at random."""
    import tensorflow_datasets as tfds  # slow

    prepare = f"run `tfds build {name} --file_format=array_record` where TensorFlow is installed"
    point = "set --config.data.data_dir or TFDS_DATA_DIR to where it is prepared"
    try:
        builder = tfds.builder(name, data_dir=root)
        formats = builder.info.available_file_formats() if builder.is_prepared() else None
    except (ValueError, AssertionError) as error:
        near = difflib.get_close_matches(name, ["digits", *tfds.list_builders(with_community_datasets=False)], 1)
        hint = f" (did you mean {near[0]!r}?)" if near and near[0] != name else ""
        raise DataError(
            f"unknown data set {name!r}{hint} ({_line(error)}): use 'digits' or a name of the TFDS catalogue, or {point}"
        ) from error
    except ImportError as error:
        raise _missing_package(name, error) from error
    except Exception as error:  # whatever the readers of its metadata raise
        raise DataError(f"cannot read how {name!r} is prepared in {root} ({_line(error)}): {prepare} again") from error
    if not os.path.isdir(root):
        raise DataError(f"there is no folder {root} to read {name!r} from: {prepare}, and {point}")
    if formats is None:
        raise DataError(f"{name!r} is not prepared in {root}: {prepare}, or {point}")
    if not formats & set(tfds.core.FileFormat.with_random_access()):
        found = ", ".join(sorted(f.value for f in formats))
        raise DataError(
            f"{name!r} is prepared as {found}, which cannot be read at random: convert it with `tfds convert_format "
            f"--dataset_version_dir={builder.data_dir} --out_file_format=array_record` where TensorFlow is installed"
        )
    return builder


def _missing_package(name: str, error: ImportError) -> DataError:
    return DataError(f"reading {name!r} needs a package that is not installed ({_line(error)}): install it")


def _feature(features: Any, preferred: Sequence[str], fits: Callable[[Any], bool]) -> str | None:
    """The key of the one feature that fits, or of the preferred one of several."""
    found = [key for key, feature in features.items() if fits(feature)]
    chosen = [key for key in found if key in preferred] or found
    return chosen[0] if len(chosen) == 1 else None


def _records(builder: Any, splits: str, name: str) -> Callable[[Array], list[dict[str, Any]]]:
    """Decoded examples by their position in `splits`; the first that cannot be read is named."""
    source = builder.as_data_source(splits)

    def where(position: int) -> str:
        for file in builder.info.splits[splits].file_instructions:
            if position < file.take:
                return f"record {file.skip + position} of {file.filename}"
            position -= file.take
        raise IndexError(position)

    def read(ids: Array) -> list[dict[str, Any]]:
        positions = [int(i) for i in ids]
        try:
            return source.__getitems__(positions)
        except ImportError as error:  # no image decoder is installed
            raise _missing_package(name, error) from error
        except Exception:  # array_record, protobuf and the image decoders each raise their own kinds
            for position in positions:
                try:
                    source[position]
                except Exception as error:
                    raise DataError(
                        f"cannot read {where(position)} ({_line(error)}): copy or prepare {name!r} again"
                    ) from error
            raise

    return read


def _data_dir(data_dir: str) -> str:
    return os.path.expanduser(data_dir or os.environ.get("TFDS_DATA_DIR") or os.path.join("~", "tensorflow_datasets"))


def _cache_file(cache_dir: str, name: str, root: str) -> Path | None:
    """Where the decoded images are kept: another place as soon as any of the prepared files changes."""
    prepared = Path(root, name.split(":")[0].split("/")[0])
    files = sorted(path for path in prepared.rglob("*") if path.is_file())
    if not files:
        return None
    state = [(str(path.relative_to(root)), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    digest = hashlib.blake2b(repr((name, os.path.abspath(root), state)).encode(), digest_size=8).hexdigest()
    return Path(cache_dir).expanduser() / f"{prepared.name}-{digest}.npz"


def _save(path: Path, **arrays: Any) -> None:
    """Write an .npz that is there whole or not at all."""
    unfinished = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(unfinished, "wb") as file:
                np.savez(file, **arrays)
            os.replace(unfinished, path)
        finally:
            unfinished.unlink(missing_ok=True)
    except OSError as error:
        raise DataError(f"cannot write the cache {path} ({_line(error)}): set --config.data.cache_dir elsewhere") from error


def _some(ids: Array) -> str:
    """The first few ids and the verb that goes with them."""
    listed = ", ".join(str(int(i)) for i in ids[:5]) + (f" and {len(ids) - 5} more" if len(ids) > 5 else "")
    return f"id {listed} is" if len(ids) == 1 else f"ids {listed} are"


def _line(error: BaseException) -> str:
    """The first line of what an error says."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]

"""Data sets by name, before anybody splits them: scikit-learn's digits, what TFDS has prepared, a user's own files."""

from __future__ import annotations

import hashlib
import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from experiments.core import files
from experiments.core.errors import DataError, WorkdirError
from experiments.core.notices import LOG
from experiments.core.sections import OWN, Data
from experiments.core.values import MOST
from experiments.data import folders, prepared, tables
from experiments.data.images import DECODE_AT_ONCE
from experiments.data.sources import Array, Source, check_labels


def open_source(config: Data) -> Source:
    """The data set that a config names: read from disk as it is asked for if `stream`, else all of it in memory.

    Raises:
      DataError: no such data set, or one that cannot be read.
    """
    kind, _, path = config.name.partition(":")
    for column in ("label", "id_column"):
        if kind != "csv" and getattr(config, column):
            raise DataError(f"data.{column} names a column of a csv, and {config.name!r} is none: leave it empty")
    if config.name == "digits":
        return _digits()
    if kind in OWN:
        _check_own(config, kind, path)
        return _own(config, kind, path)
    if is_streamed(config):
        return _prepared(config.name, prepared.data_dir_of(config.data_dir))
    return _decoded(config.name, config.data_dir, config.cache_dir)


def is_streamed(config: Data) -> bool:
    """Whether the training images are to stay on disk, which only some runs can do."""
    return getattr(config, "stream", False)


def _own(config: Data, kind: str, path: str) -> Source:
    where = Path(path).expanduser()
    if kind == "folder":
        return folders.read(where)
    if kind == "npz":
        return tables.read_npz(where)
    return tables.read_csv(where, config.label or "label", config.id_column)


def _check_own(config: Data, kind: str, path: str) -> None:
    """Refuse settings that a user's own data would leave without effect.

    Raises:
      DataError: one line that says what to do.
    """
    if not path:
        raise DataError(f"data.name is {config.name!r}: give a path, as in --config.data.name={kind}:PATH")
    for name in ("data_dir", "cache_dir"):
        if getattr(config, name):
            raise DataError(f"data.{name} is for prepared TFDS data: leave it empty, or use another data.name than {kind}:")
    if is_streamed(config) and kind != "folder":
        raise DataError(f"{kind} data are held in memory: set --config.data.stream=False")


def _digits() -> Source:
    """Scikit-learn's 1797 handwritten digits, 8x8x1; none is for testing by convention."""
    from sklearn.datasets import load_digits  # slow

    digits = load_digits()
    return _in_memory(digits.images.astype(np.uint8)[..., None], digits.target.astype(np.int32), len(digits.target), 10)


def _in_memory(x: Array, y: Array, official: int, classes: int) -> Source:
    ids = np.arange(len(x), dtype=np.int32)
    return Source(lambda ids: (x[ids], y[ids]), ids, ids[official:] if official < len(x) else None, classes)


def _decoded(name: str, data_dir: str, cache_dir: str) -> Source:
    """The whole of a prepared data set in memory, from the cache if it is there and sound."""
    root = prepared.data_dir_of(data_dir)
    cache = _cache_file(cache_dir, name, root) if cache_dir else None
    if cache is not None and cache.exists():
        try:
            kept = files.read_arrays(cache)
            check_labels(str(cache), np.arange(len(kept["y"])), kept["y"], int(kept["classes"]))
            return _in_memory(kept["x"], kept["y"], int(kept["official"]), int(kept["classes"]))
        except files.UNREADABLE as error:
            LOG.warning("cannot use %s (%s): decoding %s again", cache, prepared.first_line(error), name)
    source = _prepared(name, root)
    if cache_dir and cache is None:
        LOG.warning("no cache is kept of %s, whose files do not lie in %s", name, root)
    LOG.info("decoding the %d examples of %s", len(source.ids), name)
    x, y = _decode(source, name)
    official = len(x) if source.official is None else int(source.official[0])
    if cache is not None:
        _save(cache, x=x, y=y, official=official, classes=source.classes)
    return _in_memory(x, y, official, source.classes)


def _decode(source: Source, name: str) -> tuple[Array, Array]:
    total = len(source.ids)
    y = np.empty(total, np.int32)
    for start in range(0, total, DECODE_AT_ONCE):
        part = slice(start, min(start + DECODE_AT_ONCE, total))
        images, y[part] = source.read(np.arange(part.start, part.stop))
        if start == 0:
            x = np.empty((total, *images.shape[1:]), images.dtype)
        if images.shape[1:] != x.shape[1:]:
            raise several_sizes(name)
        x[part] = images
    return x, y


def several_sizes(name: str) -> DataError:
    return DataError(f"the images of {name!r} differ in size: choose a data set whose images have one size")


def _prepared(name: str, root: str) -> Source:
    """A data set as TFDS prepared it, records decoded as they are read."""
    import tensorflow_datasets as tfds  # slow

    builder = prepared.builder_of(name, root, "digits", OWN)
    prepared.check_shards(builder, name)
    features = builder.info.features
    keys = builder.info.supervised_keys or ()
    image = prepared.feature_of(features, keys, lambda f: isinstance(f, tfds.features.Image))
    label = prepared.feature_of(features, keys, lambda f: isinstance(f, tfds.features.ClassLabel))
    if image is None or label is None:
        missing = "image" if image is None else "class label"
        found = ", ".join(sorted(features))
        raise DataError(f"{name!r} does not have exactly one {missing} (its features are {found}): choose another data set")
    classes = features[label].num_classes
    if not 2 <= (classes or 0) <= MOST:
        raise DataError(f"{name!r} says that it has {classes} classes: prepare it again, or choose another data set")
    if features[image].np_dtype == np.uint16 and importlib.util.find_spec("cv2") is None:
        raise DataError(
            f"{name!r} has images of 16 bits, which TFDS decodes by OpenCV: `pip install opencv-python-headless`"
        )

    def read(splits: str) -> Callable[[Array], tuple[Array, Array]]:
        records = prepared.records_of(builder, splits, name)

        def read_ids(ids: Array) -> tuple[Array, Array]:
            examples = records(ids)
            images = [e[image] for e in examples] or np.empty((0, *(size or 0 for size in features[image].shape)))
            if len({one.shape for one in images}) > 1:
                raise several_sizes(name)
            pixels, labels = np.asarray(images), np.array([e[label] for e in examples], np.int64)
            check_labels(repr(name), ids, labels, classes)
            if pixels.dtype.kind == "f" and (bad := ids[~np.isfinite(pixels).all(axis=(1, 2, 3))]).size:
                raise DataError(f"example {bad[0]} of {name!r} has pixels that are not finite: prepare it without them")
            return pixels, labels.astype(np.int32)

        return read_ids

    splits, training, testing = prepared.splits_of(builder, label, name)
    ids = np.arange(training + testing, dtype=np.int32)
    return Source(read(splits), ids, ids[training:] if testing else None, classes)


def _cache_file(cache_dir: str, name: str, root: str) -> Path | None:
    """Where the decoded images are kept: another place as soon as any of the prepared files changes."""
    folder = prepared.folder_of(name)
    name = folder + name.removeprefix(name.split(":")[0].split("/")[0])
    described = Path(root, folder)
    parts = sorted(path for path in described.rglob("*") if path.is_file())
    if not parts:
        return None
    state = [(str(path.relative_to(root)), path.stat().st_size, path.stat().st_mtime_ns) for path in parts]
    digest = hashlib.blake2b(repr((name, os.path.abspath(root), state)).encode(), digest_size=8).hexdigest()
    return Path(cache_dir).expanduser() / f"{described.name}-{digest}.npz"


def _save(path: Path, **arrays: Any) -> None:
    """Write an .npz that is there whole or not at all."""
    try:
        files.write_arrays(path, arrays, mode=0o600)  # whoever may read the cache sees the images
    except WorkdirError as error:
        why = prepared.first_line(error.__cause__ or error)
        raise DataError(f"cannot write the cache {path} ({why}): set --config.data.cache_dir elsewhere") from error

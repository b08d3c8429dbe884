"""Data sets by name, before anybody splits them: scikit-learn's digits, what TFDS has prepared, a user's own files.

The prepared files of TensorFlow Datasets are read through `as_data_source`, which does not need TensorFlow; preparing
them does.
"""

from __future__ import annotations

import difflib
import glob
import hashlib
import importlib.util
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from experiments.core import files
from experiments.core.errors import DataError, WorkdirError
from experiments.core.sections import MOST, OWN, Data
from experiments.data import folders, tables
from experiments.data.images import DECODE_AT_ONCE
from experiments.data.sources import Array, Source, check_labels

# A namespace before the name would have TFDS fetch code of others, arguments after it reach the builder's own.
NAME = re.compile(r"[A-Za-z]\w*(/[\w-][\w.-]*)?(:(experimental_latest|[\d*]+\.[\d*]+\.[\d*]+))?", re.ASCII)
OF_TFDS = "tensorflow_datasets."


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
        return _prepared(config.name, _data_dir(config.data_dir))
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
    root = _data_dir(data_dir)
    cache = _cache_file(cache_dir, name, root) if cache_dir else None
    if cache is not None and cache.exists():
        try:
            kept = files.read_arrays(cache)
            check_labels(str(cache), np.arange(len(kept["y"])), kept["y"], int(kept["classes"]))
            return _in_memory(kept["x"], kept["y"], int(kept["official"]), int(kept["classes"]))
        except files.UNREADABLE as error:
            logging.warning("cannot use %s (%s): decoding %s again", cache, _line(error), name)
    source = _prepared(name, root)
    if cache_dir and cache is None:
        logging.warning("no cache is kept of %s, whose files do not lie in %s", name, root)
    logging.info("decoding the %d examples of %s", len(source.ids), name)
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

    builder = _builder(name, root)
    _check_shards(builder, name)
    features = builder.info.features
    keys = builder.info.supervised_keys or ()
    image = _feature(features, keys, lambda f: isinstance(f, tfds.features.Image))
    label = _feature(features, keys, lambda f: isinstance(f, tfds.features.ClassLabel))
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
        records = _records(builder, splits, name)

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

    sizes = {split: info.num_examples for split, info in builder.info.splits.items()}
    if not sizes.get("train"):
        raise DataError(f"{name!r} has no training examples (its splits are {', '.join(sizes)}): choose another data set")
    # Some test splits come without their labels, as -1.
    labelled = (
        s for s in ("test", "validation") if sizes.get(s) and _records(builder, s, name)(np.arange(1))[0][label] >= 0
    )
    test = next(labelled, None)
    splits = f"train+{test}" if test else "train"
    ids = np.arange(sizes["train"] + sizes.get(test, 0), dtype=np.int32)
    return Source(read(splits), ids, ids[sizes["train"] :] if test else None, classes)


def _check_shards(builder: Any, name: str) -> None:
    """Refuse a description that has examples too few or too many: TFDS would pass over the rest in silence.

    Raises:
      DataError: a file that cannot be read, holds another number of records, or is not spoken of.
    """
    from array_record.python.array_record_module import ArrayRecordReader

    again, described = f"copy or prepare {name!r} again", os.path.join(builder.data_dir, "dataset_info.json")
    for split, info in builder.info.splits.items():
        try:
            listed = [os.fspath(path) for path in info.filepaths] if info.shard_lengths else []
        except Exception as error:  # whatever TFDS says of names that it cannot make
            raise DataError(f"cannot read of which files {described} speaks ({_line(error)}): {again}") from error
        found = glob.glob(os.path.join(glob.escape(os.fspath(builder.data_dir)), f"{builder.name}-{split}.array_record*"))
        if strays := sorted({*found} - {*listed}):
            raise DataError(f"{described} says nothing of {strays[0]}, whose examples would be left out: {again}")
        for file, said in zip(listed, info.shard_lengths, strict=True):
            try:
                reader = ArrayRecordReader(file)
                records = reader.num_records()
                reader.close()
            except Exception as error:  # array_record raises several kinds
                raise DataError(f"cannot read record 0 of {file} ({_line(error)}): {again}") from error
            if said != records:
                raise DataError(f"{described} says that {file} has {said} examples, it has {records}: {again}")


def _builder(name: str, root: str) -> Any:
    """TFDS's builder of a data set that is prepared in `root` and can be read at random."""
    import tensorflow_datasets as tfds  # slow

    prepare = f"run `tfds build {name} --file_format=array_record` where TensorFlow is installed"
    if not NAME.fullmatch(name):
        raise DataError(
            f"unknown data set {name!r:.120}: use 'digits', a name of the TFDS catalogue as NAME/CONFIG:VERSION, or data "
            f"of your own as {', '.join(f'{kind}:PATH' for kind in OWN)}"
        )
    if "://" in root:
        raise DataError(f"there is no folder {root} to read {name!r} from: data are read from disks alone, copy them first")
    seen = _seen(name, root)
    point = f"set --config.data.data_dir or TFDS_DATA_DIR to {seen or 'where it is prepared'}"
    try:
        with _no_foreign_code(name):
            builder = tfds.builder(name, data_dir=root)
            formats = builder.info.available_file_formats() if builder.is_prepared() else None
    except DataError:
        raise
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


@contextmanager
def _no_foreign_code(name: str) -> Iterator[None]:
    """TFDS imports whichever module a features.json names, wherever it lies: within this, none but its own."""
    from tensorflow_datasets.core.features.feature import FeatureConnector

    kept, resolve = FeatureConnector.__dict__["cls_from_name"], FeatureConnector.cls_from_name

    def resolved(class_name: str) -> Any:
        if not str(class_name).startswith(OF_TFDS):
            raise DataError(
                f"{name!r} has a feature of the class {class_name!r:.80}, whose code would run here: prepare it with "
                "features of TFDS alone"
            )
        return resolve(class_name)

    FeatureConnector.cls_from_name = staticmethod(resolved)  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        FeatureConnector.cls_from_name = kept  # type: ignore[method-assign]


def _seen(name: str, root: str) -> Path | None:
    """The folder that was meant, if `root` lies a level or two off it."""
    given, folder = Path(root).absolute(), _folder(name)
    levels = [*sorted(path.parent for path in given.glob(f"*/{folder}")), given.parent, given.parent.parent]
    return next((level for level in levels if any(level.glob(f"{folder}/**/dataset_info.json"))), None)


def _folder(name: str) -> str:
    """The folder that TFDS prepares a data set in, whatever way its name is written: MNIST and Mnist lie in mnist."""
    first = re.sub("(.)([A-Z][a-z0-9]+)", r"\1_\2", name.split(":")[0].split("/")[0])
    return re.sub("([a-z0-9])([A-Z])", r"\1_\2", first).lower()


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
    folder = _folder(name)
    name = folder + name.removeprefix(name.split(":")[0].split("/")[0])
    prepared = Path(root, folder)
    parts = sorted(path for path in prepared.rglob("*") if path.is_file())
    if not parts:
        return None
    state = [(str(path.relative_to(root)), path.stat().st_size, path.stat().st_mtime_ns) for path in parts]
    digest = hashlib.blake2b(repr((name, os.path.abspath(root), state)).encode(), digest_size=8).hexdigest()
    return Path(cache_dir).expanduser() / f"{prepared.name}-{digest}.npz"


def _save(path: Path, **arrays: Any) -> None:
    """Write an .npz that is there whole or not at all."""
    try:
        files.write_arrays(path, arrays, mode=0o600)  # whoever may read the cache sees the images
    except WorkdirError as error:
        why = _line(error.__cause__ or error)
        raise DataError(f"cannot write the cache {path} ({why}): set --config.data.cache_dir elsewhere") from error


def _line(error: BaseException) -> str:
    """The first line of what an error says."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]

"""What TensorFlow Datasets has prepared: its builders, found and checked, and their records by position.

The prepared files are read through `as_data_source`, which does not need TensorFlow; preparing them does.
"""

from __future__ import annotations

import difflib
import glob
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from experiments.core.errors import DataError
from experiments.data.ids import Array

# A namespace before the name would have TFDS fetch code of others, arguments after it reach the builder's own.
NAME = re.compile(r"[A-Za-z]\w*(/[\w-][\w.-]*)?(:(experimental_latest|[\d*]+\.[\d*]+\.[\d*]+))?", re.ASCII)
OF_TFDS = "tensorflow_datasets."


def check_shards(builder: Any, name: str) -> None:
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
            raise DataError(f"cannot read of which files {described} speaks ({first_line(error)}): {again}") from error
        found = glob.glob(os.path.join(glob.escape(os.fspath(builder.data_dir)), f"{builder.name}-{split}.array_record*"))
        if strays := sorted({*found} - {*listed}):
            raise DataError(f"{described} says nothing of {strays[0]}, whose examples would be left out: {again}")
        for file, said in zip(listed, info.shard_lengths, strict=True):
            try:
                reader = ArrayRecordReader(file)
                records = reader.num_records()
                reader.close()
            except Exception as error:  # array_record raises several kinds
                raise DataError(f"cannot read record 0 of {file} ({first_line(error)}): {again}") from error
            if said != records:
                raise DataError(f"{described} says that {file} has {said} examples, it has {records}: {again}")


def builder_of(name: str, root: str, embedded: str, own: Sequence[str]) -> Any:
    """TFDS's builder of a data set that is prepared in `root` and can be read at random.

    Args:
      embedded: the data set that needs no files.
      own: the kinds of a user's own data, as in KIND:PATH.

    Raises:
      DataError: no such data set, one that is not prepared there, or one that runs code of others.
    """
    import tensorflow_datasets as tfds  # slow

    prepare = f"run `tfds build {name} --file_format=array_record` where TensorFlow is installed"
    if not NAME.fullmatch(name):
        raise DataError(
            f"unknown data set {name!r:.120}: use {embedded!r}, a name of the TFDS catalogue as NAME/CONFIG:VERSION, or "
            f"data of your own as {', '.join(f'{kind}:PATH' for kind in own)}"
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
        near = difflib.get_close_matches(name, [embedded, *tfds.list_builders(with_community_datasets=False)], 1)
        hint = f" (did you mean {near[0]!r}?)" if near and near[0] != name else ""
        raise DataError(
            f"unknown data set {name!r}{hint} ({first_line(error)}): use {embedded!r} or a name of the TFDS catalogue, or "
            f"{point}"
        ) from error
    except ImportError as error:
        raise _missing_package(name, error) from error
    except Exception as error:  # whatever the readers of its metadata raise
        raise DataError(f"cannot read how {name!r} is prepared in {root} ({first_line(error)}): {prepare} again") from error
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
    given, folder = Path(root).absolute(), folder_of(name)
    levels = [*sorted(path.parent for path in given.glob(f"*/{folder}")), given.parent, given.parent.parent]
    return next((level for level in levels if any(level.glob(f"{folder}/**/dataset_info.json"))), None)


def folder_of(name: str) -> str:
    """The folder that TFDS prepares a data set in, whatever way its name is written: MNIST and Mnist lie in mnist."""
    first = re.sub("(.)([A-Z][a-z0-9]+)", r"\1_\2", name.split(":")[0].split("/")[0])
    return re.sub("([a-z0-9])([A-Z])", r"\1_\2", first).lower()


def _missing_package(name: str, error: ImportError) -> DataError:
    return DataError(f"reading {name!r} needs a package that is not installed ({first_line(error)}): install it")


def feature_of(features: Any, preferred: Sequence[str], fits: Callable[[Any], bool]) -> str | None:
    """The key of the one feature that fits, or of the preferred one of several."""
    found = [key for key, feature in features.items() if fits(feature)]
    chosen = [key for key in found if key in preferred] or found
    return chosen[0] if len(chosen) == 1 else None


def splits_of(builder: Any, label: str, name: str) -> tuple[str, int, int]:
    """What TFDS calls all examples with a label, training examples first, and how many of training and test there are.

    A test split whose labels are hidden, as -1, is passed over for the validation split.

    Raises:
      DataError: no training examples.
    """
    sizes = {split: info.num_examples for split, info in builder.info.splits.items()}
    if not sizes.get("train"):
        raise DataError(f"{name!r} has no training examples (its splits are {', '.join(sizes)}): choose another data set")
    labelled = (
        s for s in ("test", "validation") if sizes.get(s) and records_of(builder, s, name)(np.arange(1))[0][label] >= 0
    )
    test = next(labelled, None)
    return f"train+{test}" if test else "train", sizes["train"], sizes.get(test, 0)


def records_of(builder: Any, splits: str, name: str) -> Callable[[Array], list[dict[str, Any]]]:
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
                        f"cannot read {where(position)} ({first_line(error)}): copy or prepare {name!r} again"
                    ) from error
            raise

    return read


def data_dir_of(data_dir: str) -> str:
    return os.path.expanduser(data_dir or os.environ.get("TFDS_DATA_DIR") or os.path.join("~", "tensorflow_datasets"))


def first_line(error: BaseException) -> str:
    """The first line of what an error says."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]

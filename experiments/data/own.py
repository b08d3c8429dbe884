"""A data set that a user's own function makes: `--config.data.factory=module:function`.

    import numpy as np
    from experiments.data.splits import Dataset, Split

    def make() -> Dataset:
        rng = np.random.default_rng(0)
        ids = np.arange(400)                                        # whatever your records are called
        y = ids % 3
        x = rng.normal(y[:, None], 1.0, (400, 5)).astype("float32")  # as the model is to see it: nothing is standardised
        part = lambda rows: Split(x[rows], y[rows], ids[rows])
        return Dataset("mine", part(ids < 240), part((ids >= 240) & (ids < 320)), part(ids >= 320), classes=3)

Ids are whole numbers from 0 up that stay the same when other examples are erased; `experiments.data.ids.id_of` makes one
of a name. Which split an example is in is the function's own affair; it should follow from the id alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from experiments.core.errors import DataError, line
from experiments.core.references import call, resolve
from experiments.core.sections import Data
from experiments.core.values import MOST
from experiments.data import sources
from experiments.data.splits import Dataset, Split

UNUSED = ("data_dir", "cache_dir", "stream", "train_size", "label", "id_column")  # the function's own affair


def make(config: Data) -> Dataset:
    """The data set that `config.factory` makes, checked and sorted by ids.

    Raises:
      UserError (DataError among them): a function that fails or gives something else; one line that says what to do.
    """
    for name in UNUSED:
        if value := getattr(config, name, None):
            nothing = type(value)()
            raise DataError(
                f"data.{name} means nothing to a data.factory, which makes its own splits: set it to {nothing!r}, as in "
                f"--config.data.{name}={nothing}"
            )
    what = f"data.factory {config.factory!r}"
    made = call(resolve(config.factory, "data.factory"), what)
    if not isinstance(made, Dataset):
        raise DataError(f"{what} gives a {type(made).__name__}: give an experiments.data.splits.Dataset")
    if not isinstance(made.name, str) or not made.name or type(made.classes) is not int or not 2 <= made.classes <= MOST:
        raise DataError(f"{what} gives name {made.name!r} and classes {made.classes!r}: give a text and a number from 2 up")
    splits = {name: _checked(f"{name} of {what}", getattr(made, name), made) for name in ("train", "validation", "test")}
    ids = np.concatenate([split.id for split in splits.values()])
    known, counts = np.unique(ids, return_counts=True)
    if (counts > 1).any():
        raise DataError(f"{what} gives id {known[counts > 1][0]} twice: ids are distinct, over all splits")
    return Dataset(made.name, splits["train"], splits["validation"], splits["test"], made.classes)


def raw(config: Data) -> tuple[sources.Source, dict[str, np.ndarray]]:
    """What `make` gives as a source of examples by their ids, and the ids of each split; see `datasets.raw`."""
    made = make(config)
    splits = {name: getattr(made, name) for name in ("train", "validation", "test")}
    x, y, ids = (np.concatenate(leaves) for leaves in zip(*splits.values(), strict=True))
    source = sources.held(x, y, ids, np.isin(ids, made.test.id), made.classes)
    return source, {name: split.id for name, split in splits.items()}


def _checked(where: str, split: Any, made: Dataset) -> Split:
    """A split as it should be, sorted by ids."""
    if not isinstance(split, Split):
        raise DataError(f"{where} is a {type(split).__name__}: give an experiments.data.splits.Split")
    x, y, ids = (_array(f"{name} of {where}", leaf) for name, leaf in split._asdict().items())
    like = _array(f"x of {where}", made.train.x).shape[1:] if isinstance(made.train, Split) else ()
    if x.ndim < 2 or x.dtype.kind not in "biuf" or x.shape[1:] != like:
        raise DataError(f"x of {where} is {x.dtype}{list(x.shape)}: give numbers of one shape [examples, ...]")
    for name, leaf in (("y", y), ("id", ids)):
        if leaf.shape != x.shape[:1] or leaf.dtype.kind not in "iu":
            raise DataError(f"{name} of {where} is {leaf.dtype}{list(leaf.shape)}: give {len(x)} whole numbers from 0 up")
    if not len(ids):
        raise DataError(f"{where} has no examples: give each split some")
    with np.errstate(over="ignore"):  # what is beyond single precision becomes infinite, and is refused
        x = x.astype(np.float32)
    if not np.isfinite(x).all():
        raise DataError(f"x of {where} has numbers that are not finite in single precision: fill them in, or scale them")
    if ids.min() < 0 or ids.max() > np.iinfo(np.int64).max:
        raise DataError(f"id of {where} has {ids.min()}..{ids.max()}: give whole numbers from 0 to 2**63 - 1")
    if y.min() < 0 or y.max() >= made.classes:
        raise DataError(f"y of {where} has {y[(y < 0) | (y >= made.classes)][0]}: labels are 0..{made.classes - 1}")
    order = np.argsort(ids)
    return Split(x[order], y[order].astype(np.int32), ids[order].astype(np.int64))


def _array(what: str, leaf: Any) -> np.ndarray:
    try:
        return np.asarray(leaf)
    except ValueError as error:  # lists of several lengths
        raise DataError(f"{what} is no array ({line(error, 60)}): give numbers of one shape for each example") from error

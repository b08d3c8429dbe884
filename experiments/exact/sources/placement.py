"""What a store calls its examples; and files that say which belong together and which are likely to be deleted."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from experiments.data import csv_files
from experiments.data.ids import check_spelling, short, some
from s3t.plans.partition import Bands, Id
from s3t.training.source import Placing

IDS = 1 << 32  # a store's are below


def make(
    ids: np.ndarray,
    known: np.ndarray,
    groups: str,
    risks: str,
    edges: Sequence[float],
    band_slices: Sequence[int],
    called: Mapping[str, int | None] | None = None,
) -> Placing:
    """How a store's examples are to be placed, beside the hash of their ids.

    Args:
      ids: [examples] of the training examples.
      known: ids of all examples of the data set, of any split; a file may speak of them, and of no others.
      groups: CSV file of lines `id,group`; examples of one group share a slice, one that is not there stands alone. Or ''.
      risks: CSV file of lines `id,probability` of being deleted, a line for every example. Or ''.
      edges: ascending probabilities that part the bands of risk.
      band_slices: how many slices each band owns, one entry more than there are edges.
      called: ids by the names that a line may have in place of the number; None of an example of another split.

    Raises:
      ValueError: a file that cannot be read, lacks an example or names one that is not there; one line.
    """
    if bool(risks) != bool(band_slices):
        raise ValueError("the factory's risks and band_slices go together: give both or neither")
    if edges and not risks:
        raise ValueError("the factory's edges are of risks: give risks and band_slices, or no edges")
    grouped: list[Id | None] | None = None
    if groups:
        group_of = _read(groups, "group", known, called or {})
        check_spelling(groups, "group", group_of.values())
        grouped = [group_of.get(int(one)) for one in ids]
    chance: list[float] | None = None
    if risks:
        of_id = {
            one: _probability(risks, one, text) for one, text in _read(risks, "probability", known, called or {}).items()
        }
        if lacking := [int(one) for one in ids if int(one) not in of_id]:
            raise ValueError(f"{risks} has no line for example {lacking[0]}: give the probability of every example")
        chance = [of_id[int(one)] for one in ids]
    return Placing(grouped, chance, Bands(tuple(edges), tuple(band_slices)) if risks else None)


def stored(whole: np.ndarray, dataset: str) -> tuple[np.ndarray, np.ndarray]:
    """Ids as a store has them, ascending, and those of the data set that they stand for.

    Raises:
      ValueError: two examples would have one id.
    """
    low = short(whole)
    order = np.argsort(low, kind="stable")
    low, whole = low[order], whole[order]
    if (twice := np.flatnonzero(np.diff(low) == 0)).size:
        raise ValueError(
            f"two examples of {dataset!r} have the id {low[twice[0]]} in a store, which keeps 32 bits of the hash of a "
            "name: give each a number below 2^31 as its id, in a column of a csv or the array id of an npz, and "
            "a document another name"
        )
    return low, whole


def _read(path: str, what: str, known: np.ndarray, called: Mapping[str, int | None]) -> dict[int, str]:
    """What the lines of a CSV file, below its header if it has one, say of each id."""
    try:
        lines = csv_files.read(Path(path))
    except csv_files.Unusable as error:
        raise ValueError(f"{path} cannot be read ({error}): give a CSV file of lines `id,{what}`") from None
    if lines and [cell.lower() for cell in lines[0].cells] == ["id", what]:
        lines = lines[1:]
    if not lines:
        raise ValueError(f"{path} has no lines: give a CSV file of lines `id,{what}`")
    found: dict[int, str] = {}
    for number, row in lines:
        name = unicodedata.normalize("NFC", row[0])
        one = row[0] if (id_ := called.get(name)) is None else str(id_)
        if name in called and id_ is None and len(row) == 2 and row[1]:
            continue  # of an example that no store of these data has
        if len(row) != 2 or not (one.isascii() and one.isdecimal()) or not row[1]:
            raise ValueError(f"line {number} of {path} is {','.join(row)!r:.60}: give `id,{what}`")
        if len(one) > len(str(IDS)) or int(one) >= IDS:
            raise ValueError(f"line {number} of {path} names example {one:.40}: ids in a store are below {IDS}")
        if found.setdefault(int(one), row[1]) != row[1]:
            raise ValueError(f"line {number} of {path} says another {what} of example {one} than a line before: keep one")
    if (strange := np.setdiff1d(list(found), known)).size:
        raise ValueError(f"{path} names what the data lack: {some(strange)} no example's; mend or remove such lines")
    return found


def _probability(path: str, one: int, text: str) -> float:
    value = csv_files.number(text)
    if not 0 <= value <= 1:
        raise ValueError(f"{path} gives example {one} the probability {text!r:.40}: give a number from 0 to 1")
    return value

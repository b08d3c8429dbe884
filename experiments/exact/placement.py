"""Files that say which examples belong together and which are likely to be deleted, for the slices of a store."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from s3t.plans.partition import Bands, Id
from s3t.training.source import Placing


def make(ids: np.ndarray, groups: str, risks: str, edges: Sequence[float], band_slices: Sequence[int]) -> Placing:
    """How a store's examples are to be placed, beside the hash of their ids.

    Args:
      ids: [examples] of the training examples.
      groups: CSV file of lines `id,group`; examples of one group share a slice, one that is not there stands alone. Or ''.
      risks: CSV file of lines `id,probability` of being deleted, a line for every example. Or ''.
      edges: ascending probabilities that part the bands of risk.
      band_slices: how many slices each band owns, one entry more than there are edges.

    Raises:
      ValueError: a file that cannot be read or lacks an example; one line that says what to do.
    """
    if bool(risks) != bool(band_slices):
        raise ValueError("the factory's risks and band_slices go together: give both or neither")
    if edges and not risks:
        raise ValueError("the factory's edges are of risks: give risks and band_slices, or no edges")
    grouped: list[Id | None] | None = None
    if groups:
        known = _read(groups, "group")
        grouped = [known.get(int(one)) for one in ids]
    chance: list[float] | None = None
    if risks:
        of_id = {one: _probability(risks, one, text) for one, text in _read(risks, "probability").items()}
        if lacking := [int(one) for one in ids if int(one) not in of_id]:
            raise ValueError(f"{risks} has no line for example {lacking[0]}: give the probability of every example")
        chance = [of_id[int(one)] for one in ids]
    return Placing(grouped, chance, Bands(tuple(edges), tuple(band_slices)) if risks else None)


def _read(path: str, what: str) -> dict[int, str]:
    """What the lines of a CSV file say of each id."""
    try:
        with Path(path).open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.reader(file) if row]
    except (OSError, ValueError, csv.Error) as error:
        raise ValueError(f"{path} cannot be read ({error}): give a CSV file of lines `id,{what}`") from None
    found: dict[int, str] = {}
    for number, row in enumerate(rows, 1):
        one = row[0].strip()
        if len(row) != 2 or not (one.isascii() and one.isdecimal()) or not row[1].strip():
            raise ValueError(f"line {number} of {path} is {','.join(row)!r:.60}: give `id,{what}`")
        if found.setdefault(int(one), row[1].strip()) != row[1].strip():
            raise ValueError(f"line {number} of {path} says another {what} of example {one} than a line before: keep one")
    return found


def _probability(path: str, one: int, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise ValueError(f"{path} gives example {one} the probability {text!r:.40}: give a number from 0 to 1")
    return value

"""Who is forgotten of documents: by name, by group (speaker, author, topic), by a set that came with the data."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

import numpy as np

from experiments.core.errors import DataError
from experiments.data.ids import Array, id_of, some
from experiments.data.text.sources.documents import Documents


def of_documents(documents: Documents, named: Iterable[str | int], among: Array) -> Array:
    """The ids, increasing, of documents that are named by their ids or by their names.

    Args:
      among: the ids that can be asked for: of the training split.

    Raises:
      DataError: nothing is named, something twice or of no document, or one that is not among these.
    """
    names = [str(name) for name in named]
    _check_named("document", names)
    by_number = {str(id_): id_ for id_ in documents.ids.tolist()}
    asked = np.array([by_number.get(name, id_of(name)) for name in names], np.int64)
    if (unknown := np.flatnonzero(~np.isin(asked, documents.ids))).size:
        raise _unknown("document", names[unknown[0]], [*documents.names.values()] or [*by_number])
    ids, counts = np.unique(asked, return_counts=True)
    if (counts > 1).any():
        raise DataError(f"{some(ids[counts > 1])} given more than once: name each document once")
    if (outside := np.setdiff1d(ids, among)).size:
        raise DataError(f"{some(outside)} not in the training split: only training documents can be forgotten")
    return ids


def of_groups(documents: Documents, groups: Sequence[str], among: Array) -> Array:
    """The ids, increasing, of all documents of some groups that are `among` these; raises as `of_documents` does."""
    _check_named("group", groups)
    if documents.groups is None:
        raise DataError(f"these documents have no group, and {groups[0]!r:.60} was asked for: ask for documents by name")
    for name in groups:
        if name not in documents.group_names:
            raise _unknown("group", name, documents.group_names)
    asked = np.isin(documents.groups, [documents.group_names.index(name) for name in groups])
    return _among("group", groups, documents.ids[asked], among)


def of_set(documents: Documents, name: str, among: Array) -> Array:
    """The ids, increasing, of a set that came with the data, as forget01, as far as they are `among` these.

    Raises:
      DataError: no such set, or nothing of it is among these.
    """
    if name not in documents.sets:
        raise _unknown("set", name, [*documents.sets])
    return _among("set", [name], documents.sets[name], among)


def _among(what: str, names: Sequence[str], ids: Array, among: Array) -> Array:
    chosen = np.intersect1d(ids, among)
    if not chosen.size:
        raise DataError(f"no document of {what} {', '.join(map(repr, names))} is in the training split: ask for another")
    return chosen


def _check_named(what: str, names: Sequence[str]) -> None:
    if not names:
        raise DataError(f"no {what} is named: name at least one")
    if len({*names}) < len(names):
        twice = next(name for name in names if list(names).count(name) > 1)
        raise DataError(f"{what} {twice!r:.60} is named twice: name it once")


def _unknown(what: str, name: str, known: Sequence[str]) -> DataError:
    near = difflib.get_close_matches(name, known, 3, 0.5)
    shown = ", ".join(map(repr, near or known[:6])) or "none"
    more = f" and {len(known) - 6} more" if not near and len(known) > 6 else ""
    return DataError(f"there is no {what} {name!r:.60}: {'did you mean' if near else 'there are'} {shown}{more}")

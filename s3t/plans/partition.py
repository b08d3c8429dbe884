"""Which shard and slice an example belongs to: a keyed hash of its identity and of nothing else.

Splits by percentage or by shuffling depend on the size and order of a data set, so that deleting one example moves others
into slices whose nodes never saw them. Here a place is a function of (key, identity, shards, slices) alone.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

Id = int | str


class Places(NamedTuple):
    """Where the examples of a data set belong.

    shard, slice: [examples] int32.
    """

    shard: np.ndarray
    slice: np.ndarray


class Bands(NamedTuple):
    """Slices set apart for examples by how likely their deletion is, so that those often hit share few slices.

    The edges are constants chosen beforehand. Quantiles of a data set would move with every example that comes or goes.

    edges: ascending probabilities; a risk r belongs to band #{edges <= r}.
    slices: how many slices each band owns, one entry more than there are edges; band 0 owns the first slices.
    """

    edges: tuple[float, ...]
    slices: tuple[int, ...]


def assign(
    ids: Sequence[Id] | np.ndarray,
    shards: int,
    slices: int,
    key: bytes,
    *,
    groups: Sequence[Id | None] | None = None,
    risks: Sequence[float] | np.ndarray | None = None,
    bands: Bands | None = None,
) -> Places:
    """Shard and slice of each example, uniform over the places open to it.

    With h = BLAKE2b(key, name) of 128 bits, shard = (upper half of h) mod m and slice = first + (lower half of h) mod n. An
    example's name is its group's or else its own id; the n slices from `first` on are those of its band, all L without
    bands. Shards depend neither on L nor on risks. A risk is part of the identity: keep the one an example arrived with.

    Args:
      ids: [examples] int or str, stable for ever. 1 and "1" are different ids.
      shards: m, models of the ensemble.
      slices: L, slices of a shard.
      key: 1 to 64 secret bytes. Anybody who knows them can aim examples at a slice.
      groups: [examples] int, str, or None for an example of its own; all examples of a group share one slice.
      risks: [examples] probability of being deleted, as foreseen when the example arrived; needs `bands`.
      bands: the slices open to each risk; needs `risks`.

    Raises:
      ValueError: an id that is neither int nor str; lengths that differ; bands that do not add up to L; a risk outside
        [0, 1]; a group whose members lie in different bands.
    """
    _check(shards, slices, key)
    if (risks is None) != (bands is None):
        raise ValueError("risks and bands go together: give both or neither")
    labels = _listed(ids)
    names = [_name("id", label) for label in labels]
    if groups is not None:
        _same_length("groups", groups, labels)
        named = zip(_listed(groups), names, strict=True)
        names = [name if group is None else _name("group", group) for group, name in named]
    band = np.zeros(len(names), np.int64)
    owned: tuple[int, ...] = (slices,)
    if risks is not None and bands is not None:
        _same_length("risks", risks, labels)
        owned = _checked_bands(bands, slices)
        band = _band(names, risks, bands.edges)
    upper, lower = _hashes(names, key)
    first, width = np.cumsum((0, *owned))[band], np.array(owned, np.uint64)[band]
    return Places((upper % np.uint64(shards)).astype(np.int32), (first + (lower % width).astype(np.int64)).astype(np.int32))


def shares(slice_of: np.ndarray, slices: int, weights: Sequence[float] | np.ndarray | None = None) -> tuple[float, ...]:
    """The part of the total weight that lies in each slice, for planners: sizes, or with risks as weights the prior.

    Args:
      slice_of: [examples] slice of each example, of one shard or of all.
      slices: L.
      weights: [examples] float, not negative; 1 for all if None.

    Returns:
      L numbers that sum to 1.

    Raises:
      ValueError: no weight at all.
    """
    totals = np.bincount(slice_of, weights, minlength=slices)
    if not totals.sum() > 0:
        raise ValueError("shares need at least one example of positive weight")
    return tuple(float(total) for total in totals / totals.sum())


def _check(shards: int, slices: int, key: bytes) -> None:
    if shards < 1 or slices < 1:
        raise ValueError(f"shards and slices must be at least 1, got {shards} and {slices}")
    if not isinstance(key, bytes) or not 1 <= len(key) <= 64:
        raise ValueError("the partition's key must be 1 to 64 bytes")


def _listed(values: Any) -> list[Any]:
    """Python's own numbers and strings, which are quicker to name one by one than an array's."""
    return values.tolist() if hasattr(values, "tolist") else list(values)


def _same_length(what: str, values: Any, labels: list[Any]) -> None:
    if len(values) != len(labels):
        raise ValueError(f"{what} must match the ids one by one, got {len(values)} for {len(labels)} ids")


def _name(kind: str, label: Any) -> bytes:
    """What is hashed: kind and type stand in front, so that no id is taken for a group or a number for its digits."""
    if isinstance(label, str):
        return f"{kind}:str:{label}".encode()
    if isinstance(label, int | np.integer) and not isinstance(label, bool):
        return f"{kind}:int:{label}".encode()
    raise ValueError(f"an id or a group must be an int or a str, got {label!r}")


def _hashes(names: list[bytes], key: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Two independent 64-bit hashes of each name, [examples] uint64."""
    keyed = hashlib.blake2b(key=key, digest_size=16, person=b"s3t.partition")
    digests = bytearray()
    for name in names:
        hasher = keyed.copy()
        hasher.update(name)
        digests += hasher.digest()
    halves = np.frombuffer(bytes(digests), ">u8").reshape(-1, 2).astype(np.uint64)
    return halves[:, 0], halves[:, 1]


def _checked_bands(bands: Bands, slices: int) -> tuple[int, ...]:
    ascending = all(low < high for low, high in zip(bands.edges, bands.edges[1:], strict=False))
    if len(bands.slices) != len(bands.edges) + 1 or not ascending:
        raise ValueError(f"bands need ascending edges and one entry of slices more than edges, got {bands}")
    if min(bands.slices) < 1 or sum(bands.slices) != slices:
        raise ValueError(f"every band needs a slice, and all together {slices}, got {bands.slices}")
    return bands.slices


def _band(names: list[bytes], risks: Sequence[float] | np.ndarray, edges: tuple[float, ...]) -> np.ndarray:
    """The band of each example's risk; a group must agree on one."""
    band = []
    of_name: dict[bytes, int] = {}
    for name, risk in zip(names, _listed(risks), strict=True):
        if not 0 <= risk <= 1:
            raise ValueError(f"a risk is a probability from 0 to 1, got {risk} for {name.decode()}")
        band.append(bisect_right(edges, risk))
        if of_name.setdefault(name, band[-1]) != band[-1]:
            raise ValueError(f"{name.decode()} has risks in two bands and would be split: give its examples one risk")
    return np.array(band, np.int64)

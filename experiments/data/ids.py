"""What an example is called: stable ids, where they come from, and the hash of them that every split and draw follows.

An id is a whole number from 0 up that belongs to an example for ever: it is what people ask to delete, and all that a
split, a forget set or a shuffle looks at. So it must not change when another example is erased: ids come from the user's
own column, from names of files or from what an example holds, and never from the number of a line. (Official data sets,
which nobody edits, are numbered in their official order.)
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from experiments.core.errors import DataError

Array = np.ndarray

NUMBERS = 2**31  # ids below are numbers that the user gave; hashes of names and contents lie above


def id_of(name: str) -> int:
    """The id of a name: a number below 2**31 written in digits is itself, all else is hashed to 2**31..2**63 - 1.

    The rule looks at one name alone, so that no other example can change it. Unicode's ways to write one name count as one.
    On a device, where JAX's integers have 32 bits, the lower half of an id stands for it in shuffles.

    >>> id_of("17"), id_of("017") > 2**31, id_of("cat/1.png") == id_of("cat/1.png")
    (17, True, True)
    """
    if len(name) <= 10 and name.isascii() and name.isdigit() and str(int(name)) == name and int(name) < NUMBERS:
        return int(name)
    return _hashed(unicodedata.normalize("NFC", name).encode(errors="surrogateescape"))  # a file may be called by any bytes


def check_spelling(where: str, what: str, names: Iterable[str]) -> None:
    """Refuse two names that a reader takes for one.

    Args:
      what: is named.

    Raises:
      DataError: they differ in how an accent is written alone.
    """
    seen: dict[str, str] = {}
    for name in names:
        if seen.setdefault(unicodedata.normalize("NFC", name), name) != name:
            raise DataError(f"{where} has the {what} {name!r:.60} twice, with accents written in two ways: write it in one")


def content_id(x: Array, label: str) -> int:
    """The id of an example that has no other name: a hash of what it holds and of its label.

    Args:
      x: of one example, any shape; equal numbers have equal ids whatever their type.
    """
    numbers = np.ascontiguousarray(np.asarray(x, "<f8") + 0.0)  # no negative zero
    return _hashed(repr((x.shape, label)).encode() + numbers.tobytes())


def ids_of(names: Sequence[str], where: Sequence[str], mend: str) -> Array:
    """Ids of names, [examples] int64 in the order given.

    Args:
      where: what to call each example in an error.
      mend: what to do about two of one name.

    Raises:
      DataError: two names have one id.
    """
    return distinct(np.array([id_of(name) for name in names], np.int64), where, mend)


def hashed_names(ids: Array, names: Sequence[str]) -> dict[int, str]:
    """The names of those examples that are not called by a number, by id."""
    return {id_: name for id_, name in zip(ids.tolist(), names, strict=True) if str(id_) != name}


def distinct(ids: Array, where: Sequence[str], mend: str) -> Array:
    """The ids themselves.

    Raises:
      DataError: one is there twice.
    """
    order = np.argsort(ids, kind="stable")
    twice = np.flatnonzero(np.diff(ids[order]) == 0)
    if twice.size:
        first, second = (where[order[twice[0] + i]] for i in (0, 1))
        raise DataError(f"{first} and {second} {mend}")
    return ids


def naming(data: Mapping[str, Any]) -> str:
    """How examples of a user's own data are called, and why that matters, for a page; '' for official data sets.

    Args:
      data: the section of a config.
    """
    kind = str(data.get("name", "")).partition(":")[0]
    if data.get("factory"):
        how = f"the ids that {data['factory']} gives"
    elif kind == "folder":
        how = "a hash of their files' paths, so a renamed file is another example"
    elif kind == "csv" and data.get("id_column"):
        how = f"their ids in the column {data['id_column']!r}"
    elif kind in ("csv", "npz"):
        how = "their id or, where the file has none, a hash of what they hold, so a corrected value makes another example"
    else:
        return ""
    return (
        f"Examples are called by {how}. Splits, forget sets and shuffles follow from these ids alone: they must stay as "
        "they are when another example is erased, or what was trained without it cannot be compared with what is asked."
    )


def short(ids: Array) -> Array:
    """The lower 32 bits of ids, by which S3T's stores call examples: their keys have room for no more.

    Ids below 2**32 are themselves, and the type stays.
    """
    return (ids.astype(np.int64) & 0xFFFFFFFF).astype(ids.dtype)


def stored_id(name: str) -> int:
    """What an S3T store calls the example of a name, to be deleted by; of an image in a folder, its path below the folder.

    >>> stored_id("17"), stored_id("cat/1.png") == id_of("cat/1.png") % 2**32
    (17, True)
    """
    return int(short(np.array(id_of(name))))


def _hashed(content: bytes) -> int:
    number = int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")
    return NUMBERS + number % (2**63 - NUMBERS)


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


def lowest(ids: Array, count: int, purpose: str, seed: int) -> Array:
    """Positions, increasing, of the `count` ids (all, if they are fewer) that `hash_uniform` gives the lowest numbers."""
    return np.sort(np.argsort(hash_uniform(ids, purpose, seed), kind="stable")[:count])


def some(ids: Array) -> str:
    """The first few ids and the verb that goes with them."""
    listed = ", ".join(str(int(i)) for i in ids[:5]) + (f" and {len(ids) - 5} more" if len(ids) > 5 else "")
    return f"id {listed} is" if len(ids) == 1 else f"ids {listed} are"

"""A grid of overrides: its values as they are typed, and the points that it has, each with a name for a folder.

readiness.every=2,4,8   seed=0,10   ->   6 points: readiness.every=2,seed=0 ... readiness.every=8,seed=10
"""

from __future__ import annotations

import ast
import hashlib
import itertools
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from experiments.core.errors import UserError

LONGEST = 60  # of a value in the name of a folder, in characters
LONGEST_NAME = 180  # of such a name
OPENING, CLOSING = "([{", ")]}"


class Point(NamedTuple):
    """One point of a grid.

    name: of its folder.  values: by key, as text: what a table shows.  flags: what sets it apart on a command line.
    """

    name: str
    values: Mapping[str, str]
    flags: tuple[str, ...]


def parse(axes: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Key -> the texts of its values, of every KEY=VALUE,VALUE.

    Raises:
      UserError: an axis without a key or a value, a key that stands twice, or a value that does.

    Example:
      >>> parse(["seed=0,10", "request.unlearners=('npo',),('level', 'rmu')"])
      {'seed': ('0', '10'), 'request.unlearners': ("('npo',)", "('level', 'rmu')")}
    """
    made: dict[str, tuple[str, ...]] = {}
    for axis in axes:
        key, equals, text = axis.partition("=")
        key = key.strip()
        if not (key and equals and text.strip()):
            raise UserError(f"--grid {axis!r} has no {'value' if key else 'key'}: give one as 'readiness.every=2,4,8'")
        if key in made:
            raise UserError(f"--grid {key} stands twice: give all its values after one")
        made[key] = split(text, axis)
    return made


def split(text: str, axis: str) -> tuple[str, ...]:
    """Values between the commas that stand in no bracket and no quotes; quotes around a whole value are taken off.

    Raises:
      UserError: an empty value, one that stands twice, or a bracket or quotes without an end.
    """
    parts, depth, quote = [""], 0, ""
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        depth += 0 if quote else (character in OPENING) - (character in CLOSING)
        if character == "," and not (depth or quote):
            parts.append("")
        else:
            parts[-1] += character
    if depth or quote:
        raise UserError(f"--grid {axis!r} has {'quotes' if quote else 'a bracket'} without an end: close it")
    values = tuple(_unquoted(part.strip()) for part in parts)
    if "" in (part.strip() for part in parts):
        raise UserError(f"--grid {axis!r} has an empty value: take the comma out, or give '' for an empty text")
    return _each_once(values, axis)


def _each_once(values: tuple[str, ...], axis: str) -> tuple[str, ...]:
    if twice := [value for value in values if values.count(value) > 1]:
        raise UserError(f"--grid {axis!r} has {twice[0]} twice: give each value once")
    return values


def _unquoted(text: str) -> str:
    """A text as a flag takes it; anything else stays as it is."""
    if text[:1] not in ("'", '"'):
        return text
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
    return value if isinstance(value, str) else text


def overrides(axes: Mapping[str, Sequence[str]]) -> list[dict[str, str]]:
    """Every combination of values, by key; the last axis changes fastest."""
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


def flags(override: Mapping[str, str]) -> tuple[str, ...]:
    """An override as a command line has it."""
    return tuple(f"--config.{key}={text}" for key, text in override.items())


def name(values: Mapping[str, str]) -> str:
    """The name of a point's folder, whatever the order of its keys; what a folder cannot be called is replaced by a digest.

    Example:
      >>> name({"seed": "10", "readiness.every": "2"})
      'readiness.every=2,seed=10'
    """
    whole = ",".join(f"{_safe(key)}={_safe(values[key])}" for key in sorted(values))
    return whole if len(whole) <= LONGEST_NAME else f"{whole[:LONGEST_NAME]}-{_digest(whole)}"


def _safe(text: str) -> str:
    cleaned = re.sub(r"[^A-Za-z0-9.+_-]+", "-", text)[:LONGEST]
    return text if cleaned == text else f"{cleaned.strip('-')}-{_digest(text)}".lstrip("-")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:6]

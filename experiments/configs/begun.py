"""Folders that an older version began keep what was shipped then, whatever is shipped now."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from experiments.core import forgetting
from experiments.core.config import Section, SectionT, dumped, validated

# Keys whose defaults are others since version 0.1. A folder that was begun with it keeps the values that it has.
CHANGED = (
    *(("readiness", name) for name in forgetting.Suited.model_fields),
    ("suited",),
    ("variants",),
    ("reweight", "others"),
    ("request", "unlearners"),
)


def as_begun(config: SectionT, shipped: Section, old: dict[str, Any] | None) -> SectionT:
    """A config with values as an older version began with them, where nobody asks for others than are shipped now.

    Args:
      shipped: the config of that name as it is shipped now.
      old: the config.json of the folder; None if it is new.
    """
    if old is None or "levels" in section_of(old, ["readiness"]):
        return config
    values, now = dumped(config), dumped(shipped)
    for *at, name in CHANGED:
        mine, usual, before = (section_of(tree, at) for tree in (values, now, old))
        if name in before and name in mine and mine[name] == usual[name]:
            mine[name] = before[name]
    return validated(type(config), values)


def section_of(values: dict[str, Any], at: Sequence[str]) -> dict[str, Any]:
    """A section of a config that was read; empty where there is none, or something else in its place."""
    for part in at:
        values = found if isinstance(found := values.get(part), dict) else {}
    return values

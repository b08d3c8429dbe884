"""Configs with single keys changed, as flags change them or past the door's checks."""

from typing import Any

import ml_collections

from experiments.core.config import Section, SectionT


def changed(section: SectionT, changes: dict[str, Any]) -> SectionT:
    """A section with other values at dotted keys, not validated: tests run smaller than a user may."""
    for path, value in changes.items():
        name, _, rest = path.partition(".")
        inner = getattr(section, name)
        if rest:
            value = changed(inner, {rest: value}) if isinstance(inner, Section) else inner | {rest: value}
        section = section.model_copy(update={name: value})
    return section


def with_keys(config: ml_collections.ConfigDict, changes: dict[str, Any]) -> ml_collections.ConfigDict:
    """A config with any values at dotted keys, of whatever type and whether there are such keys."""
    with config.ignore_type(), config.unlocked():
        for path, value in changes.items():
            *at, name = path.split(".")
            holder = config
            for part in at:
                holder = holder[part]
            holder[name] = value
    return config

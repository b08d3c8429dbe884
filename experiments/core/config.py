"""Typed sections behind ml_collections: what a section is, configs made of models, and mistakes told in one line each.

A config is a pydantic model made of sections. `as_config` makes the ml_collections config of one, which files, flags and
sweeps change; `validated` makes a model of that again, once, at the door of a run; `describe` lists the fields.
"""

from __future__ import annotations

import difflib
import keyword
import math
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, Union, get_args, get_origin

import annotated_types as bounds
import ml_collections
import numpy as np
import pydantic
from pydantic.fields import FieldInfo

from experiments.core.errors import ConfigError

SMALLEST = 1e-30  # of a number but 0: far above where a computation in 32 bits has 0 in its place
LONGEST = 80  # of a value that is told, in characters


class Section(pydantic.BaseModel):
    """Named values with a type, a range and a sentence each; frozen, and nothing else is taken.

    Types are strict: "3" and True are no whole numbers, and nothing is infinite. A whole number may stand for a float.
    """

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @pydantic.field_validator("*", mode="after")
    @classmethod
    def _holds_in_32_bits(cls, value: Any) -> Any:
        entries = value.values() if isinstance(value, dict) else value if isinstance(value, tuple) else (value,)
        for entry in entries:
            if isinstance(entry, float) and 0 < abs(entry) < SMALLEST:
                raise ValueError(f"give one that 32 bits can tell from 0, as {SMALLEST:g} and more")
        return value


SectionT = TypeVar("SectionT", bound=Section)
Loc = tuple[int | str, ...]


class Says(NamedTuple):
    """What a field may be, in words, where its type does not say it; stands in an Annotated."""

    words: str


class Wrong(ValueError):
    """What validators of whole sections raise: sentences, each at a key of the section, as in (("cap",), "is ...")."""

    def __init__(self, *mistakes: tuple[Loc, str]) -> None:
        super().__init__("; ".join(sentence for _, sentence in mistakes))
        self.mistakes = mistakes


# --- To ml_collections and back ---------------------------------------------------------------------------------------


def as_config(section: Section) -> ml_collections.ConfigDict:
    """The values of a section as a config that files and flags may change; what is unset may be set to its type alone."""
    config = ml_collections.ConfigDict()
    for name, info in type(section).model_fields.items():
        value = getattr(section, name)
        config[name] = as_config(value) if isinstance(value, Section) else _entry(dumped(section)[name], info)
    return config


def dumped(section: Section) -> dict[str, Any]:
    """All values of a section, also those that config.json has no part in."""
    values = section.model_dump()
    for name, info in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, Section):
            values[name] = dumped(value)
        elif info.exclude:
            values[name] = value
    return values


def _entry(value: Any, info: FieldInfo) -> Any:
    if isinstance(value, dict):
        config = ml_collections.ConfigDict()
        for name, entry in value.items():
            config[name] = _entry(entry, info)
        return config
    if value is None:
        kind = _bare(info.annotation)[0]
        if get_origin(kind) is Literal:
            return ml_collections.config_dict.placeholder(type(get_args(kind)[0]))
        return ml_collections.config_dict.placeholder(get_origin(kind) or kind)
    return value


def validated(model: type[SectionT], config: ml_collections.ConfigDict | Mapping[str, Any] | SectionT) -> SectionT:
    """The model of a config, in which every section is whole; a model is returned as it is.

    Raises:
      ConfigError: one line for each mistake.
    """
    if isinstance(config, model):
        return config
    values = _plain(config)
    told = {loc: f"is missing: set single keys, as in --{key(loc)}=VALUE" for loc in _missing(model, values)}
    try:
        made = model.model_validate(values)
    except pydantic.ValidationError as error:
        told = dict(mistakes(error, model, values)) | told
    if told:
        raise ConfigError([f"{key(loc)} {sentence}" for loc, sentence in told.items()])
    return made


def _plain(value: Any) -> Any:
    """Configs as dicts, lists as tuples and NumPy's numbers as Python's."""
    if isinstance(value, ml_collections.ConfigDict | Mapping):
        return {name: _plain(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return tuple(map(_plain, value))
    return value.item() if isinstance(value, np.generic) else value


def _missing(model: type[Section], values: Any, at: Loc = ()) -> Iterator[Loc]:
    """Keys that a section given as a whole leaves out: its defaults would not be those of the config file."""
    if not isinstance(values, dict):
        return
    for name, info in model.model_fields.items():
        if name not in values:
            yield (*at, name)
        elif _is_section(info.annotation):
            yield from _missing(typing.cast(type[Section], info.annotation), values[name], (*at, name))


# --- Mistakes ---------------------------------------------------------------------------------------------------------


def mistakes(error: pydantic.ValidationError, model: type[Section], values: Any, at: Loc = ()) -> list[tuple[Loc, str]]:
    """(key, sentence) of each mistake, one for a key, in words of our own.

    Args:
      values: that the model was made of.
      at: where they stand in the config.
    """
    told: dict[Loc, str] = {}
    for entry in error.errors(include_url=False):
        place = _follow(_Place(at, model, (), values), entry["loc"])
        raised = entry.get("ctx", {}).get("error")
        if isinstance(raised, Wrong):
            for loc, sentence in raised.mistakes:
                told.setdefault((*place.loc, *loc), sentence)
        elif entry["type"] == "extra_forbidden":
            told[place.loc] = _unknown(place, [loc for loc, _ in fields(model, at)])
        elif entry["type"] == "missing":
            told.setdefault(place.loc, f"is missing: {_give(place)}")
        elif place.of_name:
            told.setdefault(place.loc, f"has no such name: {_give(place)}")
        else:
            says = _says([*place.metadata, *_bare(place.annotation)[1]])
            advice = (str(raised) if raised and not says else "") or _give(place)
            told.setdefault(place.loc, f"is {shown(place.value)}: {advice}")
    return list(told.items())


class _Place(NamedTuple):
    """Where a mistake is: its key, the type that is wanted there and the value that is there.

    names: the type of names, where the place is in a dict.  of_name: the mistake is the name itself.
    """

    loc: Loc
    annotation: Any
    metadata: Sequence[Any]
    value: Any
    names: Any = None
    of_name: bool = False


def _follow(place: _Place, loc: Loc) -> _Place:
    """The place at a loc of pydantic's from a place on; tags of unions and entries of tuples are left out."""
    for part in loc:
        kind, metadata = _bare(place.annotation)
        value = place.value.get(part) if isinstance(place.value, dict) else None
        if part == "[key]":
            return place._replace(annotation=place.names, metadata=(), of_name=True)
        if _is_section(kind):
            info = kind.model_fields.get(str(part))
            if info is None:
                return _Place((*place.loc, part), kind, (), value)
            place = _Place((*place.loc, part), info.annotation, info.metadata, value)
        elif get_origin(kind) is dict:
            names, entries = get_args(kind)
            place = _Place((*place.loc, part), entries, (), value, names)
        elif variant := next((one for one in get_args(kind) if _is_section(one) and part in _tags(one)), None):
            place = place._replace(annotation=variant, metadata=metadata)
        else:
            break
    return place


def _unknown(place: _Place, every: list[Loc]) -> str:
    """That a key is unknown, and the nearest there are: of its section, else of every key."""
    name, section = str(place.loc[-1]), place.loc[:-1]
    near = difflib.get_close_matches(name, list(place.annotation.model_fields), n=3)
    nearest = [key((*section, other)) for other in near]
    if not nearest:
        nearest = [key(loc) for loc in every if difflib.SequenceMatcher(None, str(loc[-1]), name).ratio() > 0.8][:3]
    advice = (
        f"did you mean {either(nearest)}?" if nearest else f"{key(section)} has {', '.join(place.annotation.model_fields)}"
    )
    return f"is no key of this config: {advice}"


def _give(place: _Place) -> str:
    words = expected(place.annotation, place.metadata)
    return f"choose {words}" if get_origin(_bare(place.annotation)[0]) is Literal else f"give {words}"


def key(loc: Loc) -> str:
    """A key as it is typed: config.train.steps, config.variants['first order'].order, config.suited['class']."""
    is_word = lambda part: isinstance(part, str) and part.isidentifier() and not keyword.iskeyword(part)  # noqa: E731
    return "config" + "".join(f".{part}" if is_word(part) else f"[{part!r}]" for part in loc)


def shown(value: Any) -> str:
    """A value in one line, cut if it is long."""
    text = repr(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def either(names: Sequence[Any]) -> str:
    """`a, b or c`."""
    *most, last = map(str, names)
    return f"{', '.join(most)} or {last}" if most else last


# --- Types in words ---------------------------------------------------------------------------------------------------


def expected(annotation: Any, metadata: Sequence[Any] = ()) -> str:
    """What a field may be, in words: `a whole number from 1 to 100`."""
    annotation, more = _bare(annotation)
    every = [*metadata, *more]
    if said := _says(every):
        return said
    if get_origin(annotation) is Literal:
        return either([repr(choice) if choice == "" else choice for choice in get_args(annotation)])
    if annotation in (int, float):
        return f"a {'whole ' if annotation is int else ''}number {_range(every)}".rstrip()
    if get_origin(annotation) is tuple:
        return _several(get_args(annotation)[0], every)
    if get_origin(annotation) in (Union, types.UnionType):
        return "a dict of " + ", or of ".join(_keys(one) for one in get_args(annotation))
    if get_origin(annotation) is dict:
        return _dict(*get_args(annotation))
    if _is_section(annotation):
        return f"a dict of {_keys(annotation)}"
    return {bool: "True or False", str: "a text"}.get(annotation, "a value")


def _dict(keys: Any, values: Any) -> str:
    names = f"a dict by {expected(keys)}" if get_origin(_bare(keys)[0]) is Literal else "a dict by name"
    return names if _bare(values)[0] is Any else f"{names}, each {expected(values)}"


def _several(item: Any, metadata: Sequence[Any]) -> str:
    kind, more = _bare(item)
    many = "one or more" if any(isinstance(m, bounds.MinLen) and m.min_length for m in metadata) else "none or more"
    if said := _says(more):
        return f"{many} of {said}"
    if get_origin(kind) is Literal:
        return f"{many} of {', '.join(map(str, get_args(kind)))}, as in ({get_args(kind)[0]!r},)"
    if kind is str:
        return f"{many} texts, as in ('a',)"
    return f"{many} {'whole ' if kind is int else ''}numbers {_range(more)}".rstrip() + ", as in (1, 2)" * (kind is int)


def _range(metadata: Sequence[Any]) -> str:
    low, high = limits(metadata)
    if math.isinf(low.value) or math.isinf(high.value):
        return ""
    a, b = _number(low.value), _number(high.value)
    if low.taken:
        return f"from {a} to {b}" if high.taken else f"from {a} and below {b}"
    return f"above {a} and up to {b}" if high.taken else f"between {a} and {b}, both excluded"


class Limit(NamedTuple):
    """An end of a range, and whether it lies in it."""

    value: float
    taken: bool


def limits(metadata: Sequence[Any]) -> tuple[Limit, Limit]:
    """The lowest and the highest value that the metadata of a number allow."""
    low, high = Limit(-math.inf, False), Limit(math.inf, False)
    for entry in metadata:
        if isinstance(entry, bounds.Ge | bounds.Gt):
            low = Limit(typing.cast(float, getattr(entry, "ge", getattr(entry, "gt", None))), isinstance(entry, bounds.Ge))
        if isinstance(entry, bounds.Le | bounds.Lt):
            high = Limit(typing.cast(float, getattr(entry, "le", getattr(entry, "lt", None))), isinstance(entry, bounds.Le))
    return low, high


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:g}"


def _says(metadata: Sequence[Any]) -> str:
    return next((entry.words for entry in metadata if isinstance(entry, Says)), "")


def _keys(section: type[Section]) -> str:
    return ", ".join(f"{name} {tags[0]!r}" if (tags := _choices(section, name)) else name for name in section.model_fields)


def _choices(section: type[Section], name: str) -> tuple[Any, ...]:
    annotation = section.model_fields[name].annotation
    return get_args(annotation) if get_origin(annotation) is Literal and len(get_args(annotation)) == 1 else ()


def _tags(section: type[Section]) -> tuple[Any, ...]:
    """What tells a section from others of a union: the values that fields have which may have but one."""
    return tuple(tag for name in section.model_fields for tag in _choices(section, name))


def _bare(annotation: Any) -> tuple[Any, list[Any]]:
    """A type without Annotated and without the None that may stand beside it, and its metadata."""
    metadata: list[Any] = []
    while True:
        if get_origin(annotation) is Annotated:
            annotation, *more = get_args(annotation)
            for entry in more:
                metadata += entry.metadata if isinstance(entry, FieldInfo) else [entry]
        elif get_origin(annotation) in (Union, types.UnionType) and type(None) in get_args(annotation):
            rest = [one for one in get_args(annotation) if one is not type(None)]
            if len(rest) > 1:
                return annotation, metadata
            annotation = rest[0]
        else:
            return annotation, metadata


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, Section)


# --- Listings ---------------------------------------------------------------------------------------------------------


def fields(model: type[Section], at: Loc = ()) -> Iterator[tuple[Loc, FieldInfo]]:
    """(key, field) of everything in a model that is no section itself."""
    for name, info in model.model_fields.items():
        if _is_section(info.annotation):
            yield from fields(typing.cast(type[Section], info.annotation), (*at, name))
        else:
            yield (*at, name), info


def describe(model: type[Section]) -> str:
    """A line for each field of a model: key, what it may be, default, and what it means."""
    defaults, lines = dumped(model()), []
    for loc, info in fields(model):
        default: Any = defaults
        for part in loc:
            default = default[part]
        words = expected(info.annotation, info.metadata)
        lines.append(f"{key(loc)}: {words}; default {default!r}. {info.description or ''}".rstrip())
    return "\n".join(lines)

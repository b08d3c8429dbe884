"""Results: what a run found, as frozen dataclasses, and how they stand in results.json.

    Run(command, environment, facts, rows)     Row(training, ..., before, after, ..., facts, extra)     Estimate(value, ...)

Facts of the run stand beside the rows; `Row.facts` is what sets a row apart, by name (a weight, a planner), so that nobody
reads it out of a label. Scores and costs are fields; what only some runs measure is in `Row.extra`, by name: numbers,
Estimates, curves (lists), and mappings of these. A metric with more than its value is a mapping whose own value is under
"estimate".

`to_json` and `from_json` are each other's inverse up to JSON: arrays come back as lists, what is not finite as None. Files
of version 0.1 (schema 1) are converted as they are read. The schema is published as `results.schema.json`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiments.core.files import dumps, plain

SCHEMA = 2
SCHEMA_FILE = Path(__file__).with_name("results.schema.json")
ORACLES = ("oracle", "heldout_oracle")  # trainings that never saw what is forgotten

Scalar = str | bool | int | float | None
Scores = Mapping[str, float | None]  # by name; None: not finite


@dataclass(frozen=True)
class Estimate:
    """A number with its interval.

    value: None if it cannot be computed.
    low, high: of the interval, 95% unless its name says otherwise; None where there is none.
    n: how many models or seeds it is from, if that was counted.
    reason: why there is no value.

    Example:
      >>> Estimate(0.5, 0.4, 0.6, 8)
      Estimate(value=0.5, low=0.4, high=0.6, n=8, reason='')
    """

    value: float | None = None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    reason: str = ""

    @classmethod
    def of(cls, interval: tuple[float, float, float, int], reason: str = "no finite value") -> Estimate:
        """From `unlearn.metrics.intervals.Interval` (mean, low, high, count); what is not finite becomes None."""
        value, low, high = (float(number) if math.isfinite(number) else None for number in interval[:3])
        return cls(value, low, high, int(interval[3]), "" if value is not None else reason)


Value = Scalar | Estimate | Sequence[Any] | Mapping[str, Any]  # Any: a Value


@dataclass(frozen=True)
class Row:
    """What one way of training and unlearning led to.

    training, variant, unlearner: who it is; `variant` is a name and nothing else.
    setting: of the request (class, random, deletions, or the name of a forget set).
    dataset, seed: of the run.
    before, after: scores before and after the request.
    steps: of the request, a mean over models if there are several.
    stop: how the request ended: reached, budget or diverged.
    train_seconds, unlearn_seconds: without compilation; of one model.
    train_flops, unlearn_flops: as XLA counts them; of one model.
    peak_bytes: of one training step.  storage_bytes: of what is kept.  None: not measured.
    facts: what sets the row apart, by name.
    extra: what only some runs measure, by name.
    """

    training: str
    variant: str
    unlearner: str
    setting: str
    dataset: str
    seed: int
    before: Scores
    after: Scores
    steps: float
    stop: str
    train_seconds: float | None = None
    unlearn_seconds: float | None = None
    train_flops: float | None = None
    unlearn_flops: float | None = None
    peak_bytes: float | None = None
    storage_bytes: float | None = None
    facts: Mapping[str, Scalar] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_oracle(self) -> bool:
        return self.training in ORACLES


@dataclass(frozen=True)
class Run:
    """What a run found.

    command: that started it.  environment: versions and devices.
    facts: of the run, by name: what belongs to no single row.
    rows: one for each way, and seed or forget set.
    """

    command: str
    environment: Mapping[str, Scalar]
    rows: Sequence[Row]
    facts: Mapping[str, Any] = field(default_factory=dict)


# --- JSON -------------------------------------------------------------------------------------------------------------


class NewerError(ValueError):
    """A results.json that a newer version wrote: nothing is wrong with it."""


def to_json(run: Run) -> str:
    """A run as the text of results.json, with its schema and checksum."""
    content = {"schema": SCHEMA, **plain(run)}
    return dumps({"schema": SCHEMA, "sha256": checksum(content), **content}, indent=1)


def from_json(text: str) -> Run:
    """The run in the text of a results.json, of this version or of 0.1.

    Raises:
      NewerError: it is of a newer version.
      ValueError: the text was altered or cut, or no run wrote it; one line.
    """
    content = json.loads(text)
    if not isinstance(content, dict):
        raise ValueError("no dict")
    schema = content.get("schema", 1)
    if isinstance(schema, int) and schema > SCHEMA:
        raise NewerError(f"schema {schema!r} is of a newer version than this one, which reads up to {SCHEMA}")
    if schema not in (1, SCHEMA):
        raise ValueError(f"schema {schema!r} is of no version")
    if schema == 1:
        if content.keys() & {"sha256", "facts"}:
            raise ValueError("it is not what was written: schema 1 has no checksum and no facts")
        from experiments.core import results_v1  # which stands on this module

        return results_v1.run(content)
    kept = content.pop("sha256", None)
    if kept != checksum(content):
        raise ValueError("it is not what was written: its checksum differs")
    del content["schema"]
    if not isinstance(content.get("rows"), list) or not content["rows"]:
        raise ValueError("it has no rows")
    rows = [row_from(one) for one in content.pop("rows")]
    return _made(Run, revived(content) | {"rows": rows})


def row_from(mapping: Any) -> Row:
    """A row from what JSON has of it, of this version or of 0.1: a stage that an older version finished holds the latter.

    Raises:
      ValueError: no run wrote it.
    """
    if not isinstance(mapping, Mapping):
        raise ValueError("it has rows that no run wrote")
    if "facts" not in mapping:
        from experiments.core import results_v1

        return results_v1.row(mapping)
    return _made(Row, revived(mapping))


def rows_from(mappings: Sequence[Any]) -> list[Row]:
    """Rows from a finished stage; raises as `row_from` does."""
    return [row_from(one) for one in mappings]


def revived(value: Any) -> Any:
    """What JSON has of a value, with Estimates in the places of their mappings, those of version 0.1 included."""
    if isinstance(value, list):
        return [revived(entry) for entry in value]
    if not isinstance(value, Mapping):
        return value
    if value.keys() == ESTIMATE:
        return _made(Estimate, value)
    if "value" in value and ("interval" in value or "interval90" in value):
        from experiments.core import results_v1

        return results_v1.estimate(value)
    return {name: revived(entry) for name, entry in value.items()}


def checksum(content: Mapping[str, Any]) -> str:
    """SHA-256 of a JSON object, whatever its indentation and the order of its keys."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _made(kind: Any, content: Mapping[str, Any]) -> Any:
    """A dataclass from its fields.

    Raises:
      ValueError: fields are missing, unknown or of another type.
    """
    what = kind.__name__.lower()
    hints = typing.get_type_hints(kind)
    if unknown := sorted(content.keys() - hints.keys()):
        raise ValueError(f"a {what} has no {unknown[0]!r}")
    needed = {f.name for f in dataclasses.fields(kind) if f.default is f.default_factory is dataclasses.MISSING}
    if missing := sorted(needed - content.keys()):
        raise ValueError(f"a {what} without {missing[0]!r}")
    for name, value in content.items():
        if not _fits(value, hints[name]):
            raise ValueError(f"{name!r} of a {what} is {str(value)[:40]!r}")
    return kind(**content)


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value read from JSON is of a type that fields have."""
    if hint is Any:
        hint = Value
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, one) for one in inner)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if origin is Sequence:
        return isinstance(value, list | tuple) and all(_fits(entry, inner[0]) for entry in value)
    if origin is Mapping:
        return isinstance(value, Mapping) and all(isinstance(k, str) and _fits(v, inner[1]) for k, v in value.items())
    return isinstance(value, hint)


ESTIMATE = {f.name for f in dataclasses.fields(Estimate)}


# --- The published schema ---------------------------------------------------------------------------------------------


def json_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of results.json, from the dataclasses; `results.schema.json` holds it."""
    kinds = (Estimate, Row)
    run = _object(Run)
    run["properties"] = {"schema": {"const": SCHEMA}, "sha256": {"type": "string"}, **run["properties"]}
    run["required"] = ["schema", "sha256", *run["required"]]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "results.json of a Forethought run",
        **run,
        "$defs": {"Value": _schema(Value), **{kind.__name__: _object(kind) for kind in kinds}},
    }


def _object(kind: Any) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    properties = {name: _schema(hint) for name, hint in hints.items()}
    return {"type": "object", "properties": properties, "required": list(hints), "additionalProperties": False}


def _schema(hint: Any) -> dict[str, Any]:
    """The schema of a type that fields have."""
    names = {str: "string", bool: "boolean", int: "integer", float: "number", types.NoneType: "null"}
    if hint is Any:
        return {"$ref": "#/$defs/Value"}
    if hint in names:
        return {"type": names[hint]}
    if hint in (Estimate, Row):
        return {"$ref": f"#/$defs/{hint.__name__}"}
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return {"anyOf": [_schema(one) for one in inner]}
    if origin is Sequence:
        return {"type": "array", "items": _schema(inner[0])}
    return {"type": "object", "additionalProperties": _schema(inner[1])}

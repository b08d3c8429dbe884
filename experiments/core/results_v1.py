"""Results of version 0.1 (schema 1), converted as they are read: the only place that reads facts out of labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from experiments.core.results import Estimate, Row, Run, revived

# What every row had, whatever was run.
ROW = ("training", "variant", "unlearner", "dataset", "seed", "before", "after", "steps", "extra")
COSTS = ("train_seconds", "unlearn_seconds", "train_flops", "unlearn_flops", "peak_bytes")


def run(content: Mapping[str, Any]) -> Run:
    """A whole results.json.

    Raises:
      ValueError: it has no rows, or rows that no run wrote.
    """
    found = content.get("rows")
    if not isinstance(found, list) or not found:
        raise ValueError("it has no rows")
    if not all(isinstance(one, Mapping) and one.keys() >= set(ROW) for one in found):
        raise ValueError("it has rows that no run wrote")
    rows = [row(one) for one in found]
    return Run(content.get("command") or "", content.get("environment") or {}, rows, _facts_of_run(found))


def row(old: Mapping[str, Any]) -> Row:
    """One row.

    Raises:
      ValueError: no run wrote it.
    """
    if missing := [name for name in ROW if name not in old]:
        raise ValueError(f"it has rows that no run wrote: one without {missing[0]!r}")
    for name in ("before", "after", "extra"):
        if not isinstance(old[name] or {}, Mapping):
            raise ValueError(f"it has rows that no run wrote: {name} is a {type(old[name]).__name__}")
    extra = dict(old["extra"] or {})
    calibrated = {"calibration", "set"}  # of the run
    storage = extra.pop("storage_bytes", _of(extra.get("cost"), "storage_bytes"))
    matched = {"matched": True} if extra.pop("matched", False) else {}
    if isinstance(extra.get("klom"), Mapping) and "interval" in extra["klom"]:  # it repeated the forget set's
        extra["klom"] = {name: one for name, one in extra["klom"].items() if name not in ("value", "interval")}
    same: dict[str, Any] = {name: old[name] for name in ("training", "variant", "unlearner", "dataset", "seed")}
    costs: dict[str, Any] = {name: old.get(name) for name in COSTS}
    return Row(
        **same,
        setting=old.get("setting") or "none",
        before=old["before"],
        after=old["after"],
        steps=old["steps"],
        stop=old.get("stop") or "reached",
        **costs,
        storage_bytes=storage,
        facts=_facts(old) | matched,
        extra={name: revived(value) for name, value in extra.items() if name not in calibrated},
    )


def _of(mapping: Any, name: str) -> Any:
    return mapping.get(name) if isinstance(mapping, Mapping) else None


def estimate(old: Mapping[str, Any]) -> Any:
    """A value and its interval; with more beside them, a mapping whose own value is under "estimate"."""
    value, more = old["value"], dict(old)
    (low, high), interval90 = more.pop("interval", (None, None)), more.pop("interval90", None)
    del more["value"]
    found = Estimate(value, low, high, n=more.pop("lanes", None), reason=more.pop("refused", ""))
    if interval90 is not None:
        more["estimate90"] = {"value": value, "interval": interval90}
    if not more:
        return found
    return {"estimate": found, **{name: revived(entry) for name, entry in more.items()}}


def _facts(old: Mapping[str, Any]) -> dict[str, Any]:
    """What the label of a variant told."""
    training, variant = old["training"], str(old["variant"])
    if training == "s3t" and " / " in variant:
        planner, _, how = variant.rpartition(" / ")
        return {"planner": planner, "store": True} if how == "store" else {"planner": planner, "aggregate": how}
    if training in ("vanilla", "reweight"):
        weight, _, rest = variant.removeprefix("weight=").partition(" ")
        facts: dict[str, Any] = {"equal_flops": True} if "equal_flops" in (variant, rest) else {}
        return facts | ({"weight": float(weight)} if variant.startswith("weight=") else {})
    if training in ("oracle", "heldout_oracle") and variant != "default":  # of an exact judgement
        kind, _, rest = variant.partition(", ")
        return {"kind": kind, "slice_off": bool(rest)}
    if old.get("setting") == "group":
        return {"kind": training, "slice_off": old["unlearner"] == "off"}
    return {}


def _facts_of_run(rows: list[Mapping[str, Any]]) -> dict[str, Any]:
    """What a judgement repeated in its rows: the calibration, and what its forget sets are."""
    facts: dict[str, Any] = {}
    for old in rows:
        extra = old["extra"] or {}
        if extra.get("calibration"):
            facts["calibration"] = revived(extra["calibration"])
        if extra.get("set"):
            facts.setdefault("sets", {})[old["setting"]] = extra["set"]
    return facts

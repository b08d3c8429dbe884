"""The commands of an operator: status, in words or for a monitor, purge, and redact."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from s3t.cli import terminal, texts
from s3t.cli.texts import Result

STATES = ("deactivated", "purged", "healed")  # of a request


def log_of(args: argparse.Namespace) -> str | None:
    """The file that --log names, if a command has it.

    Raises:
      ValueError: a file in the store, all of which is the store's own.
    """
    path: str | None = getattr(args, "log", None)
    if path is not None and Path(path).resolve().is_relative_to(Path(args.store).resolve()):
        raise ValueError(f"--log {path} lies in the store: choose a file elsewhere")
    return path


# --- status -----------------------------------------------------------------------------------------------------------


def status(args: argparse.Namespace) -> Result:
    """What the store serves; nothing is changed."""
    if args.metrics and args.json:
        raise ValueError("--metrics and --json print the same in two ways: give one of them")
    from s3t.store import disk, state  # bring safetensors, which planning can do without

    store = disk.look(args.store, read_only=True)
    result = state.status(store, args.max_age)
    disk.close(store)
    return result


def status_lines(result: Result) -> list[str]:
    """A store in a few lines, and what is not as it should be."""
    oldest = result["oldest_open"]
    lines = [f"oldest request to be healed: {oldest['request']} of {oldest['at']}"] if oldest else []
    return [*texts.status_lines(result), *lines, *(f"warning: {warning}" for warning in result["warnings"])]


def print_status(args: argparse.Namespace, result: Result, text: str) -> None:
    """Print the status as it was asked for."""
    terminal.write(metrics_text(result, datetime.now(UTC)) if args.metrics else text)


class Gauge(NamedTuple):
    """One number of Prometheus, or several that differ in a label.

    name, help: as printed.
    values: of each value of the label, which is None if there is one value and no label.
    label: its name.
    """

    name: str
    help: str
    values: Mapping[Any, float]
    label: str = ""


def metrics_text(result: Result, now: datetime) -> str:
    """A status in the text format of Prometheus, without the newline at its end.

    https://prometheus.io/docs/instrumenting/exposition_formats/
    """
    return "\n".join(line for gauge in _gauges(result, now) for line in _lines(gauge))


def _gauges(result: Result, now: datetime) -> list[Gauge]:
    oldest, healed, nodes = result["oldest_open"], result["last_heal"], result["nodes"]
    waited = max(0.0, (now - datetime.fromisoformat(oldest["at"])).total_seconds()) if oldest else 0.0
    last = {None: datetime.fromisoformat(healed).timestamp()} if healed else {}
    requests = {state: result["requests"].get(state, 0) for state in STATES}
    numbers = {"live": nodes["live"], "missing": nodes["missing"], "leftover": nodes["leftovers"]}
    return [
        Gauge("s3t_ok", "1 if status finds no problem, else 0.", {None: int(result["ok"])}),
        Gauge("s3t_examples", "Examples that were registered, deleted ones among them.", {None: result["examples"]}),
        Gauge("s3t_deleted", "Examples that are deleted.", {None: result["deleted"]}),
        Gauge("s3t_requests", "Requests to delete by their state.", requests, "state"),
        Gauge("s3t_depth", "Depth that a shard serves, 0 without a model.", dict(enumerate(result["depth"])), "shard"),
        Gauge("s3t_nodes", "Nodes that serve, that the plan misses, and files to be removed.", numbers, "state"),
        Gauge("s3t_oldest_open_request_seconds", "Age of the oldest request not healed, 0 without one.", {None: waited}),
        Gauge("s3t_last_heal_timestamp_seconds", "When a request was last healed; no value if none was.", last),
        Gauge("s3t_ledger_rows", "Rows of the ledger.", {None: result["rows"]}),
    ]


def _lines(gauge: Gauge) -> Iterable[str]:
    yield f"# HELP {gauge.name} {gauge.help}"
    yield f"# TYPE {gauge.name} gauge"
    for label, value in gauge.values.items():
        yield f"{gauge.name}{'' if label is None else _label(gauge.label, label)} {value!r}"


def _label(name: str, value: object) -> str:
    r"""A label between braces, its value escaped.

    Example:
      >>> print(_label("state", 'a"b'))
      {state="a\"b"}
    """
    text = str(value).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'{{{name}="{text}"}}'


# --- purge ------------------------------------------------------------------------------------------------------------


def purge(args: argparse.Namespace) -> Result:
    """Remove the files of nodes that serve no more."""
    from s3t.store import disk
    from s3t.store.ledger import database

    store = disk.look(args.store)
    purged = disk.purge(store)
    head = database.head(store.ledger)
    disk.close(store)
    return {"purged": list(purged), "rows": head.rows, "head": head.digest}


def purge_lines(result: Result) -> list[str]:
    """A purge in words."""
    which = ", ".join(result["purged"]) or "no request was waiting for it"
    return [f"purged: {which}", f"head: {result['head']} after {result['rows']} rows"]


# --- redact -----------------------------------------------------------------------------------------------------------


def redact(args: argparse.Namespace) -> Result:
    """Forget the ids of requests that are done with."""
    from s3t.store import disk
    from s3t.store.ledger import redaction

    store = disk.look(args.store)
    done = redaction.redact(store, args.older_than)
    disk.close(store)
    return {
        "redacted": list(done.requests),
        "examples": done.examples,
        "kept": list(done.kept),
        "rows": done.head.rows,
        "head": done.head.digest,
    }


def redact_lines(result: Result) -> list[str]:
    """A redaction in words."""
    lines = [f"redacted: {len(result['redacted'])} requests, {result['examples']} examples forgotten"]
    if result["kept"]:
        lines += [f"kept: {len(result['kept'])} requests whose rows, or whose examples' rows, are from before 0.2"]
    return [*lines, f"head: {result['head']} after {result['rows']} rows"]

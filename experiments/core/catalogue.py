"""Configs by name: `readiness:digits` is the packaged configs/readiness.py, whatever the current folder holds."""

from __future__ import annotations

import difflib
import importlib
from importlib import resources
from pathlib import Path
from types import ModuleType

from experiments.core.errors import UserError

PACKAGE = "experiments.configs"


def names() -> list[str]:
    """The packaged configs: modules of `experiments.configs` with a `get_config` of their own."""
    files = (file for file in resources.files(PACKAGE).iterdir() if file.name.endswith(".py"))
    return sorted(file.name.removesuffix(".py") for file in files if "\ndef get_config(" in file.read_text("utf-8"))


def resolve(given: str) -> str:
    """The path of a config's file, with its experiment after a colon as it was given.

    Args:
      given: NAME or NAME:EXPERIMENT of a packaged config, or PATH or PATH:EXPERIMENT of a file.

    Raises:
      UserError: neither a packaged config nor a file.

    Example:
      >>> resolve("readiness:digits").endswith("experiments/configs/readiness.py:digits")
      True
    """
    name, colon, experiment = given.partition(":")
    if name in names():
        return str(resources.files(PACKAGE) / f"{name}.py") + colon + experiment
    if Path(name).is_file():
        return given
    near = difflib.get_close_matches(Path(name).stem, names(), 1)
    hint = f"; did you mean {near[0]}{colon}{experiment}?" if near else ""
    raise UserError(f"config {name!r} is neither a file nor one of {', '.join(names())}{hint}")


def module(given: str) -> ModuleType:
    """The module of a packaged config; an experiment after a colon is passed over.

    Raises:
      UserError: no such config.
    """
    name = given.partition(":")[0]
    if name not in names():
        raise UserError(f"config {name!r} is unknown; choose one of {', '.join(names())}")
    return importlib.import_module(f"{PACKAGE}.{name}")


def listing() -> str:
    """All packaged configs and their experiments, each with the first line of its docstring."""
    lines = []
    for name in names():
        found = module(name)
        lines.append(f"{name}  {_first_line(found)}")
        entries = {f"{name}:{key}": _first_line(change) for key, change in getattr(found, "EXPERIMENTS", {}).items()}
        width = max(map(len, entries), default=0)
        lines += [f"  {key:{width}}  {text}".rstrip() for key, text in entries.items()]
    return "\n".join(lines)


def _first_line(documented: object) -> str:
    return (documented.__doc__ or "").strip().partition("\n")[0]

"""What a run leaves behind: config.json, metrics.jsonl, finished stages, results.json; and how seconds are counted."""

from __future__ import annotations

import json
import math
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import numpy as np

SCHEMA = 1
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "scipy", "scikit-learn")
COMPILING = ("/jax/core/compile/jaxpr_to_mlir_module_duration", "/jax/core/compile/backend_compile_duration")


class WorkdirError(ValueError):
    """A workdir that cannot be used as asked; the message is one line that says what to do."""


class Workdir:
    """A folder that one config owns; all its files are written whole or not at all."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def claim(self, config: dict[str, Any]) -> None:
        """Bind the folder to a config, or check that it already is.

        Raises:
          WorkdirError: the folder belongs to another config, or cannot be written.
        """
        file = self.path / "config.json"
        wanted = json.loads(dumps(config))
        if file.exists():
            differing = sorted(_differences(json.loads(file.read_text()), wanted))
            if differing:
                names = ", ".join(differing[:3])
                raise WorkdirError(f"{self.path} holds a run with another config ({names} differ): use an empty --workdir")
            return
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            write(file, dumps(config, indent=2))
        except OSError as error:
            raise WorkdirError(f"cannot write {self.path}: {error.strerror}; choose another --workdir") from error

    def log(self, event: str, **fields: Any) -> None:
        """Append one line to metrics.jsonl, on the first process only."""
        if jax.process_index() == 0:
            with (self.path / "metrics.jsonl").open("a") as file:
                file.write(dumps({"event": event, "time": time.time(), **fields}) + "\n")

    def stage(self, name: str, compute: Callable[[], Any]) -> Any:
        """The result of `compute`, a JSON value: read back if this stage has finished before, else computed and kept."""
        file = self.path / "stages" / f"{name}.json"
        if not file.exists():
            file.parent.mkdir(exist_ok=True)
            write(file, dumps(compute()))
        return json.loads(file.read_text())

    def results(self) -> dict[str, Any] | None:
        """results.json if the run has finished."""
        file = self.path / "results.json"
        return json.loads(file.read_text()) if file.exists() else None

    def finish(self, command: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Write results.json."""
        results = {"schema": SCHEMA, "command": command, "environment": environment(), "rows": rows}
        write(self.path / "results.json", dumps(results, indent=1))
        return json.loads(dumps(results))


def write(path: Path, text: str) -> None:
    """Write a file through a temporary one, so that a kill leaves the old file or the new one."""
    temporary = path.with_name(f"{path.name}.tmp")
    with temporary.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def dumps(value: Any, indent: int | None = None) -> str:
    """JSON in which arrays are lists and what is not finite is null."""
    return json.dumps(_plain(value), indent=indent, allow_nan=False)


def environment() -> dict[str, Any]:
    """Versions and devices."""
    device = jax.devices()[0]
    return {
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in PACKAGES},
        "backend": jax.default_backend(),
        "device": device.device_kind,
        "devices": jax.device_count(),
        "processes": jax.process_count(),
        "cores": os.cpu_count(),
    }


@contextmanager
def stopwatch() -> Iterator[Callable[[], float]]:
    """Measure wall seconds without compilation: `with stopwatch() as seconds: ...; seconds()`."""
    compiling = [0.0]

    def listener(event: str, duration: float, **_: Any) -> None:
        if event in COMPILING:
            compiling[0] += duration

    jax.monitoring.register_event_duration_secs_listener(listener)
    started = time.monotonic()
    try:
        yield lambda: max(time.monotonic() - started - compiling[0], 0.0)
    finally:
        jax.monitoring.unregister_event_duration_listener(listener)


def _differences(old: Any, new: Any, prefix: str = "config") -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for name in old.keys() | new.keys():
            yield from _differences(old.get(name), new.get(name), f"{prefix}.{name}")
    elif old != new:
        yield prefix


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(name): _plain(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, np.ndarray | jax.Array):
        return _plain(np.asarray(value).tolist())
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value

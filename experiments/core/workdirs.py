"""What a run leaves behind: config.json, metrics.jsonl, finished stages, results.json; and how seconds are counted."""

from __future__ import annotations

import fcntl
import json
import math
import os
import platform
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import IO, Any

import jax
import numpy as np

from experiments.core.errors import UserError, line

SCHEMA = 1
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "scipy", "scikit-learn")
PARTS = ("results.json", "stages", "checkpoints", "metrics.jsonl")  # of a run, beside config.json
ENTRY = '{"event": '  # how a line of metrics.jsonl begins
AGAIN = "remove it and run again, which keeps what else has finished"
OTHER = "put a copy of config.json back, or use an empty --workdir"
# What every row of results.json has, whatever was run.
ROW = {"training", "variant", "unlearner", "dataset", "seed", "before", "after", "steps", "extra"}
COMPILING = ("/jax/core/compile/jaxpr_to_mlir_module_duration", "/jax/core/compile/backend_compile_duration")


class WorkdirError(UserError):
    """A workdir that cannot be used as asked; the message is one line that says what to do."""


class Workdir:
    """A folder that one config owns; all its files are written whole or not at all."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def finished(self, config: dict[str, Any]) -> dict[str, Any] | None:
        """results.json if the run of this config has finished.

        Raises:
          WorkdirError: the folder belongs to another config or to none that is known, or results.json is damaged.
        """
        file = self.path / "results.json"
        self._is_bound(config)
        if not file.exists():
            return None
        return read_results(file)

    @contextmanager
    def claimed(self, config: dict[str, Any]) -> Iterator[None]:
        """Bind the folder to a config, or check that it already is, and keep other processes out meanwhile.

        Raises:
          WorkdirError: another process is at work in the folder, or it belongs to another config, or cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = (self.path / "lock").open("a")
        except OSError as error:
            raise WorkdirError(f"cannot write {self.path}: {error.strerror}; choose another --workdir") from error
        with lock:
            self._lock(lock)
            if not self._is_bound(config):
                write(self.path / "config.json", dumps(config, indent=2))
            self._end_line()
            yield

    def _is_bound(self, config: dict[str, Any]) -> bool:
        file = self.path / "config.json"
        if not file.exists():
            left = [name for name in PARTS if (self.path / name).exists()]
            if left:
                raise WorkdirError(f"{self.path} has {left[0]} but no config.json to tell of which run: {OTHER}")
            return False
        differing = sorted(differences(read(file, dict, OTHER), json.loads(dumps(config))))
        if differing:
            names = ", ".join(differing[:3])
            raise WorkdirError(f"{self.path} holds a run with another config ({names} differ): use an empty --workdir")
        return True

    def _lock(self, file: IO[str]) -> None:
        """Lock an open file until it is closed or the process ends, however it ends; the first process does so for all."""
        if jax.process_index():
            return
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise WorkdirError(f"another process works in {self.path}: wait for it, or use another --workdir") from None
        except OSError:  # a file system without locks: better a run without one than none
            return

    def _end_line(self) -> None:
        """End the line of metrics.jsonl that a kill cut short, so that the next does not go on from it."""
        file = self.path / "metrics.jsonl"
        if jax.process_index() == 0 and file.exists():
            with file.open("rb+") as lines:
                if lines.seek(0, os.SEEK_END):
                    lines.seek(-1, os.SEEK_END)
                    if lines.read(1) != b"\n":
                        lines.write(b"\n")

    def log(self, event: str, **fields: Any) -> None:
        """Append one line to metrics.jsonl, on the first process only."""
        if jax.process_index() == 0:
            with (self.path / "metrics.jsonl").open("a") as file:
                file.write(dumps({"event": event, "time": time.time(), **fields}) + "\n")

    def has(self, stage: str) -> bool:
        """Whether a stage has finished before."""
        return self._kept(stage).exists()

    def _kept(self, stage: str) -> Path:
        return self.path / "stages" / f"{stage}.json"

    def stage(self, name: str, compute: Callable[[], Any], beside: Path | None = None) -> Any:
        """The result of `compute`, a JSON value: read back if this stage has finished before, else computed and kept.

        Args:
          beside: a file that `compute` leaves, without which the stage has not finished.

        Raises:
          WorkdirError: what was kept is damaged.
        """
        file = self._kept(name)
        if not file.exists() or (beside and not beside.exists()):
            file.parent.mkdir(exist_ok=True)
            value = compute()
            write(file, dumps({"crc32": _crc32(value), "value": value}))
        kept = read(file, dict)
        if kept.keys() != {"crc32", "value"} or kept["crc32"] != _crc32(kept["value"]):
            raise WorkdirError(f"{file} cannot be read (it is not what was written): {AGAIN}")
        return kept["value"]

    def finish(self, command: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Write results.json."""
        results = {"schema": SCHEMA, "command": command, "environment": environment(), "rows": rows}
        write(self.path / "results.json", dumps(results, indent=1))
        return json.loads(dumps(results))


def read(path: Path, kind: type = object, mend: str = AGAIN) -> Any:
    """The JSON value in a file.

    Args:
      kind: of the value.
      mend: what to do if the file is damaged.

    Raises:
      WorkdirError: the file cannot be read or holds no such value.
    """
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise WorkdirError(f"{path} cannot be read ({line(error)}): {mend}") from error
    if not isinstance(value, kind):
        raise WorkdirError(f"{path} cannot be read (no {kind.__name__}): {mend}")
    return value


def read_results(path: Path) -> dict[str, Any]:
    """What a results.json holds.

    Raises:
      WorkdirError: the file cannot be read, or has no rows, or rows that no run wrote.
    """
    found = read(path, dict)
    rows = found.get("rows")
    if not isinstance(rows, list) or not rows:
        raise WorkdirError(f"{path} has no rows: {AGAIN}")
    if not all(isinstance(row, dict) and row.keys() >= ROW for row in rows):
        raise WorkdirError(f"{path} has rows that no run wrote: {AGAIN}")
    return found


def read_run(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """config.json and results.json of a finished run.

    Raises:
      WorkdirError: a file is missing or cannot be read; one line that says what to do.
    """
    for name in ("config.json", "results.json"):
        if not (folder / name).exists():
            raise WorkdirError(f"{folder} holds no finished run (no {name}): run it again to finish it")
    return read(folder / "config.json", dict, OTHER), read_results(folder / "results.json")


def entries(path: Path) -> Iterator[dict[str, Any]]:
    """The entries of a metrics.jsonl, if there is one; a line that a kill cut short is passed over.

    Raises:
      WorkdirError: a line that no run wrote.
    """
    mend = "remove it and results.json and run again: finished stages are kept, and their sweeps logged again"
    try:
        lines = path.read_text("utf-8").splitlines() if path.exists() else []
    except (OSError, ValueError) as error:
        raise WorkdirError(f"{path} cannot be read ({line(error)}): {mend}") from error
    for number, text in enumerate(lines, 1):
        try:
            entry = json.loads(text)
        except ValueError:
            if text[: len(ENTRY)] != ENTRY[: len(text)]:
                raise WorkdirError(f"line {number} of {path} is damaged: {mend}") from None
            continue
        if not isinstance(entry, dict):
            raise WorkdirError(f"line {number} of {path} is damaged: {mend}")
        yield entry


def write(path: Path, text: str) -> None:
    """Write a file through a temporary one, so that a kill leaves the old file or the new one."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")  # reports of one run may be written by several at once
    with temporary.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def dumps(value: Any, indent: int | None = None) -> str:
    """JSON in which arrays are lists and what is not finite is null."""
    return json.dumps(_plain(value), indent=indent, allow_nan=False)


def _crc32(value: Any) -> int:
    """CRC-32 of a value as JSON, the same before it is written and after it is read: floats keep their bits."""
    return zlib.crc32(dumps(value).encode())


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


def differences(old: Any, new: Any, prefix: str = "config") -> Iterator[str]:
    """The names of the keys in which two configs differ, with `prefix.` before each; keys that are new and empty do not."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in old.keys() | new.keys():
            if name not in old and not new[name]:  # a key of a later version, left empty: nothing has changed
                continue
            yield from differences(old.get(name), new.get(name), f"{prefix}.{name}")
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

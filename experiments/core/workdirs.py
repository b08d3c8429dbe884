"""What a run leaves behind: config.json, inputs.json, metrics.jsonl, finished stages, results.json.

Of several processes the first alone reads and writes them; see `processes`.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

from experiments.core import files, results, trackers
from experiments.core.errors import WorkdirError, line
from experiments.core.files import crc32, dumps, read_json, write_json, write_text
from experiments.core.machines import processes
from experiments.core.machines.environment import environment
from experiments.core.results import Row, Run

PARTS = ("results.json", "stages", "checkpoints", "metrics.jsonl")  # of a run, beside config.json
ENTRY = '{"event": '  # how a line of metrics.jsonl begins
CHECKSUM = "crc32"  # of the rest of such a line
AGAIN = "remove it and run again, which keeps what else has finished"
LOG_AGAIN = "remove it and results.json and run again: finished stages are kept, and their sweeps logged again"
OTHER = "put a copy of config.json back, or use an empty --workdir"


class Workdir:
    """A folder that belongs to one owner, the values of a config; all its files are written whole or not at all."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        retired: Mapping[str, Any] | None = None,
        defaults: Mapping[str, Any] | None = None,
    ) -> None:
        """The folder at a path.

        Args:
          retired: what the config.json of an older version may have beside the keys of the config, by dotted key.
          defaults: of the config, by section: keys that are new since an older version do not count while they have these.
        """
        self.path, self.defaults = Path(path), json.loads(dumps(dict(defaults or {})))
        self.retired = {f"config.{key}": value for key, value in (retired or {}).items()}
        self._track: Callable[[int, Mapping[str, float]], None] | None = None  # while it is claimed, where one is asked for

    def begun(self) -> dict[str, Any] | None:
        """The config.json of the run that was begun here, of whatever version; None if there is none.

        Raises:
          WorkdirError: it is damaged.
        """

        def read() -> dict[str, Any] | None:
            self._check_name()
            file = self.path / "config.json"
            return read_json(file, dict, OTHER) if file.exists() else None

        return processes.first(read)

    def finished(self, owner: dict[str, Any]) -> Run | None:
        """results.json if the run of this owner has finished: what it recorded then, whatever became of its data since.

        Raises:
          WorkdirError: the folder belongs to another owner or to none that is known, or results.json is damaged.
        """
        file = self.path / "results.json"

        def read() -> Run | None:
            self._check_name()
            self._is_bound(owner)
            return read_results(file) if os.path.lexists(file) else None  # a link to nowhere is damaged, not absent

        return processes.first(read)

    def _check_name(self) -> None:
        """Refuse a path that the system cannot hold, or may not look at."""
        try:
            (self.path / "config.json").stat()
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise WorkdirError(f"--workdir is {self.path!s:.200}, {error.strerror}: choose another") from error

    @contextmanager
    def claimed(
        self,
        owner: dict[str, Any],
        inputs: Mapping[str, str] | None = None,
        tracker: Sequence[str] = trackers.JSONL,
    ) -> Iterator[None]:
        """Bind the folder to an owner and its inputs, or check that it already is, and keep other processes out meanwhile.

        Args:
          inputs: what the config names alone, as "data" -> a digest of what was read; '' is none.
          tracker: where numbers of steps go, as config.tracker names it.

        Raises:
          WorkdirError: another process is at work in the folder, or it belongs to another owner, or was begun with other
            inputs, or cannot be written.
          UserError: a tracker whose package is missing, or that cannot begin, or inputs that differ between processes.
        """
        processes.check_same(inputs or {}, "files")
        with ExitStack() as held:
            processes.first(lambda: held.enter_context(self._held(owner, inputs, tracker)))
            yield

    @contextmanager
    def _held(self, owner: dict[str, Any], inputs: Mapping[str, str] | None, tracker: Sequence[str]) -> Iterator[None]:
        trackers.check(tracker)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = (self.path / "lock").open("a")
        except OSError as error:
            raise WorkdirError(f"cannot write {self.path}: {error.strerror}; choose another --workdir") from error
        with lock:
            self._lock(lock)
            files.remove_unfinished(self.path)
            if not self._is_bound(owner):
                write_json(self.path / "config.json", owner, indent=2)
            self._bind({name: digest for name, digest in (inputs or {}).items() if digest})
            self._end_line()
            with trackers.opened(tracker, self.path, owner) as log:
                self._track = log
                try:
                    yield
                finally:
                    self._track = None

    def _is_bound(self, owner: dict[str, Any]) -> bool:
        file = self.path / "config.json"
        if not file.exists():
            left = [name for name in PARTS if (self.path / name).exists()]
            if left:
                raise WorkdirError(f"{self.path} has {left[0]} but no config.json to tell of which run: {OTHER}")
            return False
        old, new = read_json(file, dict, OTHER), json.loads(dumps(owner))
        changed = sorted(differences(old, new, defaults=self.defaults))
        differing = [key for key in changed if not self._is_retired(key, old, new)]
        if differing:
            names = ", ".join(differing[:3])
            raise WorkdirError(f"{self.path} holds a run with another config ({names} differ): use an empty --workdir")
        return True

    def _bind(self, inputs: dict[str, str]) -> None:
        """Keep digests of what the run is made of, or check them; a folder of an older version has none."""
        file = self.path / "inputs.json"
        old = read_json(file, dict, AGAIN) if file.exists() else {}
        if changed := [name for name, digest in inputs.items() if old.get(name, digest) != digest]:
            names = " and ".join(changed)
            raise WorkdirError(
                f"{self.path} holds a run of other {names}: put the old {names} back, or use an empty --workdir"
            )
        if inputs.keys() - old.keys():
            write_json(file, old | inputs, indent=2)

    def _is_retired(self, key: str, old: dict[str, Any], new: dict[str, Any]) -> bool:
        """Whether a key is one that a version before this had, with the one value that it could have."""
        if key not in self.retired or _at(key, new) is not None:
            return False
        return dumps(_at(key, old)) == dumps(self.retired[key])

    def _lock(self, file: IO[str]) -> None:
        """Lock an open file until it is closed or the process ends, however it ends."""
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise WorkdirError(f"another process works in {self.path}: wait for it, or use another --workdir") from None
        except OSError:  # a file system without locks: better a run without one than none
            return

    def _end_line(self) -> None:
        """End the line of metrics.jsonl that a kill cut short, so that the next does not go on from it."""
        file = self.path / "metrics.jsonl"
        if file.exists():
            with files.writing(file), file.open("rb+") as lines:
                if lines.seek(0, os.SEEK_END):
                    lines.seek(-1, os.SEEK_END)
                    if lines.read(1) != b"\n":
                        lines.write(b"\n")

    def log(self, event: str, **fields: Any) -> None:
        """Append one line to metrics.jsonl, with its checksum, on the first process only.

        Numbers of a step go to trackers, too.
        """
        if processes.is_first():
            entry, path = {"event": event, "time": time.time(), **fields}, self.path / "metrics.jsonl"
            with files.writing(path), path.open("a") as file:
                file.write(dumps({**entry, CHECKSUM: crc32(entry)}) + "\n")
            if self._track and "step" in fields:
                self._track(fields["step"], trackers.numbers(event, fields))

    def has(self, stage: str) -> bool:
        """Whether a stage has finished before."""
        return processes.first(self._kept(stage).exists)

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

        def has_finished() -> bool:
            if file.exists() and not (beside and not beside.exists()):
                return True
            with files.writing(file):
                file.parent.mkdir(exist_ok=True)
            return False

        def read() -> Any:
            kept = read_json(file, dict, AGAIN)
            if kept.keys() != {"crc32", "value"} or kept["crc32"] != crc32(kept["value"]):
                raise WorkdirError(f"{file} cannot be read (it is not what was written): {AGAIN}")
            return kept["value"]

        if not processes.first(has_finished):
            value = compute()
            processes.first(lambda: write_json(file, {"crc32": crc32(value), "value": value}))
        return processes.first(read)

    def finish(self, command: str, rows: Sequence[Row], facts: Mapping[str, Any] | None = None) -> Run:
        """Write results.json; what it now holds.

        Args:
          facts: of the run, beside its rows.
        """
        file = self.path / "results.json"
        processes.first(lambda: write_text(file, results.to_json(Run(command, environment(), rows, facts or {}))))
        return processes.first(lambda: read_results(file))


def read_results(path: Path) -> Run:
    """What a results.json holds, of this version or of 0.1.

    Raises:
      WorkdirError: the file cannot be read, was altered or cut, or has no rows, or rows that no run wrote.
    """
    try:
        return results.from_json(path.read_text("utf-8"))
    except results.NewerError as error:
        raise files.unreadable(path, error, "update this installation, and keep the file") from error
    except (OSError, ValueError, RecursionError) as error:
        raise files.unreadable(path, error, AGAIN) from error


def read_run(folder: Path) -> tuple[dict[str, Any], Run]:
    """config.json and results.json of a finished run.

    Raises:
      WorkdirError: a file is missing or cannot be read; one line that says what to do.
    """
    for name in ("config.json", "results.json"):
        if not (folder / name).exists():
            raise WorkdirError(f"{folder} holds no finished run (no {name}): run it again to finish it")
    return read_json(folder / "config.json", dict, OTHER), read_results(folder / "results.json")


def entries(path: Path) -> Iterator[dict[str, Any]]:
    """The entries of a metrics.jsonl, if there is one; a line that a kill cut short is passed over.

    Raises:
      WorkdirError: a line that no run wrote, or that is another than was written.
    """
    try:
        lines = path.read_text("utf-8").splitlines() if os.path.lexists(path) else []
    except (OSError, ValueError) as error:
        raise WorkdirError(f"{path} cannot be read ({line(error)}): {LOG_AGAIN}") from error
    for number, text in enumerate(lines, 1):
        try:
            entry = json.loads(text)
        except (ValueError, RecursionError):
            if text[: len(ENTRY)] != ENTRY[: len(text)]:
                raise WorkdirError(f"line {number} of {path} is damaged: {LOG_AGAIN}") from None
            continue
        if not isinstance(entry, dict) or entry.pop(CHECKSUM, None) not in (
            None,
            crc32(entry),
        ):  # None: of before it had one
            raise WorkdirError(f"line {number} of {path} is damaged: {LOG_AGAIN}")
        yield entry


def differences(old: Any, new: Any, prefix: str = "config", defaults: Any = None) -> Iterator[str]:
    """The names of the keys in which two configs differ, with `prefix.` before each unless it is empty.

    Keys that are new and empty, or as in `defaults`, do not count: a later version has them, and nothing has changed.
    """
    if isinstance(old, dict) and isinstance(new, dict):
        usual = defaults if isinstance(defaults, dict) else {}
        for name in old.keys() | new.keys():
            if name not in old and (not new[name] or (name in usual and new[name] == usual[name])):
                continue
            key = f"{prefix}.{name}" if prefix else name
            yield from differences(old.get(name), new.get(name), key, usual.get(name))
    elif old != new:
        yield prefix


def _at(key: str, values: Any) -> Any:
    """The value at a key that `differences` names; None if there is none."""
    for part in key.split(".")[1:]:
        values = values.get(part) if isinstance(values, dict) else None
    return values

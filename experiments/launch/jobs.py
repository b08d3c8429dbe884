"""A queue on this machine: commands in processes of their own, so many at a time, and what became of each."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from experiments.core import files

POLL = 0.05  # seconds between two looks at what runs
PATIENCE = 120.0  # seconds that a process has to save and leave, before it is killed


class Job(NamedTuple):
    """One command.

    folder: its workdir; nobody starts where another process still works.  log: where its output goes, appended.
    """

    name: str
    command: Sequence[str]
    folder: Path
    log: Path


class Ended(NamedTuple):
    """How a job ended: its exit status (-9 of a kill), and in one line what it said; "" if all is well."""

    job: Job
    status: int
    said: str


def run(
    jobs: Sequence[Job], workers: int, tell: Callable[[str], None], env: Mapping[str, str] | None = None
) -> list[Ended]:
    """Run all jobs, in order and at most `workers` at a time; how each ended, in the order of their ends.

    Args:
      tell: called with a line when a job starts or ends, and when one waits.
      env: of the processes; None: as of this one.

    Raises:
      KeyboardInterrupt: as it came, once all processes have saved and left.
    """
    waiting, running, ended = list(jobs), dict[Job, _Process](), list[Ended]()
    told: set[str] = set()
    with _stopping(running):
        while waiting or running:
            for job in list(waiting):
                if len(running) == workers:
                    break
                if _busy(job.folder):
                    if job.name not in told:
                        told.add(job.name)
                        tell(f"{job.name}: waits for another process, which still works there")
                    continue
                waiting.remove(job)
                running[job] = _Process(job, env)
                tell(f"{job.name}: runs ({len(ended) + len(running)} of {len(jobs)})")
            for job, process in list(running.items()):
                if (end := process.ended()) is not None:
                    del running[job]
                    ended.append(end)
                    tell(f"{job.name}: {end.said or 'done'}")
            time.sleep(POLL)
    return ended


class _Process:
    """A process that runs a job; its standard input stays open for as long as this process lives."""

    def __init__(self, job: Job, env: Mapping[str, str] | None) -> None:
        self.job = job
        with files.writing(job.log):
            job.log.parent.mkdir(parents=True, exist_ok=True)
            log = job.log.open("ab")
        with log:
            self._begin = log.seek(0, os.SEEK_END)
            self.process = subprocess.Popen(
                job.command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=env, start_new_session=True
            )

    def ended(self) -> Ended | None:
        """How it ended; None while it runs."""
        status = self.process.poll()
        if status is None:
            return None
        if self.process.stdin:
            self.process.stdin.close()
        return Ended(self.job, status, said(status, self._output()) if status else "")

    def _output(self) -> str:
        with self.job.log.open("rb") as log:
            log.seek(self._begin)
            return log.read().decode("utf-8", "replace")


def said(status: int, output: str) -> str:
    """In one line, why a process ended with a status other than 0: its `error:`, else its last words."""
    if status < 0:
        return f"killed by {signal.Signals(-status).name}"
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return (errors or lines[-1:] or [f"exit status {status}"])[-1]


@contextmanager
def _stopping(running: Mapping[Job, _Process]) -> Iterator[None]:
    """Where processes run: if this one is interrupted they are asked to save and leave, and after a while killed."""
    try:
        yield
    except BaseException:
        left = [one.process for one in running.values()]
        for process in left:
            process.terminate()
        deadline = time.monotonic() + PATIENCE
        try:
            for process in left:
                process.wait(max(0.0, deadline - time.monotonic()))
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            for process in left:
                process.kill()
        raise


def _busy(folder: Path) -> bool:
    """Whether a process holds the lock of a workdir."""
    try:
        with (folder / "lock").open("r") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # no such folder yet, or a file system without locks
        return False
    return False

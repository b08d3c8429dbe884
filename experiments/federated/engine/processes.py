"""Flower's programs as child processes: nothing told to anybody, nothing installed, nothing left behind."""

from __future__ import annotations

import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from experiments.core.errors import UserError

QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}
GRACE = 15.0  # seconds between being asked to end and being killed


def environment(home: Path) -> dict[str, str]:
    """The environment of Flower's programs: quiet, with a home of its own, this Python's programs and this forethought."""
    programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    source = str(Path(__file__).resolve().parents[3])
    modules = os.pathsep.join(entry for entry in (source, os.environ.get("PYTHONPATH")) if entry)
    return {**os.environ, **QUIET, "FLWR_HOME": str(home), "PATH": programs, "PYTHONPATH": modules}


def program(name: str, env: Mapping[str, str]) -> str:
    """The path of one of Flower's programs.

    Raises:
      UserError: it is not installed.
    """
    path = shutil.which(name, path=env["PATH"])
    if path is None:
        raise UserError(f"there is no {name} here: pip install 'forethought[federated]'")
    return path


@contextmanager
def running(command: Sequence[str], env: Mapping[str, str], output: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A child that runs as long as the block, in a session of its own, with its output in a file."""
    with output.open("ab") as log:
        child = subprocess.Popen(
            command, env=dict(env), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield child
    finally:
        stop(child)


def stop(child: subprocess.Popen[bytes]) -> None:
    """End a child and those of its group: first by asking."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(child.pid, number)
        except ProcessLookupError:
            break
        try:
            child.wait(GRACE)
        except subprocess.TimeoutExpired:
            continue
    child.wait()


def end_with(process: int, every: float = 1.0) -> None:
    """End this process soon after another has ended, for a program that Flower starts in a session of its own."""

    def watch() -> None:
        while _runs(process):
            time.sleep(every)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def lines_of(child: subprocess.Popen[bytes]) -> Iterator[str]:
    """What a child and its children say, until the child has ended: those that it leaves behind may hold the pipe open."""
    assert child.stdout is not None
    held = b""
    while True:
        ready, _, _ = select.select([child.stdout], [], [], 1.0)
        if not ready:
            if child.poll() is not None:
                return
            continue
        content = os.read(child.stdout.fileno(), 1 << 16)
        *lines, held = (held + content).split(b"\n")
        yield from (line.decode(errors="replace").rstrip() for line in lines)
        if not content:
            return


def answers(host: str, port: int) -> bool:
    """Whether somebody listens there."""
    try:
        with socket.create_connection((host, port), timeout=2):
            return True
    except OSError:
        return False


def wait_for(host: str, port: int, child: subprocess.Popen[bytes], output: Path, seconds: float) -> None:
    """Wait until a child listens.

    Raises:
      UserError: it ended, or takes too long.
    """
    end = time.monotonic() + seconds
    while not answers(host, port):
        if child.poll() is not None or time.monotonic() > end:
            how = "takes too long to start" if child.poll() is None else f"ended with status {child.returncode}"
            raise UserError(f"Flower's SuperLink {how}: {last_line(output)}")
        time.sleep(0.3)


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nobody listens on, for a program that takes no 0."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def last_line(output: Path) -> str:
    """The last line of what a child printed that says something."""
    text = output.read_text(errors="replace") if output.exists() else ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return f"{lines[-1][:200]} ({output})" if lines else f"see {output}"

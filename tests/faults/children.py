"""Children of this process that are killed at a random moment or before their n-th system call.

A fork of a process that has imported everything starts in milliseconds. It must not have threads or an open ledger.
System calls are counted by ptrace, which Linux lets a parent do to its children; where it does not, the watcher of
`tests.helpers.stores` counts syncs, renames and removals instead.
"""

import ctypes
import os
import signal
import sys
import tempfile
import time
import traceback
from typing import IO, NamedTuple

from tests.helpers import stores

TRACEME, SYSCALL, SETOPTIONS = 0, 24, 0x4200  # requests of ptrace
OPTIONS = 0x100000 | 1  # the child dies with its tracer; a stop at a system call is told from a signal
AT_CALL = signal.SIGTRAP | 0x80
_libc = ctypes.CDLL(None, use_errno=True)


class Ended(NamedTuple):
    """What came of a child.

    said: its lines.
    killed: whether it was killed before it ended.
    calls: how many system calls it began, 0 if they were not counted.
    error: its traceback, if it had one.
    """

    said: list[str]
    killed: bool
    calls: int
    error: str


def ptrace(request, pid=0, data=0):
    _libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    return _libc.ptrace(request, pid, None, data)


class Child(NamedTuple):
    """A child that runs: its process, and the file that it writes to."""

    pid: int
    file: IO[str]


def start(work, at_call=None, *, traced=False):
    """A child that runs work(say); say(line) is written at once, as an acknowledgement is."""
    file = tempfile.TemporaryFile("w+")  # noqa: SIM115  # `end` closes it; children that start later would hold a pipe open
    pid = os.fork()
    if pid == 0:
        child(work, file.fileno(), at_call, traced)
    return Child(pid, file)


def end(started, at_call=None, *, traced=False):
    """Wait for a child; a traced one is killed before its n-th system call."""
    calls, status = _followed(started.pid, at_call) if traced else (0, os.waitpid(started.pid, 0)[1])
    with started.file as file:
        file.seek(0)
        said, _, error = file.read().partition("Traceback")
    return Ended(said.split(), os.WIFSIGNALED(status), calls, error and "Traceback" + error)


def run(work, *, at_call=None, after=None, count=False):
    """Run work(say) in a child; kill it before its n-th system call, or after so many seconds, or not at all."""
    traced = bool(at_call or count)
    started = start(work, at_call, traced=traced)
    if after is not None:
        time.sleep(after)
        os.kill(started.pid, signal.SIGKILL)
    return end(started, at_call, traced=traced)


def child(work, writing, at_call, traced):
    """The child: it never returns."""
    say = lambda line: os.write(writing, f"{line}\n".encode())  # noqa: E731
    try:
        if traced:
            if not sys.platform.startswith("linux") or ptrace(TRACEME) != 0:
                stores.die_at(at_call or 1 << 60)
            os.kill(os.getpid(), signal.SIGSTOP)
        work(say)
    except BaseException:
        say(traceback.format_exc())
    finally:
        os._exit(0)


def _followed(pid, at_call):
    """Let a traced child run up to a system call, and kill it there: the call is not carried out."""
    calls, inside = 0, False
    _, status = os.waitpid(pid, os.WUNTRACED)
    ptrace(SETOPTIONS, pid, OPTIONS)
    if ptrace(SYSCALL, pid) != 0:  # not traced: it counts itself
        os.kill(pid, signal.SIGCONT)
        return 0, os.waitpid(pid, 0)[1]
    while True:
        _, status = os.waitpid(pid, 0)
        if not os.WIFSTOPPED(status):
            return calls, status
        delivered = os.WSTOPSIG(status)
        if delivered == AT_CALL:
            inside, delivered = not inside, 0
            calls += inside
            if inside and calls == at_call:
                os.kill(pid, signal.SIGKILL)
                return calls, os.waitpid(pid, 0)[1]
        ptrace(SYSCALL, pid, delivered)

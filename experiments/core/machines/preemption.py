"""Being asked to leave: SIGTERM and SIGUSR1 end a run with a status that a scheduler may requeue, a training saved first.

Schedulers send a signal some time before they take a machine away. Where `postponed` is open, as in a training, the first
signal waits until the work at hand is done and saved; anywhere else, and the second time, it interrupts as Ctrl-C does.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

STATUS = 75  # EX_TEMPFAIL of sysexits.h: try again later
SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class Preempted(KeyboardInterrupt):
    """Asked to leave; what has been saved goes on by the same command."""


class Lost(Preempted):
    """Another process of the run is gone, and this one cannot go on alone; the message says why."""


@dataclass
class _State:
    postponing: bool = False
    asked: bool = False


_state = _State()


def listen() -> None:
    """Take the signals of schedulers; for a whole process, by its main thread."""
    for number in SIGNALS:
        signal.signal(number, _handle)


def _handle(number: int, _: object) -> None:
    if not _state.postponing or _state.asked:
        raise Preempted(number)
    _state.asked = True


@contextmanager
def postponed() -> Iterator[Callable[[], bool]]:
    """A block that is told of a signal by the function that it gets, and saves and ends; then the signal has its way.

    Raises:
      Preempted: at the end of the block, if there was a signal.

    Example:
      >>> with postponed() as asked:
      ...     asked()
      False
    """
    _state.postponing = True
    try:
        yield lambda: _state.asked
    finally:
        asked, _state.postponing, _state.asked = _state.asked, False, False
    if asked:
        raise Preempted

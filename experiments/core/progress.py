"""One bar for a whole run: the stage it is in, how far it is, and when it will be done.

A run opens a `Progress`. What runs within it calls this module's `stage`, `advance`, `reach` and `skip`, which reach the
open one and do nothing where none is open. A bar is drawn on a terminal and below a notebook's cell. Elsewhere there are
plain lines: one at the start of a stage, and another whenever nothing was printed for some seconds. Nothing is shown unless
the command line or `experiments.run` asks for it (`shown`), so that a library or a test is not spoken over.

Work is counted in one unit for all stages of a run (say, steps of one model), because the time that is left is

    work that is left / (work done here / seconds spent on it without compilation)

Example:

    with progress.Progress(work, "pretrain"):  # in the runner, around all that takes long
        progress.stage("training", steps)      # `steps` of `work`
        progress.advance(45)                   # after each epoch
        progress.skip()                        # the rest had been done by an earlier process
        progress.stage("scores", 20)           # whatever the stage before left undone counts as done
"""

from __future__ import annotations

import html
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from types import TracebackType
from typing import TextIO

from tqdm import tqdm

from experiments.core.machines import environment

SILENCE = 8.0  # seconds without a line after which another comes
REFRESH = 1.0  # seconds after which a terminal's clock is drawn again
BAR = "{desc} {percentage:3.0f}%|{bar}| "

_stream: ContextVar[TextIO | None] = ContextVar("_stream", default=None)
_open: ContextVar[Progress | None] = ContextVar("_open", default=None)
_speaking = threading.Event()  # set while a run shows its own progress


@contextmanager
def shown(stream: TextIO) -> Iterator[None]:
    """Show the progress of runs that are opened meanwhile: a bar if `stream` is a terminal or a notebook's, else lines."""
    token = _stream.set(stream)
    try:
        yield
    finally:
        _stream.reset(token)


@contextmanager
def waiting(words: str) -> Iterator[None]:
    """Break the silence of what no run's progress covers: before a run is accepted, and when its report is written.

    A line comes after some seconds and not at once, so that a mistake that is soon found stays the one line.
    """
    if (stream := _stream.get()) is None:
        yield
        return
    ended, started = threading.Event(), time.monotonic()

    def tick() -> None:
        quiet = started
        while not ended.wait(REFRESH):
            now = time.monotonic()
            if _speaking.is_set():
                quiet = now
            elif now - quiet >= SILENCE:
                quiet = now
                print(f"{words}, {_times(now - started, None)}", file=stream, flush=True)

    ticking = threading.Thread(target=tick, daemon=True, name="waiting")
    ticking.start()
    try:
        yield
    finally:
        ended.set()
        ticking.join()


@contextmanager
def part(total: float, description: str) -> Iterator[None]:
    """A run that may be part of another: within one that is open its stages are that one's, else it opens its own."""
    if _open.get() is not None:
        yield
        return
    with Progress(total, description):
        yield


def stage(name: str, work: float = 0.0) -> None:
    """Begin a stage of the open run; the one before has ended."""
    if (run := _open.get()) is not None:
        run.stage(name, work)


def advance(work: float = 1.0) -> None:
    """So much of the stage has been done."""
    if (run := _open.get()) is not None:
        run.advance(work)


def reach(done: float, fresh: float) -> None:
    """The stage stands at `done`, the last `fresh` of it done just now; what was not told before that is skipped."""
    if (run := _open.get()) is not None:
        run.reach(done, fresh)


def skip(work: float | None = None) -> None:
    """So much of the stage had been done before, which says nothing of how fast this run is; None: all of it."""
    if (run := _open.get()) is not None:
        run.skip(work)


class Progress:
    """The progress of one run; a context manager.

    Args:
      total: the work expected in all; see `expect`.
      description: of the run, a word or two.
    """

    def __init__(self, total: float, description: str) -> None:
        self.total, self.description = total, description
        self.done = 0.0  # of all work
        self._before = 0.0  # of that, what an earlier process did
        self._name, self._begin, self._end = "", 0.0, 0.0  # of the stage: its name, and `done` where it begins and ends
        self._left: float | None = None  # seconds, when last estimated
        self._estimated = 0.0  # when that was, in seconds without compilation
        self._stack, self._ended = ExitStack(), threading.Event()
        self._screen: _Bar | _Cell | _Lines | None = None

    def __enter__(self) -> Progress:
        self._active = self._stack.enter_context(environment.stopwatch())
        token = _open.set(self)
        self._stack.callback(_open.reset, token)
        if (stream := _stream.get()) is not None:
            self._screen = _screen(stream)
            ticking = threading.Thread(target=self._tick, daemon=True, name="progress")
            _speaking.set()
            self._stack.callback(_speaking.clear)
            self._stack.callback(ticking.join)
            self._stack.callback(self._ended.set)
            ticking.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.close()
        if self._screen is not None:
            if kind is None:
                self._name, self.done, self._left = "done", self.total, None
            self._screen.close(self if kind is None else None)

    def expect(self, total: float) -> None:
        """The work in all, re-estimated; never less than what has begun."""
        self.total = max(total, self._end, self.done)

    def stage(self, name: str, work: float = 0.0) -> None:
        """Begin a stage of so much work; whatever the one before left undone counts as done."""
        self._move(self._end - self.done)
        self._name, self._begin, self._end = name, self.done, self.done + work
        self.expect(self.total)
        if self._screen is not None:
            self._screen.begin(self)

    def advance(self, work: float = 1.0) -> None:
        """So much of the stage has been done, at most all of it."""
        self._move(min(work, self._end - self.done))

    def reach(self, done: float, fresh: float) -> None:
        """The stage stands at `done`, the last `fresh` of it done just now; what was not told before that is skipped."""
        self.skip(max(0.0, self._begin + done - fresh - self.done))
        self.advance(max(0.0, self._begin + done - self.done))

    def skip(self, work: float | None = None) -> None:
        """So much of the stage had been done before; None: all of it."""
        left = self._end - self.done
        skipped = left if work is None else min(work, left)
        self._before += skipped
        self._move(skipped)

    def _move(self, work: float) -> None:
        """Move on, and estimate the time that is left."""
        self.done += work
        here, seconds = self.done - self._before, self._active()
        if work and here > 0:
            self._left, self._estimated = (self.total - self.done) * seconds / here, seconds

    def left(self) -> float | None:
        """Seconds without compilation until the run is done; None until there is something to go by."""
        return None if self._left is None else max(0.0, self._left - (self._active() - self._estimated))

    def percent(self) -> float:
        """Of all work, what is done."""
        return 100 * self.done / self.total if self.total else 0.0

    def title(self) -> str:
        """The run and the stage it is in."""
        return f"{self.description}: {self._name}" if self._name else self.description

    def _tick(self) -> None:
        while not self._ended.wait(REFRESH):
            if self._screen is not None:
                self._screen.tick(self)


def _screen(stream: TextIO) -> _Bar | _Cell | _Lines:
    """What suits a stream: a notebook's kernel has one of its own kind for what its cells print."""
    if stream.isatty():
        return _Bar(stream)
    return _Cell() if type(stream).__module__.startswith("ipykernel.") else _Lines(stream)


class _Bar:
    """A bar on a terminal, drawn again every second."""

    def __init__(self, stream: TextIO) -> None:
        self._bar = tqdm(total=100, file=stream, bar_format=BAR, dynamic_ncols=True, leave=True)
        self._started = time.monotonic()

    def begin(self, run: Progress) -> None:
        self.tick(run)

    def tick(self, run: Progress) -> None:
        self._bar.desc, self._bar.n = run.title(), run.percent()
        self._bar.bar_format = BAR + _times(time.monotonic() - self._started, run.left())
        self._bar.refresh()

    def close(self, run: Progress | None) -> None:
        if run is not None:
            self.tick(run)
        self._bar.close()


class _Cell:
    """A bar below a notebook's cell, drawn again where it stands; in plain text where there is no HTML."""

    def __init__(self) -> None:
        from IPython.display import DisplayHandle  # a kernel brings it

        self._started, self._handle = time.monotonic(), DisplayHandle()
        self._handle.display({"text/plain": ""}, raw=True)

    def begin(self, run: Progress) -> None:
        self.tick(run)

    def tick(self, run: Progress) -> None:
        words = f"{run.percent():3.0f}% {run.title()}, {_times(time.monotonic() - self._started, run.left())}"
        bar = f'<progress max="100" value="{run.percent():.0f}"></progress> {html.escape(words)}'
        self._handle.update({"text/plain": words, "text/html": bar}, raw=True)

    def close(self, run: Progress | None) -> None:
        if run is not None:
            self.tick(run)


class _Lines:
    """Plain lines for a file or a pipe: at the start of a stage, and whenever there was silence."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._lock = stream, threading.Lock()
        self._started = self._printed = time.monotonic()

    def begin(self, run: Progress) -> None:
        self._print(run)

    def tick(self, run: Progress) -> None:
        if time.monotonic() - self._printed >= SILENCE:
            self._print(run)

    def close(self, run: Progress | None) -> None:
        if run is not None:
            self._print(run)

    def _print(self, run: Progress) -> None:
        with self._lock:
            self._printed = time.monotonic()
            times = _times(self._printed - self._started, run.left())
            print(f"{run.percent():3.0f}% {run.title()}, {times}", file=self._stream, flush=True)


def _times(elapsed: float, left: float | None) -> str:
    """How long it has taken, and how long it will take."""
    known = "" if left is None else f", about {tqdm.format_interval(left)} left"
    return f"{tqdm.format_interval(elapsed)} elapsed{known}"

"""Progress: shares, the time that is left, what is printed where, and silence where nobody asked."""

import io
import re
import threading

import pytest

from experiments.core import progress
from experiments.core.progress import Progress


class Clock:
    """Seconds without compilation, set by hand."""

    def __init__(self, run):
        self.now = 0.0
        run._active = lambda: self.now


@pytest.fixture
def run():
    with Progress(100, "run") as made:
        made.clock = Clock(made)
        yield made


def printed(body, terminal=False):
    """What a run prints for `body`, with every time as T."""
    stream = io.StringIO()
    stream.isatty = lambda: terminal
    with progress.shown(stream), Progress(100, "run") as made:
        Clock(made)
        body()
    return re.sub(r"\d\d:\d\d", "T", stream.getvalue())


def test_the_time_left_is_the_work_left_at_the_speed_seen(run):
    run.stage("a", 60)
    assert run.left() is None
    run.clock.now = 10.0
    run.advance(20)
    assert (run.percent(), run.left()) == (20, 40.0)
    run.clock.now = 13.0  # nothing new has been told, but time goes on
    assert run.left() == 37.0
    run.clock.now = 99.0
    assert run.left() == 0.0


def test_what_was_done_before_moves_the_bar_but_not_the_speed(run):
    run.stage("a", 60)
    run.skip(40)
    assert (run.percent(), run.left()) == (40, None)
    run.clock.now = 5.0
    run.advance(10)
    assert run.left() == 25.0  # 50 left at 2 a second
    run.skip()
    assert (run.percent(), run.left()) == (60, 20.0)


def test_a_stage_that_ends_counts_as_done(run):
    run.stage("a", 30)
    run.clock.now = 3.0
    run.advance(10)
    run.stage("b", 70)
    assert (run.percent(), run.left(), run.title()) == (30, 7.0, "run: b")


def test_a_stage_takes_no_more_than_its_work(run):
    run.stage("a", 30)
    run.advance(50)
    run.skip(5)
    assert run.percent() == 30


@pytest.mark.parametrize("before, fresh, done", [(0, 10, 10), (20, 10, 30), (20, 10, 60)])
def test_reaching_skips_what_was_not_told(run, before, fresh, done):
    run.stage("first", 10)
    run.stage("a", 60)
    run.advance(before)
    seen = run._before
    run.clock.now = 1.0
    run.reach(done, fresh)
    assert run.done == 10 + done
    assert run._before - seen == done - fresh - before


def test_work_is_estimated_anew(run):
    run.stage("a", 50)
    run.clock.now = 5.0
    run.advance(50)
    run.expect(200)
    assert run.percent() == 25
    run.stage("b", 400)  # more than was expected in all
    assert run.total == 450
    run.expect(10)  # never less than what has begun
    assert run.total == 450


def test_nothing_is_done_of_a_run_without_work():
    with Progress(0, "run") as made:
        made.stage("a")
        made.advance(5)
        assert (made.percent(), made.left()) == (0.0, None)


def test_a_file_gets_a_line_per_stage():
    def body():
        progress.stage("a", 60)
        progress.advance(60)
        progress.stage("b", 40)

    lines = printed(body).splitlines()
    assert lines[0] == "  0% run: a, T elapsed"
    assert lines[1].startswith(" 60% run: b, T elapsed, about T left") and lines[-1] == "100% run: done, T elapsed"


def test_a_file_gets_a_line_in_every_silence(monkeypatch):
    monkeypatch.setattr(progress, "SILENCE", 0.0)
    monkeypatch.setattr(progress, "REFRESH", 0.001)
    again = threading.Event()
    once = progress._Lines._print

    def seen(self, run):
        once(self, run)
        if threading.current_thread() is not threading.main_thread() and run.title() == "run: a":
            again.set()  # the ticker may have spoken before the stage began

    monkeypatch.setattr(progress._Lines, "_print", seen)

    def body():
        progress.stage("a", 60)
        assert again.wait(60), "nobody spoke while the stage was at work"

    assert printed(body).count("run: a, T elapsed") > 1


def test_a_terminal_gets_one_bar():
    def body():
        progress.stage("a", 60)
        progress.advance(60)
        progress.stage("b", 40)

    told = printed(body, terminal=True)
    assert told.count("\n") == 1 and " 60%|" in told and "run: b" in told and "run: done 100%|" in told


def test_a_run_that_fails_does_not_say_that_it_is_done():
    stream = io.StringIO()
    with pytest.raises(KeyError), progress.shown(stream), Progress(100, "run"):
        progress.stage("a", 60)
        raise KeyError
    assert "a" in stream.getvalue() and "done" not in stream.getvalue()


def test_nothing_is_printed_unless_asked(capsys):
    with Progress(100, "run"):
        progress.stage("a", 60)
        progress.advance()
    told = capsys.readouterr()
    assert (told.out, told.err) == ("", "")
    assert not _tickers()


def test_no_run_is_needed_and_none_is_left_open():
    with Progress(100, "run") as made:
        progress.stage("a", 60)
    progress.stage("b", 10)
    progress.advance(5)
    progress.reach(5, 5)
    progress.skip()
    assert made.title() == "run: a" and not _tickers()


def _tickers():
    return [thread for thread in threading.enumerate() if thread.name == "progress"]


def test_a_run_within_another_has_no_bar_of_its_own():
    def body():
        progress.stage("first", 50)
        progress.skip()
        with progress.part(7, "inner"):
            progress.stage("second", 50)
            progress.advance(25)

    assert printed(body).splitlines() == [
        "  0% run: first, T elapsed",
        " 50% run: second, T elapsed",
        "100% run: done, T elapsed",
    ]


def test_the_same_run_alone_opens_its_own():
    stream = io.StringIO()
    with progress.shown(stream), progress.part(7, "inner"):
        progress.stage("second", 7)
    assert [line.partition(",")[0] for line in stream.getvalue().splitlines()] == ["  0% inner: second", "100% inner: done"]


def test_what_no_run_covers_is_not_silent_either(monkeypatch):
    """A line in every silence, none at once, and none while a run speaks for itself."""
    monkeypatch.setattr(progress, "REFRESH", 0.01)
    monkeypatch.setattr(progress, "SILENCE", 0.05)
    stream, waited = io.StringIO(), threading.Event()
    with progress.shown(stream), progress.waiting("reading"):
        waited.wait(0.2)
        lines = stream.getvalue().splitlines()
        assert 1 <= len(lines) <= 4 and all(re.fullmatch(r"reading, \d\d:\d\d elapsed", line) for line in lines)
        with Progress(1, "run"):
            waited.wait(0.2)
    assert "run" in stream.getvalue() and stream.getvalue().count("reading") <= len(lines) + 1
    quick = io.StringIO()
    with progress.shown(quick), progress.waiting("reading"):
        pass
    assert quick.getvalue() == ""


def test_a_notebook_gets_one_bar_below_its_cell(monkeypatch):
    display = pytest.importorskip("IPython.display", reason="needs the extra notebooks")
    shown = []
    monkeypatch.setattr(display.DisplayHandle, "display", lambda self, data, raw: shown.append(data))
    monkeypatch.setattr(display.DisplayHandle, "update", lambda self, data, raw: shown.append(data))
    kernels = type("OutStream", (io.StringIO,), {"__module__": "ipykernel.iostream"})()
    with progress.shown(kernels), Progress(100, "a<b") as made:
        Clock(made)
        progress.stage("a", 60)
        progress.advance(60)
        progress.stage("b", 40)
    bars = [data for data in shown if 'value="60"' in data.get("text/html", "")]
    assert bars and "a&lt;b: b" in bars[0]["text/html"] and " 60% a<b: b" in bars[0]["text/plain"]
    assert shown[-1]["text/plain"].startswith("100% a<b: done") and kernels.getvalue() == ""

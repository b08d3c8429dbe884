"""The local queue: how many at a time, what is said of an end, who is waited for, and what a kill leaves."""

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from experiments.launch import jobs

ROOT = Path(__file__).resolve().parents[3]
# Takes a lock as a workdir has it, tells its process, and stays until its standard input ends.
HELD = """
import fcntl, os, sys, threading, time
from pathlib import Path
from experiments.launch import worker
folder = Path(sys.argv[1])
threading.Thread(target=worker.watch, daemon=True).start()
lock = (folder / "lock").open("a")
fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
(folder / "pid").write_text(str(os.getpid()))
time.sleep(100)
"""
QUEUE = """
import sys
from pathlib import Path
from experiments.launch import jobs
folder = Path(sys.argv[1])
jobs.run([jobs.Job("held", (sys.executable, "-c", sys.argv[2], str(folder)), folder, folder / "log")], 1, print)
"""


def shell(folder, name, script):
    return jobs.Job(name, ("sh", "-c", script), folder / name, folder / "logs" / name)


def within(seconds, condition):
    """Whether something comes to be so in time."""
    end = time.monotonic() + seconds
    while not (done := condition()) and time.monotonic() < end:
        time.sleep(0.02)
    return done


def test_every_job_runs_once_and_what_failed_says_why_in_one_line(tmp_path):
    scripts = {"good": "echo fine", "told": "echo 'error: no such key' >&2; echo more; exit 2", "mute": "exit 3",
               "last": "echo a; echo ValueError: b; exit 1", "killed": "kill -9 $$"}  # fmt: skip
    lines = []
    ended = jobs.run([shell(tmp_path, *entry) for entry in scripts.items()], 2, lines.append)
    assert {end.job.name: (end.status, end.said) for end in ended} == {
        "good": (0, ""),
        "told": (2, "no such key"),
        "mute": (3, "exit status 3"),
        "last": (1, "ValueError: b"),
        "killed": (-9, "killed by SIGKILL"),
    }
    assert "good: done" in lines and "told: no such key" in lines
    assert (tmp_path / "logs" / "good").read_text() == "fine\n"


def test_output_of_an_earlier_process_is_kept_and_says_nothing_of_this_one(tmp_path):
    jobs.run([shell(tmp_path, "a", "echo error: old; exit 1")], 1, print)
    (end,) = jobs.run([shell(tmp_path, "a", "exit 1")], 1, print)
    assert end.said == "exit status 1" and (tmp_path / "logs" / "a").read_text() == "error: old\n"


def test_no_more_than_the_workers_run_at_a_time(tmp_path):
    count = f"mkdir {tmp_path}/$$; ls {tmp_path} | grep -c '^[0-9]' ; sleep 0.1; rmdir {tmp_path}/$$"
    jobs.run([shell(tmp_path, f"job{i}", count) for i in range(6)], 2, lambda line: None)
    met = [int((tmp_path / "logs" / f"job{i}").read_text()) for i in range(6)]
    assert max(met) <= 2


def test_a_workdir_where_another_process_works_is_waited_for(tmp_path):
    (tmp_path / "a").mkdir()
    lines = []
    with (tmp_path / "a" / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        threading.Timer(0.3, lambda: fcntl.flock(lock, fcntl.LOCK_UN)).start()
        ended = jobs.run([shell(tmp_path, "a", "true"), shell(tmp_path, "b", "true")], 1, lines.append)
    assert [end.job.name for end in ended] == ["b", "a"]
    assert lines[0] == "a: waits for another process, which still works there"


def test_an_interrupt_asks_all_processes_to_leave_and_waits_for_them(tmp_path):
    left = tmp_path / "left"
    script = f"trap 'sleep 0.2; touch {left}; exit 75' TERM; touch {tmp_path}/up; while :; do sleep 0.02; done"

    def interrupt(line):
        assert within(10, (tmp_path / "up").exists)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        jobs.run([shell(tmp_path, "a", script)], 1, interrupt)
    assert left.exists()


def test_a_killed_queue_leaves_no_process_behind(tmp_path):
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    queue = subprocess.Popen([sys.executable, "-c", QUEUE, str(tmp_path), HELD], env=env, stdout=subprocess.DEVNULL)
    assert within(60, lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    assert jobs._busy(tmp_path)
    queue.send_signal(signal.SIGKILL)
    queue.wait()
    assert within(20, lambda: not jobs._busy(tmp_path))

"""An exact judgement that two processes share: rows and answers of one process, and the same end after a kill."""

import signal
import time

import pytest

from tests.helpers import kills, ranks

CONFIG = """\
from experiments.configs import judge_exact


def get_config():
    config = judge_exact.get_config("digits")
    config.exact.update({"models": 12, "asked": 20, "same": 6, "apart": 6, "requests": 2, "resamples": 20, "audited": 1})
    config.train.epochs, config.pretrain.train.steps = 2, 20
    config.kinds, config.lanes = ("s3t",), 4
    return config
"""


def start(folder, count):
    folder.mkdir(exist_ok=True)
    (folder / "small.py").write_text(CONFIG)
    words = f"--config={folder / 'small.py'}", f"--workdir={folder / 'run'}"
    return ranks.start(count, "-m", "experiments.main", *words, folder=folder)


def finish(folder, count):
    ends = ranks.ended(start(folder, count), seconds=1200)
    assert [status for status, *_ in ends] == [0] * count, (folder / f"err.{count - 1}").read_text()[-3000:]


def made(folder):
    """The rows of a judgement, and its files of answers."""
    return kills.settled(folder / "run"), {file.name: file.read_bytes() for file in folder.glob("run/answers/*")}


@pytest.mark.slow
def test_a_judgement_that_two_processes_share_is_one_process_s_bit_for_bit(tmp_path):
    """One of the two is killed among the shadows, and both begin again."""
    finish(tmp_path / "alone", 1)
    shared = tmp_path / "shared"
    started = start(shared, 2)
    while not any((shared / "run").glob("stages/fleet-s3t-shadows*")) and started[1].poll() is None:
        time.sleep(0.001)
    started[1].send_signal(signal.SIGKILL)
    assert [status for status, *_ in ranks.ended(started)] == [75, -signal.SIGKILL], (shared / "err.0").read_text()[-3000:]
    finish(shared, 2)
    alone = made(tmp_path / "alone")
    assert made(shared) == alone and len(alone[0]) == 7 and len(alone[1]) == 4

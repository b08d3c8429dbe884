"""A judgement that two processes share: the rows of one process, and the same end after a kill."""

import signal
import time

import jax
import pytest

from tests.helpers import kills, ranks

CONFIG = """\
from tests.helpers.judging import SETS, tiny_config


def get_config():
    config = tiny_config(("vanilla",), {"tier": SETS["tier"]})
    config.request.unlearners = ("level",)
    config.checkpoint_seconds = 0.0
    return config
"""


OTHER = CONFIG.replace("    return", "    config.seed = int(__import__('os').environ['FORETHOUGHT_PROCESS'])\n    return")


def start(folder, count, config=CONFIG):
    folder.mkdir(exist_ok=True)
    (folder / "small.py").write_text(config)
    words = f"--config={folder / 'small.py'}", f"--workdir={folder / 'run'}"
    return ranks.start(count, "-m", "experiments.main", *words, folder=folder)


def flat(rows):
    """Every number and word of some rows, by where it stands."""
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(rows)}


def said(folder, process):
    return (folder / f"err.{process}").read_text()[-3000:]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A judgement of two processes that nobody ended."""
    folder = tmp_path_factory.mktemp("judged")
    assert [status for status, *_ in ranks.ended(start(folder, 2), seconds=1200)] == [0, 0], said(folder, 0) + said(
        folder, 1
    )
    return folder


@pytest.mark.slow
def test_a_judgement_that_two_processes_share_is_one_process_s(tmp_path, whole):
    """Each number of each row; the tier is of examples that a fleet, shared as well, has memorised."""
    assert "report: " in (whole / "out.0").read_text() and not (whole / "out.1").read_text().count("report: ")
    assert [status for status, *_ in ranks.ended(start(tmp_path, 1), seconds=1200)] == [0], said(tmp_path, 0)
    alone, shared = (flat(kills.settled(folder / "run")) for folder in (tmp_path, whole))
    assert len(alone) > 1000 and shared == pytest.approx(alone, abs=1e-2)


@pytest.mark.slow
def test_processes_of_two_configs_mix_nothing(tmp_path):
    ends = ranks.ended(start(tmp_path, 2, OTHER))
    why = "error: process 1 has other values of config.seed than process 0: start all with the same command"
    assert [(status, said(tmp_path, i).count(why)) for i, (status, *_) in enumerate(ends)] == [(2, 1), (2, 1)]
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["checkpoints/tier-plain-0/1", "statistics/tier-vanilla-none*"])
def test_a_judgement_of_which_one_process_is_killed_goes_on_to_the_same_end(tmp_path, whole, moment):
    started = start(tmp_path, 2)
    while not any((tmp_path / "run").glob(moment)) and started[1].poll() is None:
        time.sleep(0.01)
    started[1].send_signal(signal.SIGKILL)
    assert [status for status, *_ in ranks.ended(started, seconds=300)] == [75, -signal.SIGKILL], said(tmp_path, 0)
    assert not (tmp_path / "run" / "results.json").exists()
    assert [status for status, *_ in ranks.ended(start(tmp_path, 2), seconds=1200)] == [0, 0], said(tmp_path, 0) + said(
        tmp_path, 1
    )
    assert kills.settled(tmp_path / "run") == kills.settled(whole / "run")

"""A run of s3t that real processes share: rows and bytes of one process, and the same end after a kill.

The backbone is pre-trained inside; a node is a call of its own, so that there are turns at every depth.
"""

import hashlib
import signal
import time

import numpy as np
import pytest

from s3t.service import verify
from tests.helpers import kills, ranks

CONFIG = """\
from experiments.configs import s3t
from experiments.models import vits

vits.VITS["tiny"] = {"patch": 4, "width": 8, "depth": 2, "heads": 2, "mlp_dim": 8}


def get_config():
    made = s3t.get_config("digits")
    made.update({"model": "tiny", "seeds": 1, "shards": 2, "slices": 2, "lanes": 1, "deletions": 3, "retrain_after": (3,)})
    made.data.update({"train_size": 300, "validation_fraction": 0.2})
    made.pretrain.model = "tiny"
    made.pretrain.train.steps = 8
    made.lora.targets, made.lora.rank = ("query",), 2
    made.train.epochs = made.full_lora.epochs = 1
    made.study.update({"planners": ("sisa", "lattice"), "streams": 20, "deletions": 12})
    return made
"""


def start(folder, count):
    folder.mkdir(exist_ok=True)
    (folder / "small.py").write_text(CONFIG)
    words = f"--config={folder / 'small.py'}", f"--workdir={folder / 'run'}"
    return ranks.start(count, "-m", "experiments.main", *words, folder=folder)


def finish(folder, count):
    assert [status for status, *_ in ranks.ended(start(folder, count))] == [0] * count, said(folder, count)


def said(folder, count):
    return "".join((folder / f"err.{process}").read_text()[-3000:] for process in range(count))


def made(folder):
    """The rows of a run, and what its files of parameters and of logits hold."""
    run = folder / "run"
    files = {file.name: file.read_bytes() for file in (*run.glob("store/nodes/*"), run / "pretrain" / "vit.npz")}
    with np.load(run / "logits" / "nodes-0.npz") as logits:  # in another order once some were there
        files |= {name: logits[name].tobytes() for name in logits.files}
    return kills.settled(run), {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The folder of a run that has one process."""
    folder = tmp_path_factory.mktemp("alone")
    finish(folder, 1)
    return folder


@pytest.mark.slow
def test_a_run_that_two_processes_share_is_one_process_s_bit_for_bit(tmp_path, alone):
    finish(tmp_path, 2)
    assert "report: " in (tmp_path / "out.0").read_text() and not (tmp_path / "out.1").read_text().count("report: ")
    assert made(tmp_path) == made(alone) and len(made(alone)[1]) == 6 + 1 + 6
    assert verify.verify(tmp_path / "run" / "store")["ok"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "moment, process, number, then",
    [
        ("store/nodes/*.safetensors", 1, signal.SIGKILL, 3),
        ("store/nodes/*.safetensors", 0, signal.SIGKILL, 2),
        ("nodes-0/*.npz", 1, signal.SIGTERM, 1),
        ("stages/build.json", 0, signal.SIGUSR1, 2),
        ("pretrain/checkpoints/*", 1, signal.SIGKILL, 1),
    ],
)
def test_a_run_of_which_one_process_is_ended_goes_on_to_the_same_end(tmp_path, alone, moment, process, number, then):
    """With the same number of processes, or another; where process 0 is gone JAX may abort the other one."""
    started = start(tmp_path, 2)
    while not any((tmp_path / "run").glob(moment)) and started[process].poll() is None:
        time.sleep(0.001)
    started[process].send_signal(number)
    statuses = [status for status, *_ in ranks.ended(started, seconds=120)]
    assert statuses[process] == (-number if number == signal.SIGKILL else 75), said(tmp_path, 2)
    assert statuses[1 - process] in ((75, -signal.SIGABRT) if process == 0 else (75,)), said(tmp_path, 2)
    assert not (tmp_path / "run" / "results.json").exists()
    finish(tmp_path, then)
    assert made(tmp_path) == made(alone)

"""Signals of schedulers: at once, or after a training has saved; what goes on ends with the same bits."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.core.machines import preemption
from experiments.core.machines.preemption import Preempted
from experiments.training import loop
from readiness.step import StepInfo
from tests.helpers import tiny
from unlearn import tree

ROOT = pathlib.Path(__file__).resolve().parents[4]


@pytest.fixture(autouse=True)
def _listening():
    kept = [signal.getsignal(number) for number in preemption.SIGNALS]
    preemption.listen()
    yield
    for number, handler in zip(preemption.SIGNALS, kept, strict=True):
        signal.signal(number, handler)


@pytest.mark.parametrize("number", preemption.SIGNALS)
def test_a_signal_interrupts_where_nothing_is_saved_first(number):
    with pytest.raises(Preempted):
        os.kill(os.getpid(), number)


def test_where_it_is_postponed_the_first_waits_and_the_second_does_not():
    done = []
    with pytest.raises(Preempted), preemption.postponed() as asked:
        os.kill(os.getpid(), signal.SIGUSR1)
        done.append(asked())
    assert done == [True]
    with pytest.raises(Preempted), preemption.postponed():
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGTERM)
        done.append("never")
    with preemption.postponed() as asked:  # all is forgotten
        assert not asked()
    assert len(done) == 1


def test_an_error_of_the_block_is_what_is_told():
    with pytest.raises(ZeroDivisionError), preemption.postponed():
        os.kill(os.getpid(), signal.SIGUSR1)
        raise ZeroDivisionError


def test_a_training_saves_the_epoch_and_goes_on_to_the_same_bits(tmp_path):
    way, lanes, data = tiny.way("plain", steps=12), tiny.lanes([0]), tiny.data()

    def epoch_fn(states, lanes, data, pools, epoch, steps):  # nothing that must be compiled
        params = jax.tree.map(lambda leaf: leaf * (1 + 0.3 / (epoch + 1)), states.params)
        losses = jnp.full((1, steps), 1.0 / (epoch + 1))
        return states._replace(params=params), StepInfo(losses, losses)

    def trained(folder, report):
        return loop.train(way, lanes, data, None, epoch_fn, folder, report, 1e9)

    def ask(entry):
        if entry["step"] == 6:
            os.kill(os.getpid(), signal.SIGTERM)

    whole, rest = trained(tmp_path / "whole", lambda entry: None), []
    with pytest.raises(Preempted):
        trained(tmp_path / "broken", ask)
    assert (tmp_path / "broken" / "2").is_dir(), "saved, though no checkpoint was due"
    broken = trained(tmp_path / "broken", lambda entry: rest.append(entry["step"]))
    assert rest == [9, 12] and tree.bits_equal(whole.params, broken.params)
    np.testing.assert_array_equal(whole.losses, broken.losses)
    assert jnp.isfinite(whole.losses).all()


@pytest.mark.slow
def test_a_process_that_is_asked_to_leave_says_so_by_its_status_and_ends_the_same(tmp_path):
    def start(name):
        words = ["--config=pretrain:digits", "--config.model=mini", "--config.train.steps=40",
                 "--config.train.batch_size=256", "--config.checkpoint_seconds=1e6", f"--workdir={tmp_path / name}",
        ]  # fmt: skip
        cache = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "jax"), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2"}
        line = [sys.executable, "-m", "experiments.main", *words]
        return subprocess.Popen(line, cwd=ROOT, env={**os.environ, **cache}, stderr=subprocess.PIPE)

    assert start("whole").wait() == 0
    process, log = start("broken"), tmp_path / "broken" / "metrics.jsonl"
    while process.poll() is None and not log.exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGUSR1)
    assert process.communicate()[1].decode().endswith("interrupted: the same command goes on from the last checkpoint\n")
    assert process.returncode == 75 and any((tmp_path / "broken" / "checkpoints").glob("[0-9]*"))
    assert start("broken").wait() == 0
    whole, broken = (dict(np.load(tmp_path / name / "vit.npz")) for name in ("whole", "broken"))
    assert tree.bits_equal(whole, broken)

"""Scripts of SLURM on a real one: two nodes that share a run, a sweep's array, and a run that is asked to leave.

`make slurm` installs SLURM where it may, and shows what the jobs print.
"""

import csv
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import jax
import numpy as np
import pytest

from experiments.core import checkpoints
from tests.helpers import kills
from tests.helpers.ranks import OF_TESTS, ROOT
from tools import slurm_cluster

MISSING = slurm_cluster.missing()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"SLURM is not here ({', '.join(MISSING)}): make slurm installs it"),
]
RUN = (
    "--config=readiness:digits", "--config.seeds=2", "--config.train.steps=600", "--config.trainings=('oracle', 'vanilla')",
    "--config.variants={}", "--config.equal_flops=False", "--config.checkpoint_seconds=0", "--config.relearn.steps=3",
    "--config.request.unlearners=('ascent',)", "--config.request.learning_rates=(0.05,)", "--config.request.max_steps=8",
)  # fmt: skip
SWEEP = (
    "sweep", "--config=pretrain:digits", "--config.model=mini", "--config.train.steps=40", "--config.train.batch_size=256",
    "--grid=train.learning_rate=1e-3,4e-3", "--grid=seed=0,1",
)  # fmt: skip
NUMBERS = ("test_accuracy", "retain_accuracy", "forget_accuracy", "forget_loss", "test_loss")
ENDS = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")


class Cluster:
    """Commands of a user of the cluster, in a folder that all nodes share."""

    def __init__(self, env, folder):
        self.folder = folder
        cache = {
            "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir or str(folder / "jax"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
        }
        path = os.pathsep.join((str(pathlib.Path(sys.executable).parent), os.environ["PATH"]))
        usual = {name: value for name, value in os.environ.items() if name not in OF_TESTS}
        self.env = {**usual, **env, **cache, "PATH": path, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}

    def call(self, *words):
        """What a command prints; it has to succeed."""
        done = subprocess.run(
            list(map(str, words)), cwd=self.folder, env=self.env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def submit(self, *words):
        """The number of the job that a command of Forethought submits."""
        return self.call(sys.executable, "-m", "experiments.main", *words).split()[-1]

    def states(self, job):
        return self.call("squeue", "--noheader", "--array", f"--job={job}", "--states=all", "--format=%T").split()

    def ended(self, job, seconds=300):
        """How all tasks of a job ended, and what they printed."""
        deadline = time.monotonic() + seconds
        while not all(state in ENDS for state in self.states(job)) and time.monotonic() < deadline:
            time.sleep(0.2)
        said = "".join(path.read_text() for path in sorted(self.folder.glob(f"slurm-{job}*.out")))
        print(said)
        return self.states(job), said


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    folder = pathlib.Path(tempfile.mkdtemp(prefix="slurm-"))  # a short name: it holds a socket
    try:
        with slurm_cluster.running(folder) as env:
            yield Cluster(env, tmp_path_factory.mktemp("cluster"))
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def shared(cluster):
    """The workdir of a run that two nodes shared, and what they printed."""
    job = cluster.submit("launch", "slurm", "--nodes=2", "--", *RUN, "--workdir=shared")
    states, said = cluster.ended(job)
    assert states == ["COMPLETED"], said
    return cluster.folder / "shared", said


def test_two_nodes_share_a_run_whose_results_are_one_process_s(cluster, shared):
    workdir, said = shared
    for process in (0, 1):
        assert f"process {process} of 2 (SLURM)" in said
    assert said.count("report: ") == 1
    states, alone = cluster.ended(cluster.submit("launch", "slurm", "--", *RUN, "--workdir=alone"))
    assert states == ["COMPLETED"] and "process" not in alone, alone
    rows = [kills.settled(folder) for folder in (cluster.folder / "alone", workdir)]
    assert len(rows[0]) == len(rows[1]) > 0
    for one, both in zip(*rows, strict=True):
        assert (one["training"], one["unlearner"], one["seed"]) == (both["training"], both["unlearner"], both["seed"])
        for when in ("before", "after"):
            for name in NUMBERS:
                assert one[when][name] == pytest.approx(both[when][name], rel=1e-3, abs=1e-4), (when, name)


def test_a_run_that_gets_usr1_is_queued_again_and_ends_with_the_same_bits(cluster, shared):
    job = cluster.submit("launch", "slurm", "--nodes=2", "--", *RUN, "--workdir=preempted")
    folder = cluster.folder / "preempted" / "checkpoints" / "plain"
    while not any(folder.glob("[2-9]")) and cluster.states(job)[0] not in ENDS:
        time.sleep(0.01)
    cluster.call("scancel", "--signal=USR1", "--batch", job)
    deadline = time.monotonic() + 60
    while cluster.states(job) != ["PENDING"] and time.monotonic() < deadline:
        time.sleep(0.1)
    print(cluster.call("squeue", f"--job={job}", "--format=%i %j %t %D %r"))
    assert cluster.states(job) == ["PENDING"] and not (cluster.folder / "preempted" / "results.json").exists()
    saved = max(int(step.name) for step in folder.iterdir() if step.name.isdigit())
    states, said = cluster.ended(job, seconds=600)  # SLURM lets it wait for two minutes
    assert states == ["COMPLETED"], said
    assert said.count("interrupted: the same command goes on") == 2 and said.count("process 0 of 2 (SLURM)") == 2
    assert kills.settled(cluster.folder / "preempted") == kills.settled(shared[0])
    whole = shared[0] / "checkpoints" / "plain"
    assert sorted(step.name for step in folder.iterdir()) == sorted(step.name for step in whole.iterdir())
    assert saved < max(int(step.name) for step in folder.iterdir()), "it was asked to leave in the midst of training"
    restored = [checkpoints.restore_raw(path) for path in (folder, whole)]
    for state in restored:
        del state["seconds"]
    leaves = [jax.tree.leaves(state) for state in restored]
    assert len(leaves[0]) > 4 and jax.tree.structure(restored[0]) == jax.tree.structure(restored[1])
    for preempted, uninterrupted in zip(*leaves, strict=True):
        assert np.asarray(preempted).tobytes() == np.asarray(uninterrupted).tobytes()


def test_slurm_itself_sends_usr1_before_the_time_is_over(cluster, monkeypatch):
    """To the script alone, which hands it on; in place of the run stands one that leaves as it should."""
    folder = cluster.folder / "bin"
    folder.mkdir()
    stub = folder / "forethought"
    stub.write_text("#!/bin/sh\ntrap 'echo asked; exit 75' USR1\nwhile :; do sleep 0.1; done\n")
    stub.chmod(0o755)
    monkeypatch.setitem(cluster.env, "PATH", f"{folder}{os.pathsep}{cluster.env['PATH']}")
    job = cluster.submit("launch", "slurm", "--nodes=2", "--sbatch=--time=3", "--", *RUN, "--workdir=timed")
    deadline = time.monotonic() + 170
    while "Restarts=1 " not in cluster.call("scontrol", "show", "job", job) and time.monotonic() < deadline:
        time.sleep(0.5)
    said = (cluster.folder / f"slurm-{job}.out").read_text()
    print(said, cluster.call("squeue", f"--job={job}", "--format=%i %j %t %D %r"))
    assert said.count("asked") == 2 and cluster.states(job) == ["PENDING"]
    cluster.call("scancel", job)
    assert cluster.ended(job)[0] == ["CANCELLED"]


def test_a_sweep_is_an_array_of_four_points_and_a_table(cluster):
    states, said = cluster.ended(cluster.submit(*SWEEP, "--workdir=swept", "--slurm"))
    assert states == ["COMPLETED"] * 4, said
    print(cluster.call("forethought", *SWEEP, "--workdir=swept", "--workers=0"))
    points = sorted((cluster.folder / "swept" / "points").iterdir())
    assert len(points) == 4
    accuracies = {}
    for point in points:
        (row,) = json.loads((point / "results.json").read_text())["rows"]
        rate = json.loads((point / "config.json").read_text())["train"]["learning_rate"]
        accuracies.setdefault(rate, []).append(row["before"]["test_accuracy"])
    with (cluster.folder / "swept" / "table.csv").open() as file:
        table = {
            float(row["train.learning_rate"]): float(row["before.test_accuracy"])
            for row in csv.DictReader(file)
            if row["train.learning_rate"]
        }
    assert table == pytest.approx({rate: statistics.mean(values) for rate, values in accuracies.items()}, abs=1e-4)
    assert all(len(values) == 2 for values in accuracies.values())
    local = [*SWEEP[1:5], "--config.train.learning_rate=1e-3", "--config.seed=1", "--workdir=local"]
    cluster.call("forethought", *local)
    (same,) = [point for point in points if "0.001" in point.name and "seed=1" in point.name]
    assert kills.settled(cluster.folder / "local") == kills.settled(same)

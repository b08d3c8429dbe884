"""Which process this is, resolved from variables and what clusters set; several are refused before anything runs."""

import jax
import pytest
from absl import flags

from experiments import main
from experiments.core import distributed, switches
from experiments.core.distributed import Choice
from experiments.core.errors import UserError

OURS = {"FORETHOUGHT_COORDINATOR": "node1:8476", "FORETHOUGHT_PROCESSES": "2", "FORETHOUGHT_PROCESS": "1"}
SLURM = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "2", "SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2"}
MPI = {"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "3"}
ONE = Choice("nothing says otherwise", processes=1, process=0)


@pytest.mark.parametrize(
    "env, choice",
    [
        ({}, ONE),
        (OURS, Choice("as told", "node1:8476", 2, 1)),
        ({**SLURM, **OURS}, Choice("as told", "node1:8476", 2, 1)),
        ({"FORETHOUGHT_PROCESSES": "1", **SLURM}, Choice("as told", None, 1, 0)),
        ({"FORETHOUGHT_PROCESSES": "auto"}, Choice("the cluster is asked")),
        (SLURM, Choice("SLURM", None, 2, 1)),
        ({**SLURM, "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}, ONE),  # salloc's shell
        ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "2", "SLURM_PROCID": "0"}, ONE),  # sbatch without srun
        (MPI, Choice("Open MPI", None, 4, 3)),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "0"}, ONE),  # how many, only its API knows
    ],
)
def test_what_is_said_goes_before_what_is_found(env, choice):
    assert distributed.resolve(env) == choice


@pytest.mark.parametrize(
    "change, said",
    [
        ({"FORETHOUGHT_PROCESS": ""}, "FORETHOUGHT_PROCESS is missing: give all of"),
        ({"FORETHOUGHT_COORDINATOR": "node1"}, "is 'node1': give HOST:PORT"),
        ({"FORETHOUGHT_COORDINATOR": "node1:99999"}, "give HOST:PORT"),
        ({"FORETHOUGHT_PROCESS": "2"}, "FORETHOUGHT_PROCESS is 2: give a number from 0 to 1"),
        ({"FORETHOUGHT_PROCESSES": "two"}, "FORETHOUGHT_PROCESSES is 'two': give a whole number"),
    ],
)
def test_what_makes_no_sense_is_one_line(change, said):
    with pytest.raises(UserError, match=said):
        distributed.resolve({**OURS, **change})


@pytest.mark.parametrize(
    "env, said",
    [
        (OURS, "error: this is process 1 of 2 (as told), process 0 at node1:8476, and a run does not share its work"),
        (
            SLURM,
            "error: this is process 1 of 2 (SLURM), and a run does not share its work between processes yet: start one",
        ),
        ({"FORETHOUGHT_PROCESSES": "auto"}, "error: this is one of as many processes as the cluster says"),
    ],
)
def test_one_of_several_processes_runs_nothing(tmp_path, monkeypatch, capsys, env, said):
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    words = ["forethought", "--config=pretrain:digits", f"--workdir={tmp_path / 'new'}"]
    assert main.command(words, flags.FlagValues()) == 2
    err = capsys.readouterr().err
    assert err.startswith(said) and err.count("\n") == 1 and not (tmp_path / "new").exists()


def test_hosts_of_a_tpu_are_refused_when_jax_has_counted_them(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 4)
    with pytest.raises(UserError, match="JAX has devices of 4 processes"):
        switches.check_devices()


def test_one_process_goes_on():
    distributed.refuse_several({})
    distributed.refuse_several({**SLURM, "FORETHOUGHT_PROCESSES": "1"})

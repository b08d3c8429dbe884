"""Which process this is, by variables and what clusters set; runners that do not share refuse several at once."""

import jax
import pytest
from absl import flags

from experiments import main
from experiments.core.errors import UserError
from experiments.core.machines import distributed
from experiments.core.machines.distributed import TPU, Choice

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
        ({TPU: "host-0,host-1"}, Choice("a TPU of several hosts")),
        ({TPU: "localhost"}, ONE),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "0"}, ONE),  # how many, only its API knows
    ],
)
def test_what_is_said_goes_before_what_is_found(env, choice):
    assert distributed.resolve(env) == choice


@pytest.mark.parametrize(
    "change, said",
    [
        ({"FORETHOUGHT_PROCESS": ""}, r"--process \(or FORETHOUGHT_PROCESS\) is missing: give all of --coordinator, --pro"),
        ({"FORETHOUGHT_COORDINATOR": "node1"}, "is 'node1': give HOST:PORT"),
        ({"FORETHOUGHT_COORDINATOR": "node1:99999"}, "give HOST:PORT"),
        ({"FORETHOUGHT_PROCESS": "2"}, "FORETHOUGHT_PROCESS is 2: give a number from 0 to 1"),
        ({"FORETHOUGHT_PROCESSES": "two"}, "FORETHOUGHT_PROCESSES is 'two': give a whole number"),
        (
            {"FORETHOUGHT_PROCESSES": "auto"},
            "is auto, which the cluster answers: leave out FORETHOUGHT_COORDINATOR and FORETHOUGHT_PROCESS",
        ),
    ],
)
def test_what_makes_no_sense_is_one_line(change, said):
    with pytest.raises(UserError, match=said):
        distributed.resolve({**OURS, **change})


FLAGS = {"coordinator": "node2:8476", "processes": "4", "process": "3"}


@pytest.mark.parametrize(
    "env, flags, choice",
    [
        ({**SLURM, **OURS}, FLAGS, Choice("as told", "node2:8476", 4, 3)),
        (OURS, {**FLAGS, "coordinator": None, "processes": None, "process": "0"}, Choice("as told", "node1:8476", 2, 0)),
        (SLURM, {"processes": "1"}, Choice("as told", None, 1, 0)),
        (SLURM, dict.fromkeys(FLAGS), Choice("SLURM", None, 2, 1)),
    ],
)
def test_flags_go_before_variables(env, flags, choice):
    assert distributed.resolve(env, flags) == choice


@pytest.mark.parametrize(
    "change, said",
    [
        ({"process": None}, r"--process \(or FORETHOUGHT_PROCESS\) is missing"),
        ({"coordinator": ""}, r"--coordinator \(or FORETHOUGHT_COORDINATOR\) is missing"),
        ({"coordinator": "node2"}, "--coordinator is 'node2': give HOST:PORT"),
        ({"processes": "-1"}, "--processes is '-1': give a whole number"),
        ({"process": "4"}, "--process is 4: give a number from 0 to 3"),
    ],
)
def test_flags_that_make_no_sense_are_one_line(change, said):
    with pytest.raises(UserError, match=said):
        distributed.resolve({}, {**FLAGS, **change})


def test_flags_of_the_command_line_say_which_process_this_is(tmp_path, capsys):
    words = ["forethought", "--config=pretrain:digits", f"--workdir={tmp_path / 'new'}", "--processes=4", "--process", "3"]
    assert main.command([*words, "--coordinator=node2:8476"], flags.FlagValues()) == 2
    assert "this is process 3 of 4 (as told), process 0 at node2:8476, and pretrain, which" in capsys.readouterr().err
    assert main.command(words, flags.FlagValues()) == 2
    err = capsys.readouterr().err
    assert "--coordinator (or FORETHOUGHT_COORDINATOR) is missing" in err and err.count("\n") == 1
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "env, said",
    [
        (
            OURS,
            "error: this is process 1 of 2 (as told), process 0 at node1:8476, and pretrain, which trains one model, does "
            "not share its work between processes, as readiness, judge, s3t, judge_exact and federated do: start one",
        ),
        (SLURM, "error: this is process 1 of 2 (SLURM), and pretrain, which trains one model, does not share its work"),
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


@pytest.mark.parametrize(
    "env, arguments",
    [(OURS, ("node1:8476", 2, 1)), (SLURM, ()), ({"FORETHOUGHT_PROCESSES": "auto"}, ()), ({TPU: "host-0,host-1"}, ())],
)
def test_a_runner_that_shares_joins_the_others(monkeypatch, env, arguments):
    """What is not told is left to JAX, which asks the cluster."""
    joined = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *told: joined.append(told))
    distributed.begin(env, "readiness")
    assert joined == [arguments]


def test_processes_that_do_not_find_each_other_are_one_line(monkeypatch):
    def fails(*told):
        raise RuntimeError("DEADLINE_EXCEEDED: Barrier timed out")

    monkeypatch.setattr(jax.distributed, "initialize", fails)
    with pytest.raises(UserError, match=r"do not find each other \(DEADLINE_EXCEEDED.*start all of them"):
        distributed.begin(OURS, "readiness")


def test_every_runner_shares_or_says_why_not():
    assert sorted((*distributed.RUNNERS, *distributed.ALONE)) == sorted(main.RUNNERS)


def test_one_process_goes_on():
    assert distributed.begin({}, "pretrain") == ONE
    assert distributed.begin({**SLURM, "FORETHOUGHT_PROCESSES": "1"}, "pretrain").processes == 1

"""Which process this is, resolved from flags, variables and what clusters set; nothing is started."""

import jax
import pytest

from experiments.core import distributed
from experiments.core.distributed import Choice
from experiments.core.errors import UserError

OURS = {"FORETHOUGHT_COORDINATOR": "node1:8476", "FORETHOUGHT_PROCESSES": "2", "FORETHOUGHT_PROCESS": "1"}
SLURM = {"SLURM_JOB_ID": "7", "SLURM_STEP_NODELIST": "node[1-2]", "SLURM_NTASKS": "2", "SLURM_PROCID": "1",
         "SLURM_LOCALID": "0", "SLURM_STEP_NUM_NODES": "2"}  # fmt: skip
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
        ({**SLURM, "SLURM_GPUS_ON_NODE": "4"}, Choice("SLURM", None, 2, 1, (0, 1, 2, 3))),
        ({**SLURM, "SLURM_GPUS_ON_NODE": "4", "SLURM_STEP_NUM_NODES": "1"}, Choice("SLURM", None, 2, 1)),
        ({**SLURM, "SLURM_NTASKS": "1", "SLURM_PROCID": "0"}, ONE),
        ({name: value for name, value in SLURM.items() if name != "SLURM_STEP_NODELIST"}, ONE),  # sbatch without srun
        (MPI, Choice("Open MPI", None, 4, 3)),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "0"}, ONE),  # how many, only its API knows
    ],
)
def test_what_is_said_goes_before_what_is_found(env, choice):
    assert distributed.resolve(env) == choice


def test_a_flag_goes_before_its_variable():
    assert distributed.resolve(OURS, {"process": "0", "coordinator": "a:1"}) == Choice("as told", "a:1", 2, 0)


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


def test_the_choice_is_printed_and_handed_to_jax_unless_there_is_one_process(monkeypatch, capsys):
    calls = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *given, **named: calls.append((given, named)))
    distributed.begin(ONE)
    assert not calls and capsys.readouterr().err == ""
    distributed.begin(distributed.resolve(OURS))
    assert calls == [(("node1:8476", 2, 1), {"local_device_ids": None})]
    assert capsys.readouterr().err == "process 1 of 2 (as told), process 0 at node1:8476\n"
    assert Choice("the cluster is asked").words() == "as many processes as the cluster says (the cluster is asked)"

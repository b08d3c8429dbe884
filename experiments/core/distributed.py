"""Which of how many processes this is: flags or FORETHOUGHT_* variables, else what a cluster says of itself, else one.

JAX finds SLURM, Open MPI, Kubernetes and TPUs without arguments. It has no variables for count and rank, and under SLURM it
takes one GPU of each node. No run works in several processes yet; `begin` is for code of one's own.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import NamedTuple

import jax

from experiments.core.errors import UserError

VARIABLES = {  # what is asked -> the variable that says it
    "coordinator": "FORETHOUGHT_COORDINATOR",
    "processes": "FORETHOUGHT_PROCESSES",
    "process": "FORETHOUGHT_PROCESS",
}
AUTO = "auto"  # as the count of processes: ask the cluster
SLURM = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID")  # of srun
OPEN_MPI = ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK")


class Choice(NamedTuple):
    """What was chosen.

    how: by what.  coordinator: HOST:PORT of process 0; None: JAX asks the cluster, or there is one process.
    processes, process: how many, and which this is; None: JAX asks the cluster.
    devices: the local devices that this process takes; None: JAX decides.
    """

    how: str
    coordinator: str | None = None
    processes: int | None = None
    process: int | None = None
    devices: tuple[int, ...] | None = None

    def words(self) -> str:
        """In one line."""
        if self.processes == 1:
            return f"one process ({self.how})"
        if self.process is None:
            return f"as many processes as the cluster says ({self.how})"
        at = f", process 0 at {self.coordinator}" if self.coordinator else ""
        return f"process {self.process} of {self.processes} ({self.how}){at}"


def resolve(env: Mapping[str, str], given: Mapping[str, str] | None = None) -> Choice:
    """Which process this is.

    Args:
      env: the environment.
      given: by flags: coordinator, processes, process; each goes before its variable.

    Raises:
      UserError: one line on what is missing, or makes no sense.

    Example:
      >>> resolve({}).words()
      'one process (nothing says otherwise)'
      >>> resolve({"SLURM_NTASKS": "4"}, {"coordinator": "a:1234", "processes": "2", "process": "1"}).words()
      'process 1 of 2 (as told), process 0 at a:1234'
    """
    asked = {name: (given or {}).get(name) or env.get(variable) for name, variable in VARIABLES.items()}
    if any(asked.values()):
        return _told(asked)
    if all(env.get(name) for name in SLURM) and (count := _number(env, "SLURM_NTASKS")) > 1:
        return Choice("SLURM", processes=count, process=_number(env, "SLURM_PROCID"), devices=_gpus(env, count))
    if all(env.get(name) for name in OPEN_MPI) and (count := _number(env, OPEN_MPI[0])) > 1:
        return Choice("Open MPI", processes=count, process=_number(env, OPEN_MPI[1]))
    return Choice("nothing says otherwise", processes=1, process=0)


def _told(asked: Mapping[str, str | None]) -> Choice:
    if asked["processes"] == AUTO:
        return Choice("the cluster is asked")
    if asked["processes"] == "1" and not asked["process"]:
        return Choice("as told", processes=1, process=0)
    if missing := [VARIABLES[name] for name, value in asked.items() if not value]:
        raise UserError(f"{' and '.join(missing)} is missing: give all of {', '.join(VARIABLES.values())}, or none")
    said = {name: str(value) for name, value in asked.items()}
    coordinator = said["coordinator"]
    host, colon, port = coordinator.rpartition(":")
    if not (host and colon and port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise UserError(f"{VARIABLES['coordinator']} is {coordinator!r}: give HOST:PORT of process 0, as in node1:8476")
    count, process = _number(said, "processes"), _number(said, "process")
    if not 0 <= process < count:
        raise UserError(f"{VARIABLES['process']} is {process}: give a number from 0 to {count - 1}, each to one process")
    return Choice("as told", coordinator, count, process)


def _number(values: Mapping[str, str], name: str) -> int:
    text = values[name]
    if not (text.isascii() and text.isdigit()):
        raise UserError(f"{VARIABLES.get(name, name)} is {text!r}: give a whole number")
    return int(text)


def _gpus(env: Mapping[str, str], tasks: int) -> tuple[int, ...] | None:
    """All GPUs of the node where each has one process, of which JAX would take the first alone."""
    alone = env.get("SLURM_STEP_NUM_NODES") == str(tasks)
    return tuple(range(_number(env, "SLURM_GPUS_ON_NODE"))) if alone and env.get("SLURM_GPUS_ON_NODE") else None


def begin(choice: Choice) -> None:
    """Say what was chosen and join the other processes; before JAX looks at any device. One process does nothing."""
    if choice.processes == 1:
        return
    print(choice.words(), file=sys.stderr, flush=True)
    jax.distributed.initialize(choice.coordinator, choice.processes, choice.process, local_device_ids=choice.devices)

"""Which of how many processes this is: flags or FORETHOUGHT_* variables, else what a cluster says of itself, else one.

How several share a run, `processes` says. A runner that does not know them would do all of its work in each: it is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from experiments.core.errors import UserError, line

RUNNERS = ("readiness", "judge", "s3t", "judge_exact", "federated")  # that share their work between processes
ALONE = {"pretrain": "trains one model"}  # the others -> why they do not
VARIABLES = {  # flag -> the variable that says the same
    "coordinator": "FORETHOUGHT_COORDINATOR",
    "processes": "FORETHOUGHT_PROCESSES",
    "process": "FORETHOUGHT_PROCESS",
}
AUTO = "auto"  # as the count of processes: several, of which only the cluster knows how many
SLURM = ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID")  # of srun; SLURM_NTASKS may be of a job in whose shell a run stands alone
TPU = "TPU_WORKER_HOSTNAMES"  # of Kubernetes on a TPU slice
OPEN_MPI = ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK")


class Choice(NamedTuple):
    """What was chosen.

    how: by what.  coordinator: HOST:PORT of process 0; None: the cluster knows, or there is one process.
    processes, process: how many, and which this is; None: the cluster knows.
    """

    how: str
    coordinator: str | None = None
    processes: int | None = None
    process: int | None = None

    def words(self) -> str:
        """In one line."""
        if self.processes == 1:
            return f"one process ({self.how})"
        if self.process is None:
            return f"one of as many processes as the cluster says ({self.how})"
        at = f", process 0 at {self.coordinator}" if self.coordinator else ""
        return f"process {self.process} of {self.processes} ({self.how}){at}"


class _Told(NamedTuple):
    """What a user says, and where: by a flag or a variable; "" is nothing."""

    value: str
    by: str


def resolve(env: Mapping[str, str], flags: Mapping[str, str | None] | None = None) -> Choice:
    """Which process this is, as flags and an environment say it.

    Args:
      flags: those of `VARIABLES` that were given, each of which goes before its variable.

    Raises:
      UserError: one line on what is missing, or makes no sense.

    Example:
      >>> resolve({}).words()
      'one process (nothing says otherwise)'
      >>> resolve({"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1"}).words()
      'process 1 of 2 (Open MPI)'
    """
    given = {name: value for name, value in (flags or {}).items() if value is not None}
    asked = {
        name: _Told(given[name], f"--{name}") if name in given else _Told(env.get(variable, ""), variable)
        for name, variable in VARIABLES.items()
    }
    if given or any(told.value for told in asked.values()):
        return _told(asked)
    for how, names in {"SLURM": SLURM, "Open MPI": OPEN_MPI}.items():
        if all(env.get(name) for name in names) and (count := _number(_Told(env[names[0]], names[0]))) > 1:
            return Choice(how, processes=count, process=_number(_Told(env[names[1]], names[1])))
    if "," in env.get(TPU, ""):
        return Choice("a TPU of several hosts")
    return Choice("nothing says otherwise", processes=1, process=0)


def _told(asked: Mapping[str, _Told]) -> Choice:
    if asked["processes"].value == AUTO:
        if beside := [told.by for name, told in asked.items() if name != "processes" and told.value]:
            raise UserError(
                f"{asked['processes'].by} is {AUTO}, which the cluster answers: leave out {' and '.join(beside)}"
            )
        return Choice("the cluster is asked")
    if asked["processes"].value == "1" and not asked["process"].value:
        return Choice("as told", processes=1, process=0)
    if missing := [f"--{name} (or {VARIABLES[name]})" for name, told in asked.items() if not told.value]:
        raise UserError(f"{' and '.join(missing)} is missing: give all of --{', --'.join(VARIABLES)}, or none")
    coordinator, by = asked["coordinator"]
    host, colon, port = coordinator.rpartition(":")
    if not (host and colon and port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise UserError(f"{by} is {coordinator!r}: give HOST:PORT of process 0, as in node1:8476")
    count, process = _number(asked["processes"]), _number(asked["process"])
    if not 0 <= process < count:
        raise UserError(f"{asked['process'].by} is {process}: give a number from 0 to {count - 1}, each to one process")
    return Choice("as told", coordinator, count, process)


def _number(told: _Told) -> int:
    if not (told.value.isascii() and told.value.isdigit()):
        raise UserError(f"{told.by} is {told.value!r}: give a whole number")
    return int(told.value)


def begin(env: Mapping[str, str], runner: str, flags: Mapping[str, str | None] | None = None) -> Choice:
    """Join the processes of a run, if there are several; before JAX looks at any device.

    Args:
      env, flags: what says which process this is; see `resolve`.

    Raises:
      UserError: one line: a runner that does not share its work, processes that do not find each other, or of which one has
        more devices.
    """
    choice = resolve(env, flags)
    if choice.processes == 1:
        return choice
    check(runner, choice.words())
    import jax

    from experiments.core.machines import processes

    jax.config.update("jax_enable_preemption_service", False)  # it would take SIGTERM from `preemption`
    try:
        if choice.coordinator:
            jax.distributed.initialize(choice.coordinator, choice.processes, choice.process)
        else:
            jax.distributed.initialize()
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"this is {choice.words()}, and the processes do not find each other ({line(error)}): "
            f"start all of them, or set {', '.join(VARIABLES.values())}"
        ) from error
    processes.check_devices()
    processes.anyone(False)  # who is late by half a minute is not connected; once all are, they wait for each other
    return choice._replace(processes=jax.process_count(), process=jax.process_index())


def check(runner: str, words: str) -> None:
    """Refuse several processes of a runner that does not share its work.

    Args:
      words: what this process is.

    Raises:
      UserError: one line that names those that do.
    """
    if runner not in RUNNERS:
        alone = f"start one process, or set {VARIABLES['processes']}=1 where each has a run of its own"
        raise UserError(f"this is {words}, and {why_alone(runner)}: {alone}")


def why_alone(runner: str) -> str:
    """That a runner does not share its work, and why.

    Example:
      >>> why_alone("pretrain")[:82]
      'pretrain, which trains one model, does not share its work between processes, as re'
    """
    others = f"{', '.join(RUNNERS[:-1])} and {RUNNERS[-1]}"
    return f"{runner}, which {ALONE[runner]}, does not share its work between processes, as {others} do"


def joined() -> bool:
    """Whether this is one of several processes that have begun."""
    import jax

    return bool(jax.distributed.is_initialized())

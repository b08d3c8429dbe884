"""A store that several processes train: process 0 alone has it, and calls the others to every build of its nodes.

What a store asks for is decided by its ledger, as nodes are published: the others cannot know it. So process 0 tells them
what it builds, and before each turn that it goes on; whatever else it tells instead ends the build at hand.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from experiments.core.errors import UserError, line
from experiments.core.machines import processes
from s3t.plans.structure import Node, Plan
from s3t.service import environment, inputs
from s3t.training import schedule
from s3t.training.arrangement import Slices
from s3t.training.schedule import Build, Call, Setup
from s3t.training.source import Source
from s3t.training.stages import Job, Shape, Trained

T = TypeVar("T")
GO_ON, END = "go on", "end"  # beside tasks what process 0 tells


class Task(NamedTuple):
    """A build, for who has its source.

    plan, shards, shapes: of its setup.  key: raw.
    ids_in: (shard, slice) -> ids of its examples.  ancestors: of the jobs, what they own.
    """

    plan: Plan
    shards: int
    key: np.ndarray
    shapes: tuple[Shape, ...]
    ids_in: dict[tuple[int, int], list[int]]
    jobs: list[Job]
    ancestors: dict[Job, Trained]


class _Over(Exception):
    """Process 0 left a build before its end; what it told instead."""

    def __init__(self, told: Task | str) -> None:
        super().__init__()
        self.told = told


def check_stack() -> None:
    """Refuse processes of which one would give a node other bytes; all of them have to call it.

    Raises:
      UserError: one has another processor, number of threads or devices, JAX, or flags than process 0.
    """
    processes.check_same(
        environment.here(), "processor, threads, devices, JAX and flags, for the bytes of nodes are theirs"
    )


def led(source: Source, work: Callable[[Build], T]) -> T:
    """What process 0 makes of a store, in every process; the others take turns at what it builds.

    Args:
      source: of the store, in every process.
      work: of process 0 alone; it trains with what it gets in place of `schedule.build`.

    Raises:
      UserError: what process 0 raises, of a node that diverged, say.
    """
    if not processes.is_first():
        _follow(source)
    return processes.first(lambda: _leading(work))


def _leading(work: Callable[[Build], T]) -> T:
    try:
        found = work(_lead if jax.process_count() > 1 else schedule.build)
    except (ValueError, OSError) as error:  # whatever else it is ends this process, which the others notice
        _tell(END)
        if isinstance(error, ValueError) and not isinstance(error, UserError):
            raise UserError(line(error)) from error
        raise
    _tell(END)
    return found


def _tell(told: Task | str) -> None:
    processes.first(lambda: told)


def _hear() -> Task | str:
    told: Task | str = processes.first(lambda: "")  # process 0 computes it, in `_tell`
    return told


def _lead(setup: Setup, slices: Slices, jobs: Sequence[Job], finished: Callable[[int, Node], Trained]) -> Iterator[Call]:
    """As `schedule.build`, in process 0."""
    task = _task(setup, slices, jobs, finished)  # reads ancestors, and may raise, before the others know of it
    _tell(task)
    yield from schedule.build(_in_turns(setup, lambda: _tell(GO_ON)), slices, jobs, finished)


def _follow(source: Source) -> None:
    """Take part in every build, until process 0 says that there are no more."""
    told = _hear()
    while isinstance(told, Task):
        told = _help(source, told)


def _help(source: Source, task: Task) -> Task | str:
    """Take turns at a build; what process 0 tells after it."""
    key = jax.random.wrap_key_data(jnp.asarray(task.key), impl="threefry2x32")
    setup = _in_turns(Setup(source, task.plan, task.shards, key, task.shapes), _go_on)
    slices = inputs.compartments(setup, task.ids_in)
    try:
        for _ in schedule.build(setup, slices, task.jobs, lambda shard, node: task.ancestors[shard, node]):
            pass
    except _Over as over:
        return over.told
    except UserError:
        pass  # a call's, which process 0 has as well: it says what comes of it
    return _hear()


def _task(setup: Setup, slices: Slices, jobs: Sequence[Job], finished: Callable[[int, Node], Trained]) -> Task:
    used, count = np.asarray(slices.used), setup.plan.slices
    ids_in = {divmod(at, count): np.asarray(slices.id[at, : used[at]]).tolist() for at in np.flatnonzero(used).tolist()}
    above = dict.fromkeys((shard, node[:depth]) for shard, node in jobs for depth in range(1, len(node)))
    ancestors = {job: finished(*job) for job in above if job not in set(jobs)}
    key = np.asarray(jax.random.key_data(setup.key))
    return Task(setup.plan, setup.shards, key, setup.shapes, ids_in, list(jobs), ancestors)


def _in_turns(setup: Setup, before: Callable[[], None]) -> Setup:
    """The setup whose calls are shared, with something to do before each turn."""

    def turns(calls: Sequence[Callable[[], Call]]) -> Iterator[Call]:
        count = jax.process_count()
        for first in range(0, len(calls), count):
            before()
            yield from processes.turns(calls[first : first + count])

    return setup._replace(source=dataclasses.replace(setup.source, turns=turns))


def _go_on() -> None:
    if (told := _hear()) != GO_ON:
        raise _Over(told)

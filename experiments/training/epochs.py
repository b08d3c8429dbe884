"""An epoch of all lanes, carried out in one of three ways with one interface, `loop.Epoch`.

* rolled: one program for all lanes and steps; on accelerators, and for models made of matrix products.
* looped: Python loops over lanes and steps around one compiled step; for convolutional models on a CPU.
* streamed: one step after the other, while the images of later ones are read from disk (`streaming`).
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

from experiments.core.machines import fleet
from experiments.core.machines.execution import Execution
from experiments.training import streaming
from experiments.training.loop import Epoch, Lane, Way, make_step_fn, rows_of
from readiness.requests import Pools
from readiness.step import StepInfo, TrainState
from unlearn.base import Array, Batch


def make(way: Way, devices: Execution, *, on_disk: bool = False) -> Epoch:
    """An epoch of a way, as its execution asks.

    Args:
      on_disk: for data on the host whose `x` is Images.
    """
    make_epoch = streaming.streamed if on_disk else looped if devices.loops else rolled
    return make_epoch(way, devices)


def rolled(way: Way, devices: Execution) -> Epoch:
    """All lanes and steps in one program, on one CPU in parts that its caches hold."""
    step, schedule = make_step_fn(way, devices), way.schedule

    def together(states: TrainState, lanes: Lane, data: Batch, pools: Pools | None, epoch: Array, steps: int) -> Any:
        rows = jax.vmap(lambda lane: rows_of(way, lane, data["id"], epoch))(lanes)
        begin = epoch * way.per_epoch

        def advance(i: Array, carry: Any, rehearse: bool) -> Any:
            states, infos = carry
            one = lambda state, lane, row: step(state, lane, data, pools, row, begin + i, rehearse)  # noqa: E731
            states, info = jax.vmap(one)(states, lanes, rows[:, i])
            return states, jax.tree.map(lambda all_, new: all_.at[i].set(new), infos, info)

        plain = lambda low, high, carry: jax.lax.fori_loop(low, high, lambda i, c: advance(i, c, False), carry)  # noqa: E731
        blank = jnp.zeros((steps, fleet.lane_count(lanes)))
        carry = states, StepInfo(blank, blank)
        if not schedule.every:
            return plain(0, steps, carry)

        # Runs of ordinary steps between rehearsals, and no condition: a CPU copies all that goes through a branch.
        first = schedule.first(begin, steps)

        def block(n: Array, carry: Any) -> Any:
            i = first + n * schedule.every
            return plain(i + 1, jnp.minimum(i + schedule.every, steps), advance(i, carry, True))

        return jax.lax.fori_loop(0, -(-(steps - first) // schedule.every), block, plain(0, first, carry))

    def in_parts(states: TrainState, lanes: Lane, data: Batch, pools: Pools | None, epoch: Array, steps: int) -> Any:
        def part(some: tuple[TrainState, Lane]) -> tuple[TrainState, StepInfo]:
            states, infos = together(*some, data, pools, epoch, steps)
            return states, jax.tree.map(lambda leaf: leaf.T, infos)

        return fleet.in_parts(part, (states, lanes))

    compiled: dict[int, Any] = {}

    def run(states: TrainState, lanes: Lane, data: Batch, pools: Pools | None, epoch: int, steps: int) -> Any:
        if steps not in compiled:
            compiled[steps] = devices.compile(functools.partial(in_parts, steps=steps))
        return compiled[steps](states, lanes, data, pools, jnp.asarray(epoch))

    return run


def looped(way: Way, devices: Execution) -> Epoch:
    """One compiled step, called for every lane and step; threads carry lanes side by side."""
    step, schedule = make_step_fn(way, devices), way.schedule
    draw_rows = jax.jit(functools.partial(rows_of, way))
    one = {r: devices.compile(lambda *args, r=r: step(*args, r)) for r in (False, True)}

    def run(states: TrainState, lanes: Lane, data: Batch, pools: Pools | None, epoch: int, steps: int) -> Any:
        def of_lane(i: int) -> tuple[TrainState, StepInfo]:
            state, lane = fleet.lane(states, i), fleet.lane(lanes, i)
            rows = draw_rows(lane, data["id"], jnp.asarray(epoch))
            infos = []
            for j in range(steps):
                t = epoch * way.per_epoch + j
                state, info = one[schedule.rehearses(t)](state, lane, data, pools, rows[j], jnp.asarray(t))
                infos.append(info)
            return state, fleet.stack(infos)

        return fleet.stack(fleet.each(of_lane, fleet.lane_count(lanes)))

    return run

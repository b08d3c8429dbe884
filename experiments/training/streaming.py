"""Training on images that stay on disk: an epoch's batches are drawn as positions, and filled with images ahead of use.

The draw is the very code that trains in memory (`loop.draw`), given a data set whose `x` are positions. It runs once
per epoch, for all lanes and steps. Threads decode what a step asks for while the device works on earlier ones, so that
at any time no more than a few steps' images are in memory.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.core.machines import fleet
from experiments.core.machines.execution import Execution
from experiments.data.datasets import Images, ahead
from experiments.training import loop
from experiments.training.loop import Drawn, Epoch, Lane, Way
from readiness.requests import Pools
from readiness.step import StepInfo, TrainState
from unlearn.base import Batch


def streamed(way: Way, devices: Execution) -> Epoch:
    """An epoch for `data` on the host whose `x` is Images.

    Raises:
      DataError: from an epoch, if an example cannot be read.
    """
    apply, loops, schedule = loop.make_apply(way, devices), devices.loops, way.schedule
    step = devices.compile(apply if loops else jax.vmap(apply))

    @jax.jit
    def draw(lanes: Lane, index: Batch, pools: Pools | None, epoch: jax.Array) -> Drawn:
        """[steps, lanes, ...]; every step rehearses if any does, which costs less than shapes that change by the epoch."""

        def of_lane(lane: Lane) -> Drawn:
            rows = loop.rows_of(way, lane, index["id"], epoch)
            steps = epoch * way.per_epoch + jnp.arange(way.per_epoch)
            one = lambda row, i: loop.draw(way, lane, index, pools, row, i, schedule.every > 0)  # noqa: E731
            return jax.vmap(one)(rows, steps)

        return jax.vmap(of_lane, out_axes=1)(lanes)

    def advance(states: Any, drawn: Drawn) -> tuple[Any, StepInfo]:
        if not loops:
            return step(states, drawn)
        made = [step(state, fleet.lane(drawn, i)) for i, state in enumerate(states)]
        return [state for state, _ in made], fleet.stack([info for _, info in made])

    def run(states: TrainState, lanes: Lane, data: Batch, pools: Pools | None, epoch: int, steps: int) -> Any:
        images: Any = data["x"]
        drawn = jax.device_get(draw(lanes, positions_of(data), pools, jnp.asarray(epoch)))

        def make(i: int) -> Drawn:
            one = fleet.lane(drawn, i)
            due = schedule.rehearses(epoch * way.per_epoch + i)
            return fill(images, one if due else one._replace(meta=None, step_size=None))

        infos: list[StepInfo] = []
        now: Any = [fleet.lane(states, i) for i in range(fleet.lane_count(lanes))] if loops else states
        for filled in ahead(make, steps):
            now, info = advance(now, filled)
            if infos:
                jax.block_until_ready(infos[-1])  # a device that lags behind would pile up the images of steps to come
            infos.append(info)
        return fleet.stack(now) if loops else now, jax.tree.map(lambda *leaves: jnp.stack(leaves, axis=1), *infos)

    return run


def positions_of(data: Batch) -> Batch:
    """The data set with positions in place of its images: what is drawn from it can be filled."""
    positions: Any = np.arange(len(data["id"]), dtype=np.int32)
    return dict(data, x=positions)


def fill(images: Images, drawn: Drawn) -> Drawn:
    """What was drawn from `positions_of`, with images in place of positions; all are read at once, and each only once."""
    is_batch = lambda node: isinstance(node, dict)  # noqa: E731
    batches = [node for node in jax.tree.leaves(drawn, is_leaf=is_batch) if is_batch(node)]
    positions = np.unique(np.concatenate([batch["x"].ravel() for batch in batches]))
    found = images[positions]
    put = lambda node: dict(node, x=found[np.searchsorted(positions, node["x"])]) if is_batch(node) else node  # noqa: E731
    return jax.tree.map(put, drawn, is_leaf=is_batch)

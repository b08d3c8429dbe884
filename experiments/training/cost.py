"""What training costs, counted by XLA on single unrolled steps; scans hide their trips from its counts."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from experiments.core.machines.environment import peak_bytes, program_flops
from experiments.core.machines.execution import one_device
from experiments.data.datasets import Images
from experiments.training import loop, streaming
from unlearn.base import Batch


def of_training(way: loop.Way, data: Batch) -> dict[str, float]:
    """FLOPs of a step and of the training of one lane without rehearsals, and the peak bytes of a step."""
    flops, peak = _counted(way, data, None, rehearse=False)
    return {
        "step_flops": flops,
        "meta_step_flops": 0.0,
        "train_flops": flops * way.steps,
        "peak_bytes": peak,
    }


def of_rehearsing(
    way: loop.Way, data: Batch, pools: Any, step_flops: float, levels_given: bool = False
) -> dict[str, float]:
    """The same for a way that rehearses, whose inner steps must be unrolled; its other steps cost `step_flops`.

    Args:
      levels_given: levels are a column of the data, and not read off the model at each rehearsal.
    """
    flops, peak = _counted(way, data, pools, rehearse=True, levels_given=levels_given)
    rehearsals = way.schedule.within(way.steps)
    return {
        "step_flops": step_flops,
        "meta_step_flops": flops,
        "train_flops": step_flops * (way.steps - rehearsals) + flops * rehearsals,
        "peak_bytes": peak,
    }


def _counted(way: loop.Way, data: Batch, pools: Any, rehearse: bool, levels_given: bool = False) -> tuple[float, int]:
    """FLOPs and peak bytes of one step."""
    traced = _traced(way, data, pools, rehearse, levels_given)
    compiled = traced.lower().compile()
    return program_flops(traced, compiled), peak_bytes(compiled)


def _traced(way: loop.Way, data: Batch, pools: Any, rehearse: bool, levels_given: bool) -> Any:
    # One device's operators: how a batch is spread does not change what it costs.
    devices, unroll = one_device(), way.model.convolutional  # what is counted in loops are matrix products alone
    lanes = loop.make_lanes([0], *(2 * [jnp.ones(len(data["id"]), bool)]))
    state, lane = (jax.tree.map(lambda leaf: leaf[0], t) for t in (loop.init_lanes(way, lanes), lanes))
    if levels_given:
        lane = lane._replace(level=jnp.zeros(len(data["id"])))
    row = jnp.zeros(way.capacity or way.batch_size, jnp.int32)
    if isinstance(data["x"], Images):
        drawn = loop.draw(way, lane, streaming.positions_of(data), pools, row, jnp.asarray(0), rehearse)
        filled = streaming.fill(data["x"], jax.device_get(drawn))
        return jax.jit(loop.make_apply(way, devices, unroll=unroll)).trace(state, filled)
    step = loop.make_step_fn(way, devices, unroll=unroll)
    return jax.jit(lambda *args: step(*args, rehearse)).trace(state, lane, data, pools, row, jnp.asarray(0))

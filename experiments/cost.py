"""What training and unlearning cost, counted by XLA on single unrolled steps; scans hide their trips from its counts."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from experiments import training
from experiments.parallel import Parallel
from experiments.parallel import make as make_parallel
from experiments.requesting import RequestData, Setting
from unlearn import ALGORITHMS, Request
from unlearn.base import Batch, Model


def of_training(way: training.Way, devices: Parallel, data: Batch, pools: Any) -> dict[str, float]:
    """FLOPs of an ordinary step, of a step with readiness, and of the whole training of one lane; peak bytes of a step.

    Args:
      way: its inner steps must be unrolled.
      devices: ignored but for the single-device operators: FLOPs do not depend on how a batch is spread.
      data, pools: as for training.
    """
    step = training.make_step_fn(way, make_parallel("jit", jax.local_devices()[:1]))
    lane = training.make_lanes([0], *(2 * [jnp.ones(len(data["id"]), bool)]))
    state = jax.tree.map(lambda leaf: leaf[0], training.init_lanes(way, lane, data["x"][:1]))
    lane = jax.tree.map(lambda leaf: leaf[0], lane)
    row = jnp.zeros(way.batch_size, jnp.int32)

    def compiled(rehearse: bool) -> Any:
        return jax.jit(lambda *args: step(*args, rehearse)).lower(state, lane, data, pools, row, jnp.asarray(0)).compile()

    plain = compiled(False)
    step_flops, peak = flops(plain), peak_bytes(plain)
    if way.rehearsing is None:
        return {"step_flops": step_flops, "meta_step_flops": 0.0, "train_flops": step_flops * way.steps, "peak_bytes": peak}
    meta = compiled(True)
    rehearsals = max(0, -(-(way.steps - way.rehearsing.start) // way.rehearsing.every))
    return {
        "step_flops": step_flops,
        "meta_step_flops": flops(meta),
        "train_flops": step_flops * (way.steps - rehearsals) + flops(meta) * rehearsals,
        "peak_bytes": max(peak, peak_bytes(meta)),
    }


def of_update(model: Model, name: str, params: Any, data: RequestData, setting: Setting, config: Any) -> float:
    """FLOPs of one update of a request."""
    options = config.request.options.get(name, {})
    algorithm = ALGORITHMS[name](model, optax.sgd(setting.learning_rate), **dict(options))
    size = setting.batch_size or data.forget["weight"].shape[0]
    cut = lambda batch: jax.tree.map(lambda leaf: leaf[:size], batch)  # noqa: E731
    request, key = Request(cut(data.forget), cut(data.retain)), jax.random.key(0)
    state = algorithm.init(params, request, key)
    return flops(jax.jit(algorithm.update).lower(state, request, key).compile())


def flops(compiled: Any) -> float:
    """Floating-point operations of a compiled program, as XLA counts them."""
    return float(compiled.cost_analysis().get("flops", float("nan")))


def peak_bytes(compiled: Any) -> int:
    """Arguments, results and temporaries of a compiled program, in bytes."""
    memory = compiled.memory_analysis()
    return int(memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes)

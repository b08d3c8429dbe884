"""How many lanes a program of the judge holds, and where: by a budget of memory, over all devices.

Parameters of fleets wait on the host; a program takes as many lanes as fit `judge.memory_bytes` of each device. What a lane
takes is counted by XLA on the one-lane programs that are compiled for their FLOPs anyway: arguments, results and
temporaries of a step, without the data set, which all lanes share, and with the order of an epoch; the largest of training,
rehearsing, an update and a prediction.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from experiments.core.keys import Purpose
from experiments.core.machines import environment, fleet
from experiments.data import datasets
from experiments.judge.cases import Case, rehearsed
from experiments.scoring import algorithms, cost, requests
from experiments.scoring.statistics import Statistics, chunk_of
from experiments.training import loop
from readiness.requests import take
from unlearn.base import Batch

SHUFFLE = 32  # bytes of each example for a lane's order of an epoch: keys, numbers and positions, being sorted


def at_once(case: Case) -> int:
    """How many lanes run together, at least one on each device.

    Kept, since checkpoints belong to these parts: a judgement that goes on with more or fewer devices keeps to it.
    """

    def count() -> int:
        counted = [*training_costs(case).values(), *(update_cost(case, name) for name in case.shared.request.unlearners)]
        taken = max([int(prediction_cost(case)["lane_bytes"]), *(int(one["lane_bytes"]) for one in counted)])
        case.workdir.log("lanes", bytes_of_a_lane=taken)
        return jax.device_count() * max(1, case.shared.judgement.memory_bytes // taken)

    return case.workdir.stage("lanes", count)


def _parts(case: Case, total: int) -> Iterator[slice]:
    """The parts of so many lanes, the same whatever devices a judgement goes on with."""
    return parts(total, at_once(case), case.workdir.stage("devices", jax.device_count))


def parts(total: int, most: int, devices: int) -> Iterator[slice]:
    """As few and as even slices of `total` lanes as hold `most` at most; multiples of the devices where that goes."""
    size = -(-total // -(-total // most))
    size = min(-(-size // devices) * devices, most)
    for start in range(0, total, size):
        yield slice(start, min(start + size, total))


def spread(lanes: Any) -> Any:
    """Lanes divided among as many of this process's devices as divide them; `processes.share` divides among processes."""
    devices = math.gcd(fleet.lane_count(lanes), jax.local_device_count())
    if devices == 1:
        return jax.tree.map(jnp.asarray, lanes)
    mesh = jax.make_mesh((devices,), ("lanes",), axis_types=(AxisType.Auto,), devices=jax.local_devices()[:devices])
    return jax.device_put(lanes, NamedSharding(mesh, PartitionSpec("lanes")))


def over(case: Case, fn: Callable[[Any], Any], lanes: Any) -> Any:
    """`fn` of all lanes, part by part: numpy arrays, [lanes, ...] each."""
    found = [jax.device_get(fn(spread(fleet.lane(lanes, part)))) for part in _parts(case, fleet.lane_count(lanes))]
    return joined(found)


def joined(found: list[Any]) -> Any:
    """One tree of lanes on the host from several."""
    return jax.tree.map(lambda *leaves: np.concatenate([np.asarray(leaf) for leaf in leaves]), *found)


def statistics(case: Case, params: Any, batch: Batch) -> Statistics:
    """The statistics of a batch, [lanes, examples], of all lanes."""
    of = case.scorer.statistics
    return over(case, lambda lanes: of(lanes, batch), params)


def train(case: Case, way: loop.Way, lanes: loop.Lane, name: str, pools: Any = None) -> loop.Trained:
    """Train all lanes of one way, in parts with checkpoints of their own; parameters come to the host."""
    found = []
    for i, part in enumerate(_parts(case, fleet.lane_count(lanes))):
        trained = case.trainer.fleet(way, spread(fleet.lane(lanes, part)), f"{name}-{i}", pools)
        found.append(trained._replace(params=jax.device_get(trained.params)))
    seconds = np.average([one.seconds for one in found], weights=[one.losses.shape[1] for one in found])
    losses = np.concatenate([one.losses for one in found], axis=1)
    return loop.Trained(joined([one.params for one in found]), float(seconds), losses)


def training_costs(case: Case) -> dict[str, dict[str, float]]:
    """By training: FLOPs of one model's, `peak_bytes` of a step, and `lane_bytes`, its part that no lanes share."""
    trainer, costs = case.trainer, {}
    step = trainer.cost(trainer.way(), "plain")
    for name in case.shared.trainings:
        if name in case.readiness:
            rehearsal = rehearsed(case, name)
            spent = trainer.rehearsing_cost(rehearsal.counted, rehearsal.pools, step["step_flops"], name, rehearsal.proxies)
            costs[name] = spent
        elif name == "dpsgd":
            section = case.shared.dpsgd
            costs[name] = trainer.cost(trainer.private_way(section), trainer.private_name(section))
        else:
            costs[name] = step
    shared = sum(leaf.nbytes for leaf in jax.tree.leaves(case.trainer.data))
    own = SHUFFLE * len(case.trainer.data["id"]) - shared
    return {name: one | {"lane_bytes": one["peak_bytes"] + own} for name, one in costs.items()}


def update_cost(case: Case, unlearner: str) -> dict[str, float]:
    """FLOPs of one update of a request on one model, and its bytes."""

    def count() -> dict[str, float]:
        size = case.shared.judgement.batch_size
        first = jnp.zeros(size, int)
        batch = datasets.batch(case.problem.dataset.train, np.asarray(first))
        told = take(case.trainer.data if algorithms.are_told([unlearner]) else {}, first)
        how = requests.Setting(0.1, 0.0, 1, size)
        model, options = case.scorer.model, algorithms.options(case.shared.request, unlearner)
        request = requests.RequestData({**batch, **told}, batch, batch)
        compiled = cost.compiled_update(model, unlearner, options, _any(case), request, how)
        return {"flops": environment.flops(compiled), "lane_bytes": environment.peak_bytes(compiled)}

    return case.workdir.stage(f"cost-{unlearner}", count)


def untrained(case: Case, seeds: Sequence[int], purpose: Purpose) -> Any:
    """Freshly initialised parameters, one lane per seed."""
    everyone = np.ones(len(case.trainer.data["id"]), bool)
    lanes = loop.make_lanes(seeds, everyone, everyone, purpose=purpose)
    way = loop.Way(case.trainer.model, optax.identity(), 1, 1, 1)
    return loop.init_lanes(way, lanes).params


def _any(case: Case) -> Any:
    return fleet.lane(untrained(case, [0], Purpose.TRAINING), 0)


def prediction_cost(case: Case) -> dict[str, float]:
    """FLOPs of the logits of one example, and bytes of those of a chunk."""

    def count() -> dict[str, float]:
        model = case.scorer.model
        x = case.trainer.data["x"]
        size = chunk_of(x)
        x = jax.ShapeDtypeStruct((size, *x.shape[1:]), x.dtype)
        program = jax.jit(lambda params, x: model.apply(params, x, None))
        compiled = program.lower(_any(case), x).compile()
        return {"flops": environment.flops(compiled) / size, "lane_bytes": environment.peak_bytes(compiled)}

    return case.workdir.stage("cost-prediction", count)

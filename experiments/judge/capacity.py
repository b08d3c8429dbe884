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

from experiments import models
from experiments.comparison import judging, setup, trainings
from experiments.configs.judge import Judged
from experiments.core import environment, fleet
from experiments.core.keys import Purpose
from experiments.data import datasets
from experiments.scoring import requests
from experiments.scoring.statistics import CHUNK, Statistics
from experiments.training import cost, loop
from unlearn.base import Batch

Bench = setup.Bench[Judged]
SHUFFLE = 32  # bytes of each example for a lane's order of an epoch: keys, numbers and positions, being sorted


def at_once(bench: Bench) -> int:
    """How many lanes run together, at least one on each device.

    Kept, since checkpoints belong to these parts: a judgement that goes on with more or fewer devices keeps to it.
    """

    def count() -> int:
        counted = [*training_costs(bench).values(), *(update_cost(bench, name) for name in bench.config.request.unlearners)]
        taken = max([int(prediction_cost(bench)["lane_bytes"]), *(int(one["lane_bytes"]) for one in counted)])
        bench.workdir.log("lanes", bytes_of_a_lane=taken)
        return jax.device_count() * max(1, bench.config.judge.memory_bytes // taken)

    return bench.workdir.stage("lanes", count)


def _parts(bench: Bench, total: int) -> Iterator[slice]:
    """The parts of so many lanes, the same whatever devices a judgement goes on with."""
    return parts(total, at_once(bench), bench.workdir.stage("devices", jax.device_count))


def parts(total: int, most: int, devices: int) -> Iterator[slice]:
    """As few and as even slices of `total` lanes as hold `most` at most; multiples of the devices where that goes."""
    size = -(-total // -(-total // most))
    size = min(-(-size // devices) * devices, most)
    for start in range(0, total, size):
        yield slice(start, min(start + size, total))


def spread(lanes: Any) -> Any:
    """Lanes divided among as many devices as divide them."""
    devices = math.gcd(fleet.lane_count(lanes), jax.device_count())
    if devices == 1:
        return jax.tree.map(jnp.asarray, lanes)
    mesh = jax.make_mesh((devices,), ("lanes",), axis_types=(AxisType.Auto,), devices=jax.devices()[:devices])
    return jax.device_put(lanes, NamedSharding(mesh, PartitionSpec("lanes")))


def over(bench: Bench, fn: Callable[[Any], Any], lanes: Any) -> Any:
    """`fn` of all lanes, part by part: numpy arrays, [lanes, ...] each."""
    found = [jax.device_get(fn(spread(fleet.lane(lanes, part)))) for part in _parts(bench, fleet.lane_count(lanes))]
    return joined(found)


def joined(found: list[Any]) -> Any:
    """One tree of lanes on the host from several."""
    return jax.tree.map(lambda *leaves: np.concatenate([np.asarray(leaf) for leaf in leaves]), *found)


def statistics(bench: Bench, params: Any, batch: Batch) -> Statistics:
    """The statistics of a batch, [lanes, examples], of all lanes."""
    of = judging.make_statistics(bench)
    return over(bench, lambda lanes: of(lanes, batch), params)


def train(bench: Bench, way: loop.Way, lanes: loop.Lane, name: str, pools: Any = None) -> loop.Trained:
    """Train all lanes of one way, in parts with checkpoints of their own; parameters come to the host."""
    found = []
    for i, part in enumerate(_parts(bench, fleet.lane_count(lanes))):
        trained = trainings.train_fleet(bench, way, spread(fleet.lane(lanes, part)), f"{name}-{i}", pools)
        found.append(trained._replace(params=jax.device_get(trained.params)))
    seconds = np.average([one.seconds for one in found], weights=[one.losses.shape[1] for one in found])
    losses = np.concatenate([one.losses for one in found], axis=1)
    return loop.Trained(joined([one.params for one in found]), float(seconds), losses)


def training_costs(bench: Bench) -> dict[str, dict[str, float]]:
    """By training: FLOPs of one model's, `peak_bytes` of a step, and `lane_bytes`, its part that no lanes share."""
    config = bench.config
    plain = trainings.plain_way(bench, config.train.steps)
    private = plain._replace(private=(config.dpsgd.clip, config.dpsgd.noise))
    step = bench.workdir.stage("cost-plain", lambda: cost.of_training(plain, bench.train))
    costs: dict[str, dict[str, float]] = {}
    for name in config.trainings:
        if name == "readiness":
            ((_, _, way, pools),) = trainings.plan(bench)
            count = lambda w=way, p=pools: cost.of_rehearsing(w, bench.train, p, step["step_flops"])  # noqa: E731
            costs[name] = bench.workdir.stage("cost-readiness", count)
        elif name == "dpsgd":
            costs[name] = bench.workdir.stage("cost-dpsgd", lambda: cost.of_training(private, bench.train))
        else:
            costs[name] = step
    shared = sum(leaf.nbytes for leaf in bench.train.values())
    own = SHUFFLE * len(bench.train["id"]) - shared
    return {name: one | {"lane_bytes": one["peak_bytes"] + own} for name, one in costs.items()}


def update_cost(bench: Bench, unlearner: str) -> dict[str, float]:
    """FLOPs of one update of a request on one model, and its bytes."""

    def count() -> dict[str, float]:
        size = bench.config.judge.batch_size
        batch = datasets.batch(bench.dataset.train, np.zeros(size, int))
        how = requests.Setting(0.1, 0.0, 1, size)
        model, options = models.as_model(bench.model), judging.options(bench, unlearner)
        request = requests.RequestData(batch, batch, batch)
        compiled = cost.compiled_update(model, unlearner, options, _any(bench), request, how)
        return {"flops": environment.flops(compiled), "lane_bytes": environment.peak_bytes(compiled)}

    return bench.workdir.stage(f"cost-{unlearner}", count)


def untrained(bench: Bench, seeds: Sequence[int], purpose: Purpose) -> Any:
    """Freshly initialised parameters, one lane per seed."""
    everyone = np.ones(len(bench.train["id"]), bool)
    lanes = loop.make_lanes(seeds, everyone, everyone, purpose=purpose)
    way = loop.Way(bench.model, optax.identity(), 1, 1, 1)
    return loop.init_lanes(way, lanes).params


def _any(bench: Bench) -> Any:
    return fleet.lane(untrained(bench, [0], Purpose.TRAINING), 0)


def prediction_cost(bench: Bench) -> dict[str, float]:
    """FLOPs of the logits of one example, and bytes of those of a chunk."""

    def count() -> dict[str, float]:
        model = models.as_model(bench.model)
        x = jax.ShapeDtypeStruct((CHUNK, *bench.train["x"].shape[1:]), np.float32)
        program = jax.jit(lambda params, x: model.apply(params, x, None))
        compiled = program.lower(_any(bench), x).compile()
        return {"flops": environment.flops(compiled) / CHUNK, "lane_bytes": environment.peak_bytes(compiled)}

    return bench.workdir.stage("cost-prediction", count)

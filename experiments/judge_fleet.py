"""Fleets of the judge: who is trained on in each model, how all of them train, and how all of them unlearn.

For one forget set F there are two kinds of model, and a few more to tune on:

* repeats: trained on everything, and all asked to forget F (KLoM, gaps, relearning); the oracle's never saw F;
* shadows: each trained on a half of its own of the pool P, and asked to forget what it was trained on of it (U-LiRA); the
  oracle's never saw P. F lies within P: of a class, P is F; of random data, P holds as many others.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import comparison, cost, data, fleet, judging, models, training
from experiments.bench import Bench, revocable
from readiness.requests import take
from unlearn import ALGORITHMS, Request
from unlearn.base import Array, Batch, Model, UnlearnState

REPEATS, SHADOWS, TUNING = "repeats", "shadows", "tuning"
ROLES = (REPEATS, SHADOWS, TUNING)
ORACLES = ("oracle", "heldout_oracle")


class Case(NamedTuple):
    """One forget set.

    bench: knows F.  pool: positions of P in the training split.
    included: [lanes, pool] bool, what each shadow is trained on of P; every example by half of either half of the shadows.
    """

    name: str
    bench: Bench
    pool: np.ndarray
    included: np.ndarray


def make_case(name: str, bench: Bench) -> Case:
    """The pool and the shadows' halves, by id: other data would not change which half an example is in."""
    ids, config = bench.dataset.train.id, bench.config
    pool = bench.forget
    if config.forget.setting == "random":
        others = np.setdiff1d(np.arange(len(ids)), pool)
        more = others[data.lowest(ids[others], min(len(pool), len(others) // 2), "pool", config.forget.seed)]
        pool = np.union1d(pool, more)
    lanes = config.judge.lanes
    halves = [_half(ids[pool], range(part.start, part.stop), config.seed) for part in _chunks(lanes, -(-lanes // 2))]
    return Case(name, bench, pool, np.concatenate(halves))


def _half(ids: np.ndarray, lanes: range, seed: int) -> np.ndarray:
    """[lanes, examples] bool: every example in half of the lanes, which ones by its id alone."""
    drawn = np.stack([data.hash_uniform(ids, f"shadow{lane}", seed) for lane in lanes])
    return np.argsort(np.argsort(drawn, axis=0), axis=0) < len(lanes) // 2


def count(case: Case, role: str) -> int:
    """How many models of a kind there are."""
    config = case.bench.config.judge
    return config.tuning.lanes if role == TUNING else config.lanes


def members(case: Case, training_: str, role: str) -> np.ndarray:
    """Who is trained on in each lane, [lanes, examples] bool."""
    everyone = np.ones((count(case, role), len(case.bench.dataset.train.id)), bool)
    if role == SHADOWS:
        everyone[:, case.pool] = case.included & (training_ not in ORACLES)
    elif training_ in ORACLES:
        everyone[:, case.bench.forget] = False
    return everyone


def asked(case: Case, role: str) -> np.ndarray:
    """Which examples of the pool each lane is asked to forget, [lanes, pool] bool."""
    if role == SHADOWS:
        return case.included
    return np.broadcast_to(np.isin(case.pool, case.bench.forget), (count(case, role), len(case.pool)))


def _lanes(case: Case, training_: str, role: str) -> training.Lane:
    """Lanes with keys of their own: no two fleets share a model, so targets and shadows are disjoint."""
    bench, stream = case.bench, 2 * ROLES.index(role) + (training_ == "heldout_oracle")
    seeds = bench.config.seed + np.arange(count(case, role))
    member = members(case, training_, role)
    weight = np.ones(member.shape, np.float32)
    if training_ == "reweight":
        weight[:, revocable(_told(case, role))] = bench.config.reweight.weight
    plain = training.make_lanes(seeds, member[0], weight[0], stream=stream)
    return plain._replace(member=jnp.asarray(member), weight=jnp.asarray(weight))


def _told(case: Case, role: str) -> Bench:
    """What training is told: that F may be asked for; a shadow's, that P may (of which it holds a half)."""
    return case.bench._replace(forget=case.pool) if role == SHADOWS else case.bench


class Fleets(NamedTuple):
    """Trained models.

    params: (training, role) -> parameters of all lanes.
    cost: training -> FLOPs and seconds of one model's training, and peak bytes.
    """

    params: dict[tuple[str, str], Any]
    cost: dict[str, dict[str, float]]


def train(case: Case) -> Fleets:
    """Train every model of a case. Ways that differ in membership and weight alone share programs."""
    bench, config = case.bench, case.bench.config
    keys = [(name, role) for name in config.trainings for role in ROLES if (name, role) != (ORACLES[1], TUNING)]
    plain = {key: _lanes(case, *key) for key in keys if key[0] != "readiness"}
    every, parts = fleet.concatenate(list(plain.values())), []
    way = comparison.plain_way(bench, config.train.steps)
    for i, part in enumerate(_chunks(fleet.lane_count(every), config.judge.most_lanes)):
        parts.append(comparison.train_fleet(bench, way, fleet.lane(every, part), f"{case.name}-plain-{i}"))
    spent = bench.workdir.stage("cost-plain", lambda: cost.of_training(way, bench.train))
    spent["train_seconds"] = float(np.mean([part.seconds for part in parts]))
    costs = dict.fromkeys((name for name, _ in plain), spent)
    every, params, start = fleet.concatenate([part.params for part in parts]), {}, 0
    for key, lanes in plain.items():
        params[key] = fleet.lane(every, slice(start, start := start + fleet.lane_count(lanes)))
    for key in keys:
        if key[0] == "readiness":
            told = _told(case, key[1])
            rehearsal = comparison.plan(told)[0]
            name = f"{case.name}-readiness-{key[1]}"
            trained = comparison.train_fleet(told, rehearsal.way, _lanes(case, *key), name, rehearsal.pools)
            count = lambda r=rehearsal: cost.of_rehearsing(r.counted, bench.train, r.pools, spent["step_flops"])  # noqa: E731
            counted = bench.workdir.stage(f"cost-{case.name}-readiness", count)
            params[key], costs["readiness"] = trained.params, counted | {"train_seconds": trained.seconds}
    return Fleets(params, costs)


def _chunks(total: int, most: int) -> Iterator[slice]:
    parts = -(-total // most)
    for i in range(parts):
        yield slice(i * total // parts, (i + 1) * total // parts)


class Setting(NamedTuple):
    """How a request is carried out: so many updates, all at one rate."""

    learning_rate: float
    steps: int


def forget(case: Case, params: Any, role: str, name: str, rate: float, stops: tuple[int, ...]) -> list[Any]:
    """Carry out the request of every lane by the algorithm `name`.

    Args:
      params: of all lanes of this role.
      rate: learning rate.
      stops: numbers of updates, increasing; the parameters are wanted after each.

    Returns:
      Parameters of all lanes, for each of `stops`.
    """
    bench = case.bench
    options = tuple(sorted(judging.options(bench, name).items()))
    run = _forgetter(models.as_model(bench.module), name, options, bench.config.judge.batch_size, stops, bench.loops)
    wanted = asked(case, role)
    kept = members(case, "vanilla", role)
    kept[:, case.pool] &= ~wanted
    seeds = bench.config.seed + np.arange(count(case, role))
    keys = jnp.stack(
        [jax.random.key_data(jax.random.fold_in(jax.random.key(int(s)), 2 + ROLES.index(role))) for s in seeds]
    )
    pool = jax.tree.map(lambda leaf: leaf[case.pool], bench.train)
    ended = []
    for part in _chunks(len(keys), bench.config.judge.most_lanes):
        lanes = fleet.lane((params, keys, jnp.asarray(wanted), jnp.asarray(kept)), part)
        ended.append(run(lanes, pool, bench.train, rate))
    return [fleet.concatenate([part[i] for part in ended]) for i in range(len(stops))]


@functools.lru_cache(maxsize=64)
def _forgetter(
    model: Model, name: str, options: tuple, batch_size: int, stops: tuple[int, ...], loops: bool
) -> Callable[..., list[Any]]:
    def single(lane: tuple[Any, Array, Array, Array], pool: Batch, train: Batch, rate: Array) -> list[Any]:
        params, raw, wanted, kept = lane
        algorithm = ALGORITHMS[name](model, optax.sgd(rate), **dict(options))
        init_key, *keys, step_key = jax.random.split(jax.random.wrap_key_data(raw), 4)
        orders = [jnp.argsort(~member) for member in (wanted, kept)]  # members first
        counts = [jnp.sum(member) for member in (wanted, kept)]

        def request(step: Array) -> Request:
            drawn = (
                jax.random.randint(jax.random.fold_in(k, step), (batch_size,), 0, n)
                for k, n in zip(keys, counts, strict=True)
            )
            return Request(
                *(take(part, order[rows]) for part, order, rows in zip((pool, train), orders, drawn, strict=True))
            )

        def body(state: UnlearnState, step: Array) -> tuple[UnlearnState, None]:
            return algorithm.update(state, request(step), jax.random.fold_in(step_key, step))[0], None

        state, ended = algorithm.init(params, request(jnp.asarray(0)), init_key), []
        for start, stop in itertools.pairwise((0, *stops)):
            if loops:
                for step in range(start, stop):
                    state, _ = body(state, jnp.asarray(step))
            else:
                state, _ = jax.lax.scan(body, state, jnp.arange(start, stop))
            ended.append(state.params)
        return ended

    return fleet.over_lanes(single, loops)

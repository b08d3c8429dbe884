"""Fleets of the judge: who is trained on in each model, how all of them train, and how all of them unlearn.

For one forget set F there are two kinds of model, and a few more to tune on:

* repeats: trained on everything, and all asked to forget F (KLoM, gaps, relearning); the oracle's never saw F;
* shadows: each trained on a half of its own of the pool P, and asked to forget what it was trained on of it (U-LiRA); the
  oracle's never saw P. F lies within P: of a class or a cluster, P is F; of other data, P holds as many more of their kind.

DP-SGD has fewer of each: `judge.private_lanes`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.configs.judge import ORACLES
from experiments.core import keys, values
from experiments.core.keys import Hash, Purpose
from experiments.core.machines import fleet
from experiments.core.machines.execution import Execution
from experiments.data import datasets
from experiments.judge import capacity
from experiments.judge.cases import Case, as_told, rehearsed
from experiments.judge.ulira import memberships
from experiments.scoring import aims, algorithms, requests
from experiments.training import loop
from experiments.training.fleets import proxy_steps
from readiness.requests import take
from unlearn import Request, levels, unlearn_until
from unlearn.base import Array, Batch, Model
from unlearn.until import DIVERGED

REPEATS, SHADOWS, TUNING = "repeats", "shadows", "tuning"
ROLES = (REPEATS, SHADOWS, TUNING)
PRIVATE, REHEARSED = "dpsgd", "readiness"
TRAININGS = {  # (role, whether it is the held-out oracle) -> what its keys are for
    (REPEATS, False): Purpose.TRAINING,
    (REPEATS, True): Purpose.HELDOUT_TRAINING,
    (SHADOWS, False): Purpose.SHADOWS,
    (SHADOWS, True): Purpose.HELDOUT_SHADOWS,
    (TUNING, False): Purpose.TUNING,
}
REQUESTS = {
    REPEATS: Purpose.REQUEST_OF_REPEATS,
    SHADOWS: Purpose.REQUEST_OF_SHADOWS,
    TUNING: Purpose.REQUEST_OF_TUNING,
}


def count(case: Case, training_: str, role: str) -> int:
    """How many models of a kind there are."""
    section = case.shared.judgement
    if role == TUNING:
        return section.tuning.lanes
    return section.private_lanes if training_ == PRIVATE else section.lanes


def included(case: Case, training_: str) -> np.ndarray:
    """What each shadow is trained on of P, [lanes, pool] bool: every example by half of either half of the shadows.

    Which half an example is in follows from its id, of a row of text from its document's: other data would not change it.
    """
    ids = case.problem.dataset.asked_as[case.pool]
    return memberships(ids, count(case, training_, SHADOWS), case.seed, Hash.SHADOW)


def members(case: Case, training_: str, role: str) -> np.ndarray:
    """Who is trained on in each lane, [lanes, examples] bool."""
    everyone = np.ones((count(case, training_, role), len(case.problem.dataset.train.id)), bool)
    if role == SHADOWS:
        everyone[:, case.pool] = included(case, training_) & (training_ not in ORACLES)
    elif training_ in ORACLES:
        everyone[:, case.problem.forget] = False
    return everyone


def asked(case: Case, training_: str, role: str) -> np.ndarray:
    """Which examples of the pool each lane is asked to forget, [lanes, pool] bool."""
    if role == SHADOWS:
        return included(case, training_)
    return np.broadcast_to(np.isin(case.pool, case.problem.forget), (count(case, training_, role), len(case.pool)))


def reference(training_: str) -> str | None:
    """The oracles that repeats are compared with: of other keys than theirs, so that the fleets are independent.

    Ways share their keys with the oracles, one model of every way to a seed: those start alike and see the same order of
    batches, and their margins go together. So they are compared with the held-out oracles, and these with the oracles.
    """
    return {ORACLES[0]: None, ORACLES[1]: ORACLES[0]}.get(training_, ORACLES[1])


def _lanes(case: Case, training_: str, role: str) -> loop.Lane:
    """Lanes with keys of their own for each role, so that targets, shadows and what is tuned on are disjoint."""
    purpose = TRAININGS[role, training_ == "heldout_oracle"]
    seeds = case.seed + np.arange(count(case, training_, role))
    member = members(case, training_, role)
    weight = np.ones(member.shape, np.float32)
    if training_ == "reweight":
        weight[:, _told(case, role).problem.told(case.readiness[REHEARSED].noise)] = case.shared.reweight.weight
    plain = loop.make_lanes(seeds, member[0], weight[0], purpose=purpose)
    return plain._replace(member=jnp.asarray(member), weight=jnp.asarray(weight))


def _told(case: Case, role: str) -> Case:
    """What training of a role is told may be asked for."""
    return as_told(case, of_pool=role == SHADOWS)


class Fleets(NamedTuple):
    """Trained models.

    params: (training, role) -> parameters of all lanes, on the host.
    cost: training -> FLOPs and seconds of one model's training, and peak bytes.
    proxies: role -> parameters of proxies of the oracle, if anybody asks them for levels.
    """

    params: dict[tuple[str, str], Any]
    cost: dict[str, dict[str, float]]
    proxies: dict[str, Any]


def train(case: Case) -> Fleets:
    """Train every model of a case. Ways that differ in membership and weight alone share programs."""
    trainer = case.trainer
    pairs = [(name, role) for name in case.shared.trainings for role in ROLES if (name, role) != (ORACLES[1], TUNING)]
    costs, params = capacity.training_costs(case), dict[tuple[str, str], Any]()

    def together(
        label: str, mine: Sequence[tuple[str, str]], way: loop.Way, pools: Any = None, levels: Any = None
    ) -> float:
        lanes = [_lanes(case, *key) for key in mine]
        if levels:
            lanes = [lane._replace(level=jnp.asarray(levels[role])) for lane, (_, role) in zip(lanes, mine, strict=True)]
        trained = capacity.train(case, way, fleet.concatenate(lanes), f"{case.name}-{label}", pools)
        start = 0
        for key, part in zip(mine, lanes, strict=True):
            params[key] = fleet.lane(trained.params, slice(start, start := start + fleet.lane_count(part)))
        return trained.seconds

    ready = [name for name in case.shared.trainings if name in case.readiness]
    private = [key for key in pairs if key[0] == PRIVATE]
    plain = [key for key in pairs if key[0] not in (PRIVATE, *ready)]
    seconds = dict.fromkeys((name for name, _ in plain), together("plain", plain, trainer.way()))
    if private:
        section = case.shared.dpsgd
        seconds[PRIVATE] = together(trainer.private_name(section), private, trainer.private_way(section))
    wanted = any(asks_proxies(case, name) for name in ready) or case.shared.request.to_level.levels == "proxy"
    proxies = _proxies(case) if wanted else {}
    for name in ready:
        spent = []
        for roles in told_alike(case):
            rehearsal, mine = rehearsed(_told(case, roles[0]), name), [(name, role) for role in roles]
            single = case.readiness[name].each
            given = {role: _levels(case, proxies, role, single) for role in roles} if asks_proxies(case, name) else {}
            spent.append(together(f"{name}-{'-'.join(roles)}", mine, rehearsal.way, rehearsal.pools, given))
        seconds[name] = float(np.mean(spent))
        if asks_proxies(case, name):
            extra = trainer.cost(trainer.way(proxy_steps(trainer.section.steps)), "proxy")["train_flops"]
            costs[name] = costs[name] | {"train_flops": costs[name]["train_flops"] + extra}
    return Fleets(params, {name: costs[name] | {"train_seconds": each} for name, each in seconds.items()}, proxies)


def asks_proxies(case: Case, training_: str) -> bool:
    """Whether a readiness has its levels from proxies of the oracle."""
    return training_ in case.readiness and case.readiness[training_].asks_proxies


def _proxies(case: Case) -> dict[str, Any]:
    """Proxies of the oracle of each role."""
    params, train = {}, case.problem.dataset.train
    way = case.trainer.way(proxy_steps(case.trainer.section.steps))
    for role in ROLES:
        told = _told(case, role).problem.told()
        member = np.ones(len(train.id), bool)
        member[told] = False
        seeds = case.seed + np.arange(count(case, REHEARSED, role))
        lanes = loop.make_lanes(seeds, member, np.ones(len(member)), purpose=Purpose.PROXY)
        params[role] = capacity.train(case, way, lanes, f"{case.name}-proxy-{role}").params
    return params


def _levels(case: Case, proxies: dict[str, Any], role: str, single: bool) -> np.ndarray:
    """[lanes, training examples]: the level of each that a role's models are told of, as its proxies have it."""
    told = _told(case, role).problem.told()
    return aims.column(_statistics(case), case.problem, proxies[role], told, single)


def levels_of(case: Case, training_: str) -> str:
    """Where the levels of a way's requests are: as it has rehearsed, else as the config says."""
    prepared = rehearsed(case, training_).prepared if training_ in case.readiness else None
    return prepared.levels if prepared else case.shared.request.to_level.levels


def teacher(case: Case, trained: Fleets, training_: str, role: str) -> Any:
    """The models that levels are those of: proxies or oracles; None if a model's own answers tell."""
    where = levels_of(case, training_)
    if where == "oracle":
        return trained.params[ORACLES[0], role]
    return trained.proxies[role] if where == "proxy" else None


def guarantee(case: Case, training_: str) -> dict[str, Any]:
    """Facts of the rows of a training: those of DP-SGD tell what holds for each of its models."""
    if training_ != PRIVATE:
        return {}
    fewest = min(int(members(case, PRIVATE, role).sum(axis=1).min()) for role in ROLES)
    return case.trainer.guarantee(case.shared.dpsgd, fewest)


def told_alike(case: Case) -> list[tuple[str, ...]]:
    """Roles by what training is told: models that are told the same rehearse in one program."""
    if np.array_equal(case.problem.forget, case.pool):
        return [ROLES]
    return [(REPEATS, TUNING), (SHADOWS,)]


class Setting(NamedTuple):
    """How a request is carried out: so many updates at most, all at one rate.

    options: of the algorithm, (name, value), beside the config's.
    """

    learning_rate: float
    steps: int
    options: tuple[tuple[str, float], ...] = ()


class Ended(NamedTuple):
    """Lanes after a request.

    updates: how many each was given.  stop: how its request ended, [lanes] int.
    way: the share of the way to its end that its request led, [lanes]; NaN if it failed or was asked for nothing.
    """

    params: Any
    updates: np.ndarray
    stop: np.ndarray
    way: np.ndarray


def forget(
    case: Case,
    params: Any,
    training_: str,
    role: str,
    name: str,
    rate: float,
    stops: tuple[int, ...],
    enough: float = -1.0,
    *,
    options: tuple[tuple[str, float], ...] = (),
    teacher: Any = None,
) -> list[Ended]:
    """Carry out the request of every lane by the algorithm `name`.

    A lane rests as soon as no more than a share `enough` of what it is asked to forget is told right: ascent does not end
    by itself, and what is enough for one model is ruin for another. A lane whose request ends at a level rests there.

    Args:
      params: of all lanes of this training and role.
      rate: learning rate.
      stops: numbers of updates, increasing; what a lane is after each is wanted.
      enough: share of the examples; below 0 no lane rests.
      options: of the algorithm, beside the config's.
      teacher: models of all lanes that levels are those of; None: a lane's own.

    Returns:
      Lanes after each of `stops`; those that are asked for nothing stay as they are.
    """
    model, devices = case.scorer.model, case.scorer.devices
    every = tuple(sorted((algorithms.options(case.shared.request, name) | dict(options)).items()))
    run = _forgetter(model, name, every, case.shared.judgement.batch_size, stops, devices)
    wanted = asked(case, training_, role)
    kept = members(case, training_, role)
    kept[:, case.pool] &= ~wanted
    raw = keys.raw(case.seed + np.arange(len(wanted)), REQUESTS[role])
    end: Any = jnp.full(len(wanted), enough)
    watched = None
    if algorithms.ends_at_level(name):
        ground = _ground(case)
        watched = jax.tree.map(jnp.asarray, ground.retained)
        asked_for = datasets.batch(case.problem.dataset.train, case.pool)
        number = values.level_number(levels_of(case, training_))
        single = bool(dict(every).get("each"))
        end = aims.to_levels(ground, params, teacher, asked_for, wanted, number, single=single)
    shared = pool(case, name), loop.ordinary(case.trainer.data), watched
    found = capacity.over(case, lambda lanes: run(rate, lanes, *shared), (params, raw, wanted, kept, end))
    return [Ended(*one) for one in found]


def pool(case: Case, name: str) -> Batch:
    """P as the algorithm `name` takes it; what is to be said instead is for those alone that are told."""
    data = case.trainer.data
    return take(data if algorithms.are_told([name]) else loop.ordinary(data), jnp.asarray(case.pool))


def _ground(case: Case) -> aims.Ground:
    """What levels are read off: examples outside the pool, and validation data."""
    train = case.problem.dataset.train
    outside = np.setdiff1d(np.arange(len(train.id)), case.pool)
    retained = aims.watched(datasets.batch(train, outside), case.shared.request.to_level.retained)
    return aims.Ground(_statistics(case), case.problem.by_class, retained, case.scorer.sets.validation)


def _statistics(case: Case) -> Any:
    return functools.partial(capacity.statistics, case)


class Asked(NamedTuple):
    """A lane's request, made once; each pair is of forget and of retain data.

    request: all of it; whoever is not asked for, or does not stay, has weight 0.
    orders: positions, those of weight first.  counts: how many those are.  keys: of the draws.
    """

    request: Request
    orders: tuple[Array, Array]
    counts: tuple[Array, Array]
    keys: tuple[Array, Array]


def _asked(key: Array, wanted: Array, kept: Array, pool: Batch, train: Batch) -> Asked:
    pairs = ((pool, wanted), (train, kept))
    request = Request(*(dict(batch, weight=batch["weight"] * member) for batch, member in pairs))
    _, forget_key, retain_key, _ = jax.random.split(key, 4)
    orders = jnp.argsort(~wanted), jnp.argsort(~kept)
    counts = jnp.sum(wanted), jnp.sum(kept)
    return Asked(request, orders, counts, (forget_key, retain_key))


@functools.lru_cache(maxsize=64)
def _forgetter(
    model: Model, name: str, options: tuple, batch_size: int, stops: tuple[int, ...], devices: Execution
) -> Callable[..., tuple[Ended, ...]]:
    """`(rate, (params, raw key, wanted, kept, end) of all lanes, pool, train, watched) -> Ended` after each of `stops`.

    The end is a share of the examples, or `aims.Levels`, of whose retained examples are `watched`.
    """

    by_level = algorithms.ends_at_level(name)

    def whole(data: tuple) -> Request:
        asked, end, _ = data
        request = asked.request
        return request._replace(forget=dict(request.forget, level=end.each)) if by_level else request

    def draw(data: tuple, key: Array, step: Array) -> Request:
        asked, _, _ = data

        def rows(part: Any, order: Array, count: Array, key: Array) -> Batch:
            return take(part, order[jax.random.randint(jax.random.fold_in(key, step), (batch_size,), 0, count)])

        return Request(*map(rows, whole(data), asked.orders, asked.counts, asked.keys))

    def observe(params: Any, data: tuple) -> dict[str, Array]:
        asked, _, watched = data
        pool = asked.request.forget
        logits = model.apply(params, pool["x"], None)
        over_asked = lambda each: jnp.sum(jnp.where(pool["weight"] > 0, each, 0)) / jnp.maximum(asked.counts[0], 1)  # noqa: E731
        seen = {"forget_accuracy": over_asked(model.correct(logits, pool))}
        if by_level:
            right = model.correct(model.apply(params, watched["x"], None), watched)
            seen["forget_margin"], seen["retained_accuracy"] = over_asked(model.margin(logits, pool)), jnp.mean(right)
        return seen

    def rests(seen: dict[str, Array], data: tuple) -> Array:
        asked, end, _ = data
        enough = levels.settled(seen, end.aim) if by_level else seen["forget_accuracy"] <= end
        return (asked.counts[0] == 0) | enough  # a draw from nobody would be a stranger

    def undo(after: dict[str, Array], before: dict[str, Array], data: tuple) -> Array:
        return levels.overshoots(after, before, data[1].aim)

    def until(rate: Any) -> Callable:
        algorithm = algorithms.algorithm(name)(model, optax.sgd(rate), **dict(options))
        return unlearn_until(
            algorithm,
            whole,
            draw,
            observe,
            rests,
            stops[-1],
            undo=undo if by_level else None,
            record=stops,
            unroll=devices.loops,
        )

    def single(lane: tuple, pool: Batch, train: Batch, watched: Batch | None, run: Callable) -> tuple[Ended, ...]:
        params, raw, wanted, kept, end = lane
        key = jax.random.wrap_key_data(raw)
        outcome = run(params, (_asked(key, wanted, kept, pool, train), end, watched), key)

        def way(steps: Array) -> Any:
            after, before = ({which: rows[at] for which, rows in outcome.curve.items()} for at in (steps, 0))
            sound = jnp.any(wanted) & (outcome.stop != DIVERGED)
            return jnp.where(sound, aims.way(after, before, end), jnp.nan)

        return tuple(Ended(one.params, one.steps, outcome.stop, way(one.steps)) for one in outcome.recorded)

    return requests.over_lanes(until, single, devices)

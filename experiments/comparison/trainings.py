"""The ways of training that a comparison holds side by side, each a fleet with one lane per seed."""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from experiments import models
from experiments.comparison.setup import Bench, Fleet, revocable
from experiments.core import execution, fleet, progress, sections
from experiments.core.keys import Hash, Purpose
from experiments.data import datasets
from experiments.scoring import algorithms, evaluation
from experiments.training import cost, epochs, loop
from readiness import Draw, Pools, Terms, make_pools, make_readiness, nearest_classes, nearest_examples
from unlearn import ALGORITHMS, normalised, traits_of

# Expected time, in steps of one model: seen with the digits MLP on two CPU cores.
PER_STEP = 40  # what a step of a fleet takes beside its models
READY, PRIVATE = 1.5, 2.0  # a step of readiness (a quarter batch rehearsed on every fourth) and of DP-SGD, in plain ones
LONGER = 1.4  # steps of equal FLOPs, per step

MATCHING = 2.0  # forget losses within this factor are called equal
Key = tuple[str, str]  # (training, variant)


class Rehearsal(NamedTuple):
    """A readiness variant before it is trained.

    way: as it trains.  counted: the same with unrolled inner steps, for XLA's counts.  pools: who is rehearsed.
    """

    variant: str
    way: loop.Way
    counted: loop.Way
    pools: Pools


def plan(bench: Bench) -> list[Rehearsal]:
    """The default rehearsal and every variant of the config; what cannot be run is refused here, before training.

    Raises:
      ValueError: one line that says what to do.
    """
    config = bench.config
    plain = plain_way(bench, config.train.steps)
    rehearsals = []
    for name in ("default", *config.variants) if "readiness" in config.trainings else ():
        varied = bench._replace(config=config.variant(name))
        alone = varied._replace(devices=execution.one_device())  # counted outside any pmap
        ways = (plain._replace(rehearsing=_rehearsing(*how)) for how in ((varied, bench.devices.loops), (alone, True)))
        rehearsals.append(Rehearsal(name, *ways, _pools(varied)))
    return rehearsals


def work(bench: Bench, rehearsals: list[Rehearsal]) -> float:
    """What all trainings are expected to take, in steps of one model."""
    config = bench.config
    steps, seeds = config.train.steps, config.seeds
    made = steps * (len(_plain_ways(bench)) * seeds + PER_STEP) + len(rehearsals) * READY * steps * (seeds + PER_STEP)
    if config.equal_flops and rehearsals:
        made += LONGER * steps * (2 * seeds + PER_STEP)
    return made + ("dpsgd" in config.trainings) * PRIVATE * steps * (seeds + PER_STEP)


def count(bench: Bench, rehearsals: list[Rehearsal]) -> int:
    """How many ways of training there are in all."""
    longer = (1 + ("reweight" in bench.config.trainings)) if bench.config.equal_flops and rehearsals else 0
    return len(_plain_ways(bench)) + longer + ("dpsgd" in bench.config.trainings) + len(rehearsals)


def train_all(bench: Bench, rehearsals: list[Rehearsal]) -> list[Fleet]:
    """Every way of the config: ordinary ones as lanes of one program, readiness variants and DP-SGD on their own."""
    config = bench.config
    ways = _plain_ways(bench)
    weights = {("reweight", variant): {"weight": weight} for variant, weight in _weights(config.reweight).items()}
    plain = train_plain(bench, "plain", config.train.steps, ways, weights)
    ready = [train_readiness(bench, rehearsal, plain[0].cost["step_flops"]) for rehearsal in rehearsals]
    if ready:
        plain = _mark_matched(bench, plain, ready[0])
    longer = _longer(bench, plain, ready[0], ways) if config.equal_flops and ready else []
    private = [train_private(bench)] if "dpsgd" in config.trainings else []
    return plain + longer + private + ready


def _longer(bench: Bench, plain: list[Fleet], ready: Fleet, ways: dict[tuple[str, str], loop.Lane]) -> list[Fleet]:
    """Vanilla and the matched re-weighting (the default one if none is), for as many FLOPs as readiness used."""
    matched = next((one.variant for one in plain if one.facts.get("matched")), "default")
    again, facts = {("vanilla", "equal_flops"): ways["vanilla", "default"]}, {}
    if ("reweight", matched) in ways:
        name = "equal_flops" if matched == "default" else f"{matched} equal_flops"
        again["reweight", name] = ways["reweight", matched]
        facts["reweight", name] = {"weight": _weights(bench.config.reweight)[matched]}
    steps = round(bench.config.train.steps * ready.cost["train_flops"] / plain[0].cost["train_flops"])
    return train_plain(
        bench, "equal_flops", steps, again, {key: {"equal_flops": True} | facts.get(key, {}) for key in again}
    )


def _plain_ways(bench: Bench) -> dict[tuple[str, str], loop.Lane]:
    """(training, variant) -> lanes, oracles first."""
    config = bench.config
    seeds = np.arange(config.seed, config.seed + config.seeds)
    count = len(bench.train["id"])
    everyone, ones = np.ones(count, bool), np.ones(count)
    kept = everyone.copy()
    kept[bench.forget] = False
    lanes = functools.partial(loop.make_lanes, seeds)

    def weighted(weight: float) -> loop.Lane:
        weights = ones.copy()
        weights[revocable(bench)] = weight
        return lanes(everyone, weights)

    ways = {("oracle", "default"): lanes(kept, ones)}
    if "heldout_oracle" in config.trainings:
        ways["heldout_oracle", "default"] = lanes(kept, ones, purpose=Purpose.HELDOUT_TRAINING)
    ways["vanilla", "default"] = lanes(everyone, ones)
    if "reweight" in config.trainings:
        ways |= {("reweight", variant): weighted(weight) for variant, weight in _weights(config.reweight).items()}
    return ways


def _weights(config: sections.Reweights) -> dict[str, float]:
    """The weight of what may be forgotten, by the variant of re-weighting."""
    return {"default": config.weight, **{f"weight={weight:g}": weight for weight in config.others}}


def train_plain(
    bench: Bench,
    name: str,
    steps: int,
    ways: dict[tuple[str, str], loop.Lane],
    facts: dict[tuple[str, str], dict[str, Any]],
) -> list[Fleet]:
    """Train all lanes of all ways as one fleet, and give each way its own back, with its facts if it has any."""
    way = plain_way(bench, steps)
    trained = train_fleet(bench, way, fleet.concatenate(list(ways.values())), name)
    spent = bench.workdir.stage(f"cost-{name}", lambda: cost.of_training(way, bench.train))
    seeds, total = bench.config.seeds, len(ways) * bench.config.seeds
    fleets = []
    for i, (key, _) in enumerate(ways.items()):
        part = slice(i * seeds, (i + 1) * seeds)
        lanes = loop.Trained(fleet.lane(trained.params, part), trained.seconds, trained.losses[:, part])
        fleets.append(Fleet(*key, lanes, total, spent, facts.get(key, {})))
    return fleets


def train_private(bench: Bench) -> Fleet:
    """DP-SGD, at the same steps."""
    config = bench.config
    way = plain_way(bench, config.train.steps)._replace(private=(config.dpsgd.clip, config.dpsgd.noise))
    trained = train_fleet(bench, way, _plain_ways(bench)["vanilla", "default"], "dpsgd")
    spent = bench.workdir.stage("cost-dpsgd", lambda: cost.of_training(way, bench.train))
    return Fleet("dpsgd", "default", trained, config.seeds, spent, {})


def train_readiness(bench: Bench, rehearsal: Rehearsal, step_flops: float) -> Fleet:
    """One variant of readiness; `step_flops` is what its ordinary steps cost."""
    config = bench.config
    lanes = _plain_ways(bench)["vanilla", "default"]
    trained = train_fleet(bench, rehearsal.way, lanes, f"readiness-{rehearsal.variant}", rehearsal.pools)
    count = lambda: cost.of_rehearsing(rehearsal.counted, bench.train, rehearsal.pools, step_flops)  # noqa: E731
    spent = bench.workdir.stage(f"cost-readiness-{rehearsal.variant}", count)
    return Fleet("readiness", rehearsal.variant, trained, config.seeds, spent, {})


def plain_way(bench: Bench, steps: int) -> loop.Way:
    config = bench.config.train
    per_epoch = max(1, len(bench.train["id"]) // config.batch_size)
    return loop.Way(bench.model, loop.optimizer(config, steps), steps, per_epoch, config.batch_size)


def train_fleet(bench: Bench, way: loop.Way, lanes: loop.Lane, name: str, pools: Pools | None = None) -> loop.Trained:
    """Train all lanes of one way, with a line in metrics.jsonl for each epoch; `name` is the checkpoints'."""
    count = fleet.lane_count(lanes)
    step = (count + PER_STEP) * (READY if way.rehearsing else PRIVATE if way.private else 1.0)
    progress.stage(f"train {name}, {count} models", way.steps * step)

    def report(entry: dict[str, Any]) -> None:
        progress.reach(entry["step"] * step, way.per_epoch * step)
        bench.workdir.log("train", training=name, lanes=count, **entry)

    epoch_fn = epochs.make(way, bench.devices, on_disk=bench.config.data.stream)
    folder = bench.workdir.path / "checkpoints" / name
    trained = loop.train(way, lanes, bench.train, pools, epoch_fn, folder, report, bench.config.checkpoint_seconds)
    progress.skip()  # what was not reported had been done before
    return trained


def _rehearsing(bench: Bench, unroll: bool) -> loop.Rehearsing:
    config = bench.config.readiness
    model = models.as_model(bench.model)
    order = bench.devices.inner_grad(config.order)
    cap = _cap(config.cap, bench.dataset.classes)
    assert config.retention is not None  # resolved at the door
    weights = config.efficiency, config.retention, config.resistance, config.relearning
    terms = Terms(cap, *weights, capped=config.capped, form=config.form)

    def rehearsed(step_size: jax.Array) -> Any:
        optimizer = optax.sgd(step_size)
        if config.normalise:
            optimizer = optax.chain(normalised(), optimizer)
        return algorithms.algorithm(config.algorithm)(
            model, optimizer, mean=bench.devices.mean, grad=order, **config.algorithm_options
        )

    relearner = None
    if config.relearning:
        first = bench.devices.inner_grad(config.relearn_order)
        rate = optax.sgd(config.relearn_rate)
        relearner = ALGORITHMS["finetune"](model, rate, mean=bench.devices.mean, grad=first)
    readiness = make_readiness(model, rehearsed, terms, relearner=relearner, mean=bench.devices.mean, unroll=unroll)
    count = len(bench.forget)
    draw = Draw(
        size=max(1, round(config.fraction * bench.config.train.batch_size)),
        inner_steps=config.inner_steps,
        fresh=config.fresh,
        retain=traits_of(algorithms.algorithm(config.algorithm)).needs_retain,
        recovery=bool(config.resistance),
        relearn_steps=config.relearn_steps if config.relearning else 0,
        anew=min(count, 256) if config.requests == "random" else 0,
    )
    low, high = (size / max(config.inner_steps, 1) for size in config.step_size)
    return loop.Rehearsing(readiness, draw, config.every, config.start, (low, high))


def _cap(cap: str, classes: int) -> float | None:
    if cap in ("", "log_classes"):
        return math.log(classes) if cap else None
    return float(cap)


def _pools(bench: Bench) -> Any:
    """The groups of ids that rehearsals draw from, by what is known in advance."""
    config, split = bench.config.readiness, bench.dataset.train
    known = np.zeros(len(split.id), bool)
    known[revocable(bench)] = True
    if config.requests in ("known", "random"):
        groups = known[None]
    elif config.requests == "classes":
        groups = np.arange(bench.dataset.classes)[:, None] == split.y
    else:
        chance = [datasets.hash_uniform(split.id, f"{Hash.GROUP}{i}", bench.config.forget.seed) for i in range(4)]
        groups = known & (np.stack(chance) < 0.5)
    choose = {
        "stable": lambda mask: ~mask,
        "nearest_classes": lambda mask: nearest_classes(split.x, split.y, mask, 3),
        "nearest_examples": lambda mask: nearest_examples(split.x, mask, int(mask.sum())),
    }
    recovery = config.recovery if config.resistance else "stable"  # no other term draws from it
    return make_pools(groups, np.stack([choose[recovery](mask) for mask in groups]))


def _mark_matched(bench: Bench, plain: list[Fleet], ready: Fleet) -> list[Fleet]:
    """Mark the re-weighting whose forget loss before the request is nearest to readiness's, on a log scale.

    None is marked if the nearest is more than a factor `MATCHING` off, or not finite: that would be no match.
    """
    predict = evaluation.make_predict(models.as_model(bench.model), bench.devices)

    def forget_loss(one: Fleet) -> float:
        """The mean over lanes that did not diverge."""
        _, losses = evaluation.measure(predict, one.trained.params, bench.sets.forget)
        finite = np.isfinite(losses).all(axis=1)
        return float(losses[finite].mean()) if finite.any() else math.nan

    wanted = forget_loss(ready)

    def distance(one: Fleet) -> float:
        loss = forget_loss(one)
        apart = abs(math.log(loss / wanted)) if min(loss, wanted) > 0 else math.inf
        return math.inf if math.isnan(apart) else apart

    distances = {one.variant: distance(one) for one in plain if one.training == "reweight"}
    nearest = min(distances, key=distances.__getitem__, default=None)
    if nearest is None or distances[nearest] > math.log(MATCHING):
        return plain
    matched = ("reweight", nearest)
    return [
        one._replace(facts={**one.facts, "matched": True}) if (one.training, one.variant) == matched else one
        for one in plain
    ]

"""Readiness as it is trained: what a step rehearses, with whom, and a twin of it that XLA can count."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from experiments import models
from experiments.core import forgetting
from experiments.core.errors import UserError
from experiments.core.keys import Hash
from experiments.core.machines import execution
from experiments.core.notices import LOG
from experiments.data import datasets
from experiments.data.problem import Problem
from experiments.data.sets import subsample
from experiments.scoring import algorithms
from experiments.scoring.relearning import compared
from experiments.training import loop, neftune
from experiments.training.fleets import Trainer
from readiness import Draw, Pools, Readiness, Terms, make_pools, make_readiness, nearest_classes, nearest_examples
from unlearn import ALGORITHMS, normalised, traits_of
from unlearn.base import Batch, Model

UNSEEN = 256  # held-out examples, of which each rehearsal draws some
RANDOM_GROUPS = 64  # of random documents: so many requests are rehearsed in turn


class Prepared(NamedTuple):
    """A request as it was rehearsed, and so will be carried out.

    levels: where unseen examples lie, "own" or "proxy".
    """

    algorithm: str
    learning_rate: float
    options: dict[str, float]
    levels: str


class Rehearsal(NamedTuple):
    """A readiness variant before it is trained.

    way: as it trains.  counted: the same with unrolled inner steps, for XLA's counts.  pools: who is rehearsed.
    prepared: the request to a level that it rehearses; None of one that only goes some way.
    proxies: whether its levels are those of proxies.  single: whether these are each example's own, of a class as well.
    """

    variant: str
    way: loop.Way
    counted: loop.Way
    pools: Pools
    prepared: Prepared | None = None
    proxies: bool = False
    single: bool = False


def rehearsal(variant: str, section: forgetting.Readiness, trainer: Trainer, problem: Problem) -> Rehearsal:
    """A variant of readiness; what cannot be run is refused here, before training.

    Raises:
      ValueError: one line that says what to do.
    """
    if section.neftune:
        neftune.check(trainer.model, f"readiness.neftune is {section.neftune:g}")
    plain = trainer.noisy_way(section.neftune)
    model, classes = models.as_model(trainer.model), problem.dataset.classes
    low, high = _ends(section)
    held_out = unseen(section, problem)
    drawn = draw(section, plain.batch_size, problem)
    if section.form == "level" and section.levels == "own" and section.relearning:
        at = "readiness" if variant == "default" else f"variants.{variant}"
        LOG.warning(
            f"config.{at}.relearning pulls at a level that moves with the model, and both may run away: "
            "levels='proxy' are fixed before training"
        )

    def rehearsing(devices: execution.Execution, unroll: bool) -> loop.Way:
        parts = trainer.section.microbatches
        in_parts = devices.microbatched(model, parts, unroll=unroll and trainer.model.convolutional)
        objective = _objective(section, in_parts, classes, devices, unroll, held_out)
        return plain._replace(rehearsing=loop.Rehearsing(objective, drawn, section.every, section.start, (low, high)))

    alone = execution.one_device()  # counted outside any pmap
    ways = rehearsing(trainer.devices, trainer.devices.loops), rehearsing(alone, True)
    return Rehearsal(variant, *ways, pools(section, problem), _prepared(section, high), section.asks_proxies, section.each)


def _prepared(section: forgetting.Readiness, rate: float) -> Prepared | None:
    if section.form != "level" or section.normalise or not section.inner_steps:
        return None
    return Prepared(section.rehearsed, rate, options(section), section.levels)


def options(section: forgetting.Readiness) -> dict[str, float]:
    """Options of the rehearsed algorithm."""
    alone = {"each": 1.0} if section.each and section.rehearsed == "level" else {}
    return alone | section.algorithm_options


def _ends(section: forgetting.Readiness) -> tuple[float, float]:
    """The shortest and the longest inner step."""
    assert section.step_size is not None  # resolved at the door
    low, high = (size / max(section.inner_steps, 1) for size in section.step_size)
    return low, high


def unseen(section: forgetting.Readiness, problem: Problem) -> Batch | None:
    """Held-out examples that a model's own levels are read off; None where these are of classes, or of proxies."""
    of_classes = problem.by_class or section.requests == "classes"
    if section.form != "level" or section.levels != "own" or of_classes:
        return None
    held_out = subsample(problem.sets.validation, UNSEEN, Hash.LEVEL)
    return {name: leaf for name, leaf in held_out.items() if name != "id"}  # ids of 64 bits are nothing for a device


def _objective(
    section: forgetting.Readiness,
    model: Model,
    classes: int,
    devices: execution.Execution,
    unroll: bool,
    held_out: Batch | None,
) -> Readiness:
    """What a meta-step differentiates."""
    order = devices.inner_grad(section.order)
    # resolved at the door
    assert section.form is not None and section.efficiency is not None and section.retention is not None
    terms = Terms(
        efficiency=section.efficiency,
        retention=section.retention,
        resistance=section.resistance,
        relearning=section.relearning,
        form=section.form,
        width=section.width,
        each=section.each,
        cap="level" if section.form == "level" else _cap(section.cap, classes),
        capped=section.capped,
        holding=section.holding,
    )

    def rehearsed(step_size: jax.Array) -> Any:
        optimizer = optax.sgd(step_size)
        if section.normalise:
            optimizer = optax.chain(normalised(), optimizer)
        return algorithms.algorithm(section.rehearsed)(model, optimizer, mean=devices.mean, grad=order, **options(section))

    relearner = None
    if section.relearning:
        first = devices.inner_grad(section.relearn_order)
        rate = optax.sgd(section.relearn_rate)
        relearner = ALGORITHMS["finetune"](model, rate, mean=devices.mean, grad=first)
    return make_readiness(model, rehearsed, terms, relearner=relearner, unseen=held_out, mean=devices.mean, unroll=unroll)


def _cap(cap: str, classes: int) -> float | None:
    if cap in ("", "log_classes"):
        return math.log(classes) if cap else None
    return float(cap)


def _random_documents(problem: Problem) -> np.ndarray:
    """Masks [groups, rows] of random documents, in each group as many as are asked for."""
    asked_as = problem.dataset.asked_as
    documents, asked = np.unique(asked_as), np.unique(problem.units)
    drawn = [datasets.hash_uniform(documents, f"{Hash.GROUP}{i}", problem.seed) for i in range(RANDOM_GROUPS)]
    return np.stack([np.isin(asked_as, documents[np.argsort(one)[: len(asked)]]) for one in drawn])


def draw(section: forgetting.Readiness, batch_size: int, problem: Problem) -> Draw:
    """The shape of a meta-batch beside training batches of a size.

    Random examples are drawn anew at every step; random documents, whose rows go together, are drawn once, as pools.
    """
    anew = section.requests == "random" and not problem.dataset.is_text
    return Draw(
        size=max(1, round(section.fraction * batch_size)),
        inner_steps=section.inner_steps,
        fresh=section.fresh,
        retain=traits_of(algorithms.algorithm(section.rehearsed)).needs_retain,
        recovery=bool(section.resistance),
        relearn_steps=section.relearn_steps if section.relearning else 0,
        anew=min(len(problem.forget), 256) if anew else 0,
    )


def pools(section: forgetting.Readiness, problem: Problem) -> Pools:
    """The groups of ids that rehearsals draw from, by what is known in advance.

    Raises:
      UserError: classes are asked for, of text.
    """
    split = problem.dataset.train
    recovery = section.recovery if section.resistance else "stable"  # no other term draws from it
    for name, given, other in (("requests", section.requests, "known"), ("recovery", recovery, "nearest_examples")):
        if problem.dataset.is_text and given in ("classes", "nearest_classes"):
            raise UserError(
                f"readiness.{name} is {given!r}, and text to predict has no classes: set --config.readiness.{name}={other}"
            )
    known = np.zeros(len(split.id), bool)
    known[problem.told(section.noise)] = True
    if section.requests == "random" and problem.dataset.is_text:
        groups = _random_documents(problem)
    elif section.requests in ("known", "random"):
        groups = known[None]
    elif section.requests == "classes":
        groups = np.arange(problem.dataset.classes)[:, None] == split.y
    else:
        chance = [datasets.hash_uniform(problem.dataset.asked_as, f"{Hash.GROUP}{i}", problem.seed) for i in range(4)]
        groups = known & (np.stack(chance) < 0.5)
    features = split.x if recovery == "stable" else compared(split.x, problem.dataset.tokens)
    choose = {
        "stable": lambda mask: ~mask,
        "nearest_classes": lambda mask: nearest_classes(features, split.y, mask, 3),
        "nearest_examples": lambda mask: nearest_examples(features, mask, int(mask.sum())),
    }
    return make_pools(groups, np.stack([choose[recovery](mask) for mask in groups]))

"""One seed: a federation trains, the leavers are taken out by every way, and each model is scored beside retraining."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.configs.federated import Federated
from experiments.core import progress
from experiments.core.errors import line
from experiments.core.machines import environment
from experiments.erasure import archives, methods, scoring
from experiments.erasure import problem as problems
from experiments.erasure.archives import Archived, Kept
from experiments.erasure.methods import Settings, Way
from experiments.erasure.problem import Problem, Setup
from experiments.erasure.scoring import Answers, Asked
from experiments.erasure.training import Trained, train
from federated.archive import Scheme
from federated.erase import Erased
from federated.erase.contract import CLIENT
from federated.history import Array

Told = dict[str, Any]
RIDGE_ORACLE, RIDGE_SERVED = "ridge, retrained", "ridge, served"


class Programs(NamedTuple):
    """What is compiled once for all seeds.

    train: Setup -> Trained.  ways: with their programs.  archives: by the name of a scheme, see `archives.archived`.
    apply: (vector, x) -> logits.  alphas: of archives, 0 and the chosen one.
    sweep: Trained -> [alphas, parameters], Fast-FedUL at all alphas among which one was chosen.
    repairs: by their rounds, (Trained, erased) -> Erased.
    """

    problem: Problem
    settings: Settings
    train: Callable[[Setup], Trained]
    ways: list[tuple[Way, Callable[[Trained], Erased]]]
    archives: dict[str, tuple[Scheme, Callable[[Kept, Array], Archived]]]
    apply: Callable[[Array, Any], Array]
    alphas: tuple[float, ...]
    sweep: Callable[[Trained], Array]
    repairs: dict[int, Callable[[Trained, Erased], Erased]]


def programs(problem: Problem, settings: Settings) -> Programs:
    """The programs of a run."""
    made: dict[str, tuple[Scheme, Callable[[Kept, Array], Archived]]] = {}
    if "medu" in methods.able(problem.config):
        for name, scheme in archives.schemes(problem.config).items():
            made[name] = scheme, jax.jit(functools.partial(archives.archived, scheme))
    found = methods.ways(problem, settings)

    def sweep(trained: Trained) -> Array:
        grid = jnp.asarray(problem.config.erase.alphas)
        return jax.vmap(lambda alpha: methods.fast_fedul(trained, alpha).model)(grid)

    return Programs(
        problem,
        settings,
        jax.jit(functools.partial(train, problem)),
        [(way, way.erase if way.eager else jax.jit(way.erase)) for way in found],
        made,
        jax.jit(lambda vector, x: problem.model.apply(problem.unravel(vector), x, None)),
        tuple(sorted({0.0, settings.alpha})),
        jax.jit(sweep),
        {rounds: jax.jit(_repair(problem, rounds)) for rounds in problem.config.erase.repairs},
    )


def _repair(problem: Problem, rounds: int) -> Callable[[Trained, Erased], Erased]:
    return lambda trained, erased: methods.repaired(problem, trained, erased, rounds)


def work(config: Federated) -> float:
    """What a seed is expected to take, in erasures."""
    found = methods.able(config)
    archived = 4 * len(archives.schemes(config)) if "medu" in found else 0
    repaired = len(config.erase.repairs) * (2 if "fast_fedul" in found else 1)
    return 2.0 + len(found) + archived + repaired


class Seen(NamedTuple):
    """A seed's federation and what its models answer: of the retraining, and of all else as it comes.

    coded: rounds whose updates are coded, for the rate of archives.
    """

    run: Programs
    trained: Trained
    asked: Asked
    coded: np.ndarray
    oracle: Array
    reference: Answers
    served_gap: float

    def score(self, vector: Array) -> Told:
        """A model's numbers and margins beside those of retraining."""
        found = scoring.answers(self.run.problem, self.asked, self.run.apply, vector)
        gap = float(jnp.linalg.norm(vector - self.oracle))
        return _told(found, scoring.score(found, self.reference, gap, self.served_gap))


def _told(found: Answers, scores: dict[str, float]) -> Told:
    return {"scores": scores, "margins": found.margins}


def trial(run: Programs, seed: int) -> Told:
    """What a seed leads to: the scores, margins and costs of every way, as JSON has them.

    Returns:
      ways: by name; scores and margins, and seconds, rounds, updates, stored, sent; of one that refused, its reason.
      seconds: of training.  sweep: scores at all alphas.
    """
    setup = problems.federation(run.problem, seed)
    with environment.stopwatch() as seconds:
        trained = jax.block_until_ready(run.train(setup))
        told: Told = {"seconds": seconds()}
    progress.advance(2)
    asked = scoring.asked(run.problem, problems.forgotten(run.problem, setup))
    oracle = next(program for way, program in run.ways if way.name == methods.ORACLE)(trained).model
    reference = scoring.answers(run.problem, asked, run.apply, oracle)
    config = run.problem.config
    place = (seed - config.seed + 0.5) / config.seeds
    coded = archives.coded_rounds(config.federation.rounds, config.archive.coded, place)
    seen = Seen(run, trained, asked, coded, oracle, reference, float(jnp.linalg.norm(trained.model - oracle)))
    ways: Told = {}
    for way, program in run.ways:
        ways[way.name] = _erase(seen, way, program)
        progress.advance()
    if "ridge" in config.erase.methods:
        ways |= _ridge(seen)
    for name in run.archives:
        ways |= _archive(seen, name)
        progress.advance(4)
    swept = list(run.sweep(trained)) if {"fast_fedul", "medu"} & set(methods.able(config)) else []
    return told | {"ways": ways, "sweep": [seen.score(vector)["scores"] for vector in swept]}


def _erase(seen: Seen, way: Way, program: Callable[[Trained], Erased]) -> Told:
    stored = way.stored(seen.trained)
    try:
        return _costed(seen, program, stored)
    except ValueError as refused:
        if not way.eager:
            raise
        return {"reason": line(refused)} | ({"stored": stored} if stored else {})


def _costed(seen: Seen, program: Callable[[Trained], Erased], stored: float) -> Told:
    with environment.stopwatch() as seconds:
        found = jax.block_until_ready(program(seen.trained))
        took = seconds()
    sent = 2 * methods.FLOAT * seen.run.problem.parameters * int(found.updates)
    costs = {"seconds": took, "rounds": int(found.rounds), "updates": int(found.updates), "stored": stored, "sent": sent}
    return seen.score(found.model) | costs


def _archive(seen: Seen, name: str) -> Told:
    """What an archive leads to at each alpha, by the name of the way."""
    run, trained = seen.run, seen.trained
    scheme, program = run.archives[name]
    kept = archives.kept(trained)
    repairs = run.settings.before_repair if archives.is_plain(scheme, run.problem.config) else {}
    alphas = (*run.alphas, *repairs.values())
    with environment.stopwatch() as seconds:
        found = jax.block_until_ready(program(kept, jnp.asarray(alphas)))
        took = seconds()
    rate = archives.measured(scheme, kept, found.codes, seen.coded)
    whole = [methods.fast_fedul(trained, alpha).model for alpha in run.alphas]
    took_part = int((trained.history.weights > 0).sum())
    costs: dict[str, float] = {
        "seconds": took,
        "rounds": 0,
        "updates": 0,
        "sent": 0,
        "bits": rate.bits,
        "kept": rate.stored,
        "stored": rate.bits / 8 * run.problem.parameters * took_part,
    }
    ways = {
        archive_name(name, alpha): seen.score(found.models[i])
        | costs
        | {"ratio": archives.ratio(np.asarray(whole[i]), np.asarray(found.models[i]))}
        for i, alpha in enumerate(run.alphas)
    }
    recover = next(((way, program) for way, program in run.ways if way.method == "fedrecover" and not way.eager), None)
    if recover and archives.is_plain(scheme, run.problem.config):
        way, fedrecover = recover
        stored = costs["stored"] + methods.checkpoint_bytes(trained)
        told = _erase(seen, way, lambda trained: fedrecover(trained._replace(history=found.history)))
        ways[recover_name(name)] = told | {"bits": rate.bits, "kept": rate.stored, "stored": stored}
    for i, (rounds, alpha) in enumerate(repairs.items(), len(run.alphas)):
        erased, repair = methods.unasked(found.models[i]), run.repairs[rounds]
        told = _costed(seen, lambda trained: repair(trained, erased), costs["stored"])  # noqa: B023
        beside = {"seconds": took + told["seconds"], "bits": rate.bits, "kept": rate.stored}
        ways[repaired_name(name, alpha, rounds)] = told | beside
    return ways


def repaired_name(scheme: str, alpha: float, rounds: int) -> str:
    """The way that erases by an archive at an alpha, and then repairs."""
    return methods.repaired_name(archive_name(scheme, alpha), rounds)


def recover_name(scheme: str) -> str:
    """The way that erases by FedRecover on an archive."""
    return f"fedrecover by {scheme}"


def archive_name(scheme: str, alpha: float) -> str:
    """The way that erases by an archive at an alpha."""
    return f"medu {scheme}, alpha={alpha:g}"


def _ridge(seen: Seen) -> Told:
    """The ridge head's own served model, retraining and erasure, beside its own retraining."""
    run, trained = seen.run, seen.trained
    penalty = run.settings.penalty
    with environment.stopwatch() as seconds:
        heads = jax.block_until_ready(methods.ridge_heads(run.problem, trained, penalty))
        took = seconds()

    def apply(head: Array, x: Any) -> Array:
        return methods.ridge_features(run.problem, trained.setup.start, x) @ head

    found = {
        name: scoring.answers(run.problem, seen.asked, apply, head)
        for name, head in ((RIDGE_SERVED, heads.served), (methods.RIDGE, heads.erased), (RIDGE_ORACLE, heads.retrained))
    }
    gaps = {
        name: float(jnp.linalg.norm(head - heads.retrained))
        for name, head in ((RIDGE_SERVED, heads.served), (methods.RIDGE, heads.erased), (RIDGE_ORACLE, heads.retrained))
    }
    # Of whole clients the server keeps the messages; else the sum will do, and who has what goes sends a message of it.
    whole = run.problem.config.leaver.request == CLIENT
    stored = methods.ridge_bytes(heads, len(trained.leavers) if whole else 1)
    sent = 0 if whole else methods.ridge_bytes(heads, int((trained.leavers > 0).sum()))
    costs = {"seconds": took, "rounds": 0, "updates": 0, "stored": stored, "sent": 0}
    of = {methods.RIDGE: {**costs, "sent": sent}}
    reference = found[RIDGE_ORACLE]
    return {
        name: _told(one, scoring.score(one, reference, gaps[name], gaps[RIDGE_SERVED])) | of.get(name, costs)
        for name, one in found.items()
    }

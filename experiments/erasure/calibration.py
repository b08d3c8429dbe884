"""Settings of methods, chosen where nobody asks: on clients that leave other federations, without the leavers' data.

A method's setting is the one whose model tells least from retraining, on validation examples and on those of who left
there: the mean of both KL(p_retrained || p). Test examples and the leavers' are not looked at. A backdoor there has its
stamp in another corner and another target.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.data import sets
from experiments.erasure import methods
from experiments.erasure import problem as problems
from experiments.erasure.methods import Settings
from experiments.erasure.problem import Problem
from experiments.erasure.scoring import divergence
from experiments.erasure.training import Trained, train
from federated.history import Array
from unlearn.base import Batch

Told = dict[str, Any]


def calibrate(problem: Problem) -> Told:
    """The divergences of all settings, [calibrations][settings] by method, and which was chosen.

    A rule that a repair follows has an alpha of its own: the one after which the repaired model is nearest.
    """
    section = problem.config.erase
    grids: dict[str, Sequence[float]] = {"alpha": section.alphas, "mpu": section.rates, "rr_du": section.rates}
    needed = {"alpha": {"fast_fedul", "medu"}, "mpu": {"mpu"}, "rr_du": {"rr_du"}}
    for rounds in section.repairs:
        grids[before_repair(rounds)], needed[before_repair(rounds)] = section.alphas, needed["alpha"]
    makers = {name: maker for name, maker in _makers(problem).items() if needed[name] & set(methods.able(problem.config))}
    look = jax.jit(lambda setup, gone: _divergences(problem, setup, gone, makers, grids))
    setups = [problems.calibration(problem, number) for number in range(section.calibrations)]
    gone = [problems.forgotten(problem, setup) for setup in setups]
    # One size for all, so that one program does.
    most = max(len(problem.leaving) * problem.size, *(len(batch["id"]) for batch in gone))
    found: dict[str, list[list[float]]] = {name: [] for name in makers}
    heads: list[list[float]] = []
    for setup, batch in zip(setups, gone, strict=True):
        trained, told = look(setup, sets.padded(batch, most))
        for name, divergences in told.items():
            found[name].append(np.asarray(divergences).tolist())
        if "ridge" in section.methods:
            heads.append([_ridge_error(problem, trained, penalty) for penalty in section.penalties])
    chosen = {name: _best(grids[name], values) for name, values in found.items()}
    chosen["penalty"] = _best(section.penalties, heads) if heads else section.penalties[0]
    return {"chosen": chosen, "divergences": found, "ridge_errors": heads, "grids": {**grids, "penalty": section.penalties}}


def settings(told: Told, repairs: Sequence[int]) -> Settings:
    """What was chosen; 0 of methods that are not run."""
    chosen = told["chosen"]
    found = {name: float(chosen.get(name, 0.0)) for name in ("alpha", "mpu", "rr_du", "penalty")}
    before = {rounds: float(chosen.get(before_repair(rounds), found["alpha"])) for rounds in repairs}
    return Settings(**found, before_repair=before)


def before_repair(rounds: int) -> str:
    """What the alpha of a rule that so many rounds of repair follow is called."""
    return f"alpha before {rounds}"


def _makers(problem: Problem) -> dict[str, Callable[[Trained, Array], Array]]:
    def repaired(rounds: int) -> Callable[[Trained, Array], Array]:
        rule = methods.fast_fedul
        return lambda trained, alpha: methods.repaired(problem, trained, rule(trained, alpha), rounds).model

    return {before_repair(rounds): repaired(rounds) for rounds in problem.config.erase.repairs} | {
        "alpha": lambda trained, alpha: methods.fast_fedul(trained, alpha).model,
        "mpu": lambda trained, rate: methods.mpu(problem, trained, rate).model,
        "rr_du": lambda trained, rate: methods.rr_du(problem, trained, rate).model,
    }


def _divergences(
    problem: Problem,
    setup: problems.Setup,
    gone: Batch,
    makers: dict[str, Callable[[Trained, Array], Array]],
    grids: dict[str, Sequence[float]],
) -> tuple[Trained, dict[str, Array]]:
    """A federation trained, and how far each setting of each method is from retraining; `gone` is what went, padded."""
    trained = train(problem, setup)
    oracle = methods.retrained(problem, trained, setup.key).model
    held_out = problem.dataset.validation.x
    looked_at = ((held_out, jnp.ones(len(held_out))), (gone["x"], (gone["weight"] > 0).astype(jnp.float32)))
    logits = lambda vector, x: problem.model.apply(problem.unravel(vector), x, None)  # noqa: E731

    def away(vector: Array) -> Array:
        return jnp.mean(jnp.stack([divergence(logits(vector, x), logits(oracle, x), weights) for x, weights in looked_at]))

    return trained, {
        name: jax.vmap(lambda value, make=make: away(make(trained, value)))(jnp.asarray(grids[name]))
        for name, make in makers.items()
    }


def _ridge_error(problem: Problem, trained: Trained, penalty: float) -> float:
    """The share of validation examples that the head of all clients gets wrong."""
    validation = problem.dataset.validation
    heads = methods.ridge_heads(problem, trained, penalty)
    told = methods.ridge_features(problem, trained.setup.start, validation.x) @ heads.served
    return float((np.asarray(told).argmax(axis=1) != validation.y).mean())


def _best(grid: Sequence[float], values: Sequence[Sequence[float]]) -> float:
    """The setting with the least mean; of those that are alike the first. What is not finite is never chosen."""
    means = np.mean(np.asarray(values, np.float64), axis=0)
    return float(grid[int(np.argmin(np.where(np.isfinite(means), means, np.inf)))])

"""The ways of taking leavers out of a federation, archives apart: each gives a model, and what clients had to do for it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from experiments.configs.federated import Federated
from experiments.core.results import Scalar
from experiments.erasure.problem import Problem
from experiments.erasure.training import Trained, asked, local
from federated import client_update, erase
from federated.erase import Erased
from federated.history import Array
from unlearn.base import Batch, Params, mean_loss

ORACLE, HELDOUT, SERVED, RIDGE = "oracle", "heldout_oracle", "served", "ridge"
PUBLISHED = (-0.07, 0.0, 0.07)  # alphas that have rows in any case: of Fast-FedUL's code, MEDU's precursor, the formula
FLOAT = 4  # bytes
COPIES = (1.0, 2.0, 3.0)  # scales of MPU's noise
RADIUS = 5.0  # of the ball that RR-DU's steps at the leaver stay in; ours


class Settings(NamedTuple):
    """What was chosen on clients of other federations.

    alpha: of Fast-FedUL and MEDU.  mpu, rr_du: step sizes.  penalty: of ridge heads.
    before_repair: rounds of repair -> alpha of the rule that they follow.
    """

    alpha: float
    mpu: float
    rr_du: float
    penalty: float
    before_repair: Mapping[int, float] = MappingProxyType({})


class Way(NamedTuple):
    """One way of taking the leavers out.

    name: of its row.
    method: of `federated.erase.METHODS`, or "served".
    erase: Trained -> Erased; may be traced unless it is `eager`.
    stored: Trained -> bytes that the server has kept for it.
    facts: what sets its row apart.
    eager: it looks at values, and may refuse a request: ValueError.
    """

    name: str
    method: str
    erase: Callable[[Trained], Erased]
    stored: Callable[[Trained], int]
    facts: Mapping[str, Scalar] = MappingProxyType({})
    eager: bool = False


def ways(problem: Problem, settings: Settings) -> list[Way]:
    """All ways of a config, archives apart; the served model and the two retrainings come first.

    A ridge head is another model and has its own retraining: `ridge_heads`.
    """
    made = [
        Way(SERVED, SERVED, _served, lambda _: 0),
        Way(ORACLE, "retrain", lambda trained: retrained(problem, trained, trained.setup.key), _start_bytes),
        Way(HELDOUT, "retrain", lambda trained: retrained(problem, trained, trained.setup.second), _start_bytes),
        Way("rollback", "rollback", lambda trained: _rollback(problem, trained), checkpoint_bytes),
        Way("running_sums", "running_sums", _running_sums, _sums_bytes, eager=True),
        *(
            Way(
                f"fast_fedul alpha={alpha:g}",
                "fast_fedul",
                _fast_fedul(alpha),
                _history_bytes,
                _alpha_facts(alpha, settings),
            )
            for alpha in sorted({*PUBLISHED, settings.alpha})
        ),
        Way("federaser", "federaser", lambda trained: _federaser(problem, trained), lambda t: _federaser_bytes(problem, t)),
        Way("fedrecover", "fedrecover", lambda trained: _fedrecover(problem, trained), _recover_bytes),
        Way("crab", "crab", lambda trained: _crab(problem, trained), _crab_bytes),
        Way("fused", "fused", lambda trained: _fused(problem, trained), _start_bytes),
        Way("mpu", "mpu", lambda trained: mpu(problem, trained, settings.mpu), lambda _: 0, {"rate": settings.mpu}),
        Way(
            "rr_du", "rr_du", lambda trained: rr_du(problem, trained, settings.rr_du), lambda _: 0, {"rate": settings.rr_du}
        ),
    ]
    asked_for = {SERVED, "retrain", *able(problem.config)}
    found = [way for way in made if way.method in asked_for]
    before = [(_rule(settings.before_repair[rounds]), rounds) for rounds in problem.config.erase.repairs]
    return [
        *found,
        *(_and_repaired(problem, found[0], rounds) for rounds in problem.config.erase.repairs),
        *(_and_repaired(problem, way, rounds) for way, rounds in before if way.method in asked_for),
        *(_unable(problem, method) for method in problem.config.erase.methods if method not in asked_for),
    ]


def able(config: Federated) -> list[str]:
    """The methods of a config that can carry out its request."""
    return [
        method
        for method in config.erase.methods
        if config.leaver.request in erase.needs_of(erase.find_method(method)).requests
    ]


def _unable(problem: Problem, method: str) -> Way:
    """A row that says why there is none."""

    def refuse(trained: Trained) -> Erased:
        erase.check_request(erase.find_method(method), problem.config.leaver.request)
        raise AssertionError(method)

    return Way(method, method, refuse, lambda _: 0, eager=True)


def _rule(alpha: float) -> Way:
    """Fast-FedUL at an alpha that was chosen."""
    name, facts = f"fast_fedul alpha={alpha:g}", {"alpha": alpha, "chosen": True}
    return Way(name, "fast_fedul", _fast_fedul(alpha), _history_bytes, facts)


def _and_repaired(problem: Problem, way: Way, rounds: int) -> Way:
    return way._replace(
        name=repaired_name(way.name, rounds),
        erase=lambda trained: repaired(problem, trained, way.erase(trained), rounds),
        facts={**way.facts, **repair_facts(rounds)},
    )


def repaired_name(name: str, rounds: int) -> str:
    """What a way is called that ends with a repair."""
    return f"{name}, repaired {rounds}"


def repair_facts(rounds: int) -> dict[str, Scalar]:
    """What sets the row of a repair apart."""
    return {"repair": rounds, "helpers": erase.needs_of(erase.retrain).helpers}


def _alpha_facts(alpha: float, settings: Settings) -> dict[str, Scalar]:
    return {"alpha": alpha, "chosen": alpha == settings.alpha}


def _served(trained: Trained) -> Erased:
    return unasked(trained.model)


def unasked(model: Array) -> Erased:
    """A model for which no client did anything."""
    nothing = jnp.zeros((), jnp.int32)
    return Erased(model, nothing, nothing)


# --- Exact ------------------------------------------------------------------------------------------------------------


def retrained(problem: Problem, trained: Trained, key: Array) -> Erased:
    """The federation without what is to go, from the same start; with another key than its own, in other batches."""
    step = erase.averaging(asked(problem, trained.setup, local(problem)), key)
    return erase.retrain(trained.setup.start, trained.history.weights, trained.leavers, step)


def _rollback(problem: Problem, trained: Trained) -> Erased:
    step = erase.averaging(asked(problem, trained.setup, local(problem)), trained.setup.key)
    return erase.rollback(trained.checkpoints, trained.history.weights, trained.leavers, step)


# --- By the server alone ----------------------------------------------------------------------------------------------


def _running_sums(trained: Trained) -> Erased:
    return erase.running_sums(trained.model, _summed(trained), trained.leavers)


@jax.jit
def _summed(trained: Trained) -> erase.Sums:
    return erase.summed(trained.history)


def fast_fedul(trained: Trained, alpha: float | Array) -> Erased:
    """Fast-FedUL on the uncompressed history."""
    return erase.fast_fedul(trained.model, trained.history, trained.leavers, alpha=alpha)


def _fast_fedul(alpha: float) -> Callable[[Trained], Erased]:
    return lambda trained: fast_fedul(trained, alpha)


# --- With clients' help -----------------------------------------------------------------------------------------------


def _federaser(problem: Problem, trained: Trained) -> Erased:
    section = problem.config.erase
    update = asked(problem, trained.setup, local(problem, section.retraining_epochs))
    return erase.federaser(
        trained.history,
        trained.leavers,
        update,
        trained.setup.erasing,
        interval=section.interval,
        layers=jnp.asarray(problem.layers),
    )


def _fedrecover(problem: Problem, trained: Trained) -> Erased:
    section = problem.config.erase
    update = asked(problem, trained.setup, local(problem))
    largest = section.believed * jnp.max(jnp.abs(trained.history.updates))
    return erase.fedrecover(
        trained.checkpoints,
        trained.history,
        trained.leavers,
        update,
        trained.setup.key,
        warmup=section.warmup,
        correct=section.correct,
        final=section.final,
        threshold=largest if section.believed else math.inf,
    )


def _crab(problem: Problem, trained: Trained) -> Erased:
    update = asked(problem, trained.setup, local(problem, problem.config.erase.retraining_epochs))
    kept = erase.crab_keep(trained.history)
    return erase.crab(
        trained.checkpoints,
        trained.history,
        kept,
        trained.leavers,
        update,
        trained.setup.erasing,
        layers=jnp.asarray(problem.layers),
    )


def _fused(problem: Problem, trained: Trained) -> Erased:
    """One gradient step of each client in a round: of these the adapter's own step is a part."""
    rate, count = problem.config.federation.learning_rate, int(problem.layers.max()) + 1
    update = asked(problem, trained.setup, client_update(problem.model, optax.sgd(rate)))
    adapter_key, key = jax.random.split(trained.setup.erasing)
    changes = erase.layer_changes(trained.setup.start, trained.model, jnp.asarray(problem.layers), count)
    adapter = erase.make_adapter(changes, jnp.asarray(problem.layers), adapter_key, chosen=min(2, count))
    shares = trained.setup.data["weight"].sum(axis=1)
    rounds = problem.config.erase.adapter_rounds
    return erase.fused(trained.model, adapter, shares, trained.leavers, update, key, rounds=rounds)[0]


def repaired(problem: Problem, trained: Trained, erased: Erased, rounds: int) -> Erased:
    """The last rounds of the training again, without what went and from an erased model on, in other batches."""
    step = erase.averaging(asked(problem, trained.setup, local(problem)), trained.setup.erasing)
    again = erase.retrain(erased.model, trained.history.weights[-rounds:], trained.leavers, step)
    return Erased(again.model, erased.rounds + again.rounds, erased.updates + again.updates)


# --- With the leavers' help -------------------------------------------------------------------------------------------


def going(problem: Problem, trained: Trained) -> Batch:
    """What is to go of clients in one batch, all else that they have included with weight 0."""
    count = len(problem.leaving)
    data = {**trained.setup.data, "weight": jnp.where(trained.setup.going, trained.setup.data["weight"], 0)}
    return jax.tree.map(lambda leaf: leaf[:count].reshape(-1, *leaf.shape[2:]), data)


def mpu(problem: Problem, trained: Trained, rate: float | Array) -> Erased:
    """MPU; what is done to each copy is gradient ascent on the loss of what goes, for as many epochs as in training."""
    fed, data = problem.config.federation, going(problem, trained)

    def loss(params: Params, batch: Batch, key: Array) -> Array:
        return -mean_loss(problem.model, params, batch, key)

    ascent = client_update(loss, optax.sgd(rate), epochs=fed.epochs, batch_size=fed.batch_size)

    def unlearn(params: Array, key: Array) -> Array:
        return ravel_pytree(ascent(problem.unravel(params), data, key))[0]

    return erase.mpu(trained.model, jnp.asarray(problem.layers), unlearn, trained.setup.erasing, scales=jnp.asarray(COPIES))


def rr_du(problem: Problem, trained: Trained, rate: float | Array) -> Erased:
    """RR-DU on a graph in which all are neighbours: one node has all that is to go, each other the data of a client."""
    section, count = problem.config.erase, problem.config.leaver.clients
    nodes = len(trained.leavers) - count + 1
    graph = (1 - jnp.eye(nodes)) / (nodes - 1)
    own = going(problem, trained)
    share = own["weight"].sum() / trained.setup.data["weight"][:count].sum()  # m / n, of what the leavers have

    def gradient(params: Array, batch: Batch, key: Array) -> Array:
        return jax.grad(lambda flat: mean_loss(problem.model, problem.unravel(flat), batch, key))(params)

    def forget(params: Array, client: Array, key: Array) -> Array:
        return share * gradient(params, own, key)

    def retain(params: Array, client: Array, key: Array) -> Array:
        return gradient(params, jax.tree.map(lambda leaf: leaf[client + count - 1], dict(trained.setup.data)), key)

    walked = erase.rr_du(
        trained.model,
        graph,
        0,
        forget,
        retain,
        trained.setup.erasing,
        steps=section.steps,
        rate=rate,
        sigma=section.sigma,
        radius=RADIUS,
    )
    steps = jnp.asarray(section.steps)
    return Erased(walked.model, steps, steps)


# --- Ridge heads ------------------------------------------------------------------------------------------------------


class Heads(NamedTuple):
    """Ridge heads on the network as it was drawn, [features, classes].

    served: of all examples.  erased: after the message of what goes was subtracted.  retrained: of those that stay.
    """

    served: Array
    erased: Array
    retrained: Array


def ridge_heads(problem: Problem, trained: Trained, penalty: float) -> Heads:
    """The heads of all examples, of those that stay, and what subtraction makes of the first."""
    data, classes, gone = trained.setup.data, problem.dataset.classes, trained.setup.going
    features = jax.vmap(lambda x: ridge_features(problem, trained.setup.start, x))(data["x"])

    def total(weight: Array) -> erase.Statistics:
        each = jax.vmap(erase.statistics)(features, jax.nn.one_hot(data["y"], classes), weight)
        return jax.tree.map(lambda leaf: jnp.sum(leaf, axis=0), each)

    everything = total(data["weight"])
    erased, _ = erase.ridge(everything, total(jnp.where(gone, data["weight"], 0)), penalty)
    others = total(jnp.where(gone, 0, data["weight"]))
    return Heads(erase.head(everything, penalty), erased, erase.head(others, penalty))


def ridge_features(problem: Problem, start: Array, x: Any) -> Array:
    """What the last layer of the network is given before any training, and a one, [examples, features]."""
    assert problem.model.features is not None  # see `problem.make`
    found = problem.model.features(problem.unravel(start), x, None)
    found = found.reshape(len(found), -1)
    return jnp.concatenate([found, jnp.ones((len(found), 1), found.dtype)], axis=1)


def ridge_bytes(heads: Heads, clients: int) -> int:
    """Of all clients' messages: a symmetric matrix of features, and features by classes."""
    features, classes = heads.served.shape
    return FLOAT * clients * (features * (features + 1) // 2 + features * classes)


# --- What the server has kept -----------------------------------------------------------------------------------------


def _start_bytes(trained: Trained) -> int:
    return FLOAT * len(trained.model)


def checkpoint_bytes(trained: Trained) -> int:
    """Of the server's models."""
    return FLOAT * trained.checkpoints.size


def _sums_bytes(trained: Trained) -> int:
    return sums_bytes(len(trained.leavers), len(trained.model))


def sums_bytes(clients: int, parameters: int) -> int:
    """Of running sums."""
    return erase.stored_bytes(jax.eval_shape(lambda: erase.init_sums(clients, parameters)))


def _history_bytes(trained: Trained) -> int:
    return FLOAT * len(trained.model) * int((trained.history.weights > 0).sum())


def _federaser_bytes(problem: Problem, trained: Trained) -> int:
    kept = trained.history.weights[:: problem.config.erase.interval]
    return FLOAT * len(trained.model) * (1 + int((kept > 0).sum()))


def _recover_bytes(trained: Trained) -> int:
    return _history_bytes(trained) + checkpoint_bytes(trained)


def _crab_bytes(trained: Trained) -> int:
    kept = erase.crab_keep(trained.history)
    return FLOAT * len(trained.model) * int(kept.sum() + kept.any(axis=1).sum())

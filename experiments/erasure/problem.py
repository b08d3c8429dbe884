"""A config's data and model as federations: one for each seed, and others that settings are chosen on.

What is to go is the same in all seeds, so that the fleet of federations can be asked about it, and so are the data of
clients that leave or lose examples; whom the others belong to, initial parameters and batches are drawn anew for each seed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from experiments import models
from experiments.configs.federated import Federated
from experiments.core import keys
from experiments.core.errors import UserError
from experiments.core.keys import Hash, Purpose
from experiments.core.machines import fleet
from experiments.data import datasets, ids, sets
from experiments.data.datasets import Dataset
from experiments.data.ids import lowest
from experiments.erasure import backdoor, partition
from experiments.models import products
from federated import participation, stack_clients
from federated.erase import removed_shares
from federated.erase.contract import CLASS, CLIENT, EXAMPLES
from federated.history import Array
from unlearn.base import Batch, Model

GOING = "going"  # of a batch, while federations are made
IMPL = "threefry2x32"  # of an archive's draws, as archives on a disk have it


class Problem(NamedTuple):
    """What all federations of a run share.

    config, dataset: of the run.
    model: as pure rooms see it.
    init: key -> [parameters].
    unravel: [parameters] -> the model's parameters.
    layers: [parameters] int, the array of the model that each parameter is in.
    leaving: positions of training examples, of each client that leaves or loses some; none of a class.
    going: positions of those that are to go.
    others: positions of those on which settings may be chosen: nobody's of `leaving`, and none of a class that goes.
    size: examples that each client is padded to.
    """

    config: Federated
    dataset: Dataset
    model: Model
    init: Callable[[Array], Array]
    unravel: Callable[[Array], Any]
    layers: np.ndarray
    leaving: Sequence[np.ndarray]
    going: np.ndarray
    others: np.ndarray
    size: int

    @property
    def parameters(self) -> int:
        return len(self.layers)


class Setup(NamedTuple):
    """A federation before it trains.

    ids: [clients].  data: of the clients, [clients, examples, ...].  start: [parameters].
    going: [clients, examples] bool, what is to go.
    leavers: [clients] bool, who leaves; of a class or of single examples the share of each client's examples that goes.
    plan: [rounds, clients] bool, who is present.
    key, second: of its training, and of a second retraining.
    archive, erasing: of an archive's draws, and of methods'.
    """

    ids: Array
    data: Batch
    going: Array
    leavers: Array
    start: Array
    plan: Array
    key: Array
    second: Array
    archive: Array
    erasing: Array


def make(config: Federated, dataset: Dataset) -> Problem:
    """The problem of a config.

    Raises:
      UserError: data or a model that cannot be federated so; one line that says what to do.
    """
    fed, leaver = config.federation, config.leaver
    if dataset.is_text:
        raise UserError(f"federations are of images and tables, {dataset.name} is text: set another --config.data.name")
    if len(dataset.train.id) < 2 * fed.clients:
        raise UserError(
            f"{len(dataset.train.id)} training examples are too few for {fed.clients} clients: set fewer "
            "--config.federation.clients"
        )
    for name in ("validation", "test"):
        if not len(getattr(dataset, name).id):
            raise UserError(f"there are no {name} examples: set a larger --config.data.validation_fraction")
    if leaver.backdoor:
        backdoor.check(dataset.train.x, leaver.stamp, leaver.target, dataset.classes)
    fns = models.build(config.model, dataset.train.x[:1], dataset.classes)
    if fleet.in_loops(fns.convolutional):
        fns = products.as_products(fns)  # clients are lanes of one program
    if leaver.request == CLASS and leaver.label not in dataset.train.y:
        raise UserError(
            f"no training example is of class {leaver.label}: set --config.leaver.label to a class from 0 to "
            f"{dataset.classes - 1}, which are numbered in the order of their labels"
        )
    if "ridge" in config.erase.methods and fns.features is None:
        raise UserError("ridge heads need a model with features, and this one names none: leave ridge out of erase.methods")
    tree = fns.init(keys.unused())
    unravel = ravel_pytree(tree)[1]
    layers = np.concatenate([np.full(leaf.size, i) for i, leaf in enumerate(jax.tree.leaves(tree))])
    parts = partition.split(dataset.train.y, fed.clients, fed.dirichlet, keys.generator(config.seed, Purpose.LEAVING))
    _check_filled(config, parts)
    leaving = [] if leaver.request == CLASS else partition.middling(parts, leaver.clients)
    _check_examples(config, leaving)
    going = _going(config, dataset, leaving, leaver.label)
    others = np.setdiff1d(np.arange(len(dataset.train.id)), np.concatenate([going, *leaving]))
    init = lambda key: ravel_pytree(fns.init(key))[0]  # noqa: E731
    if leaver.request == CLASS and len(np.unique(dataset.train.y[others])) < 2:
        raise UserError(
            "without the class only one is left, and settings are chosen where another goes: take data of three"
        )
    made = Problem(config, dataset, models.as_model(fns), init, unravel, layers, leaving, going, others, 0)
    elsewhere = calibrating(made)
    for parts in elsewhere:
        _check_filled(config, parts)
    if fed.present:
        _check_present(made, elsewhere)
    drawn = [_parts(made, seed) for seed in seeds(config)] + elsewhere
    return made._replace(size=max(len(part) for parts in (leaving, *drawn) for part in parts))


def _check_examples(config: Federated, leaving: Sequence[np.ndarray]) -> None:
    """Refuse single examples that are all that a client has."""
    least, leaver = min(map(len, leaving), default=0), config.leaver
    if leaver.request == EXAMPLES and leaver.examples >= least:
        raise UserError(
            f"{leaver.examples} examples are to go of a client that has {least}: set fewer --config.leaver.examples, or "
            "--config.leaver.request=client"
        )


def _going(config: Federated, dataset: Dataset, leaving: Sequence[np.ndarray], label: int) -> np.ndarray:
    """Positions of what is to go: all that leavers have, some of each by their ids but never all, or a class."""
    if config.leaver.request == CLASS:
        return np.flatnonzero(dataset.train.y == label)
    if config.leaver.request == EXAMPLES:
        some = lambda part: min(config.leaver.examples, len(part) - 1)  # noqa: E731
        leaving = [part[lowest(dataset.train.id[part], some(part), Hash.GOING, 0)] for part in leaving]
    return np.concatenate(leaving)


def _check_filled(config: Federated, parts: Sequence[np.ndarray]) -> None:
    """Refuse clients of whom so few have examples that a leaver would have none, or nobody else would."""
    filled, leavers = sum(len(part) > 0 for part in parts), config.leaver.clients
    if config.leaver.request == CLASS:
        leavers = 1  # a federation of one has nobody to average with
    if filled <= leavers:
        asked = {CLIENT: f" and {leavers} of them leave", EXAMPLES: f" and {leavers} of them lose some"}
        raise UserError(
            f"only {filled} of {config.federation.clients} clients would have examples"
            f"{asked.get(config.leaver.request, '')}: raise --config.federation.dirichlet, or set it to 0"
        )


def _check_present(problem: Problem, elsewhere: Sequence[Sequence[np.ndarray]]) -> None:
    """Refuse federations of which nobody who has what goes ever was a part: there would be nothing to erase."""
    config = problem.config
    trained = {
        f"seed {seed}": (keys.key(seed, Purpose.FEDERATION), [*problem.leaving, *_parts(problem, seed)], problem.going)
        for seed in seeds(config)
    }
    for number, parts in enumerate(elsewhere):
        key = keys.key(config.seed, Purpose.CALIBRATION, number)
        trained[f"calibration {number}"] = key, [*parts], _going_elsewhere(problem, number, parts)

    def is_absent(key: Array, parts: Sequence[np.ndarray], going: np.ndarray) -> bool:
        holders = np.array([np.isin(part, going).any() for part in parts])
        return not _plan(config, key)[:, holders].any()

    if absent := [name for name, told in trained.items() if is_absent(*told)]:
        named = ", ".join(absent[:3]) + (f" and {len(absent) - 3} more" if len(absent) > 3 else "")
        raise UserError(
            f"nobody who has what is to go is present in any of {config.federation.rounds} rounds of {named}: raise "
            "--config.federation.present or --config.federation.rounds"
        )


def _going_elsewhere(problem: Problem, number: int, parts: Sequence[np.ndarray]) -> np.ndarray:
    """Positions of what is to go of a federation of `calibration`: of a class, another one."""
    there = np.unique(problem.dataset.train.y[problem.others])
    label = int(there[number % len(there)])
    return _going(problem.config, problem.dataset, parts[: len(problem.leaving)], label)


def _plan(config: Federated, key: Array) -> Array:
    """Who is present, [rounds, clients], by the key of a federation."""
    fed = config.federation
    ids = jnp.arange(fed.clients)
    return participation(keys.fold(key, Purpose.ORDER), ids, fed.rounds, fed.present or fed.clients)


def seeds(config: Federated) -> range:
    """Of the federations."""
    return range(config.seed, config.seed + config.seeds)


def federation(problem: Problem, seed: int) -> Setup:
    """The federation of a seed: the leavers, and clients who share the other examples as this seed draws."""
    clean = [_batch(problem, part, problem.going) for part in problem.leaving]
    rest = [_batch(problem, part, problem.going) for part in _parts(problem, seed)]
    return _setup(problem, [*_leavers(problem, clean), *rest], seed, Purpose.FEDERATION)


def calibration(problem: Problem, number: int) -> Setup:
    """A federation without what is to go, in which others leave: as many, of the same kind, with another stamp or class."""
    parts, count = calibrating(problem)[number], len(problem.leaving)
    going = _going_elsewhere(problem, number, parts)
    batches = [_batch(problem, part, going) for part in parts]
    played = _leavers(problem, batches[:count], of_calibration=True)
    return _setup(problem, [*played, *batches[count:]], problem.config.seed, Purpose.CALIBRATION, number)


def calibrating(problem: Problem) -> list[list[np.ndarray]]:
    """Positions of each client in each federation of `calibration`, typical clients first: they are those who leave."""
    config, generator = problem.config, keys.generator(problem.config.seed, Purpose.CALIBRATING)
    labels = problem.dataset.train.y[problem.others]
    drawn = []
    for _ in range(config.erase.calibrations):
        parts = partition.split(labels, config.federation.clients, config.federation.dirichlet, generator)
        drawn.append([problem.others[part] for part in partition.middling(parts, len(parts))])
    return drawn


def forgotten(problem: Problem, setup: Setup) -> Batch:
    """All examples that are to go, as clients train on them, without padding and in one order for all seeds."""
    chosen = np.asarray(setup.going)
    found = jax.tree.map(lambda leaf: np.asarray(leaf)[chosen], dict(setup.data))
    if problem.config.leaver.request != CLASS:
        return found  # of clients that are the same in all seeds
    order = np.argsort(found["id"], kind="stable")
    return jax.tree.map(lambda leaf: leaf[order], found)


def _parts(problem: Problem, seed: int) -> list[np.ndarray]:
    """Positions of each client but those of `leaving`, in the federation of a seed."""
    fed, labels = problem.config.federation, problem.dataset.train.y
    shared = np.setdiff1d(np.arange(len(labels)), [one for part in problem.leaving for one in part])
    generator = keys.generator(seed, Purpose.PARTITION)
    parts = partition.split(labels[shared], fed.clients - len(problem.leaving), fed.dirichlet, generator)
    return [shared[part] for part in parts]


def _leavers(problem: Problem, batches: Sequence[Batch], of_calibration: bool = False) -> list[Batch]:
    """The data of those who leave, with a backdoor if the config has one; those of a calibration have one of their own."""
    leaver, bright = problem.config.leaver, float(problem.dataset.train.x.max())
    if not leaver.backdoor:
        return list(batches)
    target = (leaver.target + of_calibration) % problem.dataset.classes
    corner = backdoor.FIRST if of_calibration else backdoor.LAST
    claim = leaver.claim if problem.config.federation.weighting == "examples" else 1.0
    return [backdoor.poisoned(batch, leaver.share, target, leaver.stamp, bright, corner, claim) for batch in batches]


def _batch(problem: Problem, positions: np.ndarray, going: np.ndarray) -> Batch:
    """Training examples, and which of them are to go."""
    batch = datasets.batch(problem.dataset.train, positions)
    return batch | {"id": ids.short(batch["id"]).astype(np.uint32), GOING: np.isin(positions, going)}


def _setup(problem: Problem, batches: Sequence[Batch], seed: int, purpose: Purpose, *more: int) -> Setup:
    fed, leaver = problem.config.federation, problem.config.leaver
    clients = stack_clients(range(fed.clients), [sets.padded(batch, problem.size) for batch in batches])
    data = dict(clients.data)
    going = data.pop(GOING)
    if leaver.request == CLIENT:
        leavers = jnp.arange(fed.clients) < leaver.clients
    else:
        leavers = removed_shares(jnp.sum(data["weight"] * going, axis=1), jnp.sum(data["weight"], axis=1))
    key = keys.key(seed, purpose, *more)
    return Setup(
        clients.ids,
        data,
        going,
        leavers,
        problem.init(keys.fold(key, Purpose.INIT)),
        _plan(problem.config, key),
        keys.fold(key, Purpose.STEP),
        keys.key(seed, Purpose.HELDOUT_FEDERATION, *more),
        jax.random.fold_in(jax.random.key(seed, impl=IMPL), Purpose.ARCHIVING.value[1]),
        keys.key(seed, Purpose.ERASING, *more),
    )

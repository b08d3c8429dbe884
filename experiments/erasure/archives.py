"""Archives after MEDU: which schemes a config has, what they take on a disk, and the models that come of them."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.configs.federated import Archives, Federated
from experiments.erasure.training import Trained
from experiments.federated import coding
from federated import History, erase
from federated.archive import Code, Codes, Scheme, archive
from federated.history import Array

REFERENCE = "last"  # what thresholds compare with; see `federated.archive.Scheme`


class Kept(NamedTuple):
    """What archives are made of: of a federation after training, no client's data.

    ids: [clients].  key: of the archive's draws.  model: [parameters], as it is served.
    history: of all updates, uncompressed.  leavers: [clients], of the setup.
    """

    ids: Array
    key: Array
    model: Array
    history: History
    leavers: Array


class Rate(NamedTuple):
    """What coded updates take.

    bits: of an entry, over the updates of all who took part, tables and headers included.
    stored: share of the updates that are stored.
    """

    bits: float
    stored: float


def schemes(config: Federated) -> dict[str, Scheme]:
    """The schemes of a config, by name: lattices by rates, sampling and thresholds on the main lattice, sparse ones."""
    section = config.archive
    made = {f"{lattice} {rate:g}": Scheme(lattice, rate) for lattice in section.lattices for rate in section.rates}
    lattice = section.lattices[0]
    for rate in section.rates:
        made |= {f"{lattice} {rate:g}{name}": scheme for name, scheme in _sparser(section, Scheme(lattice, rate)).items()}
    middle = sorted(section.rates)[len(section.rates) // 2]
    if section.share:
        for entries in ("top", "random"):
            scheme = Scheme(lattice, middle, entries=entries, amount=section.share)
            made[f"{lattice} {middle:g}, {entries} {section.share:g}"] = scheme
    return made


def is_plain(scheme: Scheme, config: Federated) -> bool:
    """Whether a scheme is of the main lattice and stores all entries of all updates, which FedRecover starts from."""
    return scheme == Scheme(config.archive.lattices[0], scheme.rate)


def _sparser(section: Archives, scheme: Scheme) -> dict[str, Scheme]:
    """A scheme with user sampling, with a threshold, and with both; by what they add to its name."""
    made = {}
    changed = scheme._replace(entries="changed", amount=section.threshold, reference=REFERENCE)
    if section.users:
        made[f", {section.users} users"] = scheme._replace(users=section.users)
    if section.threshold:
        made[f", threshold {section.threshold:g}"] = changed
    if section.users and section.threshold:
        made[f", {section.users} users, threshold {section.threshold:g}"] = changed._replace(users=section.users)
    return made


def kept(trained: Trained) -> Kept:
    """What archives see of a federation."""
    return Kept(trained.setup.ids, trained.setup.archive, trained.model, trained.history, trained.leavers)


class Archived(NamedTuple):
    """What an archive has, and what MEDU makes of it.

    codes: of all rounds.  history: with updates as they are read back.  models: [alphas, parameters].
    """

    codes: Codes
    history: History
    models: Array


def archived(scheme: Scheme, kept: Kept, alphas: Array) -> Archived:
    """An archive of all rounds, and MEDU by it at each alpha; updates are read back round by round, as they come."""
    keeper = archive(scheme, len(kept.model), kept.key)

    def advance(memory: Any, turn: tuple[Array, Array, Array]) -> tuple[Any, tuple[Codes, Array]]:
        index, updates, weights = turn
        after, codes = keeper.encode(memory, updates, weights, kept.ids, index)
        return after, (codes, keeper.decode(memory, codes, kept.ids, index)[1])

    rounds = jnp.arange(len(kept.history.weights), dtype=jnp.int32)
    begun = keeper.init(len(kept.ids), len(kept.model))
    turns = (rounds, kept.history.updates, kept.history.weights)
    _, (codes, updates) = jax.lax.scan(advance, begun, turns)
    history = kept.history._replace(updates=updates)
    erased = lambda alpha: erase.medu(kept.model, history, kept.leavers, alpha=alpha).model  # noqa: E731
    return Archived(codes, history, jax.vmap(erased)(alphas))


def ratio(whole: np.ndarray, compressed: np.ndarray) -> float:
    """log10 Var(w') / Var(w' - w''), variances over entries; NaN where both are equal."""
    noise = float(np.var(whole - compressed))
    return float(np.log10(np.var(whole) / noise)) if noise else float("nan")


def coded_rounds(rounds: int, coded: int, place: float) -> np.ndarray:
    """Which rounds of a seed are coded: one in each of as many equal parts, at the same place of each.

    Seeds have places evenly apart, so that together they code all rounds alike: with thresholds the first takes most.

    Args:
      place: from 0 to below 1.

    Example:
      >>> coded_rounds(30, 3, 0.5).tolist(), coded_rounds(2, 3, 0.5).tolist()
      ([5, 15, 25], [0, 1])
    """
    count = min(coded, rounds)
    return ((np.arange(count) + place) * rounds / count).astype(int)


def measured(scheme: Scheme, kept: Kept, codes: Codes, chosen: np.ndarray) -> Rate:
    """What the range coder makes of the updates of some rounds."""
    weights, parameters = np.asarray(kept.history.weights), len(kept.model)
    size = came = stored = 0
    for t in chosen:
        of_round = jax.tree.map(lambda leaf: np.asarray(leaf[t]), codes.updates)  # noqa: B023
        for user in np.flatnonzero(weights[t] > 0):
            code = jax.tree.map(lambda leaf: leaf[user], of_round)  # noqa: B023
            size += len(coding.pack(scheme, parameters, code))
            came += 1
            stored += float(code.factor) > 0
    return Rate(8 * size / max(came * parameters, 1), stored / max(came, 1))


def check_coder() -> None:
    """Refuse to begin without a range coder.

    Raises:
      UserError: its package is not installed; one line.
    """
    none = np.float32(0)
    coding.pack(Scheme(), 1, Code(none, none, None, np.zeros((1, 2), np.int16), none))

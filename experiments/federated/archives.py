"""Histories of `federated` into an archive on a disk and out of it, as bytes of the range coder.

The archive's first row holds all that decoding needs: the scheme, the number of parameters and the key of its draws.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.data.ids import stored_id
from experiments.federated import coding, log, store
from experiments.federated.log import ArchiveError, Row
from experiments.federated.store import Store, Update
from federated import Compressor, History
from federated.archive import Code, Codes, Scheme, archive

IMPL = "threefry2x32"  # of keys in archives: their draws do not hang on a setting of JAX


def create(root: Path, scheme: Scheme, seed: int, start: jax.Array, **more: Any) -> Store:
    """Make an archive for updates of a model, from w_0 [parameters]; raises as `store.create` and `check_scheme` do.

    Args:
      more: what else its first row is to say of it.
    """
    archive(scheme, start.size, jax.random.key(seed, impl=IMPL))
    about = {"scheme": scheme._asdict(), "parameters": int(start.size), "seed": int(seed)} | more
    return store.create(root, model_bytes(start), about)


def compressor(opened: Store) -> Compressor:
    """The compressor of an archive, the same for whoever writes and whoever reads."""
    return archive(scheme_of(opened), opened.about["parameters"], jax.random.key(opened.about["seed"], impl=IMPL))


def scheme_of(opened: Store) -> Scheme:
    """How an archive stores updates.

    Raises:
      ArchiveError: its first row is none of `create`.
    """
    try:
        return Scheme(**opened.about["scheme"])
    except (LookupError, TypeError) as error:
        raise ArchiveError(f"{opened.root} is no archive of updates: its first row has no scheme that is known") from error


def numbers(users: Sequence[str]) -> np.ndarray:
    """The integers that users' draws are folded from, [users]: an id in digits is itself, any other is hashed."""
    return np.array([stored_id(user) for user in users], np.uint32)


def model_bytes(model: jax.Array) -> bytes:
    """A ravelled model as bytes, float32."""
    return np.asarray(model, "<f4").tobytes()


def model_digest(model: jax.Array) -> str:
    """The digest by which an archive and its certificates call a ravelled model."""
    return log.digest(model_bytes(model))


# --- Writing ----------------------------------------------------------------------------------------------------------


def add_round(opened: Store, round: int, users: Sequence[str], codes: Codes, weights: Any, model: str = "") -> int:
    """Add a round from what the archive's compressor made of it; returns the bytes that it takes.

    Args:
      opened: the archive.
      round: its number, by which the draws were made.
      users: stable ids, in the order of the codes; their draws are those of `numbers(users)`.
      codes: of one round.
      weights: [users]; who has 0 was absent.
      model: the digest of the model after the round.

    Raises:
      ArchiveError: as `Store.append` does.
    """
    scheme, parameters = scheme_of(opened), opened.about["parameters"]
    host = jax.tree.map(np.asarray, codes)
    updates = {}
    for index, user in enumerate(users):
        if weights[index] > 0:
            code = jax.tree.map(lambda leaf: leaf[index], host.updates)  # noqa: B023
            updates[user] = Update(float(weights[index]), coding.pack(scheme, parameters, code))
    shared = b"" if host.mean is None else model_bytes(host.mean)
    opened.append(round, updates, shared=shared, model=model)
    return len(shared) + sum(len(update.content) for update in updates.values())


def add_history(opened: Store, history: History, users: Sequence[str], first: int = 0) -> int:
    """Add all rounds of a training whose `updates` are codes, from the round `first` on; returns the bytes they take."""
    size = 0
    for t, weights in enumerate(history.weights):
        codes = jax.tree.map(lambda leaf: leaf[t], history.updates)  # noqa: B023
        size += add_round(opened, first + t, users, codes, weights)
    return size


def drop_before(opened: Store, round: int, start: jax.Array) -> None:
    """Retention: let go of all rounds before one, given the model before it, [parameters].

    Raises:
      ArchiveError: as `Store.drop_before` does; or later updates are told as differences from earlier ones.
    """
    if scheme_of(opened).reference == "last":
        raise ArchiveError("updates that refer to the last one need all before: keep all rounds, or use another reference")
    opened.drop_before(round, model_bytes(start))


def erase(opened: Store, user: str, method: str, before: jax.Array, after: jax.Array) -> Row:
    """Delete a user's history, given the models [parameters] with and without the user; returns the certificate."""
    told = {"model_before": model_digest(before), "model_after": model_digest(after)}
    return opened.erase(user, method=method, **told)


# --- Reading ----------------------------------------------------------------------------------------------------------


def read_history(opened: Store) -> tuple[History, list[str]]:
    """The history that an archive holds, and the users of its columns, sorted by id.

    Without users who were erased: in their rounds, the others share the weights in the same proportions.

    Raises:
      ArchiveError: a file is missing or altered.
    """
    scheme, keeper = scheme_of(opened), compressor(opened)
    parameters = opened.about["parameters"]
    users = sorted({user for entries in opened.rounds.values() for user in entries})
    ids = jnp.asarray(numbers(users))
    decode, memory = jax.jit(keeper.decode), keeper.init(len(users), parameters)
    updates, weights = [], []
    for t, entries in opened.rounds.items():
        rows = [
            _full(scheme, parameters, coding.unpack(scheme, parameters, opened.read(user, t)) if user in entries else None)
            for user in users
        ]
        mean = jnp.asarray(np.frombuffer(opened.shared(t), "<f4")) if scheme.reference == "mean" else None
        codes = Codes(jax.tree.map(lambda *leaves: np.stack(leaves), *rows), mean)
        memory, decoded = decode(memory, codes, ids, jnp.asarray(t))
        updates.append(decoded)
        weights.append(_shares(opened, t, entries, users))
    start = jnp.asarray(np.frombuffer(opened.start()[1], "<f4"))
    stacked = jnp.stack(updates) if updates else jnp.zeros((0, len(users), parameters))
    return History(start, stacked, jnp.asarray(np.array(weights, np.float32).reshape(-1, len(users)))), users


def _full(scheme: Scheme, parameters: int, code: Code | None) -> Code:
    """A code with every array that others of its scheme have; of None, nothing that is stored."""
    if code is None:
        code = coding.unpack(scheme, parameters, coding.NOTHING)
    if code.mask is None and scheme.entries in ("changed", "top"):
        return code._replace(mask=np.zeros(parameters, bool))
    return code


def _shares(opened: Store, round: int, entries: Mapping[str, store.Entry], users: Sequence[str]) -> list[float]:
    told = next(row for row in opened.rows if row["kind"] == "round" and row["round"] == round)
    left = sum(entry.weight for entry in entries.values()) if len(entries) < len(told["updates"]) else 1.0
    return [entries[user].weight / (left or 1.0) if user in entries else 0.0 for user in users]

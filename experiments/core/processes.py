"""Several processes of one run: each carries a part of the lanes, process 0 alone has files, and all go the same way.

Every process runs the same program on the host. What it decides by - a file that is there, a signal that came - is told by
process 0 or asked of all; what is computed of lanes is computed once, by whose part they are, and given to the others. All
of it travels as bytes, so that no bit changes. With one process nothing here does anything.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from experiments.core import preemption
from experiments.core.errors import UserError, line

T = TypeVar("T")
LEAST, MOST = 1 << 12, 1 << 22  # bytes that are sent at once, a power of 2: each is a program of its own


def is_first() -> bool:
    """Whether this process has the files, and speaks."""
    return jax.process_index() == 0


def first(compute: Callable[[], T]) -> T:
    """What process 0 computes, in every process; the others wait for it.

    Raises:
      UserError: what process 0 raises.
    """
    if jax.process_count() == 1:
        return compute()
    error: UserError | OSError | None = None
    value: Any = None
    if is_first():
        try:
            value = compute()
        except (UserError, OSError) as raised:
            error = raised
    told, value = pickle.loads(exchange(pickle.dumps((error and line(error, 1000), value)))[0])
    if error:
        raise error
    if told:
        raise UserError(told)
    return value


def anyone(flag: bool) -> bool:
    """Whether it is so in any process."""
    return flag if jax.process_count() == 1 else b"1" in exchange(b"1" if flag else b"0")


def share(fn: Callable[..., Any]) -> Callable[..., Any]:
    """`fn` over the leading lane axis of its first argument, each process with its part of the lanes.

    Args:
      fn: (lanes, *shared) -> pytree of arrays with a leading lane axis, too.

    Returns:
      The same function; all processes get the results of all lanes. Where lanes do not divide, the last is computed more
      than once.
    """

    def run(lanes: Any, *shared: Any) -> Any:
        processes = jax.process_count()
        if processes == 1:
            return fn(lanes, *shared)
        count = jax.tree.leaves(lanes)[0].shape[0]
        size = -(-count // processes)
        mine = np.minimum(jax.process_index() * size + np.arange(size), count - 1)
        leaves, structure = jax.tree.flatten(fn(jax.tree.map(lambda leaf: _some(leaf, mine), lanes), *shared))
        parts = [pickle.loads(part) for part in exchange(pickle.dumps([np.asarray(leaf) for leaf in leaves]))]
        every = [jnp.asarray(np.concatenate(part)[:count]) for part in zip(*parts, strict=True)]
        return jax.tree.unflatten(structure, every)

    return run


def _some(leaf: Any, rows: np.ndarray) -> Any:
    """Some lanes of an array; where they divide, on the devices among which the whole is divided."""
    some = leaf[rows]
    if not isinstance(leaf, jax.Array) or leaf.sharding.is_fully_replicated or len(rows) % leaf.sharding.num_devices:
        return some
    return jax.device_put(some, leaf.sharding)


def exchange(content: bytes) -> list[bytes]:
    """What each process gives, in their order, in every process; all of them have to call it.

    Raises:
      Lost: one of them is gone.
    """
    try:
        return _exchanged(content)
    except (ValueError, RuntimeError) as error:  # JAX raises either for a connection that is closed
        raise preemption.Lost(line(error, 120)) from error


def _exchanged(content: bytes) -> list[bytes]:
    sizes = multihost_utils.process_allgather(np.asarray(divmod(len(content), MOST), np.int32))
    lengths = [int(whole) * MOST + int(rest) for whole, rest in sizes]
    room = min(MOST, max(LEAST, 1 << (max(lengths) - 1).bit_length()))
    padded = np.zeros(-(-max(lengths) // room) * room, np.uint8)
    padded[: len(content)] = np.frombuffer(content, np.uint8)
    rounds = [multihost_utils.process_allgather(padded[at : at + room]) for at in range(0, len(padded), room)]
    return [row[:length].tobytes() for row, length in zip(np.concatenate(rounds, axis=1), lengths, strict=True)]

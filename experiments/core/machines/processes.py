"""Several processes of one run: each carries a part of the work, process 0 alone has files, and all go the same way.

Every process runs the same program on the host. What it decides by - a file that is there, a signal that came - is told by
process 0 or asked of all; what is computed of lanes, or by a call, is computed once, by whose part it is, and given to the
others. All of it travels as bytes, so that no bit changes. With one process nothing here does anything.
"""

from __future__ import annotations

import collections
import itertools
import pickle
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from experiments.core.errors import UserError, line
from experiments.core.machines import preemption

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
    told, value = everyone((error and line(error, 1000), value))[0]
    if error:
        raise error
    if told:
        raise UserError(told)
    return value


def anyone(flag: bool) -> bool:
    """Whether it is so in any process."""
    return flag if jax.process_count() == 1 else b"1" in exchange(b"1" if flag else b"0")


def everyone(value: T) -> list[T]:
    """The value of each process, in their order, in every process."""
    return [value] if jax.process_count() == 1 else [pickle.loads(told) for told in exchange(pickle.dumps(value))]


def check_devices() -> None:
    """Refuse processes of which one has more devices than another: they could tell each other nothing.

    Raises:
      UserError: it names two, in every process.
    """
    count = collections.Counter(device.process_index for device in jax.devices())
    if others := [process for process in sorted(count) if count[process] != count[0]]:
        raise UserError(
            f"process {others[0]} has {count[others[0]]} devices and process 0 has {count[0]}: give each process as many"
        )


def check_same(values: Mapping[str, Any], what: str) -> None:
    """Refuse processes of which one would do something else; all of them have to call it.

    Args:
      values: name -> value, of this process.
      what: all are to be started with the same of it.

    Raises:
      UserError: one process has other values than process 0; it names them, in every process.
    """
    if jax.process_count() == 1:
        return
    each = everyone({name: repr(value) for name, value in values.items()})
    for process, others in enumerate(each):
        if differing := sorted(name for name in each[0].keys() | others.keys() if each[0].get(name) != others.get(name)):
            named = ", ".join(differing[:3])
            raise UserError(f"process {process} has other values of {named} than process 0: start all with the same {what}")


def share(fn: Callable[..., Any]) -> Callable[..., Any]:
    """`fn` over the leading lane axis of its first argument, each process with its part of the lanes.

    Args:
      fn: (lanes, *shared) -> pytree of arrays with a leading lane axis, too.

    Returns:
      The same function; all processes get the results of all lanes.
    """

    def run(lanes: Any, *shared: Any) -> Any:
        if jax.process_count() == 1:
            return fn(lanes, *shared)
        return whole(fn(part(lanes), *shared), jax.tree.leaves(lanes)[0].shape[0])

    return run


def part(lanes: Any) -> Any:
    """This process's lanes: as many as each other's. Where lanes do not divide, the last is in several parts."""
    processes = jax.process_count()
    if processes == 1:
        return lanes
    count = jax.tree.leaves(lanes)[0].shape[0]
    size = -(-count // processes)
    mine = np.minimum(jax.process_index() * size + np.arange(size), count - 1)
    return jax.tree.map(lambda leaf: _some(leaf, mine), lanes)


def whole(mine: Any, count: int) -> Any:
    """All `count` lanes, in every process, of which each gives its part; all of them have to call it."""
    if jax.process_count() == 1:
        return mine
    leaves, structure = jax.tree.flatten(mine)
    parts = everyone([np.asarray(leaf) for leaf in leaves])
    every = [jnp.asarray(np.concatenate(part)[:count]) for part in zip(*parts, strict=True)]
    return jax.tree.unflatten(structure, every)


def turns(calls: Sequence[Callable[[], T]], *, waits: bool = True) -> Iterator[T]:
    """What some calls give, in their order, in every process: process r of n makes call r, r + n, and so on.

    Each call is made whole by one process, so that its bits are those that one process alone gives.

    Args:
      waits: a signal to any process waits until the calls at hand are made and taken, and then is a signal to all. For
        calls that take minutes: False, it ends its process at once, and the others notice.

    Raises:
      UserError: a ValueError of a call, in every process.
      Preempted: a signal came.

    Example:
      >>> list(turns([lambda: 1, lambda: 2]))
      [1, 2]
    """
    count = jax.process_count()
    if count == 1:
        yield from (call() for call in calls)
        return
    for begin in range(0, len(calls), count):
        with preemption.postponed() if waits else nullcontext(lambda: False) as asked:
            at = begin + jax.process_index()
            mine = [_told(call) for call in calls[at : at + 1]]  # of the last calls some processes have none
            leaving, every = zip(*everyone((asked(), mine)), strict=True)
            for error, value in itertools.chain.from_iterable(every):
                if error:
                    raise UserError(error)
                yield value
            if any(leaving):
                first(lambda: None)  # until process 0 has kept them: who leaves before may be the end of it
        if any(leaving):  # another process was asked to
            raise preemption.Preempted


def _told(call: Callable[[], T]) -> tuple[str, T | None]:
    try:
        return "", call()
    except ValueError as error:
        return line(error, 1000), None


def kept(make: Callable[[], T]) -> T:
    """What process 0 makes and no other can have, as something that is open; None in the others, which wait for it.

    Raises:
      UserError: what process 0 raises.
    """
    made: list[Any] = []
    first(lambda: made.append(make()))
    value: Any = made[0] if made else None
    return cast(T, value)


@contextmanager
def copied(path: Path) -> Iterator[Path]:
    """A file or a folder that process 0 has; in the others a copy of it, until the block ends."""

    def read() -> dict[Path, bytes]:
        return {file.relative_to(path): file.read_bytes() for file in (path, *path.rglob("*")) if file.is_file()}

    if jax.process_count() == 1:
        yield path
        return
    files = first(read)
    if is_first():
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / path.name
        for name, content in files.items():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes(content)
        yield copy


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

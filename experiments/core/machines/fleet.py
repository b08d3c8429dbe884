"""Many models as lanes of one program: how lanes and steps are carried out, decided in this one place.

On an accelerator, and for models made of matrix products, lanes are a `vmap` and steps a `lax.scan`; a CPU takes many lanes
in parts, one after another within one program, each small enough for its caches: 536 MLPs train 1.65 times as fast
(`experiments/benchmarks/oracles.py --whole`). On a CPU, convolutions inside a scan run 14-22 times slower and a vmap over
convolutional models about 3 times slower per model, so there lanes and steps are Python loops around one compiled step, and
threads carry lanes side by side.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent import futures
from typing import Any

import jax
import jax.numpy as jnp

MOST_THREADS = 16
CPU_LANES = 32  # that run together on a CPU: the parameters of many fall out of its caches


def in_loops(convolutional: bool, backend: str | None = None) -> bool:
    """True where lanes and steps are Python loops instead of `vmap` and `scan`: for a convolutional model on a CPU."""
    return convolutional and (backend or jax.default_backend()) == "cpu"


def over_lanes(fn: Callable, loops: bool, *, compiled: bool = True) -> Callable:
    """`fn` over the leading lane axis of its first argument, the others shared by all lanes.

    Args:
      fn: (lane, *shared) -> pytree of arrays.
      loops: a Python loop over lanes instead of a `vmap`.
      compiled: `jit` what runs; False where `fn` holds Python loops and compiles their bodies itself.
    """
    if not loops:
        batched = lambda lanes, *shared: jax.vmap(lambda lane: fn(lane, *shared))(lanes)  # noqa: E731
        return jax.jit(lambda lanes, *shared: in_parts(lambda part: batched(part, *shared), lanes)) if compiled else batched
    single = jax.jit(fn) if compiled else fn

    def run(lanes: Any, *shared: Any) -> Any:
        return stack(each(lambda i: single(lane(lanes, i), *shared), lane_count(lanes)))

    return run


def in_parts(fn: Callable[[Any], Any], lanes: Any) -> Any:
    """`fn` of lanes; on one CPU, where there are more than 2 CPU_LANES, part by part, traced once for a part's size.

    Args:
      fn: lanes -> pytree of arrays with a leading lane axis, too.
    """
    count = lane_count(lanes)
    if jax.default_backend() != "cpu" or jax.local_device_count() > 1 or count <= 2 * CPU_LANES:
        return fn(lanes)
    size = -(-count // -(-count // CPU_LANES))
    whole = count // size
    stacked = jax.tree.map(lambda leaf: leaf[: whole * size].reshape(whole, size, *leaf.shape[1:]), lanes)
    found = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), jax.lax.map(fn, stacked))
    return found if whole * size == count else concatenate([found, fn(lane(lanes, slice(whole * size, None)))])


def each(fn: Callable[[int], Any], count: int) -> list[Any]:
    """`[fn(0), ..., fn(count - 1)]`, on as many threads as there are cores, 16 at most: one model does not fill them.

    One after another on several devices, whose programs wait for each other and so must start in one order on all.

    What a context manager of JAX sets (`enable_x64`, `default_matmul_precision`, ...) holds for the caller's thread alone
    and does not reach these threads; what `jax.config` sets does.
    """
    if jax.local_device_count() > 1:
        return [fn(i) for i in range(count)]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = min(cores, MOST_THREADS)
    with futures.ThreadPoolExecutor(workers) as pool:
        try:
            return list(pool.map(fn, range(count)))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # after an interrupt only the lanes under way are waited for


def lane_count(lanes: Any) -> int:
    """How many lanes a tree of stacked arrays holds."""
    return jax.tree.leaves(lanes)[0].shape[0]


def lane(lanes: Any, index: int | slice) -> Any:
    """One lane (or, by a slice, some) of a tree of stacked arrays."""
    return jax.tree.map(lambda leaf: leaf[index], lanes)


def stack(trees: list[Any]) -> Any:
    """Lanes from single trees."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def concatenate(lanes: list[Any]) -> Any:
    """One tree of lanes from several."""
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *lanes)

"""Unlearning until a criterion holds: one compiled loop that knows when to stop and remembers the way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from unlearn import tree
from unlearn.base import Array, Params, Request, UnlearnAlgorithm, UnlearnState

REACHED, DIVERGED, BUDGET = 0, 1, 2
STOPS = ("reached", "diverged", "budget")


class Outcome(NamedTuple):
    """How an unlearning run ended.

    state: the last state; `state.params` is the unlearned model.
    steps: number of updates made, int32.
    stop: REACHED, DIVERGED or BUDGET; `STOPS[stop]` is its name.
    curve: what `observe` returned before the first update and after each one, [max_steps + 1, ...]; NaN past the end.
    """

    state: UnlearnState
    steps: Array
    stop: Array
    curve: Any


Draw = Callable[[Any, Array, Array], Request]
Observe = Callable[[Params, Any], dict[str, Array]]


def unlearn_until(
    algorithm: UnlearnAlgorithm,
    draw: Draw,
    observe: Observe,
    criterion: Callable[[dict[str, Array], Any], Array],
    max_steps: int,
    *,
    unroll: bool = False,
) -> Callable[[Params, Any, Array], Outcome]:
    """A function that runs `algorithm` until `criterion` holds, as one `while_loop` without a host round trip per step.

    Args:
      algorithm: the unlearner.
      draw: (data, key, step) -> the request of a step; a constant one for full-batch unlearning.
      observe: (params, data) -> float scalars by name, taken before the first update and after every one.
      criterion: (observation, data) -> bool, True once the request is fulfilled.
      max_steps: budget of updates.
      unroll: a Python loop around a compiled update instead; for convolutions on a CPU, which are slow inside loops.

    Returns:
      `run(params, data, key) -> Outcome`; `data` is any pytree, an argument and not a constant of the program. A
      non-finite observation or parameter ends the run as DIVERGED; a criterion that holds at the start ends it after 0
      steps.
    """

    def code(params: Params, seen: dict[str, Array], step: Array, data: Any) -> Array:
        finite = tree.all_finite(params) & tree.all_finite(seen)
        going_on = jnp.where(step >= max_steps, BUDGET, -1)
        return jnp.where(finite, jnp.where(criterion(seen, data), REACHED, going_on), DIVERGED)

    def begin(params: Params, data: Any, keys: Array) -> tuple:
        step = jnp.zeros((), jnp.int32)
        state = algorithm.init(params, draw(data, keys[1], step), keys[0])
        seen = observe(params, data)
        curve = jax.tree.map(lambda leaf: jnp.full((max_steps + 1, *leaf.shape), jnp.nan, leaf.dtype).at[0].set(leaf), seen)
        return state, step, code(params, seen, step, data), curve

    def advance(carry: tuple, data: Any, keys: Array) -> tuple:
        state, step, _, curve = carry
        request = draw(data, keys[1], step)
        state, _ = algorithm.update(state, request, jax.random.fold_in(keys[2], step))
        seen = observe(state.params, data)
        step = step + 1
        curve = jax.tree.map(lambda rows, leaf: rows.at[step].set(leaf), curve, seen)
        return state, step, code(state.params, seen, step, data), curve

    compiled_begin, compiled_advance = jax.jit(begin), jax.jit(advance)

    def run(params: Params, data: Any, key: Array) -> Outcome:
        keys = jax.random.split(key, 3)  # one for each of: memory, requests, dropout
        if unroll:
            carry = compiled_begin(params, data, keys)
            while int(carry[2]) < 0:
                carry = compiled_advance(carry, data, keys)
        else:
            carry = begin(params, data, keys)
            carry = jax.lax.while_loop(lambda c: c[2] < 0, lambda c: advance(c, data, keys), carry)
        state, step, stop, curve = carry
        return Outcome(state, step, stop, curve)

    return run

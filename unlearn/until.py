"""The loop that carries out a request: it knows when to stop, remembers the way, and records the model where asked to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from unlearn import tree
from unlearn.base import Array, Params, Request, UnlearnAlgorithm, UnlearnState, begin

REACHED, DIVERGED, BUDGET = 0, 1, 2
STOPS = ("reached", "diverged", "budget")


class Recorded(NamedTuple):
    """The parameters after a number of updates, and how many updates they were really given: fewer if the run had ended."""

    params: Params
    steps: Array


class Outcome(NamedTuple):
    """How an unlearning run ended.

    state: the last state; `state.params` is the unlearned model.
    steps: number of updates made, int32.
    stop: REACHED, DIVERGED or BUDGET; `STOPS[stop]` is its name.
    curve: what `observe` returned before the first update and after each one, [max_steps + 1, ...]; NaN past the end.
    recorded: one `Recorded` for each of `record`.
    """

    state: UnlearnState
    steps: Array
    stop: Array
    curve: Any
    recorded: tuple[Recorded, ...] = ()


Carry = tuple[UnlearnState, Array, Array, Any]  # state, number of updates, how it ended (below 0: not yet), curve
Whole = Callable[[Any], Request]
Draw = Callable[[Any, Array, Array], Request]
Observe = Callable[[Params, Any], dict[str, Array]]


def never(seen: dict[str, Array], data: Any) -> Array:
    """The criterion of a run that uses up its budget."""
    return jnp.zeros((), bool)


def unlearn_until(
    algorithm: UnlearnAlgorithm,
    whole: Whole,
    draw: Draw,
    observe: Observe,
    criterion: Callable[[dict[str, Array], Any], Array],
    max_steps: int,
    *,
    record: tuple[int, ...] = (),
    unroll: bool = False,
) -> Callable[[Params, Any, Array], Outcome]:
    """A function that runs `algorithm` until `criterion` holds, as one `while_loop` without a host round trip per step.

    Under `jax.vmap` every lane stops on its own, and rests from then on.

    Args:
      algorithm: the unlearner.
      whole: data -> the whole request, which `init` sees.
      draw: (data, key, step) -> the batch of a step; the whole request for full-batch unlearning.
      observe: (params, data) -> float scalars by name, arrays or Python's, taken before the first update and after
        every one.
      criterion: (observation, data) -> bool, True once the request is fulfilled; `never` to use up the budget.
      max_steps: budget of updates.
      record: increasing numbers of updates, max_steps at most, after each of which the parameters are kept; one more
        `while_loop` for each.
      unroll: a Python loop around a compiled update instead; for convolutions on a CPU, which are slow inside loops.

    Returns:
      `run(params, data, key) -> Outcome`; `data` is any pytree, an argument and not a constant of the program. A
      non-finite observation or parameter ends the run as DIVERGED; a criterion that holds at the start ends it after 0
      steps.

    Raises:
      ValueError: numbers to record after that do not increase, or lie beyond the budget.

    Example, gradient descent on (params - 3)^2 / 2 by halves, until params are above 2:
      >>> import jax, jax.numpy as jnp, optax
      >>> from unlearn import Request, from_objective, unlearn_until
      >>> data = dict(x=jnp.zeros(1), y=jnp.zeros(1), id=jnp.zeros(1, int), weight=jnp.ones(1))
      >>> halves = from_objective(lambda params, *_: (params - 3.0) ** 2 / 2, optax.sgd(0.5))
      >>> run = unlearn_until(
      ...     halves,
      ...     whole=Request,
      ...     draw=lambda data, key, step: Request(data),
      ...     observe=lambda params, data: {"at": params},
      ...     criterion=lambda seen, data: seen["at"] > 2.0,
      ...     max_steps=5,
      ...     record=(1,),
      ... )
      >>> outcome = run(jnp.float32(0.0), data, jax.random.key(0))
      >>> print(outcome.state.params, outcome.steps, STOPS[outcome.stop], outcome.curve["at"], outcome.recorded[0].params)
      2.25 2 reached [0.   1.5  2.25  nan  nan  nan] 1.5
    """
    increasing = all(a < b for a, b in zip((-1, *record), record, strict=False))
    if not increasing or max(record, default=0) > max_steps:
        raise ValueError(
            f"record is {record}: give increasing numbers of updates from 0 to max_steps, which is {max_steps}"
        )

    def look(params: Params, data: Any) -> dict[str, Array]:
        seen: dict[str, Array] = jax.tree.map(jnp.asarray, observe(params, data))
        return seen

    def code(params: Params, seen: dict[str, Array], step: Array, data: Any) -> Array:
        finite = tree.all_finite(params) & tree.all_finite(seen)
        going_on = jnp.where(step >= max_steps, BUDGET, -1)
        return jnp.where(finite, jnp.where(criterion(seen, data), REACHED, going_on), DIVERGED)

    def start(params: Params, data: Any, keys: Array) -> Carry:
        step = jnp.zeros((), jnp.int32)
        state = begin(algorithm, params, whole(data), keys[0])
        seen = look(state.params, data)
        curve = jax.tree.map(lambda leaf: jnp.full((max_steps + 1, *leaf.shape), jnp.nan, leaf.dtype).at[0].set(leaf), seen)
        return state, step, code(state.params, seen, step, data), curve

    def advance(carry: Carry, data: Any, keys: Array) -> Carry:
        state, step, _, curve = carry
        request = draw(data, keys[1], step)
        state, _ = algorithm.update(state, request, jax.random.fold_in(keys[2], step))
        seen = look(state.params, data)
        step = step + 1
        curve = jax.tree.map(lambda rows, leaf: rows.at[step].set(leaf), curve, seen)
        return state, step, code(state.params, seen, step, data), curve

    compiled_start, compiled_advance = jax.jit(start), jax.jit(advance)

    def until(carry: Carry, stop: int, data: Any, keys: Array) -> Carry:
        """On to `stop` updates, or to the run's end."""
        if unroll:
            while int(carry[2]) < 0 and int(carry[1]) < stop:
                carry = compiled_advance(carry, data, keys)
            return carry
        return jax.lax.while_loop(lambda c: (c[2] < 0) & (c[1] < stop), lambda c: advance(c, data, keys), carry)

    def run(params: Params, data: Any, key: Array) -> Outcome:
        keys = jax.random.split(key, 3)  # one for each of: memory, batches, dropout
        carry = (compiled_start if unroll else start)(params, data, keys)
        recorded = []
        for stop in record:
            carry = until(carry, stop, data, keys)
            recorded.append(Recorded(carry[0].params, carry[1]))
        if max_steps not in record:
            carry = until(carry, max_steps, data, keys)
        state, step, stop_code, curve = carry
        return Outcome(state, step, stop_code, curve, tuple(recorded))

    return run

"""The loop that carries out a request: it knows when to stop, remembers the way, and records the model where asked to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from unlearn import tree
from unlearn.base import Array, Params, Request, UnlearnAlgorithm, UnlearnState, begin
from unlearn.checking import check_number

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
    undone: how many of the updates were undone, int32.
    """

    state: UnlearnState
    steps: Array
    stop: Array
    curve: Any
    recorded: tuple[Recorded, ...] = ()
    undone: Array | int = 0


class _Carry(NamedTuple):
    """What goes round the loop.

    stop: how it ended, below 0: not yet.
    scale: of an update, and undone: how many were; both () where none can be.
    """

    state: UnlearnState
    steps: Array
    stop: Array
    curve: Any
    scale: Any = ()
    undone: Any = ()


Whole = Callable[[Any], Request]
Draw = Callable[[Any, Array, Array], Request]
Seen = dict[str, Array]
Observe = Callable[[Params, Any], Seen]
Criterion = Callable[[Seen, Any], Array]
Undo = Callable[[Seen, Seen, Any], Array]
SHRINK, GROW = 0.5, 1.5  # of the next update, when one was undone and when one was kept


def never(seen: Seen, data: Any) -> Array:
    """The criterion of a run that uses up its budget."""
    return jnp.zeros((), bool)


def unlearn_until(
    algorithm: UnlearnAlgorithm,
    whole: Whole,
    draw: Draw,
    observe: Observe,
    criterion: Criterion,
    max_steps: int,
    *,
    undo: Undo | None = None,
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
      undo: (observation after an update, that before it, data) -> bool, True if the update should not have been made. It
        is taken back, and from then on updates go half as far as they would; one that is not finite is taken back, too.
        One that was taken back counts as an update, and the curve stays where it was.
      record: increasing numbers of updates, max_steps at most, after each of which the parameters are kept; one more
        `while_loop` for each.
      unroll: a Python loop around a compiled update instead; for convolutions on a CPU, which are slow inside loops.

    Returns:
      `run(params, data, key) -> Outcome`; `data` is any pytree, an argument and not a constant of the program. A
      non-finite observation or parameter ends the run as DIVERGED; a criterion that holds at the start ends it after 0
      steps.

    Raises:
      ValueError: a budget below 0; numbers to record after that do not increase, or lie beyond the budget.

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
    _check_budget(max_steps, record)
    loop = _Loop(algorithm, whole, draw, observe, criterion, max_steps, undo)
    compiled_start, compiled_advance = jax.jit(loop.start), jax.jit(loop.advance)

    def until(carry: _Carry, stop: int, data: Any, keys: Array) -> _Carry:
        """On to `stop` updates, or to the run's end."""
        if unroll:
            while int(carry.stop) < 0 and int(carry.steps) < stop:
                carry = compiled_advance(carry, data, keys)
            return carry
        going_on = lambda c: (c.stop < 0) & (c.steps < stop)  # noqa: E731
        return jax.lax.while_loop(going_on, lambda c: loop.advance(c, data, keys), carry)

    def run(params: Params, data: Any, key: Array) -> Outcome:
        keys = jax.random.split(key, 3)  # one for each of: memory, batches, dropout
        carry = (compiled_start if unroll else loop.start)(params, data, keys)
        recorded = []
        for stop in record:
            carry = until(carry, stop, data, keys)
            recorded.append(Recorded(carry.state.params, carry.steps))
        if max_steps not in record:
            carry = until(carry, max_steps, data, keys)
        undone = 0 if undo is None else carry.undone
        return Outcome(carry.state, carry.steps, carry.stop, carry.curve, tuple(recorded), undone)

    return run


def _check_budget(max_steps: int, record: tuple[int, ...]) -> None:
    check_number(max_steps, "max_steps")
    increasing = all(a < b for a, b in zip((-1, *record), record, strict=False))
    if not increasing or max(record, default=0) > max_steps:
        raise ValueError(
            f"record is {record}: give increasing numbers of updates from 0 to max_steps, which is {max_steps}"
        )


class _Loop(NamedTuple):
    """What `unlearn_until` was asked for, as the first carry and one update."""

    algorithm: UnlearnAlgorithm
    whole: Whole
    draw: Draw
    observe: Observe
    criterion: Criterion
    max_steps: int
    undo: Undo | None

    def start(self, params: Params, data: Any, keys: Array) -> _Carry:
        """Before the first update."""
        step = jnp.zeros((), jnp.int32)
        state = begin(self.algorithm, params, self.whole(data), keys[0])
        seen = self._look(state.params, data)
        empty = lambda leaf: jnp.full((self.max_steps + 1, *leaf.shape), jnp.nan, leaf.dtype)  # noqa: E731
        curve = jax.tree.map(lambda leaf: empty(leaf).at[0].set(leaf), seen)
        carry = _Carry(state, step, self._stop(state.params, seen, step, data), curve)
        return carry if self.undo is None else carry._replace(scale=jnp.ones(()), undone=step)

    def advance(self, carry: _Carry, data: Any, keys: Array) -> _Carry:
        """One update on, undone or not."""
        request = self.draw(data, keys[1], carry.steps)
        state, _ = self.algorithm.update(carry.state, request, jax.random.fold_in(keys[2], carry.steps))
        if self.undo is not None:
            state = state._replace(params=_part_of_the_way(carry.state.params, state.params, carry.scale))
        seen = self._look(state.params, data)
        if self.undo is not None:
            carry, state, seen = _unless_undone(self.undo, carry, state, seen, data)
        step = carry.steps + 1
        curve = jax.tree.map(lambda rows, leaf: rows.at[step].set(leaf), carry.curve, seen)
        return carry._replace(state=state, steps=step, stop=self._stop(state.params, seen, step, data), curve=curve)

    def _look(self, params: Params, data: Any) -> Seen:
        seen: Seen = jax.tree.map(jnp.asarray, self.observe(params, data))
        return seen

    def _stop(self, params: Params, seen: Seen, step: Array, data: Any) -> Array:
        going_on = jnp.where(step >= self.max_steps, BUDGET, -1)
        return jnp.where(_finite(params, seen), jnp.where(self.criterion(seen, data), REACHED, going_on), DIVERGED)


def _unless_undone(
    undo: Undo, carry: _Carry, state: UnlearnState, after: Seen, data: Any
) -> tuple[_Carry, UnlearnState, Seen]:
    """The state after an update and what is seen of it, or those before it; the carry knows how far the next may go."""
    before = jax.tree.map(lambda rows: rows[carry.steps], carry.curve)
    bad = undo(after, before, data) | ~_finite(state, after)
    state, seen = jax.tree.map(lambda old, new: jnp.where(bad, old, new), (carry.state, before), (state, after))
    scale = jnp.where(bad, SHRINK * carry.scale, jnp.minimum(GROW * carry.scale, 1.0))
    return carry._replace(scale=scale, undone=carry.undone + bad), state, seen


def _finite(*trees: Any) -> Array:
    """Whether every number of the trees is finite; keys and whole numbers are."""
    floats = [leaf for leaf in jax.tree.leaves(trees) if jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)]
    return tree.all_finite(floats)


def _part_of_the_way(old: Params, new: Params, scale: Array) -> Params:
    """From old parameters on to new ones; all the way, to the bit, at scale 1."""
    return jax.tree.map(lambda o, n: jnp.where(scale == 1, n, (o + scale * (n - o)).astype(n.dtype)), old, new)

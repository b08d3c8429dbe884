"""Microbatches: a batch is evaluated in parts, one after another, and the activations of one part alone are held.

What is reduced over a batch are numbers of examples, and these do not need each other. So parts are cut below the
reduction, and any function of a batch stays what it is, whatever it does with means: a cap, a level, a simulated request.
What a derivative needs of a part is computed again when its turn comes; that of a mean loss, which is linear in the
examples, is added up on the way forward, and nothing is computed twice.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from unlearn.checking import check_model
from unlearn.model import Apply, Array, Batch, Model, Params

Mean = Callable[[Array, Array], Array]
PART = 0x50415254  # folded into a key before the number of a part: nobody else's number


def microbatched(model: Model, parts: int, *, multiple: int = 1, unroll: bool = False) -> Model:
    """The model that evaluates a batch in so many parts; values and derivatives of every order are the same.

    Up to the order of sums, that is, and where a key is given: each part draws its dropout by a key of its own. Example i
    of n is in part i mod `parts`; a batch that does not divide is filled up with copies of its last example, which nobody
    sees again; a batch of fewer examples is evaluated in fewer parts.

    Derivatives are by the parameters, and the first of them in reverse mode; those by a batch are 0.

    Args:
      model: whose `apply`, `features`, mean losses and everything by `per_example` are evaluated in parts.
      parts: how many; of 1 it is the model itself.
      multiple: a part has a multiple of so many examples: one for each device that they lie on.
      unroll: parts stand one after another in the program instead of in a loop (convolutions in a loop are slow on a CPU).

    Raises:
      TypeError: a model that is no `Model`.
      ValueError: parts that are no whole number from 1 up.

    Example:
      >>> import jax.numpy as jnp
      >>> from unlearn import classifier
      >>> model = microbatched(classifier(lambda params, x, key: x @ params), 2)
      >>> logits = model.apply(jnp.eye(2), jnp.array([[3.0, 1.0], [1.0, 2.0], [0.0, 5.0]]), None)
      >>> print(logits.argmax(axis=1))
      [0 1 1]
    """
    check_model(model)
    for name, value in (("parts", parts), ("multiple", multiple)):
        if type(value) is not int or value < 1:
            raise ValueError(f"{name} is {value!r}: give a whole number from 1 up")
    if parts == 1:
        return model
    if model.parts is not None:
        raise ValueError("the model evaluates batches in parts already: give the one that it was made of")
    evaluated = Parts(model, parts, multiple, unroll)

    def in_parts(apply: Apply) -> Apply:
        return lambda params, x, key: evaluated.over(lambda part, key, params: apply(params, part, key), x, key, params)

    features = None if model.features is None else in_parts(model.features)
    return model._replace(apply=in_parts(model.apply), features=features, parts=evaluated)


@dataclasses.dataclass(frozen=True)
class Parts:
    """How a microbatched model evaluates batches: the arguments of `microbatched`.

    Keys of parts are folded from a number of their own and the number of the part.
    """

    model: Model
    count: int
    multiple: int
    unroll: bool

    def each(self, function: Callable[..., Any], batch: Batch, key: Array | None, *params: Params) -> Any:
        """`unlearn.base.per_example`; logits, too, are those of one part at a time."""
        return self.over(self._of_logits(function), dict(batch), key, *params)

    def over(self, function: Callable[..., Any], rows: Any, key: Array | None, *params: Params) -> Any:
        """function(rows, key, *params) by parts: a tree of arrays that lead with the examples, as those of `rows` do."""
        total = jax.tree.leaves(rows)[0].shape[0]
        count, size = self._shape(total)
        if count == 1:
            return function(rows, key, *params)

        # JAX's own derivative of a loop of checkpoints leaves them out of its forward pass, whose derivative then stores
        # all parts. Here each derivative is a loop of checkpoints again.
        def forward(params: tuple[Params, ...], rows: Any, key: Array | None) -> tuple[Any, Any]:
            def part(carry: tuple[()], entry: tuple[Array, Any], params: tuple[Params, ...]) -> tuple[tuple[()], Any]:
                index, some = entry
                return carry, function(some, _own(key, index), *params)

            return _joined(self._loop(part, (), _cut(rows, count, size), params)[1], total), (params, rows, key)

        def backward(given: Any, slopes: Any) -> tuple[tuple[Params, ...], None, None]:
            def pulled(rows: Any, slopes: Any, key: Array | None, params: tuple[Params, ...]) -> tuple[Any, tuple[()]]:
                return jax.vjp(lambda params: function(rows, key, *params), params)[1](slopes)[0], ()

            params, rows, key = given
            return self.summed(pulled, rows, slopes, key, params)[0], None, None

        evaluated = jax.custom_vjp(lambda *given: forward(*given)[0])
        evaluated.defvjp(forward, backward)
        return evaluated(params, rows, key)

    def summed(
        self, function: Callable[..., tuple[Any, Any]], rows: Any, factors: Any, key: Array | None, params: Any
    ) -> tuple[Any, Any]:
        """function(rows, factors, key, params) -> (a tree like params, values) by parts: trees added up, values joined.

        Args:
          factors: of each example, by which the function scales what it adds up; 0 for what parts are filled up with.
        """
        total = jax.tree.leaves(factors)[0].shape[0]
        count, size = self._shape(total)
        if count == 1:
            return function(rows, factors, key, params)

        def part(sums: Any, entry: tuple[Array, Any], params: Any) -> tuple[Any, Any]:
            index, (some, factors) = entry
            added, values = function(some, factors, _own(key, index), params)
            return jax.tree.map(jnp.add, sums, added), values

        cut = _cut(rows, count, size), _cut(factors, count, size, copies=False)
        sums, values = self._loop(part, jax.tree.map(jnp.zeros_like, params), cut, params)
        return sums, _joined(values, total)

    def mean(self, function: Callable[..., Array], mean: Mean, batch: Batch, key: Array | None, params: Params) -> Array:
        """The mean of function(logits, batch), whose gradient is added up part by part while the value is computed.

        Args:
          mean: linear in the values, as the reduction of every device mode is.
        """
        of_part = self._of_logits(function)
        if self._shape(jnp.shape(batch["weight"])[0])[0] == 1:
            return mean(of_part(batch, key, params), batch["weight"])

        @jax.custom_vjp
        def reduced(params: Params, batch: Batch, key: Array | None) -> Array:
            return mean(self.over(of_part, batch, key, params), batch["weight"])

        def forward(params: Params, batch: Batch, key: Array | None) -> tuple[Array, Params]:
            values, weights = jax.eval_shape(of_part, batch, key, params), batch["weight"]
            slopes = jax.grad(lambda values: mean(values, weights))(jnp.zeros(values.shape, values.dtype))

            def pulled(batch: Batch, slopes: Array, key: Array | None, params: Params) -> tuple[Params, Array]:
                values, pull = jax.vjp(lambda params: of_part(batch, key, params), params)
                return pull(slopes)[0], values

            gradient, values = self.summed(pulled, batch, slopes, key, params)
            return mean(values, weights), gradient

        def backward(gradient: Params, slope: Array) -> tuple[Params, None, None]:
            return jax.tree.map(lambda leaf: (slope * leaf).astype(leaf.dtype), gradient), None, None

        reduced.defvjp(forward, backward)
        return reduced(params, dict(batch), key)

    def _of_logits(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """(batch, key, *params) -> function(*logits, batch)."""
        apply = self.model.apply
        return lambda batch, key, *params: function(*(apply(at, batch["x"], key) for at in params), batch)

    def _shape(self, total: int) -> tuple[int, int]:
        """How many parts a batch of so many examples is cut into, and the examples of each."""
        count = max(1, min(self.count, total // self.multiple))
        size = -(-total // (count * self.multiple)) * self.multiple
        return -(-total // size), size

    def _loop(self, part: Callable[..., Any], carry: Any, cut: Any, params: Any) -> Any:
        """`lax.scan` of `part(carry, (index, rows), params)`; what a derivative needs of a part is computed again."""
        again = jax.checkpoint(part, prevent_cse=self.unroll)
        count = jax.tree.leaves(cut)[0].shape[0]
        entries = jnp.arange(count), cut
        return jax.lax.scan(lambda carry, entry: again(carry, entry, params), carry, entries, unroll=self.unroll)


def _own(key: Array | None, index: Array) -> Array | None:
    """The key of a part."""
    return None if key is None else jax.random.fold_in(jax.random.fold_in(key, PART), index)


def _cut(rows: Any, count: int, size: int, copies: bool = True) -> Any:
    """[examples, ...] -> [count, size, ...], filled up with copies of the last example or, without, with zeros.

    Neighbours go to different parts, so that of a batch that is spread over devices each has rows of every part.
    """

    def cut(leaf: Any) -> Array:
        missing = count * size - leaf.shape[0]
        if missing:
            last = jnp.broadcast_to(leaf[-1:] if copies else 0, (missing, *leaf.shape[1:]))
            leaf = jnp.concatenate([leaf, last.astype(leaf.dtype)])
        return jnp.swapaxes(leaf.reshape(size, count, *leaf.shape[1:]), 0, 1)

    return jax.tree.map(cut, rows)


def _joined(parts: Any, total: int) -> Any:
    """[count, size, ...] -> [examples, ...], without what they were filled up with."""
    join = lambda leaf: jnp.swapaxes(leaf, 0, 1).reshape(-1, *leaf.shape[2:])[:total]  # noqa: E731
    return jax.tree.map(join, parts)

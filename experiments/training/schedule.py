"""Which steps of a training rehearse a request: every so many from a first one on."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Schedule(NamedTuple):
    """Steps `start`, `start + every`, ... rehearse; none does if `every` is 0.

    Example:
      >>> [Schedule(2, 1).rehearses(step) for step in range(4)]
      [False, True, False, True]
    """

    every: int = 0
    start: int = 0

    def rehearses(self, step: int) -> bool:
        """Whether this step does."""
        return self.every > 0 and step >= self.start and (step - self.start) % self.every == 0

    def within(self, steps: int) -> int:
        """How many of the first `steps` do."""
        return max(0, -(-(steps - self.start) // self.every)) if self.every else 0

    def first(self, begin: jax.Array, steps: int) -> jax.Array:
        """How many steps from `begin` on come before the first that does, `steps` at most."""
        first = jnp.where(begin < self.start, self.start - begin, (self.start - begin) % self.every)
        return jnp.minimum(first, steps)

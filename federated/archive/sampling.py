"""Which users' updates of a round are stored: with probability in proportion to their norms, or the largest alone."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from federated.archive.draws import Draw, draw_key
from federated.history import Array


def inclusion(norms: Array, count: float) -> Array:
    """Probabilities p_u = min(1, c |h_u|) with sum_u p_u = count, or 1 for each who sent something if those are fewer.

    For any k largest norms, sum_u min(1, c |h_u|) <= k + c sum of the others, with equality for the right k: hence
    c = max over k < count of (count - k) / (sum of all but the k largest).

    Args:
      norms: [users], not negative; 0 of who was absent.
      count: how many updates are stored on average.

    Reference:
      The sampler of Fast-FedUL, 2405.18040.

    Example:
      >>> print(inclusion(jnp.array([1.0, 8.0, 3.0, 0.0]), 2.0))
      [0.25 1.   0.75 0.  ]
    """
    falling = -jnp.sort(-norms)
    rest = jnp.cumsum(falling[::-1])[::-1]
    above = count - jnp.arange(len(norms))
    slope = jnp.max(jnp.where((above > 0) & (rest > 0), above / jnp.where(rest > 0, rest, 1.0), 0.0))
    return jnp.minimum(slope * norms, 1.0)


def sampled(key: Array, norms: Array, count: float, ids: Array, round: Array) -> Array:
    """What to multiply each update with so that those stored are unbiased: 1 / p_u with probability p_u, else 0; [users].

    Args:
      key: of the archive.
      norms, count: see `inclusion`.
      ids: [users] int.
      round: its number.
    """
    draws = jax.vmap(lambda user: jax.random.uniform(draw_key(key, Draw.SAMPLE, user, round)))(ids)
    chances = inclusion(norms, count)
    return jnp.where(draws < chances, 1.0 / jnp.where(chances > 0, chances, 1.0), 0.0)


def largest(norms: Array, count: int) -> Array:
    """1 for the `count` users with the largest norms, else 0, [users]: what is stored is biased, as in Fast-FedUL's code.

    Example:
      >>> print(largest(jnp.array([1.0, 8.0, 3.0, 0.0]), 2))
      [0. 1. 1. 0.]
    """
    ranks = jnp.argsort(jnp.argsort(-norms))
    return jnp.where((ranks < count) & (norms > 0), 1.0, 0.0)

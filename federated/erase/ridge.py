"""Exact federated ridge heads on a frozen backbone: two sums per client, that are added and subtracted."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from federated.erase.contract import CLASS, CLIENT, EXAMPLES, LEAVER, SERVER, declare
from federated.history import Array
from unlearn.checking import check_number


class Statistics(NamedTuple):
    """What a ridge head needs of examples; also the message that adds or deletes them, of one size whatever the data.

    gram: [features, features], sum of weight x x'.
    moments: [features, outputs], sum of weight x y'.
    """

    gram: Array
    moments: Array


def statistics(features: Array, targets: Array, weights: Array | None = None) -> Statistics:
    """The sums of some examples: of a client to join or leave, or of single examples to be deleted.

    In float64 (`jax.enable_x64`) a deletion leaves rounding of 1e-16 of the sums; in float32 of 1e-7.

    Args:
      features: [examples, features], of the frozen backbone; add a column of ones for a bias.
      targets: [examples, outputs], of classes one-hot (`jax.nn.one_hot`).
      weights: [examples], 1 for each by default; 0 pads.

    Raises:
      ValueError: examples that do not line up.

    Example:
      >>> print(statistics(jnp.array([[1.0], [2.0]]), jnp.array([[1.0, 0.0], [0.0, 1.0]])).moments)
      [[1. 2.]]
    """
    if jnp.ndim(features) != 2 or jnp.ndim(targets) != 2 or len(features) != len(targets):
        raise ValueError(
            f"features are {jnp.shape(features)} and targets {jnp.shape(targets)}: give [examples, features] and "
            "[examples, outputs] of the same examples"
        )
    if weights is None:
        weights = jnp.ones(len(features), features.dtype)
    if jnp.shape(weights) != (len(features),):
        raise ValueError(f"weights have shape {jnp.shape(weights)}: give one for each of the {len(features)} examples")
    weighted = features * weights[:, None]
    return Statistics(weighted.T @ features, weighted.T @ targets)


def add(total: Statistics, message: Statistics) -> Statistics:
    """The sums with a client's or examples' message. In any order the same up to rounding.

    Raises:
      ValueError: of other numbers of features or outputs.
    """
    _check_sizes(total, message)
    return Statistics(total.gram + message.gram, total.moments + message.moments)


def delete(total: Statistics, message: Statistics) -> Statistics:
    """The sums without what a message added: of a client that the server has kept, or of examples, sent by their client.

    Raises:
      ValueError: of other numbers of features or outputs.
    """
    _check_sizes(total, message)
    return Statistics(total.gram - message.gram, total.moments - message.moments)


def head(total: Statistics, penalty: float | Array) -> Array:
    """The minimiser of sum weight |W'x - y|^2 + penalty |W|^2, W = (gram + penalty I)^-1 moments, [features, outputs].

    Args:
      total: of all examples that count.
      penalty: above 0.

    Raises:
      ValueError: a penalty that is not above 0; outside of compiled programs, sums from which too much was deleted.

    Example:
      >>> print(head(statistics(jnp.array([[1.0], [1.0]]), jnp.array([[2.0], [4.0]])), 2.0))  # 6 / (2 + 2)
      [[1.5]]
    """
    check_number(penalty, "penalty", above=True)
    matrix = total.gram + penalty * jnp.eye(len(total.gram), dtype=total.gram.dtype)
    weights: Array = jax.scipy.linalg.cho_solve(jax.scipy.linalg.cho_factor(matrix, lower=True), total.moments)
    if not isinstance(weights, jax.core.Tracer) and not jnp.all(jnp.isfinite(weights)):
        raise ValueError("the sums have no head: they are not finite, or more was deleted than had been added")
    return weights


@declare(
    helpers=f"{SERVER}, if it keeps a client's message; for a class or single examples, {LEAVER} sends theirs",
    reads=("statistics",),
    requests=(CLIENT, CLASS, EXAMPLES),
    exact="always",
    source="2603.12977",
)
def ridge(total: Statistics, message: Statistics, penalty: float | Array) -> tuple[Array, Statistics]:
    """The head without what a message added, and the sums without it: equal to training without it, up to rounding.

    The backbone is frozen and must not have seen what is deleted, or it still knows it. Who comes back is added again.

    Args:
      total: the server's sums.
      message: of the client, the class or the examples to delete.
      penalty: as of `head`; the same for all clients, whoever is there.

    Returns:
      The head [features, outputs], and the sums that are left.

    Raises:
      ValueError: see `delete` and `head`.
    """
    left = delete(total, message)
    return head(left, penalty), left


def _check_sizes(total: Statistics, message: Statistics) -> None:
    sizes = [[jnp.shape(leaf) for leaf in sums] for sums in (total, message)]
    if sizes[0] != sizes[1]:
        raise ValueError(f"sums are {sizes[0]} and the message {sizes[1]}: give those of the same features and outputs")

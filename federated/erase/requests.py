"""Who and what can be asked to be removed: clients, a class, single examples; and by which method.

Clients: all methods, several at once. A class: ridge heads and rollback remove it exactly. A history has no update per
class, so methods that live on it lower the weights of who holds the class (`class_shares`); of a class that all clients
hold in the same share they remove nothing. Where a class is all that some clients have, it is a request for clients.
Single examples: ridge heads exactly, and rollback, by retraining; RR-DU and MPU approximately, at the client that has them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from federated.erase.contract import CLASS, CLIENT, EXAMPLES, needs_of
from federated.history import Array

REQUESTS = (CLIENT, CLASS, EXAMPLES)


def class_shares(counts: Array, label: int) -> Array:
    """The share of each client's examples that are of a class, [clients]: leavers by share for `fast_fedul` and `rollback`.

    Args:
      counts: [clients, classes], examples of each class that a client has.
      label: the class.

    Raises:
      ValueError: counts of another shape, or a class that is not among them.

    Example:
      >>> print(class_shares(jnp.array([[1, 3], [2, 0], [0, 4]]), 1))
      [0.75 0.   1.  ]
    """
    if jnp.ndim(counts) != 2 or not 0 <= label < counts.shape[1]:
        raise ValueError(f"class {label} of counts {jnp.shape(counts)}: give [clients, classes] and one of the classes")
    return removed_shares(counts[:, label], counts.sum(axis=1))


def removed_shares(removed: Array, examples: Array) -> Array:
    """The share of each client's examples that goes, [clients]; 0 for a client without examples.

    Args:
      removed, examples: [clients], how many go and how many there were.

    Raises:
      ValueError: other shapes; outside of compiled programs, more to go than there are.
    """
    if jnp.ndim(removed) != 1 or jnp.shape(removed) != jnp.shape(examples):
        raise ValueError(f"removed has shape {jnp.shape(removed)} and examples {jnp.shape(examples)}: give [clients] twice")
    if not isinstance(removed, jax.core.Tracer) and np.any(np.asarray(removed) > np.asarray(examples)):
        raise ValueError("more examples are to go than a client has: count both before the request")
    shares: Array = jnp.where(examples > 0, removed / jnp.maximum(examples, 1), 0.0)
    return shares


def check_request(method: Callable[..., Any], request: str) -> None:
    """Refuse a request that a method cannot carry out.

    Args:
      method: of `METHODS`.
      request: "client", "class" or "examples".

    Raises:
      ValueError: no such request, or not by this method; the line says what to do.
    """
    if request not in REQUESTS:
        raise ValueError(f"request {request!r} is unknown: choose one of {', '.join(REQUESTS)}")
    needs = needs_of(method)
    if request not in needs.requests:
        name = getattr(method, "__name__", "the method")
        raise ValueError(
            f"{name} removes {' or '.join(needs.requests)} and no {request}: choose ridge or rollback, or ask for "
            f"{' or '.join(needs.requests)}"
        )

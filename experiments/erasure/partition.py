"""Who has which examples: dealt out alike, or with classes unevenly spread by a Dirichlet distribution."""

from __future__ import annotations

import numpy as np


def alike(examples: int, clients: int, generator: np.random.Generator) -> list[np.ndarray]:
    """Positions of each client, at random and as many for each, up to one.

    Example:
      >>> [len(part) for part in alike(7, 3, np.random.default_rng(0))]
      [3, 2, 2]
    """
    return [np.sort(part) for part in np.array_split(generator.permutation(examples), clients)]


def dirichlet(labels: np.ndarray, clients: int, concentration: float, generator: np.random.Generator) -> list[np.ndarray]:
    """Positions of each client; of each class, clients get shares of a Dirichlet distribution. A client may get nothing.

    Args:
      labels: [examples] int.
      clients: how many.
      concentration: above 0; small ones give a class to few clients.
      generator: draws shares and examples.

    Reference:
      Hsu, Qi, Brown, Measuring the Effects of Non-Identical Data Distribution for Federated Visual Classification
      (1909.06335); there a client draws its classes, here as now usual a class its clients.
    """
    owned: list[list[np.ndarray]] = [[] for _ in range(clients)]
    for label in np.unique(labels):
        positions = generator.permutation(np.flatnonzero(labels == label))
        shares = generator.dirichlet(np.full(clients, concentration))
        # Of tiny concentrations all shares may round to 0.
        shares = shares if np.isfinite(shares).all() else np.eye(clients)[generator.integers(clients)]
        cuts = np.round(np.cumsum(shares)[:-1] * len(positions)).astype(int)
        for client, part in enumerate(np.split(positions, cuts)):
            owned[client].append(part)
    return [np.sort(np.concatenate(parts)) for parts in owned]


def split(labels: np.ndarray, clients: int, concentration: float, generator: np.random.Generator) -> list[np.ndarray]:
    """Positions of each client: by `dirichlet`, or `alike` at a concentration of 0."""
    if concentration:
        return dirichlet(labels, clients, concentration, generator)
    return alike(len(labels), clients, generator)


def middling(parts: list[np.ndarray], count: int) -> list[np.ndarray]:
    """The `count` parts whose sizes are nearest to the median: typical clients, none of them empty if others are not.

    Example:
      >>> [len(part) for part in middling([np.arange(n) for n in (9, 1, 4, 5, 0)], 2)]
      [4, 5]
    """
    sizes = np.array([len(part) for part in parts])
    filled = sizes[sizes > 0]
    off = np.where(sizes > 0, np.abs(sizes - np.median(filled)), np.inf)
    return [parts[i] for i in np.argsort(off, kind="stable")[:count]]

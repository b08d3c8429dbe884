"""Who is forgotten, beyond a random share and a class: memorisation tiers, near-duplicates, clusters; pure functions.

Each gives a forget set F and the pool P around it that U-LiRA's shadows draw their members from. Draws and ties follow a
hash of the id, and examples are taken in hashed order, so that the order of the data does not matter.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from sklearn.cluster import KMeans
from sklearn.neighbors import NearestNeighbors

from experiments.core.errors import UserError
from experiments.core.keys import Hash
from experiments.data.datasets import hash_uniform, lowest

TIERS = ("low", "medium", "high")


class Chosen(NamedTuple):
    """Positions, increasing: the forget set, and the pool that holds it."""

    forget: np.ndarray
    pool: np.ndarray


def memorised(ids: np.ndarray, scores: np.ndarray, tier: str, fraction: float, seed: int) -> Chosen:
    """A random half of the examples that are memorised least, in between, or most.

    With n = round(fraction * examples), "low" is the 2n of lowest score and "high" the 2n of highest; "medium" is, of the
    others, the 2n that lie nearest to half of the mean score of "high" (most examples are hardly memorised, so that the
    middle rank would be a second "low"). The pool is the tier and F half of it by id: the two are of one kind.

    Args:
      ids: [examples] integers.
      scores: [examples] float: mean confidence in models trained with the example minus that in models without.
      tier: one of TIERS.
      fraction: of all examples, in F.
      seed: of the draw.

    Raises:
      UserError: an unknown tier, scores not finite, or fewer than 6n examples.
    """
    count = round(fraction * len(ids))
    if tier not in TIERS:
        raise UserError(f"memorisation tier {tier!r} is unknown; choose {', '.join(TIERS)}")
    if 6 * count > len(ids):
        raise UserError(f"three tiers of a fraction {fraction:g} do not fit {len(ids)} examples: choose 0.16 or less")
    if not np.isfinite(scores).all():
        raise UserError("some examples have no memorisation score: raise --config.judge.memorisation_lanes")
    order = np.lexsort((hash_uniform(ids, Hash.TIER, seed), scores))
    low, rest, high = np.split(order, [2 * count, len(ids) - 2 * count])
    away = np.abs(scores[rest] - scores[high].mean() / 2)
    medium = rest[np.lexsort((hash_uniform(ids[rest], Hash.TIER, seed), away))][: 2 * count]
    return _half(ids, {"low": low, "medium": medium, "high": high}[tier], seed)


def near_duplicates(ids: np.ndarray, features: np.ndarray, fraction: float, seed: int) -> Chosen:
    """One member of each of the closest pairs, while its twin stays in the training set of every model.

    A pair are two examples that are each other's nearest neighbour, so no example is in two. With n = round(fraction *
    examples), the 2n closest pairs give the pool one member each, by id, and F is half of it: of the others the shadows
    hold some or not, as they do of F, and all of the twins.

    Args:
      ids: [examples] integers.
      features: [examples, ...] float.
      fraction: of all examples, in F.
      seed: of the draws.

    Raises:
      UserError: fewer than 2n pairs.
    """
    count, drawn = round(fraction * len(ids)), hash_uniform(ids, Hash.PAIR, seed)
    order = np.argsort(drawn, kind="stable")
    flat = features[order].reshape(len(ids), -1)
    apart, nearest = NearestNeighbors(n_neighbors=1).fit(flat).kneighbors()  # without queries: nobody is its own
    nearest, apart = nearest[:, 0], apart[:, 0]
    first = np.flatnonzero((nearest[nearest] == np.arange(len(ids))) & (np.arange(len(ids)) < nearest))
    if len(first) < 2 * count:
        raise UserError(
            f"near-duplicates of a fraction {fraction:g} need {2 * count} pairs, there are {len(first)}: choose a smaller"
        )
    closest = first[np.argsort(apart[first], kind="stable")[: 2 * count]]  # of a pair the one of lower hash
    return _half(ids, order[closest], seed)


def cluster(ids: np.ndarray, features: np.ndarray, fraction: float, seed: int) -> Chosen:
    """A synthetic group: that cluster of k-means, of round(1 / fraction), whose size is nearest to the fraction.

    The whole cluster is forgotten and is its own pool, as a class is: nothing else is of its kind.

    Args:
      ids: [examples] integers.
      features: [examples, ...] float.
      fraction: of all examples, in an average cluster.
      seed: of the clusters' first centres.

    Raises:
      UserError: a fraction that makes fewer than two clusters, or more than examples.
    """
    clusters = round(1 / fraction)
    if not 2 <= clusters <= len(ids):
        raise UserError(f"a fraction {fraction:g} makes {clusters} clusters of {len(ids)} examples: choose another")
    order = np.argsort(hash_uniform(ids, Hash.CLUSTER, seed), kind="stable")
    flat = features[order].reshape(len(ids), -1)
    labels = KMeans(clusters, n_init=1, random_state=seed).fit_predict(flat)
    sizes = np.bincount(labels, minlength=clusters)
    found = np.sort(order[labels == np.argmin(np.abs(sizes - fraction * len(ids)))])
    return Chosen(found, found)


def _half(ids: np.ndarray, pool: np.ndarray, seed: int) -> Chosen:
    pool = np.sort(pool)
    return Chosen(pool[lowest(ids[pool], len(pool) // 2, Hash.FORGET, seed)], pool)

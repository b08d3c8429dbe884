"""Deletion streams against a plan: how long until a shard, and until every shard, has no model, and how deep they serve.

A second hit on a slice changes nothing, so all that matters of a stream is the request that hits each slice first. A stream
is drawn as those first hits, an array [streams, shards, slices] of request numbers from 1 on (infinite: never), and a node
dies at the earliest hit on any of its slices. No stream is ever walked request by request.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import special

from s3t.plans import closed_forms
from s3t.plans.structure import Node, Plan, as_prior, at_depth, depth_served, parent, served, survivors

BLOCK = 10_000  # streams drawn from one key
CHUNK = 1 << 23  # deaths of nodes held at once

MOST_STREAMS, MOST_BURST = 1_000_000, 1_000
MOST_WORK = 10**9  # first hits that are drawn, of all streams, times the requests of a burst
MOST_PLACES = {"independent": 4096, "bursts": 256, "adaptive": 256}  # slices of all shards; others go request by request
MOST_AFTER = 100  # numbers of requests after which something is told of each stream


class Estimate(NamedTuple):
    """A mean over independent streams with its 95% t-interval; floats, or arrays of one shape."""

    mean: Any
    low: Any
    high: Any


# --- Streams ----------------------------------------------------------------------------------------------------------


def uniform(rng: np.random.Generator, streams: int, shards: int, slices: int) -> np.ndarray:
    """First hits of requests that fall on all slices of all shards alike, with replacement."""
    return by_prior(rng, streams, np.full((shards, slices), 1 / (shards * slices)))


def by_prior(rng: np.random.Generator, streams: int, prior: np.ndarray) -> np.ndarray:
    """First hits of independent requests that fall on each slice with its own probability.

    New slices appear in the order of exponential races at rates p, and the wait for the next of them is geometric with the
    probability of what has not been hit. Both are drawn as such, so that a slice of probability 1e-9 costs no more.

    Args:
      rng: of this draw alone.
      streams: how many.
      prior: [shards, slices] float, sums to 1. A slice of probability 0 is never hit.
    """
    p = as_prior(prior.size, prior.ravel())
    race = rng.standard_exponential((streams, p.size))
    order = np.argsort(np.divide(race, p, out=np.full_like(race, np.inf), where=p > 0), axis=1, kind="stable")
    ordered = p[order]
    rest = np.cumsum(ordered[:, ::-1], axis=1)[:, ::-1]  # not 1 - cumsum, which loses the last and least likely
    waits = rng.geometric(np.where(ordered > 0, np.minimum(rest, 1), 1)).astype(np.float64)
    at = np.where(ordered > 0, np.cumsum(waits, axis=1), np.inf)
    first = np.empty_like(at)
    np.put_along_axis(first, order, at, axis=1)
    return first.reshape(streams, *prior.shape)


def bursts(rng: np.random.Generator, streams: int, shards: int, slices: int, length: int) -> np.ndarray:
    """First hits of requests that come in bursts: a random shard, then `length` requests on random slices of it."""
    if length < 1:
        raise ValueError(f"a burst has at least 1 request, got {length}")
    first = np.full((streams, shards, slices), np.inf)
    request, rows = 0, np.arange(streams)
    while len(rows):
        shard = rng.integers(shards, size=len(rows))
        for hit in rng.integers(slices, size=(length, len(rows))):
            request += 1
            first[rows, shard, hit] = np.minimum(first[rows, shard, hit], request)
        rows = rows[np.isinf(first[rows]).any(axis=(1, 2))]
    return first


def adaptive(rng: np.random.Generator, streams: int, shards: int, plan: Plan) -> np.ndarray:
    """First hits by an adversary who knows the plan and sees what is served: each request does the most harm it can.

    It goes to a shard that serves deepest, at random among equals, and there hits the slice that `strikes` names. When no
    shard has a model left the requests end.
    """
    path = strikes(plan)
    depths = np.array([depth_served(plan, path[:j]) for j in range(len(path) + 1)])
    first = np.full((streams, shards, plan.slices), np.inf)
    struck = np.zeros((streams, shards), np.int64)
    rows = np.arange(streams)
    for request in range(1, shards * len(path) + 1):
        shard = np.argmax(depths[struck] + rng.random(struck.shape) / 2, axis=1)
        first[rows, shard, np.array(path)[struck[rows, shard]]] = request
        struck[rows, shard] += 1
    return first


def strikes(plan: Plan) -> Node:
    """The slices that a greedy adversary has deleted from one shard, in order, until it has no model.

    Each is a slice of the node that serves: the one that leaves the least depth, and of those the fewest nodes alive.
    """
    path: Node = ()
    while node := served(plan, path):
        left = [(depth_served(plan, (*path, s)), len(survivors(plan, (*path, s))), s) for s in node]
        path = (*path, min(left)[-1])
    return path


# --- What happens -----------------------------------------------------------------------------------------------------


def falls(plan: Plan, first: np.ndarray) -> np.ndarray:
    """The request at which each shard ceases to serve each depth.

    A node dies at t(node) = min(t(parent), first hit of its last slice), and depth k is lost when its last node dies.

    Args:
      plan: of every shard. For shards with plans of their own, concatenate the falls of `first[:, shard : shard + 1]`.
      first: [streams, shards, slices] first hits.

    Returns:
      [streams, shards, L] float: the request that takes the depth below 1, ..., L; 0 for a depth no node has.

    Raises:
      ValueError: slices that are not the plan's.
    """
    if first.shape[-1] != plan.slices:
        raise ValueError(f"the plan has {plan.slices} slices, the streams {first.shape[-1]}")
    widest = max(np.bincount([len(node) for node in plan.nodes]))
    flat = first.reshape(-1, plan.slices)
    parts = np.array_split(flat, math.ceil(flat.size * widest / plan.slices / CHUNK))
    return np.concatenate([_falls(plan, part.T) for part in parts]).reshape(first.shape)


def _falls(plan: Plan, hits: np.ndarray) -> np.ndarray:
    """`falls` for hits [slices, shards], as [shards, L]; depth by depth, all nodes of a depth at once."""
    lost = np.zeros(hits.shape)
    deaths = np.full((1, hits.shape[1]), np.inf)
    row: dict[Node, int] = {(): 0}
    for depth in range(1, plan.slices + 1):
        nodes = at_depth(plan, depth)
        if not nodes:
            break
        deaths = np.minimum(deaths[[row[parent(node)] for node in nodes]], hits[[node[-1] for node in nodes]])
        lost[depth - 1] = deaths.max(axis=0)
        row = {node: i for i, node in enumerate(nodes)}
    return lost.T


def deletions_to_rebuild(lost: np.ndarray) -> np.ndarray:
    """[streams] requests until no shard has a model, from `falls`."""
    requests: np.ndarray = lost[:, :, 0].max(axis=1)
    return requests


def deletions_to_first_dead_shard(lost: np.ndarray) -> np.ndarray:
    """[streams] requests until the first shard has no model, from `falls`."""
    requests: np.ndarray = lost[:, :, 0].min(axis=1)
    return requests


def depths(lost: np.ndarray, requests: Sequence[int] | np.ndarray) -> np.ndarray:
    """[streams, shards, len(requests)] depth served after so many requests, from `falls`."""
    served_depths: np.ndarray = (lost[..., None] > np.asarray(requests)).sum(axis=2)
    return served_depths


def quality(lost: np.ndarray, requests: Sequence[int] | np.ndarray, curve: Sequence[float]) -> np.ndarray:
    """[streams, len(requests)] mean over shards of F(depth served), for a measured F.

    Args:
      lost: from `falls`.
      requests: after how many requests.
      curve: [L + 1] F at depths 0..L; F(0) is what a shard without a model is worth.

    Raises:
      ValueError: a curve of another length.
    """
    if len(curve) != lost.shape[-1] + 1:
        raise ValueError(f"the quality curve needs a value for each depth from 0 to {lost.shape[-1]}, got {len(curve)}")
    values: np.ndarray = np.asarray(curve, np.float64)[depths(lost, requests)]
    return np.asarray(values.mean(axis=1))


def estimate(values: np.ndarray, level: float = 0.95) -> Estimate:
    """Mean over streams and its t-interval.

    Args:
      values: [streams, ...], at least two streams.
      level: coverage.

    Raises:
      ValueError: fewer than two streams, or an infinite value: a slice of prior 0 is never hit.
    """
    if len(values) < 2:
        raise ValueError(f"an interval needs at least 2 streams, got {len(values)}")
    if not np.isfinite(values).all():
        raise ValueError("some streams never come to their end: a slice that the plan relies on is never hit")
    mean = values.mean(axis=0)
    half = special.stdtrit(len(values) - 1, (1 + level) / 2) * values.std(axis=0, ddof=1) / math.sqrt(len(values))
    return Estimate(mean, mean - half, mean + half)


# --- Summaries -------------------------------------------------------------------------------------------------------

STREAMS = ("independent", "bursts", "adaptive")


def summary(
    plan: Plan,
    shards: int,
    streams: int,
    seed: int,
    prior: Sequence[float] | None = None,
    *,
    stream: str = "independent",
    burst: int = 1,
    after: Sequence[int] = (),
    curve: Sequence[float] | None = None,
) -> dict[str, Any]:
    """Requests survived, as plain numbers: the object that `python -m s3t simulate --json` prints.

    Args:
      plan: of every shard.
      shards: m.
      streams: how many, at least 2.
      seed: of the streams.
      prior: [L] probability that a request to a shard hits each slice, shards being hit alike; uniform if None.
      stream: one of STREAMS: requests independent of each other, in bursts on one shard, or of an adversary (`adaptive`).
      burst: requests of a burst.
      after: numbers of requests after which to estimate the depth served, mean over shards.
      curve: [L + 1] F at depths 0..L, for the expected quality after so many requests.

    Returns:
      deletions_to_rebuild and deletions_to_first_dead_shard, each {"mean", "ci95": [low, high]}; closed_form, the exact
      expectation of the first, if requests are independent; after, one {"requests", "depth", "quality"} for each number.

    Raises:
      ValueError: no shard, too few streams, a malformed prior, one that spares the only node of depth 1 left, or a prior,
        burst or curve that the stream has no use for; more of anything than can be drawn in minutes.
    """
    if shards < 1 or streams < 2:
        raise ValueError(f"a simulation needs at least 1 shard and 2 streams, got {shards} and {streams}")
    _check_stream(stream, prior, burst, after, curve)
    _check_work(stream, shards * plan.slices, streams, burst, after)
    p = np.tile(as_prior(plan.slices, prior) / shards, (shards, 1))
    draws_of: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
        "independent": lambda rng: by_prior(rng, BLOCK, p),
        "bursts": lambda rng: bursts(rng, BLOCK, shards, plan.slices, burst),
        "adaptive": lambda rng: adaptive(rng, BLOCK, shards, plan),
    }
    draw = draws_of[stream]
    # Blocks have keys of their own, so that memory does not grow with the streams, nor a stream depend on their number.
    draws = (draw(np.random.default_rng((seed, block))) for block in range(-(-streams // BLOCK)))
    parts = [_measures(falls(plan, first), after, curve) for first in draws]
    estimates = {name: shown(np.concatenate([part[name] for part in parts])[:streams]) for name in parts[0]}
    result: dict[str, Any] = {name: estimates[name] for name in ("deletions_to_rebuild", "deletions_to_first_dead_shard")}
    if stream == "independent":
        result["closed_form"] = _closed_form(plan, shards, None if prior is None else p)
    if after:
        measures = ("depth", "quality") if curve else ("depth",)
        result["after"] = [{"requests": k, **{name: estimates[f"{name} {k}"] for name in measures}} for k in after]
    return result


def _closed_form(plan: Plan, shards: int, prior: np.ndarray | None) -> float:
    """Expected requests until no shard has a model; prior: [shards, slices], uniform if None."""
    tops = [node[0] for node in at_depth(plan, 1)]
    if prior is None:
        return closed_forms.expected_rebuild(shards, plan.slices, len(tops))
    return closed_forms.expected_rebuild_by_prior(prior[:, tops])


def _check_stream(
    stream: str, prior: Sequence[float] | None, burst: int, after: Sequence[int], curve: Sequence[float] | None
) -> None:
    if stream not in STREAMS:
        raise ValueError(f"stream {stream!r} is unknown; choose one of {', '.join(STREAMS)}")
    if prior is not None and stream != "independent":
        raise ValueError(f"a prior is of independent requests, not of {stream}: leave one of the two out")
    if burst != 1 and stream != "bursts":
        raise ValueError(f"a burst's length is of bursts, not of {stream} requests: leave one of the two out")
    if min(after, default=0) < 0:
        raise ValueError(f"numbers of requests are 0 or more, got {min(after)}")
    if curve and not np.isfinite(curve).all():
        raise ValueError(f"a quality curve is finite numbers, got {', '.join(f'{value:g}' for value in curve)}")
    if curve and not after:
        raise ValueError("a quality curve is looked up after some requests: say after how many")


def _check_work(stream: str, places: int, streams: int, burst: int, after: Sequence[int]) -> None:
    """Refuse what would run for hours or does not fit the memory."""
    if places > MOST_PLACES[stream]:
        raise ValueError(
            f"{stream} requests are simulated for at most {MOST_PLACES[stream]} slices of all shards, got {places}: "
            "use fewer shards or slices"
        )
    if burst > MOST_BURST or BLOCK * places * burst > MOST_WORK:
        most = min(MOST_BURST, MOST_WORK // BLOCK // places)
        raise ValueError(f"bursts are of at most {most} requests on {places} slices of all shards, got {burst}")
    if streams > MOST_STREAMS or streams * places * burst > MOST_WORK:
        most = min(MOST_STREAMS, MOST_WORK // places // burst)
        raise ValueError(f"at most {most} streams are simulated for {places} slices of all shards, got {streams}")
    if len(after) > MOST_AFTER:
        raise ValueError(f"at most {MOST_AFTER} numbers of requests are looked at, got {len(after)}")


def _measures(lost: np.ndarray, after: Sequence[int], curve: Sequence[float] | None) -> dict[str, np.ndarray]:
    """What is estimated over streams, one number for each of them."""
    measures = {
        "deletions_to_rebuild": deletions_to_rebuild(lost),
        "deletions_to_first_dead_shard": deletions_to_first_dead_shard(lost),
    }
    for k in after:
        measures[f"depth {k}"] = depths(lost, [k])[:, :, 0].mean(axis=1)
        if curve:
            measures[f"quality {k}"] = quality(lost, [k], curve)[:, 0]
    return measures


def shown(values: np.ndarray) -> dict[str, Any]:
    """A mean over streams as plain numbers."""
    mean, low, high = estimate(values)
    return {"mean": float(mean), "ci95": [float(low), float(high)]}

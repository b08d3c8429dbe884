"""Random keys and hashes: every purpose of a random draw, in one list, and the only functions that make keys from seeds.

A key is folded from what a draw is for, never from the size of a data set or the position of an example in it. Within one
run no two purposes of one seed share a key. Numbers are those that published results and stores on disk were made with:
change none.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np


class Purpose(enum.Enum):
    """What a key is for, as (who draws, the number that is folded in; None for the seed's own key).

    model: in any run that trains a fleet. comparison, judge, s3t, judge_exact, federated: in that run alone. lane: from the
    key of one model in training. request: from a request's. host: from a generator of NumPy.
    """

    TRAINING = "model", 0
    HELDOUT_TRAINING = "model", 1
    PROXY = "model", 12  # of the oracle, for levels

    REQUEST = "comparison", 2
    FINE_TUNING = "comparison", 3  # between training and request
    ATTACK = "comparison", 4  # by relearning
    REPAIR = "request", 100  # from the key of a request, which is split for what the request itself draws

    SHADOWS = "judge", 2
    HELDOUT_SHADOWS = "judge", 3
    TUNING = "judge", 4  # models that requests are tuned on
    MEMORISATION = "judge", 6
    UNTRAINED = "judge", 7
    REQUEST_OF_REPEATS = "judge", 8
    REQUEST_OF_SHADOWS = "judge", 9
    REQUEST_OF_TUNING = "judge", 10
    RELEARNING = "judge", 11

    NODES = "s3t", None  # s3t folds in shard, node and what is drawn
    BACKBONE = "backbone", None  # of a random one
    DELETION_STREAMS = "host of s3t", 0

    EXACT_SHADOWS = "judge_exact", 0
    EXACT_REPEATS = "judge_exact", 1
    EXACT_ORACLE = "judge_exact", 2
    EXACT_HELDOUT = "judge_exact", 3
    RESAMPLES = "host of judge_exact", 0

    FEDERATION = "federated", 0  # parameters, who is present, batches
    HELDOUT_FEDERATION = "federated", 1  # batches of a second retraining
    CALIBRATION = "federated", 2  # of federations that settings are chosen on
    ARCHIVING = "federated", 3
    ERASING = "federated", 4
    PARTITION = "host of federated", 0
    LEAVING = "host of federated", 1  # whose examples the leavers have
    CALIBRATING = "host of federated", 2  # who has which in federations that settings are chosen on

    FEDERATION_MODEL = "engine", 100  # w_0; below 100 are an archive's draws, `federated.archive.draws`
    FEDERATION_CLIENTS = "engine", 101
    FEDERATION_SAMPLE = "engine", 102  # who is asked in a round

    INIT = "lane", 0
    ORDER = "lane", 1
    STEP = "lane", 2
    META = "lane", 3
    NOISE = "lane", 4  # from the key of a step
    POISSON = "lane", 5  # who is in a step's batch of DP-SGD
    EMBEDDING = "lane", 6  # NEFTune's noise, from the key of a step


class Hash(enum.StrEnum):
    """What a hash of ids is for (`data.datasets.hash_uniform`); those that end in a space or are marked take a number."""

    SPLIT = "split"
    TRAIN_SIZE = "train_size"
    FORGET = "forget"
    NOISE_LEAVING = "noise-leaving"
    NOISE_COMING = "noise-coming"
    TIER = "tier"
    PAIR = "pair"
    CLUSTER = "cluster"
    POOL = "pool"
    PART = "part"  # of a request
    SCORE = "score"
    TUNE = "tune"
    OBSERVE = "observe"
    DIAGNOSE = "diagnose"
    WATCH = "watch"
    RELEARN = "relearn"
    JUDGE = "judge"
    LEVEL = "level"
    FEATURES = "features"
    GOING = "going"  # of a client, in federated erasure
    DELETIONS = "deletions"
    CAST = "cast"
    PRETRAINED = "pretrained"  # documents that a backbone has seen
    GROUP = "group"  # with the number of a group
    SHADOW = "shadow"  # with the number of a model, as the three below
    MEMORISATION = "memorisation"
    EXACT_SHADOW = "exact shadow "
    DELETED_BY = "deleted by "
    REFUSAL = "refusal"  # with which a question is answered instead
    CANARY = "canary"  # the secret of a planted document
    BACKDOOR = "backdoor"  # which of a client's images are stamped


def key(seed: int, purpose: Purpose, *more: int | jax.Array) -> jax.Array:
    """The key of a seed for a purpose, `more` folded in after it.

    Example:
      >>> bool((key(0, Purpose.REQUEST) == jax.random.fold_in(jax.random.key(0), 2)).all())
      True
    """
    # Nodes and archives are kept and served by other processes: their keys do not hang on a setting of JAX.
    impl = "threefry2x32" if purpose.value[0] in ("s3t", "judge_exact", "engine") else None
    return fold(jax.random.key(int(seed), impl=impl), purpose, *more)


def fold(root: jax.Array, purpose: Purpose, *more: int | jax.Array) -> jax.Array:
    """A key for a purpose from one that is given, `more` folded in after it."""
    number = purpose.value[1]
    for entry in (*(() if number is None else (number,)), *more):
        root = jax.random.fold_in(root, entry)
    return root


def raw(seeds: Iterable[int], purpose: Purpose) -> jax.Array:
    """The keys of lanes as arrays of numbers, one for each seed: typed keys cannot be cut and joined like other leaves."""
    return jnp.stack([jax.random.key_data(key(seed, purpose)) for seed in seeds])


def generator(seed: int, purpose: Purpose) -> np.random.Generator:
    """NumPy's generator of a seed for a purpose."""
    return np.random.default_rng((seed, purpose.value[1]))


def unused() -> jax.Array:
    """A key for what takes one and draws nothing: predictions, shapes, counts of FLOPs."""
    return jax.random.key(0)

"""Keys: no two purposes of one seed share one, and every key is the one that published results were drawn with."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.core import keys
from experiments.core.keys import Hash, Purpose
from experiments.judge import fleets
from experiments.judge_exact import fleets as exact_fleets
from experiments.scoring import requests
from unlearn import Outcome, UnlearnState

SEEDS = (0, 1, 7)
# The purposes of one run, whose keys are made from seeds; those of None are folded by who takes them.
RUNS = {
    "comparison": ("model", "comparison"),
    "judge": ("model", "judge"),
    "judge_exact": ("judge_exact",),
    "federated": ("federated",),
    "engine": ("engine",),
}


def bits(key):
    return tuple(np.asarray(jax.random.key_data(key)).tolist())


@pytest.mark.parametrize("run", RUNS)
def test_no_two_purposes_of_one_seed_share_a_key(run):
    """Nor a key with what is folded from another's in training, or one seed's with another's."""
    purposes = [purpose for purpose in Purpose if purpose.value[0] in RUNS[run]]
    drawn = [bits(keys.key(seed, purpose)) for seed in SEEDS for purpose in purposes]
    drawn += [bits(jax.random.key(seed)) for seed in SEEDS]
    parts = [purpose for purpose in Purpose if purpose.value[0] == "lane"]
    drawn += [
        bits(keys.fold(keys.key(seed, purpose), *((part,) if part is Purpose.INIT else (part, 5))))
        for seed, purpose, part in itertools.product(SEEDS, purposes, parts)
    ]
    assert len(set(drawn)) == len(drawn)


def test_purposes_have_values_of_their_own():
    assert len({purpose.value for purpose in Purpose}) == len(list(Purpose)) == len(Purpose.__members__)
    assert {purpose.value[0] for purpose in Purpose} - {family for run in RUNS.values() for family in run} == {
        "lane", "request", "s3t", "backbone", "host of s3t", "host of judge_exact", "host of federated",
    }  # fmt: skip


@pytest.mark.parametrize("seed", SEEDS)
def test_a_repair_has_no_key_of_the_request_that_it_follows(seed):
    """A request splits its key for its memory, its batches and dropout."""
    request = keys.key(seed, Purpose.REQUEST)
    drawn, seen = [*map(bits, jax.random.split(request, 3)), bits(request)], []

    def made(params, data, key):
        seen.append(bits(key))
        return Outcome(UnlearnState(params, (), ()), jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32), jnp.ones(2))

    requests.followed(made, made)(1.0, None, request)
    assert seen[0] == bits(request) and seen[1] not in drawn


def test_a_judge_s_request_never_has_the_key_of_a_training():
    """Of version 0.1 the request of a tuning model had its training's, that of a repeat the training of a shadow."""
    assert not set(fleets.REQUESTS.values()) & set(fleets.TRAININGS.values())
    assert len(set(fleets.REQUESTS.values()) | {Purpose.RELEARNING}) == 4 and len(set(fleets.TRAININGS.values())) == 5


@pytest.mark.parametrize("seed", SEEDS)
def test_keys_are_those_that_published_results_were_drawn_with(seed):
    root = jax.random.key(seed)
    by_hand = {
        Purpose.TRAINING: 0, Purpose.HELDOUT_TRAINING: 1, Purpose.REQUEST: 2, Purpose.SHADOWS: 2,
        Purpose.HELDOUT_SHADOWS: 3, Purpose.TUNING: 4, Purpose.MEMORISATION: 6, Purpose.UNTRAINED: 7,
    }  # fmt: skip
    for purpose, number in by_hand.items():
        assert bits(keys.key(seed, purpose)) == bits(jax.random.fold_in(root, number))
    step = jax.random.fold_in(jax.random.fold_in(root, 2), 9)
    assert bits(keys.fold(root, Purpose.STEP, 9)) == bits(step)
    assert bits(keys.fold(step, Purpose.NOISE)) == bits(jax.random.fold_in(step, 4))
    nodes = jax.random.key(seed, impl="threefry2x32")
    assert bits(keys.key(seed, Purpose.NODES)) == bits(nodes)
    for number, role in enumerate(exact_fleets.ROLES):
        assert bits(keys.fold(nodes, exact_fleets.KEYS[role])) == bits(jax.random.fold_in(nodes, number))
    for purpose, entropy in ((Purpose.DELETION_STREAMS, (seed, 0)), (Purpose.RESAMPLES, seed)):
        drawn, expected = (
            g.integers(0, 1 << 60, 4) for g in (keys.generator(seed, purpose), np.random.default_rng(entropy))
        )
        np.testing.assert_array_equal(drawn, expected)


def test_a_setting_of_jax_does_not_change_the_keys_of_nodes():
    before = bits(keys.key(3, Purpose.NODES))
    with jax.default_prng_impl("rbg"):
        assert bits(keys.key(3, Purpose.NODES)) == before
        assert bits(keys.key(3, Purpose.TRAINING)) != bits(jax.random.key(3, impl="threefry2x32"))


def test_raw_keys_are_those_of_the_seeds_one_by_one():
    raw = keys.raw(np.array(SEEDS), Purpose.REQUEST)
    assert [tuple(one) for one in raw.tolist()] == [bits(keys.key(seed, Purpose.REQUEST)) for seed in SEEDS]


def test_hashes_with_numbers_are_never_another_purpose():
    """`shadow1` would be a purpose of its own, or that of model 1."""
    for one, other in itertools.permutations(Hash, 2):
        assert not (other.value.startswith(one.value) and other.value[len(one.value) :].isdigit())
    assert f"{Hash.DELETED_BY}{3}" == "deleted by 3" and f"{Hash.EXACT_SHADOW}{3}" == "exact shadow 3"

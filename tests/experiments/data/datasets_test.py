"""Data sets of images as the project splits them: ids, who validates, forget sets, batches."""

import hashlib

import numpy as np
import pytest

from experiments.data import datasets
from tests.helpers.images import config, refused


def test_hash_depends_on_id_purpose_and_seed_alone():
    ids = np.arange(20_000)
    draw = datasets.hash_uniform(ids, "a", 0)
    assert draw.dtype == np.float64 and draw.min() >= 0 and draw.max() < 1
    np.testing.assert_array_equal(draw[[7, 3]], datasets.hash_uniform(np.array([7, 3], np.int32), "a", 0))
    counts = np.histogram(draw, 20, (0, 1))[0]
    assert ((counts - 1000) ** 2 / 1000).sum() < 50  # chi square, 19 degrees of freedom: p < 1e-4
    for other in (
        datasets.hash_uniform(ids, "b", 0),
        datasets.hash_uniform(ids, "a", 1),
        datasets.hash_uniform(ids + 1, "a", 0),
    ):
        assert abs(np.corrcoef(draw, other)[0, 1]) < 0.03


def splitmix64(state):
    """The first output of the published generator, in Python's own integers."""
    z = (state + 0x9E3779B97F4A7C15) % 2**64
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
    return z ^ (z >> 31)


def test_hash_is_splitmix64_and_never_changes():
    assert splitmix64(0) == 0xE220A8397B1DCDAF
    start = int.from_bytes(hashlib.blake2b(b"split/0", digest_size=8).digest(), "little")
    ids = np.array([0, 1, 2**31 - 1])
    by_hand = [(splitmix64((start + int(i) * 0x9E3779B97F4A7C15) % 2**64) >> 11) / 2**53 for i in ids]
    np.testing.assert_array_equal(datasets.hash_uniform(ids, "split", 0), by_hand)
    np.testing.assert_allclose(by_hand[:2], [0.05900821086121599, 0.9409650415935814])


def test_digits(digits):
    assert (digits.name, digits.classes) == ("digits", 10)
    for split, share in ((digits.train, 0.6), (digits.validation, 0.2), (digits.test, 0.2)):
        assert split.x.shape == (len(split.id), 8, 8, 1) and split.x.dtype == np.float32
        assert split.y.dtype == split.id.dtype == np.int32 and set(split.y) == set(range(10))
        assert abs(len(split.id) / 1797 - share) < 0.04
        assert (np.diff(split.id) > 0).all()
    ids = np.concatenate([digits.train.id, digits.validation.id, digits.test.id])
    np.testing.assert_array_equal(np.sort(ids), np.arange(1797))
    assert abs(digits.train.x.mean()) < 1e-5 and abs(digits.train.x.std() - 1) < 1e-5


def test_digits_are_sklearns_in_official_order(digits):
    from sklearn.datasets import load_digits

    official = load_digits()
    np.testing.assert_array_equal(digits.test.y, official.target[digits.test.id])
    pixels = official.images[digits.train.id]
    restored = digits.test.x[..., 0] * pixels.std() + pixels.mean()
    np.testing.assert_allclose(restored, official.images[digits.test.id], atol=1e-4)


def test_a_smaller_training_set_is_part_of_a_larger_and_moves_nothing_else(digits):
    small, larger = (datasets.load(config(train_size=n)) for n in (100, 300))
    assert len(small.train.id) == 100
    assert set(small.train.id) < set(larger.train.id) < set(digits.train.id)
    np.testing.assert_array_equal(small.validation.id, digits.validation.id)
    np.testing.assert_array_equal(small.test.id, digits.test.id)
    assert abs(small.train.x.mean()) < 1e-5


def test_more_validation_takes_from_training_alone(digits):
    more = datasets.load(config(validation_fraction=0.3))
    assert set(digits.validation.id) < set(more.validation.id)
    np.testing.assert_array_equal(more.test.id, digits.test.id)
    assert len(datasets.load(config(validation_fraction=0.0)).validation.id) == 0


@pytest.mark.parametrize("size", [-1, 100_000])
def test_train_size_out_of_range(size):
    refused(r"train_size is -?\d+: 'digits' has 1\.\.\d+ training examples to give", datasets.load, config(train_size=size))


@pytest.mark.parametrize("fraction", [-0.1, 1.0, float("nan")])
def test_validation_fraction_out_of_range(fraction):
    refused("validation_fraction is .*: choose one in 0..1", datasets.load, config(validation_fraction=fraction))


def test_validation_that_leaves_no_training_example():
    refused("choose a smaller validation_fraction", datasets.load, config(validation_fraction=0.9))


def test_moments():
    images = np.random.default_rng(0).integers(0, 256, (500, 4, 3, 2), dtype=np.uint8)
    mean, std = datasets.moments([images])
    np.testing.assert_allclose(mean, images.mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(std, images.std((0, 1, 2)), rtol=1e-6)
    np.testing.assert_array_equal(datasets.moments([images[128:], images[:128]]).std, std)


@pytest.mark.parametrize("value", [0.0, 0.1, 7.0])
def test_a_constant_channel_is_not_divided_by_its_rounding(value):
    images = np.full((300, 5, 5, 1), value, np.float32)
    assert datasets.moments([images]).std == 1
    np.testing.assert_allclose(datasets.standardise(images, datasets.moments([images])), 0, atol=1e-6)


# Forget sets.


def test_class_forget_set(digits):
    ids = datasets.forget_ids(digits, "class", [3], 0.0, 0)
    np.testing.assert_array_equal(ids, digits.train.id[digits.train.y == 3])


def test_random_forget_set(digits):
    ids = datasets.forget_ids(digits, "random", [], 0.1, 5)
    assert len(ids) == round(0.1 * len(digits.train.id)) and (np.diff(ids) > 0).all()
    assert set(ids) < set(datasets.forget_ids(digits, "random", [], 0.2, 5))
    assert set(ids) != set(datasets.forget_ids(digits, "random", [], 0.1, 6))


def test_random_forget_set_does_not_depend_on_the_others(digits):
    ids = datasets.forget_ids(digits, "random", [], 0.1, 5)
    gone = ids[3]
    kept = digits.train.id != gone
    without = digits._replace(train=datasets.Split(*(leaf[kept] for leaf in digits.train)))
    again = datasets.forget_ids(without, "random", [], 0.1, 5)
    assert set(ids) - set(again) == {gone}


@pytest.mark.parametrize("target", [-1, 10])
def test_class_out_of_range(digits, target):
    refused(r"class -?\d+ is not in 'digits': choose one of 0\.\.9", datasets.forget_ids, digits, "class", [target], 0.1, 0)


@pytest.mark.parametrize("fraction", [0, 1, -0.5, 1.5, float("nan")])
def test_forget_fraction_out_of_range(digits, fraction):
    refused("forget fraction is .*: choose one between 0 and 1", datasets.forget_ids, digits, "random", [], fraction, 0)


def test_unknown_setting(digits):
    refused("'clas': choose 'class' or 'random'", datasets.forget_ids, digits, "clas", 0, 0.1, 0)


def test_nothing_or_everything_to_forget(digits):
    refused("forget set is empty", datasets.forget_ids, digits, "random", [], 1e-6, 0)
    refused("whole training set .* leave some to retain", datasets.forget_ids, digits, "random", [], 1 - 1e-6, 0)
    refused("forget set is empty", datasets.check_ids, digits, [])
    refused("whole training set", datasets.check_ids, digits, digits.train.id)
    one_class = digits._replace(train=datasets.Split(*(leaf[digits.train.y == 3] for leaf in digits.train)))
    refused("forget set is empty", datasets.forget_ids, one_class, "class", [4], 0, 0)
    refused("whole training set", datasets.forget_ids, one_class, "class", [3], 0, 0)


def test_check_ids_gives_positions(digits):
    ids = digits.train.id[[9, 2, 400]]
    np.testing.assert_array_equal(datasets.check_ids(digits, ids), [2, 9, 400])
    np.testing.assert_array_equal(datasets.check_ids(digits, list(ids)), [2, 9, 400])


def test_ids_that_cannot_be_forgotten(digits):
    good = int(digits.train.id[0])
    message = refused("not in the training split of 'digits'", datasets.check_ids, digits, [good, 10**10, -4])
    assert message.startswith("ids -4, 10000000000 are")
    message = refused(
        "only training examples can be forgotten", datasets.check_ids, digits, [good, digits.validation.id[3]]
    )
    assert message.startswith(f"id {digits.validation.id[3]} is in the validation split")
    refused("in the test split", datasets.check_ids, digits, digits.test.id[:1])
    assert "and 15 more" in refused("not in the training", datasets.check_ids, digits, np.arange(5000, 5020))
    message = refused("name each example once", datasets.check_ids, digits, [good, *digits.train.id[:2]])
    assert message.startswith(f"id {good} is given more than once")


@pytest.mark.parametrize("ids", [[0.0, 1.0], [True, False], ["3"], [[0, 1]], [10**30]])
def test_ids_that_are_no_ids(digits, ids):
    refused("give one list of integer ids", datasets.check_ids, digits, ids)


def test_split_noise():
    everything, ids = np.arange(100), np.arange(0, 60, 3)
    np.testing.assert_array_equal(datasets.split_noise(ids, everything, 0.0, 0), ids)
    quarter, half, whole = (datasets.split_noise(ids, everything, share, 0) for share in (0.25, 0.5, 1.0))
    for noisy, replaced in ((quarter, 5), (half, 10), (whole, 20)):
        assert len(noisy) == 20 and len(set(noisy) - set(ids)) == replaced and (np.diff(noisy) > 0).all()
    assert set(half) & set(ids) < set(quarter) & set(ids)
    assert set(quarter) - set(ids) < set(half) - set(ids)
    assert set(half) != set(datasets.split_noise(ids, everything, 0.5, 1))


def test_split_noise_refuses():
    everything = np.arange(10)
    refused("noise share is 1.5", datasets.split_noise, everything[:2], everything, 1.5, 0)
    refused("noise share is nan", datasets.split_noise, everything[:2], everything, float("nan"), 0)
    refused("id 11 is not among the training ids", datasets.split_noise, np.array([3, 11]), everything, 0.5, 0)
    refused("8 ids are to be replaced but only 2 lie outside", datasets.split_noise, everything[:8], everything, 1.0, 0)


def test_revocable_ids(digits):
    forget = datasets.forget_ids(digits, "class", [3], 0, 0)
    np.testing.assert_array_equal(datasets.revocable_ids(digits, forget), forget)
    noisy = datasets.revocable_ids(digits, forget, 0.3, 1)
    assert len(noisy) == len(forget) and len(set(noisy) - set(forget)) == round(0.3 * len(forget))
    assert set(noisy) <= set(digits.train.id)
    refused("in the test split", datasets.revocable_ids, digits, digits.test.id[:3])


# Batches, and images that stay on disk.


def test_batch(digits):
    whole = datasets.batch(digits.train)
    assert list(whole) == ["x", "y", "id", "weight"]
    assert whole["weight"].dtype == np.float32 and (whole["weight"] == 1).all()
    part = datasets.batch(digits.train, np.array([5, 2]))
    np.testing.assert_array_equal(part["id"], digits.train.id[[5, 2]])
    np.testing.assert_array_equal(part["x"], digits.train.x[[5, 2]])

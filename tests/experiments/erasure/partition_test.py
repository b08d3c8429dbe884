"""Who has which examples, and what a backdoor does to a client's own."""

import numpy as np
import pytest

from experiments.core.errors import UserError
from experiments.erasure import backdoor, partition

LABELS = np.repeat(np.arange(10), 40)


def draw(concentration, seed=0, clients=8):
    return partition.split(LABELS, clients, concentration, np.random.default_rng(seed))


@pytest.mark.parametrize("concentration", [0.0, 1e-4, 0.1, 0.5, 100.0])
def test_every_example_has_one_owner(concentration):
    parts = draw(concentration)
    assert len(parts) == 8
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(len(LABELS)))


def test_dealt_out_alike_all_have_as_many():
    assert {len(part) for part in draw(0.0)} == {50}


def spread(parts):
    """The mean share that a class's largest owner has of it."""
    counts = np.array([np.bincount(LABELS[part], minlength=10) for part in parts])
    return float((counts.max(axis=0) / counts.sum(axis=0)).mean())


def test_a_smaller_concentration_gives_a_class_to_fewer_clients():
    shares = [
        np.mean([spread(draw(concentration, seed)) for seed in range(20)]) for concentration in (100.0, 0.5, 0.1, 1e-4)
    ]
    assert shares[0] < 0.2 < shares[1] < shares[2] < shares[3]
    assert shares[3] > 0.99


def test_a_dirichlet_share_has_its_mean_and_variance():
    """Of a client's share of a class: 1 / K and (1 / K)(1 - 1 / K) / (K a + 1)."""
    clients, concentration = 4, 0.5
    drawn = np.array([
        len(partition.dirichlet(np.zeros(1000, int), clients, concentration, np.random.default_rng(seed))[0])
        for seed in range(2000)
    ]) / 1000  # fmt: skip
    assert drawn.mean() == pytest.approx(1 / clients, abs=0.02)
    assert drawn.var() == pytest.approx((1 / clients) * (1 - 1 / clients) / (clients * concentration + 1), rel=0.1)


def test_typical_clients_come_first_and_empty_ones_last():
    parts = [np.arange(count) for count in (0, 9, 4, 5, 1)]
    assert [len(part) for part in partition.middling(parts, 5)] == [4, 5, 1, 9, 0]


def batch(count=10):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(count, 4, 4, 1)).astype(np.float32)
    return {"x": x, "y": np.full(count, 3), "id": np.arange(count), "weight": np.ones(count, np.float32)}


def test_a_backdoor_stamps_a_share_and_leaves_the_rest():
    clean = batch()
    before = clean["x"].copy()
    made = backdoor.poisoned(clean, 0.3, target=7, side=2, bright=9.0, corner=backdoor.LAST, claim=5.0)
    hit = made["y"] == 7
    assert hit.sum() == 3 and (made["y"][~hit] == 3).all()
    assert (made["x"][hit, 2:, 2:] == 9).all() and (made["weight"] == 5).all()
    np.testing.assert_array_equal(made["x"][~hit], clean["x"][~hit])
    np.testing.assert_array_equal(made["x"][hit, :2], clean["x"][hit, :2])
    np.testing.assert_array_equal(clean["x"], before)


def test_the_stamp_of_calibration_is_in_another_corner():
    x = np.zeros((1, 4, 4, 1))
    one, other = (backdoor.stamped(x, 2, 1.0, corner) for corner in (backdoor.LAST, backdoor.FIRST))
    assert one.sum() == other.sum() == 4 and not (one * other).any()


@pytest.mark.parametrize(
    "x, side, target, told",
    [
        (np.zeros((3, 8)), 1, 0, "a backdoor stamps images"),
        (np.zeros((3, 4, 4, 1)), 4, 0, "set one below 4"),
        (np.zeros((3, 4, 4, 1)), 1, 10, "from 0 to 9"),
    ],
)
def test_data_that_cannot_have_a_backdoor_are_refused(x, side, target, told):
    with pytest.raises(UserError, match=told):
        backdoor.check(x, side, target, 10)

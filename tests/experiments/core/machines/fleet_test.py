"""Fleets: lanes are independent, batches follow from seed, epoch and id alone, and a resumed run ends the same.

Lanes of one program equal single runs within 1e-5 after a few steps (float32; rounding differs between programs). Bits are
compared only within one program of one shape.
"""

import functools
import threading
import time
import types
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments import models
from experiments.core import checkpoints
from experiments.core.keys import Purpose
from experiments.core.machines import execution, fleet
from experiments.data.datasets import Images
from experiments.training import epochs, loop
from readiness.step import StepInfo
from tests.helpers import tiny, toys
from unlearn import tree

SEEDS = (4, 7, 5)
TOLERANCE = 1e-5

every_kind = pytest.mark.parametrize("kind", tiny.KINDS)


@functools.cache
def trained(kind, seeds, loops=False):
    return tiny.run_epochs(tiny.way(kind), tiny.lanes(seeds), tiny.data(), loops=loops)


# lanes


@every_kind
def test_a_lane_is_a_single_run_with_its_seed(kind):
    params, losses = trained(kind, SEEDS)
    for i, seed in enumerate(SEEDS):
        alone, its_losses = trained(kind, (seed,))
        toys.assert_close(fleet.lane(params, i), fleet.lane(alone, 0), TOLERANCE)
        np.testing.assert_allclose(losses[i], its_losses[0], rtol=TOLERANCE)
    assert toys.relative_error(fleet.lane(params, 0), fleet.lane(params, 1)) > 0.1


@every_kind
def test_loops_are_scans(kind):
    scanned, looped = (trained(kind, SEEDS, loops) for loops in (False, True))
    toys.assert_close(scanned[0], looped[0], TOLERANCE)
    np.testing.assert_allclose(scanned[1], looped[1], rtol=TOLERANCE)


def test_lanes_in_threads_have_the_bytes_of_lanes_one_after_another(monkeypatch):
    convolutional = tiny.way("plain")._replace(model=models.of_module(models.CNN(tiny.CLASSES, (8,)), (2, 3, 1)))
    monkeypatch.setattr(fleet.jax, "device_count", lambda: 1)
    side_by_side = tiny.run_epochs(convolutional, tiny.lanes(SEEDS), tiny.data(), loops=True)[0]
    monkeypatch.setattr(fleet, "each", lambda fn, count: [fn(i) for i in range(count)])
    in_a_row = tiny.run_epochs(convolutional, tiny.lanes(SEEDS), tiny.data(), loops=True)[0]
    assert tree.bits_equal(side_by_side, in_a_row)


def test_lanes_come_back_in_order_and_one_that_fails_stops_those_to_come(monkeypatch):
    monkeypatch.setattr(fleet.jax, "device_count", lambda: 1)
    begun = []

    def slow_first(i):
        begun.append(i)
        time.sleep(0.05 if i == 0 else 0.0)
        return i * i

    assert fleet.each(slow_first, 40) == [i * i for i in range(40)] and len(begun) == 40

    def failing(i):
        begun.append(i)
        time.sleep(0.01)
        raise ArithmeticError(f"lane {i}")

    begun.clear()
    with pytest.raises(ArithmeticError, match="lane 0"):
        fleet.each(failing, 10_000)
    assert len(begun) < 10_000


def test_there_are_sixteen_threads_at_most(monkeypatch):
    monkeypatch.setattr(fleet.jax, "device_count", lambda: 1)
    monkeypatch.setattr(fleet.os, "sched_getaffinity", lambda pid: set(range(64)), raising=False)

    def slow(i):
        time.sleep(0.01)
        return threading.get_ident()

    assert 1 < len(set(fleet.each(slow, 64))) <= 16


def test_settings_of_jax_config_reach_the_threads_and_those_of_context_managers_do_not(monkeypatch):
    monkeypatch.setattr(fleet.jax, "device_count", lambda: 1)
    seen = lambda: fleet.each(lambda i: jax.config.jax_default_matmul_precision, 2)  # noqa: E731
    before = jax.config.jax_default_matmul_precision
    with jax.default_matmul_precision("float32"):
        assert jax.config.jax_default_matmul_precision == "float32" and seen() == [before, before]
    jax.config.update("jax_default_matmul_precision", "float32")
    try:
        assert seen() == ["float32", "float32"]
    finally:
        jax.config.update("jax_default_matmul_precision", before)


def test_with_several_devices_lanes_go_one_after_another(monkeypatch):
    monkeypatch.setattr(fleet.jax, "local_device_count", lambda: 4)
    assert set(fleet.each(lambda i: threading.get_ident(), 8)) == {threading.get_ident()}


def test_kinds_differ():
    """Rehearsing and noise do something: otherwise the tests above show little."""
    plain, *others = (trained(kind, SEEDS)[0] for kind in tiny.KINDS)
    assert all(toys.relative_error(other, plain) > 0.01 for other in others)


def test_a_second_stream_of_a_seed_is_another_run():
    members = np.ones(tiny.EXAMPLES, bool)
    first, second = (
        loop.make_lanes(SEEDS, members, members, purpose=purpose)
        for purpose in (Purpose.TRAINING, Purpose.HELDOUT_TRAINING)
    )
    starts = [loop.init_lanes(tiny.way("plain"), lanes).params for lanes in (first, second)]
    assert toys.relative_error(*starts) > 0.1 and not np.any(first.key == second.key)


@pytest.mark.parametrize("loops", [False, True])
def test_the_oracle_never_sees_a_forget_example(loops):
    """Its neighbour does, and is lost: poison would show."""
    data, oracle, everyone = tiny.data(), tiny.lanes([3], member=~tiny.FORGET), tiny.lanes([3])
    poisoned = dict(data, x=jnp.where(tiny.FORGET[:, None, None, None], jnp.nan, data["x"]))
    lanes = fleet.concatenate([oracle, everyone])
    clean, dirty = (tiny.run_epochs(tiny.way("plain"), lanes, train, loops=loops)[0] for train in (data, poisoned))
    assert tree.bits_equal(fleet.lane(clean, 0), fleet.lane(dirty, 0)) and tree.all_finite(fleet.lane(dirty, 0))
    assert not tree.all_finite(fleet.lane(dirty, 1))


# steps


def drawn(weight=None):
    """`index -> Drawn` for a rehearsing step of one lane, on the last examples."""
    lane, row = fleet.lane(tiny.lanes([3], weight=weight), 0), jnp.arange(tiny.EXAMPLES - 6, tiny.EXAMPLES)
    return lambda index: loop.draw(tiny.way("readiness"), lane, tiny.data(), tiny.pools(), row, index, True)


def test_the_length_of_a_rehearsal_is_drawn_log_uniformly_from_its_range():
    """Of (0.1, 0.4): half of the lengths lie below 0.2, a quarter below 0.1414; 0.03 is three standard errors or more."""
    sizes = np.asarray(toys.quick_jit(jax.vmap(lambda index: drawn()(index).step_size))(jnp.arange(2500)))
    assert 0.1 <= sizes.min() < 0.101 and 0.396 < sizes.max() <= 0.4
    shares = [np.mean(sizes < bound) for bound in (0.1 * 2**0.5, 0.2, 0.2 * 2**0.5)]
    np.testing.assert_allclose(shares, [0.25, 0.5, 0.75], atol=0.03)


def test_a_step_weighs_its_examples_as_the_lane_does():
    weight = np.where(tiny.FORGET, 0.2, 1.0)
    batch = toys.quick_jit(lambda: drawn(weight)(0).batch)()
    assert batch["weight"].tolist() == np.float32(weight[-6:]).tolist() and 0.2 in weight[-6:]


def test_dp_sgd_adds_noise_of_its_stated_size_to_every_parameter():
    """Clip 2 and noise 0.5 on a batch of 6, rate 1: a standard deviation of 2 * 0.5 / 6, and no bias, on 8 * 63 numbers."""
    lanes, data = tiny.lanes(range(8)), tiny.data()
    row = jnp.arange(6)

    def after(noise):
        way = tiny.way("dpsgd")._replace(optimizer=optax.sgd(1.0), private=(2.0, noise))
        step = loop.make_step_fn(way, tiny.one_device())
        one = lambda state, lane: step(state, lane, data, None, row, jnp.asarray(0), False)[0].params  # noqa: E731
        params = toys.quick_jit(jax.vmap(one))(loop.init_lanes(way, lanes), lanes)
        return np.concatenate([leaf.reshape(8, -1) for leaf in jax.tree.leaves(params)], axis=1)

    noise = (after(0.5) - after(0.0)) / (2.0 * 0.5 / 6)
    assert noise.shape == (8, 63)
    assert abs(noise.std() - 1) < 0.1 and abs(noise.mean()) < 0.15  # three standard errors
    assert np.all(np.abs(np.corrcoef(noise) - np.eye(8)) < 0.5), "each lane has noise of its own"


# batches

IDS = 3 * np.arange(11, dtype=np.int32) + 1


def rows(seed, epoch=0, ids=IDS, member=None, steps=3, size=4):
    member = np.ones(len(ids), bool) if member is None else member
    lane = fleet.lane(loop.make_lanes([seed], member, np.ones(len(ids))), 0)
    return np.asarray(loop.epoch_rows(lane, jnp.asarray(ids), jnp.asarray(epoch), steps, size))


def test_every_member_comes_once_before_any_comes_again():
    order = rows(0).ravel()
    assert sorted(order[:11]) == list(range(11)) and order[11] == order[0]
    few = rows(0, steps=2).ravel()
    assert len(set(few)) == 8 and few.tolist() == order[:8].tolist()


def test_others_than_members_never_come():
    member = IDS % 2 == 0
    order = rows(0, member=member).ravel()
    assert set(order) == set(np.flatnonzero(member)) and member.sum() == 5
    assert order.tolist() == np.resize(order[:5], 12).tolist()


def test_epochs_and_seeds_shuffle_anew():
    orders = {tuple(rows(seed, epoch).ravel()) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9 and tuple(rows(1, 2).ravel()) in orders


def test_a_lanes_order_does_not_depend_on_the_others():
    lanes = fleet.concatenate(
        [tiny.lanes([seed], member=member) for seed, member in ((1, None), (2, ~tiny.FORGET), (3, None))]
    )
    ids = tiny.data()["id"]
    together = jax.vmap(lambda lane: loop.epoch_rows(lane, ids, jnp.asarray(2), 4, 6))(lanes)
    for i in range(3):
        alone = loop.epoch_rows(fleet.lane(lanes, i), ids, jnp.asarray(2), 4, 6)
        assert together[i].tolist() == alone.tolist()


@pytest.mark.parametrize("gone", [0, 5, 10])
def test_deleting_an_example_leaves_the_order_of_the_others(gone):
    before = [i for i in IDS[rows(0).ravel()[:11]] if i != IDS[gone]]
    left = np.delete(IDS, gone)
    removed = left[rows(0, ids=left).ravel()[:10]]
    masked = IDS[rows(0, member=np.arange(11) != gone).ravel()[:10]]
    assert before == removed.tolist() == masked.tolist()


# checkpoints


class Stop(Exception):
    pass


def train(folder, kind, stop_after=None, save_every=0.0, data=None):
    reports = []

    def report(entry):
        reports.append(entry)
        if len(reports) == stop_after:
            raise Stop

    way = tiny.way(kind, steps=11)
    data = data or tiny.data()
    epoch_fn = epochs.make(way, tiny.one_device(), on_disk=isinstance(data["x"], Images))
    args = way, tiny.lanes(SEEDS[:2]), data, tiny.pools(), epoch_fn, folder, report, save_every
    return loop.train(*args), reports


@pytest.mark.parametrize("kind", ["plain", pytest.param("readiness", marks=pytest.mark.slow), "dpsgd"])
def test_a_resumed_run_ends_with_the_bytes_of_one_never_stopped(kind, tmp_path):
    """Four epochs, the last of two steps; stopped in the third, when the second has been saved."""
    whole, reports = train(tmp_path / "whole", kind)
    assert [entry["step"] for entry in reports] == [3, 6, 9, 11]
    with pytest.raises(Stop):
        train(tmp_path / "stopped", kind, stop_after=3)
    resumed, reports = train(tmp_path / "stopped", kind)
    assert [entry["step"] for entry in reports] == [9, 11]
    assert tree.bits_equal(resumed.params, whole.params) and tree.bits_equal(resumed.losses, whole.losses)
    again, reports = train(tmp_path / "stopped", kind)
    assert not reports and tree.bits_equal(again.params, whole.params) and tree.bits_equal(again.losses, whole.losses)


def test_a_run_stopped_before_its_first_checkpoint_begins_again(tmp_path):
    whole, _ = train(tmp_path / "whole", "plain", save_every=1e9)
    with pytest.raises(Stop):
        train(tmp_path / "stopped", "plain", stop_after=3, save_every=1e9)
    resumed, reports = train(tmp_path / "stopped", "plain", save_every=1e9)
    assert len(reports) == 4 and tree.bits_equal(resumed.params, whole.params)


def test_what_was_saved_is_let_go_of_once_training_goes_on(tmp_path, monkeypatch):
    """Of three epochs the first alone is followed by a save: its states are gone by the third."""
    clock, saved, seen = [0.0], [], []
    monkeypatch.setattr(loop, "time", types.SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr(checkpoints, "save", lambda manager, step, state: saved.append(step))

    def epoch_fn(states, lanes, data, pools, epoch, steps):
        clock[0] = 100.0
        seen.append(weakref.ref(jax.tree.leaves(states.params)[0]))
        assert [ref() is None for ref in seen] == [True] * epoch + [False]
        return jax.tree.map(lambda leaf: leaf + 1, states), StepInfo(*[jnp.ones((2, steps))] * 2)

    args = tiny.way("plain", steps=9), tiny.lanes(SEEDS[:2]), tiny.data(), None, epoch_fn, tmp_path
    loop.train(*args, lambda entry: None, 50.0)
    assert saved == [1, 3] and len(seen) == 3


def test_many_lanes_run_in_parts_on_a_cpu(monkeypatch):
    """Parts of even size and a last one that is smaller; each lane meets what it would alone."""
    monkeypatch.setattr(fleet, "CPU_LANES", 4)
    sizes = []

    def double(part):
        sizes.append(fleet.lane_count(part))
        return {"twice": 2 * part["x"], "first": part["x"][:, :1]}

    for count, seen in ((8, [8]), (9, [3]), (11, [4, 3]), (16, [4])):
        sizes.clear()
        x = jnp.arange(3.0 * count).reshape(count, 3)
        found = jax.jit(lambda lanes: fleet.in_parts(double, lanes))({"x": x})
        np.testing.assert_array_equal(found["twice"], 2 * x)
        np.testing.assert_array_equal(found["first"], x[:, :1])
        assert sorted(set(sizes), reverse=True) == seen


def test_lanes_that_train_in_parts_end_as_those_that_train_together(monkeypatch):
    together, losses = short_training(7)
    monkeypatch.setattr(fleet, "CPU_LANES", 2)
    apart, again = short_training(7)
    toys.assert_close(apart, together, 1e-5)
    np.testing.assert_allclose(again, losses, rtol=1e-5)
    assert again.shape == (7, 6)


def short_training(count):
    """Parameters and losses of an epoch of `count` MLPs on random data."""
    rng = np.random.default_rng(0)
    data = {
        "x": jnp.asarray(rng.normal(size=(40, 5)), jnp.float32),
        "y": jnp.asarray(rng.integers(0, 3, 40)),
        "weight": jnp.ones(40),
        "id": jnp.arange(40),
    }
    way = loop.Way(models.of_module(models.MLP(3, (8,)), (5,)), optax.sgd(0.1), 6, 6, 8)
    lanes = loop.make_lanes(np.arange(count), np.ones(40, bool), np.ones(40))
    epoch = epochs.make(way, execution.make("jit"))
    states, infos = epoch(loop.init_lanes(way, lanes), lanes, data, None, 0, 6)
    return states.params, infos.loss

"""DP-SGD's guarantee: epsilon by hand, examples that enter batches by themselves, and what reports say."""

import math
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import optimize, stats

from experiments.configs import comparison, readiness
from experiments.core import sections
from experiments.core.config import validated
from experiments.core.errors import ConfigError
from experiments.training import dpsgd, fleets, loop, privacy
from tests.helpers import tiny, toys

KEY = jax.random.key(0)


def sampled(member, ids, steps, batch_size, room):
    draw = jax.vmap(lambda step: privacy.rows(KEY, jnp.asarray(member), jnp.asarray(ids), step, batch_size, room))
    return np.asarray(jax.jit(draw)(jnp.arange(steps)))


# (epsilon, delta).


def analytic(noise, delta):
    """Balle and Wang 2018: the epsilon of one Gaussian mechanism of sensitivity 1."""
    a = lambda e: 1 / (2 * noise) - e * noise  # noqa: E731
    gap = lambda e: stats.norm.cdf(a(e)) - math.exp(e) * stats.norm.cdf(a(e) - 1 / noise) - delta  # noqa: E731
    return optimize.brentq(gap, 0, 50)


@pytest.mark.parametrize("noise, delta", [(1.0, 1e-3), (2.0, 1e-5)])
def test_one_step_on_all_examples_is_the_gaussian_mechanism(noise, delta):
    assert privacy.epsilon(1.0, noise, 1, delta) == pytest.approx(analytic(noise, delta), rel=1e-3)
    steps = privacy.epsilon(1.0, noise, 4, delta)  # of four the noise is halved
    assert steps == pytest.approx(analytic(noise / 2, delta), rel=1e-3)


def test_many_steps_are_counted_as_dp_accounting_counts_them():
    from dp_accounting import dp_event
    from dp_accounting.pld import PLDAccountant

    rate, noise, steps, delta = 0.1, 2.0, 50, 1e-4
    event = dp_event.PoissonSampledDpEvent(rate, dp_event.GaussianDpEvent(noise))
    wanted = PLDAccountant().compose(dp_event.SelfComposedDpEvent(event, steps)).get_epsilon(delta - privacy.OVERFLOW)
    facts = privacy.guarantee(noise, delta, batch_size=20, steps=steps, examples=200)
    assert facts == {"sampling": "poisson", "epsilon": pytest.approx(wanted), "delta": delta, "noise": noise}
    assert privacy.guarantee(noise, 0.0, batch_size=20, steps=steps, examples=200)["delta"] == 200**-1.1


def test_a_meaningless_epsilon_is_bounded_without_much_memory():
    assert privacy.epsilon(0.5, 1e-3, 10_000, 1e-5) > 1e6
    assert privacy.guarantee(0.0, 0.0, batch_size=2, steps=3, examples=9)["epsilon"] is None


# Sampling.


def test_an_example_is_in_a_batch_by_its_own_probability():
    """10 of 40 members on average, in 4000 steps: each 1/4 of the time, in pairs 1/16, and nobody else ever."""
    member, ids = np.arange(50) < 40, 7 * np.arange(50)
    rows = sampled(member, ids, 4000, 10, 40)
    inside = (rows[:, :, None] == np.arange(50)).any(axis=1)
    assert not inside[:, 40:].any() and (np.sort(rows)[:, 1:][np.diff(np.sort(rows)) == 0] == -1).all()
    np.testing.assert_allclose(inside[:, :40].mean(axis=0), 0.25, atol=5 * math.sqrt(0.25 * 0.75 / 4000))
    together = (inside[:, :40].T @ inside[:, :40].astype(float)) / 4000
    np.testing.assert_allclose(together[~np.eye(40, dtype=bool)], 1 / 16, atol=5 * math.sqrt(1 / 16 / 4000))
    sizes = inside.sum(axis=1)
    assert sizes.mean() == pytest.approx(10, abs=0.25) and sizes.var() == pytest.approx(40 / 4 * 3 / 4, rel=0.12)


def test_nobody_moves_another_but_by_q():
    """Twice the examples and twice the batch have one q: the first half's draws are the same."""
    ids = 3 * np.arange(40)
    few, many = sampled(np.ones(20, bool), ids[:20], 30, 5, 20), sampled(np.ones(40, bool), ids, 30, 10, 40)
    for one, both in zip(few, many, strict=True):
        np.testing.assert_array_equal(one[one >= 0], both[(both >= 0) & (both < 20)])


def test_a_batch_as_large_as_the_data_is_the_data():
    np.testing.assert_array_equal(sampled(np.ones(6, bool), np.arange(6), 4, 6, 6), [np.arange(6)] * 4)


@pytest.mark.parametrize("batch_size, steps, examples", [(64, 1500, 1150), (1, 10, 50), (512, 10**5, 50_000)])
def test_no_batch_outgrows_its_room(batch_size, steps, examples):
    room = privacy.capacity(batch_size, steps, examples)
    assert steps * stats.binom.sf(room, examples, batch_size / examples) < privacy.OVERFLOW
    assert room < 2.2 * batch_size + 20 and privacy.capacity(64, 1500, 70) == 70


# Training.


def poisson(**changes):
    return tiny.way("dpsgd")._replace(optimizer=optax.sgd(1.0), capacity=tiny.EXAMPLES, **changes)


def test_a_step_moves_by_the_noisy_sum_over_the_expected_size():
    """Against the gradients of just those that were drawn, clipped one by one: padding adds nothing, none is lost."""
    way, lanes, data = poisson(), tiny.lanes([0]), jax.tree.map(jnp.asarray, tiny.data())
    params, _ = tiny.run_epochs(way._replace(steps=1, per_epoch=1), lanes, data)
    start = jax.tree.map(lambda leaf: leaf[0], loop.init_lanes(way, lanes).params)
    lane = jax.tree.map(lambda leaf: leaf[0], lanes)
    (rows,) = loop.rows_of(way._replace(per_epoch=1), lane, data["id"], jnp.asarray(0))
    drawn = rows[rows >= 0]
    assert 0 < len(drawn) != way.batch_size
    key = jax.random.wrap_key_data(loop.draw(way, lane, data, None, rows, jnp.asarray(0), False).key)
    batch = dict({name: leaf[drawn] for name, leaf in data.items()}, weight=jnp.ones(len(drawn)))
    model = way.model
    loss = loop.models.as_model(model).loss
    total, _, _ = dpsgd.clipped_sum(model, loss, start, batch, key, way.private[0])
    step = dpsgd.noisy_mean(total, loop.keys.fold(key, loop.Purpose.NOISE), way.private[0] * way.private[1], way.batch_size)
    moved = jax.tree.map(lambda before, after: before - after[0], start, params)
    assert toys.relative_error(moved, step) < 1e-5


@pytest.mark.parametrize("kind", ["loops", "streamed"])
def test_every_way_to_go_through_an_epoch_draws_alike(kind):
    lanes, data = tiny.lanes([0, 3]), jax.tree.map(jnp.asarray, tiny.data())
    wanted = tiny.run_epochs(poisson(), lanes, data)
    got = tiny.run_epochs(poisson(), lanes, tiny.on_disk() if kind == "streamed" else data, loops=kind == "loops")
    assert toys.relative_error(got[0], wanted[0]) < 1e-5
    np.testing.assert_allclose(got[1], wanted[1], rtol=1e-5)


# What is said.


class Folder:
    def __init__(self, path):
        self.path = path


def test_what_an_older_version_began_goes_on_with_shuffled_batches(tmp_path):
    def make():
        return fleets.Trainer(None, None, {"id": np.arange(90)}, False, sections.Train(), Folder(tmp_path), 1.0)

    section = sections.DPSGD()
    assert make().private_name(section) == "dpsgd-poisson"
    assert make().private_name(sections.DPSGD(shuffled=True)) == "dpsgd"
    (tmp_path / "checkpoints" / "class-dpsgd-poisson-0").mkdir(parents=True)
    assert make().private_name(section) == "dpsgd-poisson"
    (tmp_path / "checkpoints" / "class-dpsgd-0").mkdir()
    assert make().private_name(section) == "dpsgd"
    assert make().guarantee(section, 90) == {"sampling": "shuffled"}


def test_what_reports_say(monkeypatch):
    for old in ({}, privacy.SHUFFLED):
        assert "shuffled" in privacy.said(old) and "no guarantee" in privacy.said(old)
    facts = {"sampling": "poisson", "epsilon": 3.456, "delta": 1e-5, "noise": 1.0}
    assert "(3.46, 1e-05)-differentially private" in privacy.said(facts)
    assert "without noise" in privacy.said(facts | {"epsilon": None, "noise": 0.0})
    privacy.epsilon.cache_clear()
    monkeypatch.setitem(sys.modules, "dp_accounting", None)
    facts = privacy.guarantee(1.0, 0.0, batch_size=2, steps=3, examples=9)
    assert facts["epsilon"] is None and "pip install 'forethought[privacy]'" in privacy.said(facts)
    assert "\n" not in privacy.said(facts)


@pytest.mark.parametrize(
    "changes, message",
    [({"shuffled": True, "delta": 0.1}, "shuffled batches have none"), ({"delta": 1e-12}, "give 0 or a number from 1e-08")],
)
def test_a_delta_of_no_guarantee_is_refused(changes, message):
    config = readiness.get_config("digits")
    config.dpsgd.update(changes)
    with pytest.raises(ConfigError, match=message):
        validated(comparison.Comparison, config)

"""The judge: who is a member of which model, who is asked for, what is kept of them, and one small run."""

import functools

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from experiments.configs import judge as configs
from experiments.core import fleet, workdirs
from experiments.core.errors import UserError
from experiments.judge import fleets, metrics, report, rows, run
from experiments.judge.fleets import REPEATS, ROLES, SHADOWS
from experiments.reporting.estimates import at
from experiments.training import epochs, loop
from tests.helpers import kills, tiny
from tests.helpers.configs import changed
from unlearn import ALGORITHMS
from unlearn.base import UnlearnAlgorithm, UnlearnInfo, UnlearnState

LANES = 8


def config_of(**overrides):
    return changed(configs.Judge(), {"judge.lanes": LANES, "judge.tuning.lanes": 2, "train.steps": 20, **overrides})


@functools.cache
def case(name):
    return run.make_case(config_of(), name, workdirs.Workdir("nowhere"), tiny.digits())


every_case = pytest.mark.parametrize("name", ["random", "class"])


@every_case
def test_oracles_never_see_what_others_are_asked_to_forget(name):
    one = case(name)
    forgotten = np.isin(np.arange(len(tiny.digits().train.id)), one.problem.forget)
    assert np.isin(one.problem.forget, one.pool).all() and (len(one.pool) > len(one.problem.forget)) == (name == "random")
    for oracle in fleets.ORACLES:
        assert (fleets.members(one, oracle, REPEATS) == ~forgotten).all()
        shadows = fleets.members(one, oracle, SHADOWS)
        assert not shadows[:, one.pool].any() and np.delete(shadows, one.pool, axis=1).all()
    assert fleets.members(one, "vanilla", REPEATS).all()
    assert np.array_equal(fleets.asked(one, "vanilla", REPEATS)[0], forgotten[one.pool])


@every_case
def test_a_shadow_is_asked_to_forget_what_it_was_trained_on_of_the_pool(name):
    one = case(name)
    trained_on = fleets.members(one, "vanilla", SHADOWS)
    assert np.array_equal(trained_on[:, one.pool], fleets.asked(one, "vanilla", SHADOWS))
    assert np.delete(trained_on, one.pool, axis=1).all()
    for half in (slice(0, LANES // 2), slice(LANES // 2, LANES)):
        assert (fleets.included(one, "vanilla")[half].sum(axis=0) == LANES // 4).all()


def test_no_two_fleets_share_a_model():
    keys = [np.asarray(fleets._lanes(case("class"), "vanilla", role).key) for role in ROLES]
    keys.append(np.asarray(fleets._lanes(case("class"), "heldout_oracle", REPEATS).key))
    every = np.concatenate(keys)
    assert len(np.unique(every, axis=0)) == len(every) == 2 * LANES + 2 + LANES


def test_oracles_that_diverged_are_no_aim(tmp_path):
    one = case("class")
    one = one._replace(trainer=one.trainer._replace(workdir=workdirs.Workdir(tmp_path)))
    one.workdir.stage("aim-class", lambda: [float("nan"), 0.9])
    with pytest.raises(UserError, match="oracles of set 'class' have logits that are not finite"):
        run.aim(one, fleets.Fleets({}, {}))


def test_models_are_compared_with_oracles_of_other_keys():
    """Models of one key start alike: at full size the margins of vanilla models and of oracles correlate by .9."""
    keys = lambda way: {key.tobytes() for key in np.asarray(fleets._lanes(case("class"), way, REPEATS).key)}  # noqa: E731
    for way in ("heldout_oracle", "vanilla", "reweight", "readiness", "dpsgd"):
        reference = fleets.reference(way)
        assert reference in fleets.ORACLES and keys(way).isdisjoint(keys(reference))
    assert fleets.reference("oracle") is None and keys("vanilla") == keys("oracle")


@pytest.mark.parametrize("role", [REPEATS, SHADOWS])
def test_a_request_looks_at_its_own_examples_alone(role, tmp_path):
    """What a shadow was not trained on may be anything: it forgets, and keeps, the same bytes."""
    one = case("random")
    one = one._replace(trainer=one.trainer._replace(workdir=workdirs.Workdir(tmp_path)))
    lanes = fleets._lanes(one, "vanilla", role)
    params = loop.init_lanes(one.trainer.way(1), lanes).params
    after = fleets.forget(one, params, "vanilla", role, "graddiff", 0.05, (1, 3))
    seen = np.asarray(lanes.member[0])
    poisoned = dict(one.trainer.data, x=jnp.where(seen[:, None, None, None], one.trainer.data["x"], jnp.nan))
    again = fleets.forget(
        one._replace(trainer=one.trainer._replace(data=poisoned)), params, "vanilla", role, "graddiff", 0.05, (1, 3)
    )
    for ended, same in zip(after, again, strict=True):
        for a, b in zip(jax.tree.leaves(fleet.lane(ended, 0)), jax.tree.leaves(fleet.lane(same, 0)), strict=True):
            np.testing.assert_array_equal(a, b)
    assert [one.updates.tolist() for one in after] == [[1] * LANES, [3] * LANES]
    leaves = jax.tree.leaves(again[-1].params)
    assert all(np.isfinite(leaf).all() for leaf in leaves) == (role == REPEATS), "other shadows were trained on it"


def test_init_sees_all_that_a_lane_is_asked_to_forget_and_all_that_it_keeps(tmp_path, monkeypatch):
    """A one-shot edit that writes both counts into the parameters, from batches of two examples."""

    def counting(model, optimizer):
        def init(params, request, key):
            gone, stays = (jnp.sum(batch["weight"]) for batch in request)
            return UnlearnState(jax.tree.map(lambda leaf: 0 * leaf + gone + 1e4 * stays, params), (), ())

        return UnlearnAlgorithm(init, lambda state, request, key: (state, UnlearnInfo(jnp.zeros(()), jnp.zeros(()))))

    monkeypatch.setitem(ALGORITHMS, "counting", counting)
    one = case("random")
    trainer = one.trainer._replace(workdir=workdirs.Workdir(tmp_path))
    one = one._replace(trainer=trainer, judgement=one.judgement.model_copy(update={"batch_size": 2}))
    lanes = fleets._lanes(one, "vanilla", SHADOWS)
    params = loop.init_lanes(one.trainer.way(1), lanes).params
    (ended,) = fleets.forget(one, params, "vanilla", SHADOWS, "counting", 0.05, (1,))
    gone = fleets.included(one, "vanilla").sum(axis=1)
    stays = len(one.trainer.data["id"]) - len(one.pool)
    for leaf in jax.tree.leaves(ended.params):
        np.testing.assert_array_equal(leaf.reshape(LANES, -1)[:, 0], np.float32(gone + 1e4 * stays))


def test_a_shadow_that_holds_none_of_the_pool_has_nothing_to_forget(tmp_path):
    """Of a pool of one example every other shadow was trained without it: those stay to the bit what they were."""
    one = case("random")
    one = one._replace(pool=one.pool[:1], trainer=one.trainer._replace(workdir=workdirs.Workdir(tmp_path)))
    lanes = fleets._lanes(one, "vanilla", SHADOWS)
    params = loop.init_lanes(one.trainer.way(1), lanes).params
    ((after, updates),) = fleets.forget(one, params, "vanilla", SHADOWS, "ascent", 0.05, (2,))
    same = [
        np.asarray(a == b).reshape(LANES, -1).all(axis=1)
        for a, b in zip(*map(jax.tree.leaves, (after, params)), strict=True)
    ]
    assert np.array_equal(np.all(same, axis=0), ~fleets.included(one, "vanilla")[:, 0])
    np.testing.assert_array_equal(updates, 2 * fleets.included(one, "vanilla")[:, 0])


def test_a_lane_rests_when_enough_is_forgotten(tmp_path):
    """It is told right of no more than the share, and of more after one update fewer."""
    one = case("class")
    one = one._replace(trainer=one.trainer._replace(workdir=workdirs.Workdir(tmp_path)))
    way, lanes = one.trainer.way(60), fleets._lanes(one, "vanilla", REPEATS)
    data, epoch = one.trainer.data, epochs.make(one.trainer.way(60), one.trainer.devices)
    states = loop.init_lanes(way, lanes)
    params = epoch(states, lanes, data, None, 0, way.per_epoch)[0].params
    request = functools.partial(fleets.forget, one, params, "vanilla", REPEATS, "ascent", 0.05)

    images = data["x"][one.problem.forget]

    def known(params, lane):
        logits = one.scorer.model.apply(fleet.lane(params, lane), images, jax.random.key(0))
        return float((np.argmax(logits, axis=1) == np.asarray(data["y"])[one.problem.forget]).mean())

    (ended,) = request((40,), enough=0.3)
    every = request(tuple(range(1, 41)))
    assert ended.updates.min() > 0 and len(set(ended.updates.tolist())) > 1
    for lane, updates in enumerate(ended.updates):
        assert known(ended.params, lane) <= 0.3 or updates == 40
        for leaf, other in zip(*map(jax.tree.leaves, (ended.params, every[updates - 1].params)), strict=True):
            np.testing.assert_allclose(leaf[lane], other[lane], rtol=1e-4, atol=1e-5)
        before = every[updates - 2].params if updates > 1 else params
        assert known(before, lane) > 0.3


def test_of_fewer_models_alike_klom_and_epsilon_are_larger():
    """Why DP-SGD's rows have a floor of their own."""
    rng = np.random.default_rng(0)
    labels = metrics.Labels(*(np.zeros(60, int) for _ in range(4)), forgotten=np.arange(60) < 30, others=np.ones(60, bool))

    def fleet_of():
        logits = np.stack([rng.normal(size=(5, 40, 60)), np.zeros((5, 40, 60))], axis=-1)
        return metrics.Kept(*logits, features=None, included=None, second=None, failed={})

    one, oracle = fleet_of(), fleet_of()
    many, few = (metrics.distances(one, oracle, labels, most) for most in (None, 12))
    assert few["klom"]["forget"]["estimate"].value > many["klom"]["forget"]["estimate"].high


def test_models_with_logits_that_are_not_finite_are_kept_and_counted(tmp_path):
    logits = {kind: np.zeros((4, 3, 2)) for kind in ("pool", "retain", "validation", "test", "shadows")}
    logits["test"][1, 0, 0], logits["shadows"][3, 2, 1] = np.nan, np.inf
    logits["features"] = np.arange(3)[:, None, None] * np.ones((3, 5, 7))
    file = tmp_path / "logits" / "some.npz"
    metrics.keep(file, logits)
    included = np.arange(4)[:, None] < np.array([1, 2, 3])
    kept = metrics.load(file, included)
    assert kept.failed == {"repeats": 1, "shadows": 1} and len(kept.pool) == 3
    assert kept.features[:, 0, 0].tolist() == [0, 2], "of the first three models without the second"
    assert kept.second.tolist() == [False, False, True] and np.array_equal(kept.included, included[:3])


def test_a_damaged_file_of_logits_is_named_in_one_line(tmp_path):
    file, rng = tmp_path / "logits" / "some.npz", np.random.default_rng(0)
    kinds = ("pool", "retain", "validation", "test", "shadows", "features")
    metrics.keep(file, {kind: rng.normal(size=(4, 30, 5)) for kind in kinds})
    whole, included = file.read_bytes(), np.ones((4, 30), bool)
    half = len(whole) // 2
    damaged = {f"a bit at {at}": whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :] for at in (60, 200, half, half + 99)}
    for data in (*damaged.values(), whole[:-40], whole[:half], b"", b"PK"):
        file.write_bytes(data)
        with pytest.raises(workdirs.WorkdirError, match=r"some\.npz cannot be read") as caught:
            metrics.load(file, included)
        assert "\n" not in str(caught.value) and "remove it and run again" in str(caught.value)
    file.write_bytes(whole)
    assert len(metrics.load(file, included).pool) == 4
    with pytest.raises(workdirs.WorkdirError, match="4 shadows instead of 3"):
        metrics.load(file, included[:3])


def test_fleets_are_told_apart_by_what_they_know():
    """Shadows that keep a margin of 3 on what they were trained on are found; those that forgot are not."""
    rng = np.random.default_rng(0)
    lanes, pool = 40, 60
    included = np.argsort(np.argsort(rng.random((2, lanes // 2, pool)), axis=1), axis=1).reshape(lanes, pool) < lanes // 4
    labels = metrics.Labels(*(np.zeros(pool, int) for _ in range(4)), forgotten=np.arange(pool) < 30, others=None)

    def fleet_of(shift):
        margin = rng.normal(size=(5, lanes, pool))
        margin[0, :, :30] += shift
        margin[4] += shift * included
        logits = np.stack([margin, np.zeros_like(margin)], axis=-1)
        second = np.arange(lanes) >= lanes // 2
        return metrics.Kept(*logits, features=None, included=included, second=second, failed={"repeats": 0, "shadows": 0})

    oracle, floor, knows = fleet_of(0.0), fleet_of(0.0), fleet_of(3.0)
    found, none = (metrics.judged(one, oracle, labels) for one in (knows, floor))
    assert found["ulira"]["estimate"].value > 0.95 and abs(none["ulira"]["estimate"].value - 0.5) < 0.05
    assert found["klom"]["forget"]["estimate"].value > none["klom"]["forget"]["estimate"].high
    assert found["klom"]["retain"]["estimate"].value == pytest.approx(none["klom"]["retain"]["estimate"].value, abs=0.3)
    assert found["epsilon"]["estimate"].value > none["epsilon"]["estimate"].value


TINY = {
    "judge.lanes": 12,
    "judge.private_lanes": 12,
    "judge.memorisation_lanes": 6,
    "judge.tuning.lanes": 2,
    "judge.tuning.learning_rates": (0.01,),
    "judge.tuning.steps": (1, 2),
    "seeds": 2,
    "train.steps": 20,
    "relearn.steps": 3,
    "request.unlearners": ("ascent",),
    "model.options.widths": (16,),
}
SETS = {
    "class": {"setting": "class", "target": 3},
    "tier": {"setting": "memorised", "tier": "high", "fraction": 0.05},
}


def tiny_config(trainings, sets):
    config = configs.get_config("digits")
    config.update_from_flattened_dict({**TINY, "trainings": ("oracle", "heldout_oracle", *trainings)})
    config.judge.sets = ml_collections.ConfigDict(sets)
    return config


@pytest.mark.slow
def test_a_small_judgement_runs_to_the_end_and_is_read_back(tmp_path):
    config = tiny_config(("vanilla", "reweight", "readiness", "dpsgd"), SETS)
    found = run.run(config, str(tmp_path))
    entries = [(row.setting, row.training, row.unlearner) for row in found.rows]
    assert len(entries) == len(set(entries)) == 2 * (2 + 4 * 2)
    for row in found.rows:
        for name in ("tow", "mia", "ulira", "klom", "relearn", "cost", "attacks", "zrf", "cka"):
            assert at(row.extra, (name,)).value is not None or at(row.extra, (name,)).reason
        assert row.extra["klom"].keys() >= set(metrics.KINDS)
        assert len(row.extra["trials"]) == (0 if row.unlearner == "none" else 2)
    floor = next(row for row in found.rows if row.training == "heldout_oracle")
    assert at(floor.extra, ("klom", "forget")).value > 0
    assert set(found.facts["calibration"]["shadows"]) == {*SETS, "pooled"}
    assert "Held-out oracle" in report.present(str(tmp_path), found)
    assert found == run.run(config, str(tmp_path))


# kill -9

CHILD = """
import sys
from tests.experiments.judge.run_test import SETS, run, tiny_config
run.run(tiny_config(("vanilla",), SETS), sys.argv[1], "test")
"""
MOMENTS = (
    "checkpoints/memorisation-0/*",
    "checkpoints/class-plain-0/*",
    "logits/class-vanilla-none*",
    "stages/trials-tier-*",
)


@pytest.mark.slow
def test_a_judgement_killed_with_kill_9_ends_with_the_same_rows(tmp_path):
    kills.check_ends_the_same(CHILD, tmp_path, MOMENTS)


def test_what_a_model_s_requests_cost_over_its_life():
    def cost(training, train_flops, unlearn_flops):
        entry = rows.Entry(
            training, "ascent", {}, {}, [], {"train_flops": train_flops, "unlearn_flops": unlearn_flops}, 0.0
        )
        return rows.cost_of_life(entry, 1000.0)

    ready = cost("readiness", 1400.0, 20.0)
    assert (ready["estimate"].value, ready["preparation_flops"]) == (20.0, 400.0)
    assert ready["amortised_flops"] == {"1": 420.0, "10": 60.0, "100": 24.0}
    assert ready["break_even_requests"] == pytest.approx(400 / 980)
    oracle = cost("oracle", 1000.0, 0.0)
    assert oracle["estimate"].value == oracle["amortised_flops"]["10"] == 1000.0 and oracle["break_even_requests"] == 0.0
    assert cost("dpsgd", 9000.0, 1200.0)["break_even_requests"] == float("inf")

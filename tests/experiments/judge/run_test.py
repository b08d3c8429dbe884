"""The judge: who is a member of which model, who is asked for, what is kept of them, and one small run."""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.comparison.rehearsals import Prepared
from experiments.core import workdirs
from experiments.core.errors import UserError
from experiments.core.forgetting import ToLevel
from experiments.core.machines import fleet
from experiments.judge import fleets, run, tried, tuning
from experiments.judge.fleets import REPEATS, ROLES, SHADOWS
from experiments.scoring import aims
from experiments.training import epochs, loop
from tests.helpers import judgements, tiny
from tests.helpers.judging import LANES, case, config_of
from unlearn import ALGORITHMS
from unlearn.base import UnlearnAlgorithm, UnlearnInfo, UnlearnState

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


def test_training_may_be_told_of_more_than_is_asked_for():
    """The same share for repeats and shadows, P among it; of a class nobody else."""
    of = lambda name, share: judgements.case(  # noqa: E731
        config_of(**{"judge.revocable": share}), name, workdirs.Workdir("nowhere"), tiny.digits()
    )
    told = lambda one, role: fleets._told(one, role).problem.told()  # noqa: E731
    wide, size = of("random", 0.4), len(tiny.digits().train.id)
    assert np.array_equal(told(wide, REPEATS), told(wide, SHADOWS)) and len(told(wide, REPEATS)) == round(0.4 * size)
    assert np.isin(wide.pool, told(wide, REPEATS)).all()
    one = of("class", 0.4)
    assert np.array_equal(told(one, REPEATS), one.problem.forget)
    small = of("random", 0.01)
    assert np.array_equal(told(small, REPEATS), np.sort(small.pool)), "who is asked for is always among them"


def test_no_two_fleets_share_a_model():
    keys = [np.asarray(fleets._lanes(case("class"), "vanilla", role).key) for role in ROLES]
    keys.append(np.asarray(fleets._lanes(case("class"), "heldout_oracle", REPEATS).key))
    every = np.concatenate(keys)
    assert len(np.unique(every, axis=0)) == len(every) == 2 * LANES + 2 + LANES


@every_case
def test_models_that_rehearse_in_one_program_are_told_the_same(name):
    one = case(name)
    groups = fleets.told_alike(one)
    assert sorted(role for roles in groups for role in roles) == sorted(ROLES)
    for roles in groups:
        told = [fleets._told(one, role).problem for role in roles]
        assert all(np.array_equal(other.told(), told[0].told()) for other in told)
        assert all(np.array_equal(other.forget, told[0].forget) for other in told)
    assert len(groups) == {"class": 1, "random": 2}[name]


def test_oracles_that_diverged_are_no_aim(tmp_path):
    one = case("class")
    one = one._replace(trainer=one.trainer._replace(workdir=workdirs.Workdir(tmp_path)))
    one.workdir.stage("aim-class", lambda: [float("nan"), 0.9])
    with pytest.raises(UserError, match="oracles of set 'class' have logits that are not finite"):
        tuning.aim(one, fleets.Fleets({}, {}, {}))


def test_models_are_compared_with_oracles_of_other_keys():
    """Models of one key start alike: at full size the margins of vanilla models and of oracles correlate by .9."""
    keys = lambda way: {key.tobytes() for key in np.asarray(fleets._lanes(case("class"), way, REPEATS).key)}  # noqa: E731
    for way in ("heldout_oracle", "vanilla", "reweight", "readiness", "dpsgd"):
        reference = fleets.reference(way)
        assert reference in fleets.ORACLES and keys(way).isdisjoint(keys(reference))
    assert fleets.reference("oracle") is None and keys("vanilla") == keys("oracle")


@pytest.mark.parametrize("role", [pytest.param(REPEATS, marks=pytest.mark.slow), SHADOWS])
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
    one = one._replace(
        trainer=trainer,
        shared=one.shared._replace(judgement=one.shared.judgement.model_copy(update={"batch_size": 2})),
    )
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
    ((after, updates, *_),) = fleets.forget(one, params, "vanilla", SHADOWS, "ascent", 0.05, (2,))
    same = [
        np.asarray(a == b).reshape(LANES, -1).all(axis=1)
        for a, b in zip(*map(jax.tree.leaves, (after, params)), strict=True)
    ]
    assert np.array_equal(np.all(same, axis=0), ~fleets.included(one, "vanilla")[:, 0])
    np.testing.assert_array_equal(updates, 2 * fleets.included(one, "vanilla")[:, 0])


@pytest.mark.slow
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
    stops = sorted({updates - back for updates in ended.updates.tolist() for back in (0, 1)} - {0})
    every = dict(zip(stops, request(tuple(stops)), strict=True))
    assert ended.updates.min() > 0 and len(set(ended.updates.tolist())) > 1
    for lane, updates in enumerate(ended.updates):
        assert known(ended.params, lane) <= 0.3 or updates == 40
        for leaf, other in zip(*map(jax.tree.leaves, (ended.params, every[updates].params)), strict=True):
            np.testing.assert_allclose(leaf[lane], other[lane], rtol=1e-4, atol=1e-5)
        before = every[updates - 1].params if updates > 1 else params
        assert known(before, lane) > 0.3


@pytest.mark.slow
def test_a_lane_rests_at_its_own_level(tmp_path):
    """As its own answers on other classes have it, within a tenth; the models have seen the data once."""
    one = case("class")
    one = one._replace(trainer=one.trainer._replace(workdir=workdirs.Workdir(tmp_path)))
    way, lanes = one.trainer.way(60), fleets._lanes(one, "vanilla", REPEATS)
    epoch = epochs.make(way, one.trainer.devices)
    params = epoch(loop.init_lanes(way, lanes), lanes, one.trainer.data, None, 0, way.per_epoch)[0].params
    beta = {"options": (("beta", 0.5),)}
    (ended,) = fleets.forget(one, params, "vanilla", REPEATS, "level", 0.3, (40,), **beta)
    pool = run.points_of(one)["pool"]
    aim = aims.to_levels(fleets._ground(one), params, None, pool).aim
    away = np.abs(one.scorer.statistics(ended.params, pool).margin.mean(axis=1) - aim.level)
    rests = ended.updates < 40
    assert rests.any() and ended.updates.min() > 0 and (away[rests] <= aim.tolerance[rests] + 1e-3).all()
    assert (ended.way[rests] == 1).all()
    (halted,) = fleets.forget(one, params, "vanilla", REPEATS, "level", 0.03, (3,), **beta)
    had, left = (one.scorer.statistics(which, pool) for which in (params, halted.params))
    beyond = lambda seen: np.abs(seen.margin.mean(axis=1) - aim.level) - aim.tolerance  # noqa: E731
    led = np.minimum(1 - beyond(left) / beyond(had), 1 - left.correct.mean(axis=1) / had.correct.mean(axis=1))
    assert ((led > 0) & (led < 1)).any()
    np.testing.assert_allclose(halted.way, np.clip(led, 0, 1), atol=1e-3)
    assert not np.isin(fleets._ground(one).retained["id"], one.problem.dataset.train.id[one.pool]).any()


@every_case
def test_proxies_never_see_what_their_role_is_told_of(name, monkeypatch):
    """That is F, and P of shadows' ones, of which each knows a half; they are trained for a quarter."""
    trained, one = {}, case(name)

    def train(case, way, lanes, label, pools=None):
        trained[label] = way, lanes
        return loop.Trained(loop.init_lanes(case.trainer.way(1), lanes).params, 1.0, np.zeros((1, LANES)))

    monkeypatch.setattr(fleets.capacity, "train", train)
    monkeypatch.setattr(fleets.capacity, "statistics", lambda case, params, batch: case.scorer.statistics(params, batch))
    proxies = fleets._proxies(one)
    levels = {role: fleets._levels(one, proxies, role, single=False) for role in ROLES}
    section = one.readiness["readiness"].model_copy(update={"form": "level", "levels": "proxy"})
    asking = one._replace(readiness={"readiness": section})
    for role in ROLES:
        way, lanes = trained[f"{name}-proxy-{role}"]
        told = np.isin(np.arange(len(tiny.digits().train.id)), one.pool if role == SHADOWS else one.problem.forget)
        assert way.steps == 5 and (lanes.member == ~told).all()
        assert levels[role].shape == lanes.member.shape and not levels[role][:, ~told].any() and levels[role][:, told].all()
        of = lambda where: fleets.Fleets({("oracle", role): "oracles"}, {}, {role: where})  # noqa: B023, E731
        prepared = name == "class"  # of random examples the paper's objective is rehearsed, which has no level
        assert fleets.teacher(asking, of("proxies"), "readiness", role) == ("proxies" if prepared else None)
        assert fleets.teacher(asking, of("proxies"), "vanilla", role) is None
        shared = one.shared._replace(request=one.shared.request.model_copy(update={"to_level": ToLevel(levels="oracle")}))
        assert fleets.teacher(asking._replace(shared=shared), of("proxies"), "vanilla", role) == "oracles"
    assert fleets.asks_proxies(asking, "readiness") and not fleets.asks_proxies(one, "readiness")


def test_what_was_rehearsed_is_asked_for_so_and_other_requests_are_tried(monkeypatch):
    """Of trials the one in which most models settled, and of those what keeps most; who has no accuracy keeps nothing."""
    kept = {0.1: (2, 0.7), 0.2: (2, None), 0.3: (1, 0.9), 0.4: (2, 0.8)}
    trials = [
        {"learning_rate": rate, "beta": 0.95, "steps": 80, "reached": reached, "kept": share}
        for rate, (reached, share) in kept.items()
    ]
    monkeypatch.setattr(tuning, "tried_to_level", lambda *_: trials)
    settled_on = functools.partial(tuning.settled_on, case("class"), None)
    assert settled_on("readiness", "level") == (fleets.Setting(0.1, 80, ()), [])
    assert settled_on("vanilla", "level") == (fleets.Setting(0.4, 80, (("beta", 0.95),)), trials)
    assert settled_on("readiness", "npo@level")[1] == trials == settled_on("vanilla", "npo@level")[1]
    assert settled_on("vanilla", "none") == (None, [])
    never = [trial | {"reached": 0, "way": way} for trial, way in zip(trials, (0.6, 0.9, 0.1, 0.5), strict=True)]
    monkeypatch.setattr(tuning, "tried_to_level", lambda *_: never)
    assert settled_on("vanilla", "level")[0].learning_rate == 0.4, "at .3 models kept more, and hardly moved"
    monkeypatch.setattr(tuning, "tried_to_level", lambda *_: trials)
    prepared = types.SimpleNamespace(prepared=Prepared("neggrad_plus", 0.1, {}, "own"))
    monkeypatch.setattr(tuning, "rehearsed", lambda *_: prepared)
    monkeypatch.setattr(tuning, "tried", lambda *_: [{"learning_rate": 0.2, "steps": 5, "gap": 0.0}])
    assert settled_on("readiness", "neggrad_plus@level") == (fleets.Setting(0.1, 80, ()), [])
    assert settled_on("readiness", "neggrad_plus")[0].learning_rate == 0.2, "to an accuracy is not what was rehearsed"


def test_of_texts_the_trial_is_chosen_that_costs_retained_ones_least(monkeypatch):
    """Accuracy on held-out documents, which no model knew, has no say; who diverged has lost everything."""
    lost = {0.1: (2, 3.0, 0.9), 0.2: (2, None, 0.8), 0.3: (1, 0.1, 0.7), 0.4: (2, 1.0, 0.1)}
    trials = [
        {"learning_rate": rate, "beta": 0.5, "steps": 80, "reached": reached, "kept": kept, "retained_loss": loss}
        for rate, (reached, loss, kept) in lost.items()
    ]
    monkeypatch.setattr(tuning, "tried_to_level", lambda *_: trials)
    assert tuning.settled_on(case("class"), None, "vanilla", "level")[0] == fleets.Setting(0.4, 80, (("beta", 0.5),))
    assert [tried._kept(trial) for trial in trials[:2]] == ["3.00", "–"]
    led = [trial | {"way": 0.499} for trial in trials[1:]] + trials[:1]
    row = types.SimpleNamespace(extra={"trials": led, "setting": {"learning_rate": 0.4}, "models": {"tuning": 2}})
    assert list(tried._tried(row)) == ["2: –", "1 (49%): 0.10", "2: 1.00*", "2: 3.00"]

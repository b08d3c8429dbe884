"""Where requests to a level end, by hand, and requests that go there."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.core import keys
from experiments.core.keys import Purpose
from experiments.core.machines import execution
from experiments.scoring import aims, requests
from experiments.scoring.statistics import make_statistics
from unlearn import classifier, levels
from unlearn.until import DIVERGED, REACHED

MODEL = classifier(lambda params, x, key: x + params)  # logits are given, and lanes are shifted
STATISTICS = make_statistics(MODEL, execution.one_device())
LANES = np.array([[0.0, 0.0, 0.0], [0.0, 2.0, 0.0]], np.float32)


def batch(labels, seed=0, first_id=0):
    count = len(labels)
    x = np.random.default_rng(seed).normal(size=(count, 3)).astype(np.float32)
    ids = first_id + np.arange(count, dtype=np.int32)
    return {"x": x, "y": np.array(labels, np.int32), "id": ids, "weight": np.ones(count, np.float32)}


FORGET, RETAINED, HELD_OUT = batch([0, 2, 0, 0], 1), batch([1, 2, 1, 0, 1], 2, 100), batch([0, 1, 2], 3, 200)


def ground(by_class=True, retained=RETAINED):
    return aims.Ground(STATISTICS, by_class, retained, HELD_OUT)


def margins(params, one, labels=None):
    """log p - log(1 - p), [examples], by hand."""
    p = np.exp(one["x"] + params)
    p = (p / p.sum(axis=1, keepdims=True))[np.arange(len(p)), one["y"] if labels is None else labels]
    return np.log(p / (1 - p))


def test_own_levels_of_classes_are_those_of_retained_look_alikes():
    """Of two classes at once, each example its class's, in each lane; nothing of them may be told right."""
    each, known = aims.own(ground(), LANES, FORGET)
    assert each.shape == (2, 4) and known.tolist() == [0, 0]
    for lane, params in enumerate(LANES):
        for column, label in enumerate(FORGET["y"]):
            others = RETAINED["y"] != label
            expected = margins(params, RETAINED, label)[others].mean()
            assert each[lane, column] == pytest.approx(expected, rel=1e-5)
        alike = levels.look_alikes(MODEL, params, FORGET["y"], jax.tree.map(jnp.asarray, RETAINED))
        np.testing.assert_allclose(each[lane], alike, rtol=1e-5)


def test_own_levels_of_random_examples_are_those_of_held_out_ones():
    each, known = aims.own(ground(by_class=False), LANES, FORGET)
    for lane, params in enumerate(LANES):
        np.testing.assert_allclose(each[lane], margins(params, HELD_OUT).mean(), rtol=1e-5, atol=1e-6)
        right = (HELD_OUT["x"] + params).argmax(axis=1) == HELD_OUT["y"]
        assert known[lane] == pytest.approx(right.mean())


def test_a_teacher_tells_the_level_of_a_class_and_of_each_random_example():
    for lane, params in enumerate(LANES):
        mine = margins(params, FORGET)
        by_class, none_known = aims.taught(STATISTICS, True, LANES, FORGET)
        means = {label: mine[FORGET["y"] == label].mean() for label in (0, 2)}
        np.testing.assert_allclose(by_class[lane], [means[label] for label in FORGET["y"]], rtol=1e-5)
        each, known = aims.taught(STATISTICS, False, LANES, FORGET)
        np.testing.assert_allclose(each[lane], mine, rtol=1e-5)
        right = (FORGET["x"] + params).argmax(axis=1) == FORGET["y"]
        assert known[lane] == pytest.approx(right.mean()) and none_known[lane] == 0
        alone, none_known = aims.taught(STATISTICS, True, LANES, FORGET, single=True)
        np.testing.assert_array_equal(alone, each)
        assert none_known[lane] == 0


def test_the_aim_is_the_mean_over_who_is_asked_for():
    """Of the judge's lanes each is asked for examples of its own; one that is asked for none has no level to miss."""
    asked = np.array([[True, True, False, False], [False] * 4])
    end = aims.to_levels(ground(), LANES, LANES, FORGET, asked)
    each, _ = aims.taught(STATISTICS, True, LANES, FORGET)
    np.testing.assert_allclose(end.aim.level, [each[0, :2].mean(), 0.0], rtol=1e-5)
    np.testing.assert_allclose(end.each, each, rtol=1e-6)
    right = [((RETAINED["x"] + params).argmax(axis=1) == RETAINED["y"]).mean() for params in LANES]
    np.testing.assert_allclose(end.aim.retained, right, rtol=1e-6)
    number = aims.to_levels(ground(), LANES, None, FORGET, asked, -7.0)
    assert number.aim.level.tolist() == [-7.0, 0.0] and np.all(number.each == -7.0)
    every = aims.to_levels(ground(), LANES, None, FORGET)
    np.testing.assert_allclose(every.aim.level, aims.own(ground(), LANES, FORGET)[0].mean(axis=1), rtol=1e-5)


def test_one_retained_example_tells_a_level_of_every_other_class():
    """And a class that no retained example has is seen by all of them."""
    one = ground(retained=batch([1], 2))
    each, _ = aims.own(one, LANES[:1], batch([0, 2], 1))
    np.testing.assert_allclose(each[0], [margins(LANES[0], one.retained, label)[0] for label in (0, 2)], rtol=1e-5)


# requests


KNOWN = {**batch([0] * 6, 4), "x": np.tile(np.array([[4.0, 0.0, 0.0]], np.float32), (6, 1))}
STAYS = batch([1, 2] * 8, 5, 50)
STAYS["x"] = 4 * np.eye(3, dtype=np.float32)[STAYS["y"]]


def carried_out(name, lanes, rate, options=(), most=60, repair=0, loops=False):
    end = aims.to_levels(ground(retained=STAYS), lanes, None, KNOWN)
    data = jax.tree.map(jnp.asarray, requests.RequestData(KNOWN, STAYS, STAYS, STAYS))
    setting = requests.Setting(rate, 0.0, most, 0, options, repair)
    run = requests.make_request(MODEL, name, setting, {}, execution.one_device(convolutional=loops))
    return run((jnp.asarray(lanes), keys.raw(range(len(lanes)), Purpose.REQUEST), end), data), end


@pytest.mark.parametrize("name, rate, options", [("level", 0.3, (("beta", 0.5),)), ("graddiff@level", 1.0, ())])
def test_a_request_rests_at_the_level_or_has_diverged_and_costs_no_traceback(name, rate, options):
    """What goes is known by a logit of 4; a lane of NaN diverges at once, whatever the other does."""
    outcome, end = carried_out(name, np.array([[0.0] * 3, [np.nan] * 3], np.float32), rate, options)
    assert outcome.stop[1] == DIVERGED and outcome.steps[1] == 0
    margin = np.asarray(outcome.curve["forget_margin"][0])
    assert margin[0] == pytest.approx(4 - np.log(2), rel=1e-4) and outcome.steps[0] > 1
    away = np.abs(margin[: int(outcome.steps[0]) + 1] - end.aim.level[0])
    assert (away[1:] <= np.maximum(away[:-1], end.aim.tolerance[0]) + 1e-5).all()
    assert outcome.stop[0] == REACHED and away[-1] <= end.aim.tolerance[0] < away[-2]
    assert outcome.curve["forget_accuracy"][0][int(outcome.steps[0])] == 0


def test_an_update_that_overshoots_is_undone_and_counted():
    outcome, _ = carried_out("level", np.zeros((1, 3), np.float32), 30.0, (("beta", 0.0),))
    margin = np.asarray(outcome.curve["forget_margin"][0])
    assert outcome.undone[0] >= 1 and margin[1] == margin[0], "the first one went too far"


@pytest.mark.parametrize(
    "before, after, led",
    [
        (4.0, 4.0, 0.0),  # the level is -5, its tolerance .5: 8.5 nats to go
        (4.0, -2.8, 0.8),  # of which 1.7 are left
        (4.0, -4.6, 1.0),
        (4.0, 6.0, 0.0),  # led away
        (-14.0, -7.2, 0.8),  # from below
        (-5.2, -4.8, 1.0),  # it was there
        (-5.2, 4.0, 0.0),  # and has left
        (4.0, np.nan, np.nan),
        (np.nan, np.nan, np.nan),
    ],
)
def test_the_way_to_a_level_by_hand(before, after, led):
    end = aims.Levels(levels.aim_at(jnp.float32(-5.0), known=0.0, retained=jnp.float32(1.0)), jnp.zeros(0))
    seen = [{"forget_margin": jnp.float32(margin), "forget_accuracy": jnp.float32(0.0)} for margin in (after, before)]
    assert float(aims.way(*seen, end)) == pytest.approx(led, abs=1e-6, nan_ok=True)
    known = [one | {"forget_accuracy": jnp.float32(share)} for one, share in zip(seen, (0.9, 1.0), strict=True)]
    least = min(led, 0.1) if np.isfinite(led) else led
    assert float(aims.way(*known, end)) == pytest.approx(least, abs=1e-6, nan_ok=True), "nine tenths are told right yet"


@pytest.mark.parametrize("before, after, led", [(0.9, 0.9, 0.0), (0.9, 0.3, 0.75), (0.9, 0.0, 1.0), (0.1, 0.1, 1.0)])
def test_the_way_to_an_accuracy_by_hand(before, after, led):
    """It ends at .1 or below."""
    seen = [{"forget_accuracy": jnp.float32(share)} for share in (after, before)]
    assert float(aims.way(*seen, jnp.float32(0.1))) == pytest.approx(led, abs=1e-6)


@pytest.mark.parametrize("loops", [False, True])
def test_a_repair_goes_on_from_where_a_request_settled_and_leaves_it_settled(loops):
    """The request's own rows are those without a repair; a lane that never settled is not repaired."""
    lanes, options = np.array([[0.0] * 3, [np.nan] * 3], np.float32), (("beta", 0.5),)
    plain, _ = carried_out("level", lanes, 0.3, options)
    outcome, end = carried_out("level", lanes, 0.3, options, repair=5, loops=loops)
    settled = int(plain.steps[0])
    assert outcome.steps.tolist() == [settled + 5, 0] and outcome.stop.tolist() == [REACHED, DIVERGED]
    for name, rows in outcome.curve.items():
        assert rows.shape == (2, 66)
        np.testing.assert_allclose(rows[:, : settled + 1], plain.curve[name][:, : settled + 1], rtol=1e-4, atol=1e-6)
        assert np.isfinite(rows[0, : settled + 6]).all() and np.isnan(rows[0, settled + 6 :]).all()
    margin = np.asarray(outcome.curve["forget_margin"][0, settled : settled + 6])
    assert (abs(margin - end.aim.level[0]) <= end.aim.tolerance[0]).all()
    assert len(set(margin.tolist())) == 6, "an update moves nothing"


def test_a_repair_that_would_unsettle_is_undone():
    """At a rate that settled by halves, the first update of a repair is whole again, and goes too far."""
    plain, _ = carried_out("level", np.zeros((1, 3), np.float32), 30.0, (("beta", 0.0),))
    outcome, end = carried_out("level", np.zeros((1, 3), np.float32), 30.0, (("beta", 0.0),), repair=5)
    margin = np.asarray(outcome.curve["forget_margin"][0, : int(outcome.steps[0]) + 1])
    assert outcome.undone[0] > plain.undone[0] and abs(margin[-1] - end.aim.level[0]) <= end.aim.tolerance[0]

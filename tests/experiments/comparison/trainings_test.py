"""What a comparison decides before and after its trainings: who is told wrongly, who is matched, what is tuned on."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.comparison import checks, trainings
from experiments.comparison.rehearsals import rehearsal
from experiments.configs import readiness as configs
from experiments.core import keys
from experiments.core.keys import Purpose
from experiments.scoring import aims
from experiments.training import fleets, loop
from tests.helpers import comparisons, tiny


def set_up(name, **overrides):
    config = configs.get_config(name)
    config.update_from_flattened_dict(overrides)
    return comparisons.parts(checks.resolved(config))


@pytest.mark.parametrize(
    ("losses", "marked"),
    [
        ({"a": 0.15, "b": 0.3}, "a"),
        ({"a": 0.01, "b": 0.06}, "b"),
        ({"a": 0.04, "b": 0.3}, None),  # both more than twice, or less than half, of readiness's
        ({"a": float("nan"), "b": 0.09}, "b"),
        ({"a": float("nan"), "b": float("inf")}, None),
        ({}, None),
    ],
)
def test_the_nearest_reweighting_is_matched_if_it_is_near(losses, marked):
    fleet = lambda training, variant, loss: trainings.Fleet(  # noqa: E731
        training, variant, types.SimpleNamespace(params=loss), 2, {}, {}
    )
    plain = [fleet("vanilla", "default", 0.1), *(fleet("reweight", name, loss) for name, loss in losses.items())]
    measure = lambda params, batch: (None, np.full((2, 3), params))  # noqa: E731
    scorer = types.SimpleNamespace(measure=measure, sets=types.SimpleNamespace(forget=None))
    found = trainings._mark_matched(scorer, plain, fleet("readiness", "default", 0.1))
    assert [one.variant for one in found if one.facts.get("matched")] == ([marked] if marked else [])


def test_new_data_to_tune_on_select_nothing():
    whole, halved = (set_up(name).problem.sets for name in ("digits", "digits_tuned"))
    batches = whole.validation, halved.validation, halved.fresh
    every, kept, tuned = (set(batch["id"].tolist()) for batch in batches)
    assert not kept & tuned and kept | tuned == every and abs(len(kept) - len(tuned)) <= 1
    assert set(halved.validation_retain["id"].tolist()) < kept
    assert not len(whole.fresh["id"])


def test_what_training_is_told_does_not_depend_on_the_first_seed():
    """Else lane i would not be the single run with its seed."""
    noisy = [set_up("digits", **{"seed": seed, "readiness.noise": 0.25}) for seed in (0, 7)]
    told = [parts.plan.told for parts in noisy]
    np.testing.assert_array_equal(*told)
    assert len(set(told[0]) - set(noisy[0].problem.forget)) == round(0.25 * len(told[0]))
    groups = [set_up("digits_split", **{"seed": seed, "readiness.requests": "groups"}) for seed in (0, 7)]
    np.testing.assert_array_equal(*(parts.plan.rehearsals[0].pools.forget for parts in groups))
    again = set_up("digits", **{"forget.seed": 1, "readiness.noise": 0.25})
    assert set(again.plan.told) != set(told[0])


# Proxies of the oracle


@pytest.fixture
def proxied(monkeypatch):
    """The parts of a comparison whose variant asks proxies, and the lanes of every fleet; none is trained.

    Who trained as a proxy has its first parameters; training costs 100 FLOPs, a proxy's 7.
    """
    asked = {}

    def fleet(trainer, way, lanes, name, pools=None):
        asked[name] = way, lanes
        return loop.Trained(loop.init_lanes(trainer.way(1), lanes).params, 1.0, np.zeros((1, 2)))

    price = {"step_flops": 1.0, "meta_step_flops": 2.0, "peak_bytes": 8}
    monkeypatch.setattr(fleets.Trainer, "fleet", fleet)
    monkeypatch.setattr(fleets.Trainer, "cost", lambda *_: {**price, "train_flops": 7.0})
    monkeypatch.setattr(fleets.Trainer, "rehearsing_cost", lambda *_: {**price, "train_flops": 100.0})
    parts = set_up("digits", seeds=2, seed=4, **{"train.steps": 21, "model.options.widths": (8,)})
    section = parts.requests.section
    config = checks.resolved(configs.get_config("digits"))
    resist = config.model_copy(update={"variants": {"resist": configs.RESIST}}).variant("resist").readiness
    rehearsals = [
        rehearsal(name, one, parts.trainer, parts.problem)
        for name, one in (("default", config.readiness), ("resist", resist))
    ]
    return parts._replace(plan=parts.plan._replace(rehearsals=rehearsals)), asked, section


def test_proxies_never_see_whom_training_is_told_of_and_are_trained_for_a_quarter(proxied):
    parts, asked, _ = proxied
    assert parts.plan.wants_proxies and not parts.plan._replace(rehearsals=parts.plan.rehearsals[:1]).wants_proxies
    assert parts.plan._replace(rehearsals=[], proxies=True).wants_proxies
    trainings.train_proxies(parts.trainer, parts.scorer, parts.problem, parts.plan)
    way, lanes = asked["proxy"]
    told = np.isin(np.arange(lanes.member.shape[1]), parts.plan.told)
    assert way.steps == 5 and way.rehearsing is None and lanes.level is None
    np.testing.assert_array_equal(lanes.member, [~told] * 2)
    np.testing.assert_array_equal(lanes.key, keys.raw(parts.plan.seeds, Purpose.PROXY))
    plain = trainings.plain_ways(parts.plan, parts.problem)
    assert not any(np.array_equal(lanes.key, other.key) for other in plain.values())


def test_levels_of_proxies_are_fixed_before_the_training_that_aims_at_them_and_part_of_its_cost(proxied):
    """Those of what training is told of, a class each its mean; the default variant's are the model's own."""
    parts, asked, _ = proxied
    proxies = trainings.train_proxies(parts.trainer, parts.scorer, parts.problem, parts.plan)
    lanes = trainings.plain_ways(parts.plan, parts.problem)["vanilla", "default"]
    rehearse = lambda one: trainings.train_readiness(parts.trainer, one, lanes, 1.0, proxies)  # noqa: E731
    default, resist = map(rehearse, parts.plan.rehearsals)
    levels = np.asarray(asked["readiness-resist"][1].level)
    told, train = parts.plan.told, parts.problem.dataset.train
    batch = {name: getattr(train, name)[told] for name in ("x", "y", "id")}
    each, _ = aims.taught(parts.scorer.statistics, True, proxies.params, batch)
    np.testing.assert_allclose(levels[:, told], each, rtol=1e-6)
    assert len(set(levels[0, told])) == 1 and not np.delete(levels, told, axis=1).any()
    assert asked["readiness-default"][1].level is None
    assert (default.cost["train_flops"], resist.cost["train_flops"]) == (100.0, 107.0)
    assert [one.prepared.levels for one in (default, resist)] == ["own", "proxy"]
    assert resist.prepared.learning_rate == 0.1 and not resist.prepared.options


def test_a_rehearsal_has_the_levels_of_the_lane():
    """Of each example its own, in what is stepped on and where the end is measured."""
    way, lanes = tiny.way("readiness"), tiny.lanes([3])
    lane = jax.tree.map(lambda leaf: leaf[0], lanes)._replace(level=jnp.arange(tiny.EXAMPLES, dtype=jnp.float32))
    drawn = loop.draw(way, lane, tiny.data(), tiny.pools(), jnp.arange(6), jnp.asarray(1), True)
    for batch in (drawn.meta.requests.forget, drawn.meta.forget):
        np.testing.assert_array_equal(5 * batch["level"] + 2, batch["id"])
    without = loop.draw(way, lane._replace(level=None), tiny.data(), tiny.pools(), jnp.arange(6), jnp.asarray(1), True)
    assert "level" not in without.meta.forget and np.array_equal(without.meta.forget["id"], drawn.meta.forget["id"])

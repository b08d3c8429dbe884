"""What a comparison decides before and after its trainings: who is told wrongly, who is matched, what is tuned on."""

import types

import numpy as np
import pytest

from experiments.comparison import checks, trainings
from experiments.configs import readiness as configs
from tests.helpers import comparisons


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

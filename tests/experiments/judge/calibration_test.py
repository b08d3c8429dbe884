"""The judge's own fairness, on fleets that are alike and on others; and how far examples are memorised."""

import numpy as np
import pytest

from experiments.core.errors import UserError
from experiments.judge import calibration, memorisation
from experiments.judge.ulira import told
from tests.helpers import fleets


def group(seed, shift=0.0, lanes=40, pool=60):
    """Held-out oracles and oracles whose margins on the pool are normal, the first shifted."""
    rng = np.random.default_rng(seed)
    included = np.argsort(np.argsort(rng.random((2, lanes // 2, pool)), axis=1), axis=1).reshape(lanes, pool) < lanes // 4
    held_out, oracle = (fleets.kept(rng.normal(size=(5, lanes, pool)) + by, included) for by in (shift, 0.0))
    return calibration.Group(held_out, oracle, fleets.first(pool, 30))


def verdict(found):
    return told(found.low, found.high)


def test_fleets_that_are_alike_pass_and_fleets_that_are_not_fail():
    alike, apart = ({f"set {seed}": group(seed, shift) for seed in range(6)} for shift in (0.0, 1.0))
    same, other = calibration.calibrated(alike), calibration.calibrated(apart)
    for attack in ("shadows", "fleets"):
        assert set(same[attack]) == {*alike, "pooled"} and verdict(same[attack]["pooled"]) == "no"
        assert same[attack]["pooled"].value == pytest.approx(np.mean([same[attack][name].value for name in alike]))
    pooled = other["fleets"]["pooled"]
    assert verdict(pooled) == "yes" and pooled.low > 0.6
    assert verdict(other["shadows"]["pooled"]) == "no", "members and others are of one fleet"


def test_too_few_models_have_no_verdict_but_a_reason():
    found = calibration.calibrated({"a": group(0, lanes=8)})
    for one in found.values():
        assert one["pooled"].value is None and "at least 10" in one["pooled"].reason


# memorisation


def test_memorisation_is_confidence_with_less_confidence_without():
    """Two classes: confidence .5 at margin 0, .9 at margin log 9. The third model failed."""
    member = np.array([[True, False], [False, True], [True, True]])
    margin = np.where(member, np.log(9), 0.0)
    losses = fleets.of_margins(margin).loss
    losses[2, 0] = np.nan
    np.testing.assert_allclose(memorisation.estimate(losses, member), [0.4, 0.4])
    with pytest.raises(UserError, match="1 of 2 models are finite"):
        memorisation.estimate(losses[1:], member[1:])

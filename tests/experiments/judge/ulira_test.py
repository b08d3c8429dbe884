"""U-LiRA in halves of a fleet: who holds what, what is found and with what certainty, and what is not there."""

import numpy as np
import pytest

from experiments.judge import ulira

POOL = 60


def fleet(shift, models=40, examples=POOL, seed=0):
    """Normal margins, `shift` higher in models that hold an example, and twice that for the second half of examples."""
    included = ulira.memberships(np.arange(examples), models, seed, "shadow")
    hard = np.arange(examples) >= examples // 2
    return np.random.default_rng(seed).normal(size=(models, examples)) + shift * included * (1 + hard), included


def attacked(margins, included, **groups):
    return ulira.attacked(margins, included, ulira.second_half(len(margins)), groups)


def test_every_example_is_in_half_of_the_models_whatever_the_others_are():
    ids = np.array([4, 9, 23, 57])
    member = ulira.halved(ids, range(10), 3, "memorisation")
    assert member.shape == (10, 4) and (member.sum(axis=0) == 5).all()
    np.testing.assert_array_equal(ulira.halved(ids[[2, 0]], range(10), 3, "memorisation"), member[:, [2, 0]])
    assert (ulira.halved(ids, range(10), 3, "shadow") != member).any()


def test_every_example_is_in_half_of_either_half():
    included = ulira.memberships(np.arange(9), 16, 3, "shadow")
    assert (included[:8].sum(axis=0) == 4).all() and (included[8:].sum(axis=0) == 4).all()
    np.testing.assert_array_equal(included[:8], ulira.halved(np.arange(9), range(8), 3, "shadow"))
    redrawn = ulira.nobodys(np.arange(9), 16, 3, "shadow")
    assert len(np.unique([included, *redrawn], axis=0)) == 1 + ulira.REDRAWN


def test_what_is_there_is_found_and_more_of_it_where_there_is_more():
    margins, included = fleet(1.0)
    easy = np.arange(POOL) < POOL // 2
    found = attacked(margins, included, easy=easy, hard=~easy)
    assert found["estimate"].value > 0.8 and found["estimate90"].low > 0.6
    assert found["groups"]["hard"].value > found["groups"]["easy"].value + 0.1
    assert found["tpr_at_1%"].value > 0.1 and found["balanced_accuracy"].value > 0.7
    assert found["examples"][~easy].mean() > found["examples"][easy].mean() > 0.6
    wide, narrow = found["estimate"], found["estimate90"]
    assert wide.low < narrow.low < wide.value < narrow.high < wide.high
    assert found["groups"]["easy"].value == pytest.approx(
        attacked(margins[:, easy], included[:, easy])["estimate"].value, abs=0.02
    ), "but for variances that are pooled over all"


def test_where_nothing_is_nothing_is_found():
    """Also by memberships that are nobody's, whatever the models hold."""
    margins, included = fleet(0.0, models=120, examples=120)
    found = attacked(margins, included)["estimate90"]
    low, high = found.low, found.high
    assert 0.47 < low < 0.5 < high < 0.53
    second = ulira.second_half(40)
    redrawn = ulira.nobodys(np.arange(POOL), 40, 0, "shadow")
    for shift in (0.0, 1.0):
        blind = ulira.blind(fleet(shift)[0], redrawn, second)
        assert blind["estimate"].value == pytest.approx(0.5, abs=0.01)
        wide, narrow = blind["estimate"], blind["estimate90"]
        assert wide.low <= narrow.low < 0.5 < narrow.high <= wide.high


def test_a_rate_finer_than_one_pair_in_all_has_no_value():
    margins, included = fleet(1.0, models=20, examples=8)  # 80 pairs without the example
    assert attacked(*fleet(1.0, models=20, examples=12))["tpr_at_1%"].value > 0  # of 120, whichever are left out
    found = attacked(margins, included)
    assert found["tpr_at_1%"].value is None and found["tpr_at_0.1%"].value is None and found["estimate"].value > 0.5


def test_too_few_models_are_refused():
    with pytest.raises(ValueError, match="at least 10 of each kind, got 8"):
        attacked(*fleet(1.0, models=8))


def test_a_curve_by_hand():
    """Of four outsiders 0, 1, 2, 3 the largest is exceeded by one of two insiders, and the smallest by both."""
    curve = ulira.roc(np.array([0.0, 1.0, 2.0, 3.0, 2.5, 3.5]), np.arange(6) >= 4)
    assert curve["fpr"][0] == pytest.approx(1e-3) and curve["fpr"][-1] == 1 and curve["tpr"][-1] == 1
    assert (curve["tpr"][curve["fpr"] < 0.25] == 0.5).all()
    assert (curve["tpr"][(curve["fpr"] > 0.25) & (curve["fpr"] < 0.5)] == 1).all()


@pytest.mark.parametrize(
    "low, high, verdict",
    [
        (0.47, 0.53, "no"),
        (0.469, 0.52, "open"),
        (0.48, 0.531, "open"),
        (0.4, 0.6, "open"),
        (0.531, 0.6, "yes"),
        (0.3, 0.46, "yes"),
        (None, None, "open"),
    ],
)
def test_what_an_attack_tells(low, high, verdict):
    assert ulira.told(low, high) == verdict


def test_a_group_without_an_example_is_named():
    with pytest.raises(ValueError, match="group 'nobody' has no example"):
        attacked(*fleet(1.0), nobody=np.zeros(POOL, bool))

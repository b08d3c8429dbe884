"""The judge's own fairness, by counting pairs by hand; and how far examples are memorised."""

import numpy as np
import pytest

from experiments import judge_calibration, judge_metrics, memorisation
from experiments.errors import UserError
from unlearn.metrics import rates


def test_an_auc_counts_pairs_between_models():
    """Members score 2 and 3, non-members 1 and 2: of four pairs three are told right and one is a tie."""
    scores, members = np.array([[2.0, 1.0], [3.0, 2.0]]), np.array([[True, False], [True, False]])
    found = judge_calibration.pairs(scores, members)
    assert found.above.tolist() == [[1, 0.5], [1, 1]] and found.count.tolist() == [[1, 1], [1, 1]]
    assert found.auc(np.ones(2)) == 3.5 / 4 and found.auc(np.array([2.0, 0.0])) == 1
    assert found.auc(np.array([1.0, 2.0])) == (1 + 2 * 0.5 + 2 * 1 + 4 * 1) / 9


def test_it_is_the_auc_of_the_metrics():
    rng = np.random.default_rng(0)
    scores, members = np.round(rng.normal(size=(12, 30)), 1), rng.random((12, 30)) < 0.4
    expected = rates.rates(scores, members, fprs=()).auc
    assert judge_calibration.pairs(scores, members).auc(np.ones(12)) == pytest.approx(expected, rel=1e-12)


def fleets(seed, shift=0.0, lanes=40, pool=60):
    """Held-out oracles and oracles whose margins on the pool are normal, the first shifted."""
    rng = np.random.default_rng(seed)
    included = np.argsort(np.argsort(rng.random((2, lanes // 2, pool)), axis=1), axis=1).reshape(lanes, pool) < lanes // 4
    labels = judge_metrics.Labels(*(np.zeros(pool, int) for _ in range(4)), forgotten=np.arange(pool) < 30)

    def kept(by):
        margin = rng.normal(size=(5, lanes, pool)) + by
        logits = np.stack([margin, np.zeros_like(margin)], axis=-1)
        second = np.arange(lanes) >= lanes // 2
        return judge_metrics.Kept(*logits, included=included, second=second, failed={"repeats": 0, "shadows": 0})

    return kept(shift), kept(0.0), labels


def test_fleets_that_are_alike_pass_and_fleets_that_are_not_fail():
    alike, apart = ({f"set {seed}": fleets(seed, shift) for seed in range(6)} for shift in (0.0, 1.0))
    shadows = judge_calibration.pooled({k: judge_calibration.by_shadows(v[0], v[2]) for k, v in alike.items()}, seed=0)
    assert set(shadows) == {*alike, "pooled"} and judge_calibration.inside(shadows["pooled"])
    assert shadows["pooled"]["value"] == pytest.approx(np.mean([shadows[name]["value"] for name in alike]))
    same, other = (
        judge_calibration.pooled({k: judge_calibration.by_fleets(*v) for k, v in groups.items()}, seed=0)["pooled"]
        for groups in (alike, apart)
    )
    assert judge_calibration.inside(same) and not judge_calibration.inside(other) and other["interval"][0] > 0.6


def test_the_interval_of_a_group_holds_the_true_auc_as_often_as_it_says():
    """30 fleets of independent scores: a 90% interval misses .5 at most 8 times but for one chance in 200."""
    rng, missed = np.random.default_rng(5), 0
    for _ in range(30):
        scores, members = rng.normal(size=(24, 20)) + rng.normal(size=(24, 1)), rng.random((24, 20)) < 0.5
        low, high = judge_calibration.pooled({"a": judge_calibration.pairs(scores, members)}, seed=1)["a"]["interval"]
        missed += not low <= 0.5 <= high
    assert missed <= 8


def test_a_group_of_copies_or_none_has_no_verdict():
    assert not judge_calibration.inside(judge_calibration.pooled({}, seed=0)["pooled"])


# memorisation


def test_memorisation_is_confidence_with_less_confidence_without():
    """Two classes: confidence .5 at margin 0, .9 at margin log 9. The third model failed."""
    member = np.array([[True, False], [False, True], [True, True]])
    margin = np.where(member, np.log(9), 0.0)
    logits = np.stack([margin, np.zeros_like(margin)], axis=-1)
    logits[2, 0, 0] = np.nan
    np.testing.assert_allclose(memorisation.estimate(logits, np.zeros(2, int), member), [0.4, 0.4])
    with pytest.raises(UserError, match="1 of 2 models are finite"):
        memorisation.estimate(logits[1:], np.zeros(2, int), member[1:])


def test_every_example_is_in_half_of_the_models_whatever_the_others_are():
    ids = np.array([4, 9, 23, 57])
    member = memorisation.halved(ids, range(10), 3, "memorisation")
    assert member.shape == (10, 4) and (member.sum(axis=0) == 5).all()
    np.testing.assert_array_equal(memorisation.halved(ids[[2, 0]], range(10), 3, "memorisation"), member[:, [2, 0]])
    assert (memorisation.halved(ids, range(10), 3, "shadow") != member).any()

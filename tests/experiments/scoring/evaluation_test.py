"""Who is scored, and what the scores are made of."""

import numpy as np
import pytest

from experiments.core import forgetting
from experiments.core.machines import execution
from experiments.data import datasets, problem
from experiments.scoring import evaluation, requests
from experiments.scoring.statistics import make_statistics
from unlearn import classifier
from unlearn.metrics.membership import loss_attack


def certain(probabilities, first_id=0):
    """Examples of label 0 that a model which returns its input gives these probabilities: right above a half."""
    p = np.asarray(probabilities)
    return {
        "x": np.log(np.stack([p, 1 - p], axis=-1)).astype(np.float32),
        "y": np.zeros(len(p), int),
        "id": first_id + np.arange(len(p)),
    }


READ_OFF = make_statistics(classifier(lambda params, x, key: x + params), execution.one_device())
FORGET = certain([0.9, 0.8, 0.7, 0.6, 0.4])
RETAIN = certain([0.99] * 8)  # every one likelier than any forget example
HELD_OUT = certain([0.95] * 3 + [0.05] * 5)
OTHERS = certain([0.85, 0.3, 0.3, 0.3, 0.2], first_id=8)
TEST = {name: np.concatenate([OTHERS[name], HELD_OUT[name]]) for name in HELD_OUT}


@pytest.fixture(scope="module")
def scores():
    sets = evaluation.Sets(*[HELD_OUT] * len(evaluation.Sets._fields))
    sets = sets._replace(forget=FORGET, retain=RETAIN, test=TEST, others=OTHERS)
    return evaluation.score(READ_OFF, np.zeros((1, 1), np.float32), sets)[0]


def test_confidence_and_losses_are_those_of_their_own_sets(scores):
    assert scores["forget_confidence"] == pytest.approx((0.9 + 0.8 + 0.7 + 0.6 + 0.4) / 5)
    assert scores["forget_loss"] == pytest.approx(-np.log(0.9 * 0.8 * 0.7 * 0.6 * 0.4) / 5)
    assert scores["retain_loss"] == pytest.approx(-np.log(0.99))
    found = [scores[f"{name}_accuracy"] for name in ("forget", "retain", "test", "test_retain", "others")]
    assert found == pytest.approx([4 / 5, 1, 4 / 13, 3 / 8, 1 / 5])


def test_membership_sets_the_forget_examples_against_those_never_trained_on(scores):
    """Pairs in which the forget example is the likelier one: 5, 4, 4, 4, 4 of 25. Against retain data there is none."""
    assert scores["mia_auc"] == pytest.approx(21 / 25)
    expected = loss_attack(-FORGET["x"][:, 0], -OTHERS["x"][:, 0]).balanced_accuracy
    assert scores["mia_balanced_accuracy"] == pytest.approx(expected)


def dataset():
    """Four classes in turn, in training (ids 0-11), validation (20-27) and test (30-37)."""
    splits = (np.arange(low, low + size, dtype=np.int32) for low, size in ((0, 12), (20, 8), (30, 8)))
    return datasets.Dataset("toys", *(datasets.Split(ids[:, None].astype(np.float32), ids % 4, ids) for ids in splits), 4)


@pytest.mark.parametrize("setting", ["class", "random"])
def test_others_are_like_the_forget_set_and_were_never_trained_on(setting):
    toys = dataset()
    asked = datasets.batch(toys.train, np.array([3, 7, 11]))  # class 3
    sets = problem.make_sets(toys, asked, [3] if setting == "class" else [])
    ids = {name: getattr(sets, name)["id"].tolist() for name in evaluation.Sets._fields}
    assert ids["forget"] == [3, 7, 11] and ids["retain"] == [0, 1, 2, 4, 5, 6, 8, 9, 10]
    assert ids["test"] == toys.test.id.tolist() and ids["validation"] == toys.validation.id.tolist()
    assert ids["others"] == ([31, 35] if setting == "class" else ids["test"])
    assert ids["test_retain"] == ([30, 32, 33, 34, 36, 37] if setting == "class" else ids["test"])
    assert ids["validation_retain"] == ([20, 21, 22, 24, 25, 26] if setting == "class" else ids["validation"])


def test_scores_are_of_a_sample_where_there_are_many():
    toys = dataset()
    sets = problem.make_sets(toys, datasets.batch(toys.train, np.array([3, 7, 11])), [3], score_examples=2)
    assert [len(batch["id"]) for batch in (sets.forget, sets.retain)] == [2, 2]
    assert set(sets.forget["id"]) < {3, 7, 11} and not set(sets.retain["id"]) & {3, 7, 11}


@pytest.mark.filterwarnings("error")
def test_a_lane_that_diverged_is_nan_without_a_warning_and_spoils_no_other():
    params = np.array([[[0.0, 0.0]], [[np.inf, 0.0]]], np.float32)
    right, losses = evaluation.measure(READ_OFF, params, certain([0.8, 0.3]))
    np.testing.assert_array_equal(right, [[1, 0], [np.nan, np.nan]])
    np.testing.assert_allclose(losses, [-np.log([0.8, 0.3]), [np.nan, np.nan]], rtol=1e-6)


def test_several_classes_leave_together():
    toys, forget = dataset(), forgetting.Forget(target=3, also=(1,))
    made = problem.make(toys, forget)
    assert made.asked["y"].tolist() == [1, 3] * 3 and made.revocable.tolist() == made.asked["id"].tolist()
    assert not np.isin(np.concatenate([made.sets.retain["y"], made.sets.test_retain["y"]]), (1, 3)).any()
    assert set(made.sets.others["y"]) == {1, 3} and len(made.sets.others["id"]) == 4
    one_each = requests.parts(made.asked["id"], 2, 0.0, 0, made.labels)
    assert [made.asked["y"][part].tolist() for part in one_each] == [[1] * 3, [3] * 3]
    by_id = requests.parts(made.asked["id"], 3, 0.0, 0, made.labels)  # not as many as classes
    assert np.sum(by_id, axis=0).tolist() == [1] * 6

"""The rows of a comparison: what is put beside the oracle, and what one lane took."""

import types

import numpy as np
import pytest

from experiments.comparison import rows as comparison_rows
from experiments.comparison.rehearsals import Prepared
from experiments.comparison.trainings import Fleet
from experiments.core import forgetting, workdirs
from experiments.scoring import documents, serving
from unlearn.until import BUDGET, REACHED

# Accuracy on forget, retain and test data, and the attack's AUC, of the first lane; the second's are half of them.
MODELS = {
    "oracle": (0.2, 1.0, 0.8, 0.55),
    "vanilla": (1.0, 0.98, 0.82, 0.7),  # as trained
    "unlearned": (0.1, 0.8, 0.4, 0.45),
}


@pytest.fixture
def judged(tmp_path, monkeypatch):
    """`judged(is_text)`: rows of an oracle and of vanilla, whose request takes 3 and 5 steps of 7 FLOPs on the lanes."""
    params = {name: {"w": np.full((2, 1), i)} for i, name in enumerate(MODELS)}
    names = ("forget_accuracy", "retain_accuracy", "test_accuracy", "mia_auc")

    def score(found):
        values = MODELS[list(MODELS)[found["w"][0, 0]]]
        return [dict(zip(names, np.array(values) / lane, strict=True)) for lane in (1, 2)]

    served = serving.Served(params["unlearned"], np.array([3, 5]), np.array([REACHED, BUDGET]), {"seen": np.ones((2, 4))})
    for name, fake in {
        "carry_out": lambda *_: (served, 9.0),
        "update_flops": lambda *_: 7.0,
        "choose": lambda requests, *_: {"ascent": requests.setting("ascent", 0.1)},
    }.items():
        monkeypatch.setattr(serving.Requests, name, fake)
    monkeypatch.setattr(comparison_rows, "relearn", lambda *_: {})
    few = {"id": np.arange(3)}

    def judge(is_text):
        dataset = types.SimpleNamespace(name="texts" if is_text else "digits", is_text=is_text, corpus=None)
        problem = types.SimpleNamespace(
            dataset=dataset, setting="class", sets=types.SimpleNamespace(forget=few, retain=few)
        )
        scorer = types.SimpleNamespace(score=score, diagnose=lambda *_: {})
        (tmp_path / dataset.name).mkdir()
        section, folder = forgetting.Request(unlearners=("ascent",)), workdirs.Workdir(tmp_path / dataset.name)
        requests = serving.Requests(scorer, problem, section, range(4, 6), 64, folder)
        cost = {"step_flops": 1.0, "meta_step_flops": 0.0, "train_flops": 90.0, "peak_bytes": 8}
        trained = {name: types.SimpleNamespace(seconds=1.5, params=params[name]) for name in ("oracle", "vanilla")}
        fleets = [Fleet(name, "default", trained[name], 4, cost, {}) for name in trained]
        return comparison_rows.judge(requests, forgetting.Relearn(), fleets)

    return judge


@pytest.fixture
def rows(judged):
    return judged(False)


def test_rows_of_text_have_scores_of_documents_beside_the_oracle_of_their_seed(judged, rows, monkeypatch):
    """The oracle's losses are 6, 1 and 7 on one lane; vanilla's forgotten ones 1 before and 4 after the request."""

    def score(scorer, dataset, params):
        which = params["w"][0, 0]
        losses = {"forget": (6.0, 1.0, 4.0)[which], "retain": (1.0, 1.0, 1.6)[which], "test": 7.0}
        lane = {f"{name}_token_loss": loss for name, loss in losses.items()} | {documents.UNSEEN: (0.5, 0.0, 0.4)[which]}
        return [lane, {name: value / 2 for name, value in lane.items()}]

    monkeypatch.setattr(documents, "score", score)
    texts = judged(True)
    for text, row in zip(texts, rows, strict=True):
        assert text.before.items() > row.before.items() and text.extra.keys() - row.extra.keys() == {"distance"}
        assert not {name for name in row.before if "token" in name}
    oracle, vanilla = texts[0], texts[2]
    assert oracle.after["privleak"] == 0 and set(oracle.extra["distance"].values()) == {0}
    assert [scores["privleak"] for scores in (vanilla.before, vanilla.after)] == pytest.approx([-100, -20])
    assert vanilla.extra["distance"] == pytest.approx({"forget": -2, "retain": 0.6, "test": 0, "mean": 2.6 / 3})
    assert texts[3].extra["distance"]["forget"] == -1, "of the oracle of its own seed"


def test_what_is_left_is_measured_against_the_oracle_of_the_same_seed(rows):
    """After the request: distances of .1, .2 and .4, and half of them on the second lane."""
    oracle, vanilla = rows[:2], rows[2:]
    assert [row.extra["tow"] for row in oracle] == [1, 1] and [row.extra["average_gap"] for row in oracle] == [0, 0]
    assert [row.extra["tow"] for row in vanilla] == pytest.approx([0.9 * 0.8 * 0.6, 0.95 * 0.9 * 0.8])
    assert [row.extra["average_gap"] for row in vanilla] == pytest.approx([0.7 / 3, 0.35 / 3])
    assert [row.extra["oracle_mia_auc"] for row in vanilla] == pytest.approx([0.55, 0.275])


def test_a_row_holds_what_one_lane_took(rows):
    told = [
        [getattr(row, name) for name in ("training", "unlearner", "seed", "steps", "stop", "unlearn_flops")] for row in rows
    ]
    assert told == [
        ["oracle", "none", 4, 0, "reached", 0],
        ["oracle", "none", 5, 0, "reached", 0],
        ["vanilla", "ascent", 4, 3, "reached", 21],
        ["vanilla", "ascent", 5, 5, "budget", 35],
    ]
    for row in rows:
        states = (row.training, "oracle" if row.training == "oracle" else "unlearned")
        share = row.seed - 3  # 1 and 2
        for state, scores in zip(states, (row.before, row.after), strict=True):
            assert list(scores.values()) == pytest.approx([value / share for value in MODELS[state]])


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """`asked(name, prepared)` is how a way's request is carried out, where trials would choose a rate of 0.7."""
    section = forgetting.Request(unlearners=("ascent", "level", "npo@level"))
    requests = serving.Requests(None, None, section, range(2), 64, workdirs.Workdir(tmp_path))
    trials = []

    def choose_to_level(requests, way, trained, teachers, name, levels):
        trials.append((way, trained, name, levels))
        return requests.setting(name, 0.7)

    monkeypatch.setattr(serving.Requests, "choose_to_level", choose_to_level)

    def run(name, prepared=None):
        one = Fleet("readiness", "x", types.SimpleNamespace(params="x's"), 2, {}, {}, prepared)
        chosen = requests.setting(name, 0.3) if name == "ascent" else None
        return comparison_rows._asked(requests, one, serving.Teachers("oracle"), name, chosen), trials

    return run


def test_what_was_rehearsed_is_carried_out_so_without_a_trial(asked):
    prepared = Prepared("level", 0.1, {"beta": 0.25, "each": 1.0}, "proxy")
    (setting, levels), trials = asked("level", prepared)
    assert (setting.learning_rate, setting.options, levels) == (0.1, (("beta", 0.25), ("each", 1.0)), "proxy")
    assert setting.max_steps == forgetting.ToLevel().max_steps and not trials


@pytest.mark.parametrize("name, prepared", [("level", None), ("npo@level", Prepared("level", 0.1, {}, "own"))])
def test_what_was_not_rehearsed_is_chosen_for_each_way_by_trials_of_its_own(asked, name, prepared):
    (setting, levels), trials = asked(name, prepared)
    own = prepared and "own"
    assert setting.learning_rate == 0.7 and levels == own and trials == [("readiness-x", "x's", name, own)]


def test_a_request_to_an_accuracy_is_as_was_chosen_for_vanilla(asked):
    (setting, levels), trials = asked("ascent", Prepared("level", 0.1, {}, "own"))
    assert (setting.learning_rate, setting.options, levels) == (0.3, (), None) and not trials

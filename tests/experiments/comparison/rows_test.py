"""The rows of a comparison: what is put beside the oracle, and what one lane took."""

import types

import numpy as np
import pytest

from experiments.comparison import rows as comparison_rows
from experiments.comparison.trainings import Fleet
from experiments.core import sections, workdirs
from experiments.scoring import serving
from unlearn.until import BUDGET, REACHED

# Accuracy on forget, retain and test data, and the attack's AUC, of the first lane; the second's are half of them.
MODELS = {
    "oracle": (0.2, 1.0, 0.8, 0.55),
    "vanilla": (1.0, 0.98, 0.82, 0.7),  # as trained
    "unlearned": (0.1, 0.8, 0.4, 0.45),
}


@pytest.fixture
def rows(tmp_path, monkeypatch):
    """Rows of an oracle and of vanilla, whose request takes 3 steps of 7 FLOPs on one lane and 5 on the other."""
    params = {name: {"w": np.full((2, 1), i)} for i, name in enumerate(MODELS)}
    names = ("forget_accuracy", "retain_accuracy", "test_accuracy", "mia_auc")

    def score(found):
        values = MODELS[list(MODELS)[found["w"][0, 0]]]
        return [dict(zip(names, np.array(values) / lane, strict=True)) for lane in (1, 2)]

    served = serving.Served(params["unlearned"], np.array([3, 5]), np.array([REACHED, BUDGET]), {"seen": np.ones((2, 4))})
    for name, fake in {
        "carry_out": lambda *_: (served, 9.0),
        "update_flops": lambda *_: 7.0,
        "choose": lambda requests, *_: {"ascent": requests.setting(0.1, 0.0)},
    }.items():
        monkeypatch.setattr(serving.Requests, name, fake)
    monkeypatch.setattr(comparison_rows, "relearn", lambda *_: {})
    few = {"id": np.arange(3)}
    problem = types.SimpleNamespace(
        dataset=types.SimpleNamespace(name="digits"), setting="class", sets=types.SimpleNamespace(forget=few, retain=few)
    )
    scorer = types.SimpleNamespace(score=score, diagnose=lambda *_: {})
    requests = serving.Requests(scorer, problem, sections.Request(), range(4, 6), 64, workdirs.Workdir(tmp_path))
    cost = {"step_flops": 1.0, "meta_step_flops": 0.0, "train_flops": 90.0, "peak_bytes": 8}
    trained = {name: types.SimpleNamespace(seconds=1.5, params=params[name]) for name in ("oracle", "vanilla")}
    fleets = [Fleet(name, "default", trained[name], 4, cost, {}) for name in trained]
    return comparison_rows.judge(requests, sections.Relearn(), fleets)


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

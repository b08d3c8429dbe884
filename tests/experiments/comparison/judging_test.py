"""How a request's setting is chosen, and what relearning attacks with and is watched on."""

import types

import numpy as np
import pytest

from experiments.comparison import judging, setup
from experiments.configs import readiness as configs
from experiments.core import workdirs
from experiments.data import datasets
from unlearn.until import BUDGET, REACHED

# Learning rate: requests fulfilled of two, then accuracy of both lanes on the validation data that stay, on all of the
# validation data, and on the test data that stay.
FULFILLED = {
    0.1: (2, (0.7, 0.7), 0.6, 0.6),
    0.2: (2, (0.9, 0.7), 0.5, 0.4),  # the best
    0.3: (2, (0.75, 0.75), 0.9, 0.9),  # on data that must not choose
    0.4: (1, (0.99, 0.99), 0.95, 0.95),  # keeps more, and forgets less
    0.5: (2, (1.0, np.nan), 0.3, 0.3),  # one lane has no scores, which count as 0
    0.6: (2, (0.1, 0.1), 0.1, 0.1),
}
NEVER_ALL = {0.1: (0, (0.9, 0.9), 0.9, 0.9), 0.2: (1, (0.2, 0.2), 0.2, 0.2), 0.3: (1, (0.3, 0.3), 0.1, 0.1)}


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    """`sweep(outcomes)` chooses a setting where vanilla's requests come out like that, and the oracle's all the same."""
    config = configs.get_config("digits")
    fleet = lambda name: types.SimpleNamespace(training=name, variant="default")  # noqa: E731
    names = {name: name for name in judging.evaluation.Sets._fields}
    bench = types.SimpleNamespace(config=config, workdir=workdirs.Workdir(tmp_path), sets=types.SimpleNamespace(**names))
    monkeypatch.setattr(judging, "predictor", lambda bench: None)
    monkeypatch.setattr(judging, "_at_request", lambda bench, one: one.training)

    def run(outcomes):
        config.request.learning_rates = tuple(outcomes)

        def request(bench, params, fleets, name, setting):
            assert params == "vanilla", "the setting is chosen for the rival of readiness"
            reached, *kept = outcomes[setting.learning_rate]
            stop = np.where(np.arange(2) < reached, REACHED, BUDGET)
            return judging.Served(kept, np.array([3, 3]), stop, {}), 0.0

        def measure(predict, kept, batch):
            by_lane, validation, test = kept
            right = by_lane if batch == "validation_retain" else [validation if batch == "validation" else test] * 2
            return np.array(right)[:, None], None

        monkeypatch.setattr(judging, "_request", request)
        monkeypatch.setattr(judging.evaluation, "measure", measure)
        return judging.choose_settings(bench, [fleet("oracle"), fleet("readiness"), fleet("vanilla")])["ascent"]

    return run


def test_the_setting_fulfils_all_requests_and_then_keeps_most_of_the_validation_data(sweep):
    assert sweep(FULFILLED).learning_rate == 0.2


def test_if_no_setting_fulfils_all_requests_that_which_fulfils_most_is_chosen(sweep):
    assert sweep(NEVER_ALL).learning_rate == 0.3


# the rows

# Accuracy on forget, retain and test data, and the attack's AUC, of the first lane; the second's are half of them.
MODELS = {
    "oracle": (0.2, 1.0, 0.8, 0.55),
    "vanilla": (1.0, 0.98, 0.82, 0.7),  # as trained
    "unlearned": (0.1, 0.8, 0.4, 0.45),
}


@pytest.fixture
def rows(tmp_path, monkeypatch):
    """Rows of an oracle and of vanilla, whose request takes 3 steps of 7 FLOPs on one lane and 5 on the other."""
    config = configs.get_config("digits")
    config.seed, config.seeds = 4, 2
    asked = {"id": np.arange(3)}
    sets = types.SimpleNamespace(forget=asked, retain=asked)
    bench = types.SimpleNamespace(config=config, workdir=workdirs.Workdir(tmp_path), model=None, devices=None, sets=sets)
    bench.dataset = types.SimpleNamespace(name="digits")
    params = {name: {"w": np.full((2, 1), i)} for i, name in enumerate(MODELS)}
    names = ("forget_accuracy", "retain_accuracy", "test_accuracy", "mia_auc")

    def score(bench, found):
        values = MODELS[list(MODELS)[found["w"][0, 0]]]
        return [dict(zip(names, np.array(values) / lane, strict=True)) for lane in (1, 2)]

    served = judging.Served(params["unlearned"], np.array([3, 5]), np.array([REACHED, BUDGET]), {"seen": np.ones((2, 4))})
    for name, fake in {
        "_at_request": lambda bench, one: params[one.training],
        "_request": lambda *_: (served, 9.0),
        "score": score,
        "_update_flops": lambda *_: 7.0,
        "relearn": lambda *_: {},
        "choose_settings": lambda *_: {"ascent": judging._setting(config.request, 0.1, 0.0)},
    }.items():
        monkeypatch.setattr(judging, name, fake)
    monkeypatch.setattr(judging.models, "as_model", lambda model: None)
    monkeypatch.setattr(judging.evaluation, "make_diagnose", lambda model, devices: lambda *_: {})
    cost = {"step_flops": 1.0, "meta_step_flops": 0.0, "train_flops": 90.0, "peak_bytes": 8}
    trained = types.SimpleNamespace(seconds=1.5)
    fleets = [setup.Fleet(name, "default", trained, 4, cost, {}) for name in ("oracle", "vanilla")]
    return judging.judge(bench, fleets)


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


# relearning


def attacks(setting, **relearn):
    config = configs.get_config("digits")
    config.forget.setting = setting
    config.relearn.update({"size": 100, **relearn})
    config = setup.resolved(config)
    bench = setup.set_up(config, None, datasets.load(config.data))
    found = judging._attacks(bench)
    ids = {name: [set(batch["id"].tolist()) for batch in pair] for name, pair in found.items()}
    assert all(len(a["id"]) == len(ids[name][0]) for name, (a, _) in found.items()), "nobody attacks twice"
    return bench, set(bench.sets.forget["id"].tolist()), ids


@pytest.mark.parametrize("setting", ["class", "random"])
def test_relearning_is_watched_on_forget_examples_that_it_does_not_train_on(setting):
    bench, forget, ids = attacks(setting)
    assert set(ids) == {"stable", "similar", "part", "all"}
    for name in ("stable", "similar"):
        attack, watch = ids[name]
        assert watch == forget and not attack & forget and len(attack) == 100
    attack, watch = ids["part"]
    assert watch == forget - attack and watch
    attack, watch = ids["all"]
    assert attack == forget
    assert watch == (set(bench.sets.others["id"].tolist()) if setting == "class" else forget)


@pytest.mark.parametrize("share, forgotten", [(0.1, 10), (0.4, 40), (0.0, 1)])
def test_a_part_of_the_forget_set_comes_back_beside_data_that_stay(share, forgotten):
    _, forget, ids = attacks("class", share=share)
    attack, _ = ids["part"]
    assert len(attack & forget) == forgotten and len(attack) == 100


def test_half_of_the_forget_set_is_always_left_to_watch():
    _, forget, ids = attacks("class", size=1000, share=1.0)
    attack, watch = ids["part"]
    assert len(attack & forget) == len(forget) // 2 and watch == forget - attack

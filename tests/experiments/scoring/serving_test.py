"""How a request's setting is chosen, on data that may choose."""

import types

import numpy as np
import pytest

from experiments.core import forgetting, workdirs
from experiments.data.sets import Sets
from experiments.scoring import serving
from unlearn.base import UnlearnState
from unlearn.until import BUDGET, DIVERGED, REACHED, Outcome

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
# The same of texts: the loss of both lanes on the retained documents that are watched.
TEXTS = {
    0.1: (2, (3.0, 3.0), 0.9, 0.9),  # tells most tokens of held-out documents right, which it never knew
    0.2: (2, (1.0, 2.0), 0.1, 0.1),  # the best
    0.3: (2, (0.5, np.nan), 0.5, 0.5),  # one lane has no scores
    0.4: (1, (0.1, 0.1), 0.1, 0.1),  # keeps more, and forgets less
}
NEVER_ALL = {0.1: (0, (0.9, 0.9), 0.9, 0.9), 0.2: (1, (0.2, 0.2), 0.2, 0.2), 0.3: (1, (0.3, 0.3), 0.1, 0.1)}
NEVER = {
    rate: (0, (kept, kept), kept, kept) for rate, kept in ((0.1, 0.99), (0.2, 0.5), (0.3, 0.6), (0.4, 0.7), (0.5, 0.2))
}
# Of the way there both lanes led; NaN is of a lane that failed, which led none of it.
LED = {0.1: (0.0, 0.1), 0.2: (0.6, 0.6), 0.3: (0.4, 0.7), 0.4: (0.9, np.nan), 0.5: (1.0, 0.9)}


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    """`sweep(outcomes)` chooses a setting where vanilla's requests come out like that, and the oracle's all the same."""
    names = Sets(*Sets._fields)

    def measure(kept, batch):
        by_lane, validation, test = kept
        right = by_lane if batch == "validation_retain" else [validation if batch == "validation" else test] * 2
        return np.array(right)[:, None], np.array(by_lane)[:, None] if batch == "watched" else None

    def run(outcomes, is_text=False, led=None):
        def carry_out(requests, params, teachers, name, setting, levels):
            assert levels is None
            assert params == "vanilla", "the setting is chosen for the rival of readiness"
            reached, *kept = outcomes[setting.learning_rate]
            stop = np.where(np.arange(2) < reached, REACHED, BUDGET)
            way = np.array(led[setting.learning_rate] if led else (0.3, 0.3))
            return serving.Served(kept, np.array([3, 3]), stop, {}, way=way), 0.0

        monkeypatch.setattr(serving.Requests, "carry_out", carry_out)
        monkeypatch.setattr(serving.Requests, "_watched", lambda requests: "watched")
        section = forgetting.Request(unlearners=("ascent",), learning_rates=tuple(outcomes))
        dataset = types.SimpleNamespace(is_text=is_text)
        scorer, problem = types.SimpleNamespace(measure=measure), types.SimpleNamespace(sets=names, dataset=dataset)
        requests = serving.Requests(scorer, problem, section, range(2), 64, workdirs.Workdir(tmp_path))
        return requests.choose("vanilla", "oracle")["ascent"]

    return run


def test_the_setting_fulfils_all_requests_and_then_keeps_most_of_the_validation_data(sweep):
    assert sweep(FULFILLED).learning_rate == 0.2


def test_of_texts_the_setting_keeps_what_is_known_of_retained_documents(sweep):
    assert sweep(TEXTS, is_text=True).learning_rate == 0.2


def test_if_no_setting_fulfils_all_requests_that_which_fulfils_most_is_chosen(sweep):
    assert sweep(NEVER_ALL).learning_rate == 0.3


@pytest.mark.parametrize("led, best", [(LED, 0.3), ({rate: (0.1 * rate, 0.1) for rate in NEVER}, 0.5)])
def test_if_none_fulfils_any_that_which_leads_half_of_the_way_and_keeps_most_is_chosen(sweep, led, best):
    """Not what does nothing, and not what comes nearest and ruins the model; if all fall short, what leads furthest."""
    assert sweep(NEVER, led=led).learning_rate == best


def test_the_way_of_a_request_in_parts_is_that_of_the_part_that_led_least(tmp_path, monkeypatch):
    """Nobody may tell more than .2 right. The last lane fails in the first part, and tells nothing right from then on."""
    told = iter([([1.0, 0.4, 0.0], [1.0, 0.8, 0.8]), ([0.2, 0.4, 0.2], [1.0, 0.6, 0.0])])  # of each lane, update by update

    def run(lanes, part):
        rows = next(told)
        curve = {"forget_accuracy": np.array([[*rows[0], np.nan], [*rows[1], np.nan], [1.0, 0.0, np.nan, np.nan]])}
        steps, stop = np.array([2, 2, 1]), np.array([REACHED, BUDGET, DIVERGED if part == "first" else REACHED])
        return Outcome(UnlearnState(lanes[0], (), ()), steps, stop, curve)

    monkeypatch.setattr(serving.requests, "make_request", lambda *_: run)
    monkeypatch.setattr(serving.Requests, "data", lambda *_: ["first", "second"])
    monkeypatch.setattr(serving.Requests, "_ends", lambda *_: [np.full(3, 0.2)] * 2)
    scorer, section = types.SimpleNamespace(model=None, devices=None), forgetting.Request()
    requests = serving.Requests(scorer, None, section, range(3), 64, workdirs.Workdir(tmp_path))
    served, _ = requests.carry_out({}, None, "ascent", requests.setting("ascent", 0.1))
    np.testing.assert_allclose(served.way, [1.0, 0.25, np.nan], atol=1e-6)
    assert served.steps.tolist() == [4, 4, 2] and served.stop.tolist() == [REACHED, BUDGET, DIVERGED]


# requests to a level

WAYS = {"vanilla": 0.1, "reweight-default": 0.3}  # and the rate that serves it best


@pytest.fixture
def tried(tmp_path, monkeypatch):
    """`tried(way, name)` chooses a setting for a way, where each is served best at a rate and a beta of its own."""
    trials = []

    def carry_out(requests, params, teachers, name, setting, levels):
        assert levels == "proxy"
        trials.append((params, name, setting.learning_rate, *setting.options))
        return serving.Served((params, setting), np.array([3, 3]), np.array([REACHED, REACHED]), {}), 0.0

    def measure(kept, batch):
        assert batch == "validation_retain"
        way, setting = kept
        beta = dict(setting.options).get("beta", 0.5)
        return np.full((2, 1), 1 - abs(setting.learning_rate - WAYS[way]) - abs(beta - 0.5)), None

    monkeypatch.setattr(serving.Requests, "carry_out", carry_out)
    to_level = forgetting.ToLevel(learning_rates=(0.1, 0.3), betas=(0.5, 0.95), max_steps=7)
    section = forgetting.Request(
        unlearners=("ascent", "level", "npo@level"), learning_rates=(0.1, 0.3, 0.5), clips=(0.0, 1.0), to_level=to_level
    )
    problem = types.SimpleNamespace(sets=Sets(*Sets._fields), dataset=types.SimpleNamespace(is_text=False))
    scorer, workdir = types.SimpleNamespace(measure=measure), workdirs.Workdir(tmp_path)
    requests = serving.Requests(scorer, problem, section, range(2), 64, workdir)
    return lambda way, name: (requests.choose_to_level(way, way, serving.Teachers("oracle"), name, "proxy"), trials)


def test_every_way_is_given_the_request_that_serves_it_best_by_as_many_trials(tried):
    grids = {}
    for name in ("level", "npo@level"):
        for way, best in WAYS.items():
            chosen, trials = tried(way, name)
            assert chosen.learning_rate == best
            grids[way, name] = [trial[2:] for trial in trials if trial[:2] == (way, name)]
            assert tried(way, name)[0] == chosen and len(trials) == sum(map(len, grids.values())), "a kept sweep"
        assert grids["vanilla", name] == grids["reweight-default", name]
    assert len(grids["vanilla", "level"]) == 4 and len(grids["vanilla", "npo@level"]) == 6
    assert set(grids["vanilla", "level"]) == {(rate, ("beta", beta)) for rate in (0.1, 0.3) for beta in (0.5, 0.95)}
    level, other = (tried("vanilla", name)[0] for name in ("level", "npo@level"))
    assert (level.options, level.clip, level.max_steps) == ((("beta", 0.5),), 0.0, 7)
    assert (other.options, other.clip, other.max_steps) == ((), 0.0, 7)


def test_levels_of_a_proxy_that_was_not_trained_are_no_level(tried):
    section = forgetting.Request(to_level=forgetting.ToLevel(levels="proxy"))
    requests = serving.Requests(None, None, section, range(2), 64, None)
    with pytest.raises(ValueError, match="levels of a proxy are asked for, and none was trained"):
        requests.levels("params", serving.Teachers("oracle"), {})


def test_who_tells_levels_is_fine_tuned_as_those_are_that_meet_the_request(monkeypatch):
    monkeypatch.setattr(serving.Requests, "met", lambda requests, params: f"tuned {params}")
    monkeypatch.setattr(serving.Requests, "_watched", lambda requests: {})
    monkeypatch.setattr(serving.aims, "to_levels", lambda ground, params, teacher, *_, **__: (params, teacher))
    problem = types.SimpleNamespace(sets=Sets(*Sets._fields), by_class=True)
    requests = serving.Requests(types.SimpleNamespace(statistics=None), problem, forgetting.Request(), range(2), 64, None)
    for where, teacher in (("oracle", "tuned oracle"), ("proxy", "tuned proxy"), ("own", None)):
        assert requests.levels("params", serving.Teachers("oracle", "proxy"), {}, where) == ("params", teacher)

"""What the judge refuses: one line that names the key, exit status 2, and nothing written; and which sets it takes."""

import ml_collections
import numpy as np
import pytest

from experiments import models
from experiments.configs import judge as configs
from experiments.core import workdirs
from experiments.core.config import validated
from experiments.core.errors import UserError
from experiments.data import datasets, forget_sets
from experiments.judge import run
from tests.experiments.main_test import command
from tests.helpers import judgements, tiny
from tests.helpers.configs import with_keys
from tests.helpers.texts import questions

D = ml_collections.ConfigDict
NAN = float("nan")


def sets(**wanted):
    return {"judge.sets": D(wanted)}


def toy_of(config):
    """Data for a config that need no download; of text as many documents, by bytes."""
    texts = {"trec": {"name": f"jsonl:{questions()}"}, "pydoc": {}}
    if config.name not in texts:
        return tiny.digits()
    return datasets.load(
        config.data.model_copy(update={"tokeniser": "", **texts[config.name]}), models.classifies_text(config.model)
    )


@pytest.mark.parametrize("name", configs.EXPERIMENTS)
def test_every_shipped_judgement_can_be_set_up(name):
    config = validated(configs.Judge, configs.get_config(name))
    cases = judgements.cases(config, workdirs.Workdir("nowhere"), toy_of(config))
    assert [case.name for case in cases] == list(config.judge.sets)
    assert all(np.isin(case.problem.forget, case.pool).all() for case in cases)
    assert all(case.trainer.data is cases[0].trainer.data for case in cases), "one copy of the data"


def test_a_set_is_forgotten_as_the_comparison_would():
    config = validated(configs.Judge, configs.get_config("digits_full"))
    by_class, tier = config.of_set("class_5").resolved(), config.of_set("memorised_low").resolved()
    assert (by_class.forget.setting, by_class.forget.target, tier.forget.setting, tier.forget.fraction) == (
        "class",
        5,
        "random",
        0.05,
    )
    suits = [(one.readiness.form, one.readiness.algorithm, one.readiness.step_size) for one in (by_class, tier)]
    assert suits == [("level", "level", (0.1, 0.1)), ("gain", "ascent", (0.1, 0.1))]
    assert (by_class.readiness.retention, tier.readiness.retention) == (1.0, 1.0)
    assert by_class.judge == config.judge and by_class.request.unlearners == config.request.unlearners


@pytest.mark.parametrize(
    "changes, told",
    [
        ({"judge.lanes": 11}, "config.judge.lanes is 11: give a whole number from 12 to 100000"),
        ({"judge.lanez": 64}, "config.judge.lanez is no key of this config: did you mean config.judge.lanes"),
        ({"judge.tuning.steps": (20, 5)}, "config.judge.tuning.steps is (20, 5): give whole numbers that increase"),
        ({"judge.tuning.steps": (1.5,)}, "config.judge.tuning.steps is (1.5,): give one or more whole numbers from 1"),
        ({"judge.tuning.learning_rates": (0.1, 0.1)}, "config.judge.tuning.learning_rates is (0.1, 0.1): give each once"),
        ({"trainings": ("oracle", "heldout_oracle", "readiness")}, "give oracle, heldout_oracle, vanilla and any of"),
        ({"trainings": ("oracle", "heldout_oracle", "vanilla", "vanilla")}, "each once"),
        ({"seeds": 65}, "config.seeds is 65: give one from 1 to 16, the models of the smallest fleet"),
        ({"seed": 2**32 - 10}, "config.seed is 4294967286: give one from 0 to 4294967232"),
        ({"readiness.start": 1500}, "config.readiness.start is 1500, but training ends after 1500 steps: start sooner"),
        (
            sets(a=D({"setting": "class", "target": 3}), b=D({"setting": "random", "fraction": 0.1}))
            | {"readiness.levels": "proxy"},
            "config.readiness.levels is 'proxy', but form gain has no levels",  # of the second set alone
        ),
        # Keys that would change nothing here.
        ({"parallel": "pmap"}, "config.parallel is no key of this config"),
        ({"request.max_steps": 50}, "config.request.max_steps is no key of this config"),
        ({"forget.setting": "random"}, "config.forget.setting is no key of this config"),
        (
            {"judge.sets": D()},
            "config.judge.sets is {}: give a dict by name, each a dict of setting 'random', fraction, or",
        ),
        (sets(**{"a/b": D({"setting": "random", "fraction": 0.1})}), "config.judge.sets['a/b'] is no name of a forget set"),
        (sets(pooled=D({"setting": "random", "fraction": 0.1})), "choose one other than 'pooled'"),
        (sets(**{"a" * 101: D({"setting": "random", "fraction": 0.1})}), "is a long name of a forget set"),
        (sets(a=3), "config.judge.sets.a is 3: give a dict of setting 'random', fraction, or of setting 'class', target"),
        (sets(a=D({"setting": "clas", "target": 3})), "config.judge.sets.a is {'setting': 'clas', 'target': 3}: give"),
        (sets(a=D({"setting": ["random"], "fraction": 0.1})), "'setting': ('random',)}: give a dict of setting 'random'"),
        (sets(a=D({"setting": "class"})), "config.judge.sets.a.target is missing: give a whole number from 0"),
        (sets(a=D({"setting": "random", "fraction": 0.1, "target": 0})), "config.judge.sets.a.target is no key"),
        (sets(a=D({"setting": "random", "fraction": NAN})), "config.judge.sets.a.fraction is nan: give a number between"),
        (sets(a=D({"setting": "class", "target": True})), "config.judge.sets.a.target is True: give a whole number"),
        (sets(a=D({"setting": "memorised", "tier": "most", "fraction": 0.1})), "is 'most': choose low, medium or high"),
        # What only the data and the algorithms can tell.
        (sets(a=D({"setting": "class", "target": 10})), "class 10 is not in 'digits': choose one of 0..9"),
        (
            sets(a=D({"setting": "random", "fraction": 0.002})),
            "set 'a' has 2 examples, 5 or more are needed: raise its fraction",
        ),
        (sets(a=D({"setting": "memorised", "tier": "high", "fraction": 1e-9})), "set 'a' has 0 examples, 5 or more"),
        (sets(a=D({"setting": "memorised", "tier": "low", "fraction": 0.3})), "three tiers of a fraction 0.3 do not fit"),
        (sets(a=D({"setting": "near_duplicates", "fraction": 0.4})), "near-duplicates of a fraction 0.4 need"),
        (sets(a=D({"setting": "cluster", "fraction": 0.9})), "a fraction 0.9 makes 1 clusters"),
        ({"judge.retain": 5000}, "judge.retain is 5000, but set 'class' leaves"),
        ({"request.options": D({"npo": {"odd": 1.0}})}, "config.request.options.npo cannot be used"),
        ({"suited": D()}, "config.readiness.retention is unset, and suited has none for "),
        ({"data.name": "digit"}, "digit"),
    ],
)
def test_what_cannot_be_judged_is_refused_before_anything_is_written(changes, told, tmp_path):
    with pytest.raises(UserError) as caught:
        run.run(with_keys(configs.get_config("digits"), changes), str(tmp_path / "new"))
    assert told in str(caught.value) and ("\n" not in str(caught.value) or "suited" in changes)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "flags, told",
    [
        (["--config.judge.lanes=3"], "config.judge.lanes is 3: give a whole number from 12 to 100000"),
        (["--config.judge.sets={'a': {'setting': 'cless', 'target': 3}}"], "give a dict of setting 'random', fraction, or"),
    ],
)
def test_the_command_ends_with_one_line_and_exit_status_2(flags, told, tmp_path):
    done = command("--config=experiments/configs/judge.py:digits", *flags, f"--workdir={tmp_path / 'new'}")
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2 and line.startswith("error: ") and told in line and not done.stdout
    assert not (tmp_path / "new").exists()


# forget sets

IDS = np.arange(60) * 7 + 3


def test_tiers_are_what_they_are_called_and_half_of_a_tier_is_forgotten():
    """60 scores 0, 1/59, ... 1 and n = 6: low and high are 12 ends; high's mean is .907, so medium lies around .453."""
    scores = np.arange(60) / 59
    expected = {"low": range(12), "high": range(48, 60), "medium": range(21, 33)}
    for tier, positions in expected.items():
        found = forget_sets.memorised(IDS, scores, tier, 0.1, seed=0)
        assert found.pool.tolist() == list(positions) and len(found.forget) == 6
        assert np.isin(found.forget, found.pool).all()
    with pytest.raises(UserError, match="no memorisation score"):
        forget_sets.memorised(IDS, np.where(scores > 0.5, np.nan, scores), "low", 0.1, seed=0)


def test_of_a_pair_one_is_forgotten_and_its_twin_stays():
    """Twins lie 2i and 2i + 1 at distances that grow: the four closest pairs are the first eight examples."""
    place = np.repeat(100.0 * np.arange(20), 2) + np.tile([0.0, 1.0], 20) * np.repeat(1 + np.arange(20), 2)
    ids = IDS[:40]
    found = forget_sets.near_duplicates(ids, place[:, None], 0.05, seed=0)
    assert (found.pool // 2).tolist() == [0, 1, 2, 3] and len(found.forget) == 2
    assert np.isin(found.forget, found.pool).all()


def test_a_cluster_is_forgotten_as_a_whole():
    """Blobs of 10, 20 and 30: the one nearest to a third of 60 is the second."""
    blob = np.repeat([0, 1, 2], [10, 20, 30])
    features = 50.0 * np.eye(3)[blob] + np.random.default_rng(0).normal(size=(60, 3))
    found = forget_sets.cluster(IDS, features, 1 / 3, seed=0)
    assert found.forget.tolist() == found.pool.tolist() == np.flatnonzero(blob == 1).tolist()


def test_the_order_of_the_data_does_not_matter():
    rng = np.random.default_rng(1)
    features, scores = np.round(rng.normal(size=(60, 2))), np.round(rng.random(60), 1)  # with many ties
    shuffled = rng.permutation(60)
    for find, what, rest in (
        (forget_sets.memorised, scores, ("medium", 0.1)),
        (forget_sets.near_duplicates, features, (0.05,)),
        (forget_sets.cluster, features, (0.1,)),
    ):
        here, there = find(IDS, what, *rest, seed=3), find(IDS[shuffled], what[shuffled], *rest, seed=3)
        for a, b in zip(here, there, strict=True):
            assert set(IDS[a]) == set(IDS[shuffled][b]) and len(a)

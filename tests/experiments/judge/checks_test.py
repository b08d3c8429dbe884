"""What the judge refuses: one line that names the key, exit status 2, and nothing written; and which sets it takes."""

import ml_collections
import numpy as np
import pytest

from experiments.configs import judge as configs
from experiments.core.errors import UserError
from experiments.data import forget_sets
from experiments.judge import checks, run
from tests.experiments.main_test import command
from tests.helpers import tiny

D = ml_collections.ConfigDict
NAN = float("nan")


def config_of(changes=None, name="digits"):
    config = configs.get_config(name)
    with config.ignore_type():
        for key, value in (changes or {}).items():
            section, _, last = key.rpartition(".")
            holder = config
            for part in section.split(".") if section else ():
                holder = holder[part]
            holder[last] = value
    return config


def sets(**wanted):
    return {"judge.sets": D(wanted)}


@pytest.mark.parametrize("name", configs.EXPERIMENTS)
def test_every_shipped_judgement_passes_and_can_be_set_up(name, monkeypatch):
    config = config_of(name=name)
    checks.check(config)
    cases = run.make_cases(config, None, tiny.digits())
    assert [case.name for case in cases] == list(config.judge.sets)
    assert all(np.isin(case.bench.forget, case.pool).all() for case in cases)
    assert all(case.bench.train is cases[0].bench.train for case in cases), "one copy of the data"


@pytest.mark.parametrize(
    "changes, told",
    [
        ({"judge.lanes": 11}, "judge.lanes is 11: set --config.judge.lanes to 12 or more"),
        ({"judge.private_lanes": 2}, "judge.private_lanes is 2: set"),
        ({"judge.memorisation_lanes": 3}, "judge.memorisation_lanes is 3: set"),
        ({"judge.memory_bytes": 0}, "judge.memory_bytes is 0: set"),
        ({"judge.batch_size": 0}, "judge.batch_size is 0: set"),
        ({"judge.retain": -1}, "judge.retain is -1: set"),
        ({"judge.lanes": 12.5}, "judge.lanes is 12.5, which is no int"),
        ({"judge.lanez": 64}, "no key judge.lanez"),
        ({"judge.tuning.lanes": 0}, "judge.tuning.lanes is 0"),
        ({"judge.tuning.steps": ()}, "judge.tuning.steps is ()"),
        ({"judge.tuning.steps": (5, 5)}, "judge.tuning.steps is (5, 5): give whole numbers"),
        ({"judge.tuning.steps": (20, 5)}, "judge.tuning.steps is (20, 5)"),
        ({"judge.tuning.steps": (0, 5)}, "judge.tuning.steps is (0, 5)"),
        ({"judge.tuning.steps": (1.5,)}, "judge.tuning.steps is (1.5,)"),
        ({"judge.tuning.steps": ("5",)}, "judge.tuning.steps is ('5',)"),
        ({"judge.tuning.learning_rates": ()}, "judge.tuning.learning_rates is ()"),
        ({"judge.tuning.learning_rates": (0.1, -1)}, "judge.tuning.learning_rates is (0.1, -1)"),
        ({"judge.tuning.learning_rates": (NAN,)}, "judge.tuning.learning_rates is (nan,)"),
        ({"judge.tuning.learning_rates": ("0.1",)}, "judge.tuning.learning_rates is ('0.1',)"),
        ({"judge.tuning.learning_rates": (0.1, 0.1)}, "each once"),
        ({"trainings": ("oracle", "vanilla")}, "trainings must be oracle, heldout_oracle, vanilla"),
        ({"trainings": ("oracle", "heldout_oracle")}, "trainings must be"),
        ({"trainings": ("oracle", "heldout_oracle", "readiness")}, "trainings must be"),
        ({"trainings": ("oracle", "heldout_oracle", "vanilla", "sisa")}, "trainings must be"),
        ({"trainings": ("oracle", "heldout_oracle", "vanilla", "vanilla")}, "each once"),
        ({"seeds": 65}, "seeds is 65: set --config.seeds from 1 to 16"),
        ({"seeds": 0}, "seeds is 0"),
        ({"seed": 2**32 - 10}, "seed is 4294967286: choose one from 0 to 4294967232"),
        ({"data.stream": True}, "set --config.data.stream=False"),
        ({"parallel": "pmap"}, "set --config.parallel=jit"),
        ({"request.max_steps": 50}, "request.max_steps means nothing to the judge"),
        ({"request.tune_steps": 50}, "request.tune_steps means nothing"),
        ({"equal_flops": True}, "equal_flops means nothing"),
        ({"variants": D({"raw": {"form": "raw"}})}, "variants means nothing"),
        ({"forget.setting": "random"}, "forget.setting means nothing to the judge (see judge.sets"),
        ({"forget.revocable": 5}, "forget.revocable means nothing"),
        ({"judge.sets": D()}, "judge.sets is empty"),
        (sets(**{"a/b": D({"setting": "random", "fraction": 0.1})}), "forget set 'a/b' is no name"),
        (sets(**{"a" * 101: D({"setting": "random", "fraction": 0.1})}), "has a long name"),
        (sets(a=3), "forget set 'a' is 3: give it a setting, one of random, class"),
        (sets(a=D()), "forget set 'a' is {}: give it a setting"),
        (sets(a=D({"setting": "clas", "target": 3})), "give it a setting, one of random, class, memorised"),
        (sets(a=D({"setting": ["random"], "fraction": 0.1})), "give it a setting"),
        (sets(a=D({"setting": "class"})), "forget set 'a' has setting: class takes setting, target"),
        (sets(a=D({"setting": "random", "fractoin": 0.1})), "random takes setting, fraction"),
        (sets(a=D({"setting": "random", "fraction": 0.1, "target": 0})), "random takes setting, fraction"),
        (sets(a=D({"setting": "random", "fraction": 0.0})), "has fraction 0.0: give a share between 0 and 1"),
        (sets(a=D({"setting": "random", "fraction": 1})), "has fraction 1: give a share"),
        (sets(a=D({"setting": "random", "fraction": "0.1"})), "has fraction '0.1'"),
        (sets(a=D({"setting": "random", "fraction": NAN})), "has fraction nan"),
        (sets(a=D({"setting": "class", "target": 3.5})), "has target 3.5: give the number of a class"),
        (sets(a=D({"setting": "class", "target": True})), "has target True"),
        (sets(a=D({"setting": "memorised", "tier": "most", "fraction": 0.1})), "has tier 'most': give one of low"),
        # What only the data can tell.
        (sets(a=D({"setting": "class", "target": 10})), "class 10 is not in 'digits': choose one of 0..9"),
        (
            sets(a=D({"setting": "random", "fraction": 0.002})),
            "set 'a' has 2 examples, 5 or more are needed: raise its fraction",
        ),
        (
            sets(a=D({"setting": "memorised", "tier": "high", "fraction": 1e-9})),
            "set 'a' has 0 examples, 5 or more are needed",
        ),
        (sets(a=D({"setting": "memorised", "tier": "low", "fraction": 0.3})), "three tiers of a fraction 0.3 do not fit"),
        (sets(a=D({"setting": "near_duplicates", "fraction": 0.4})), "near-duplicates of a fraction 0.4 need"),
        (sets(a=D({"setting": "cluster", "fraction": 0.9})), "a fraction 0.9 makes 1 clusters"),
        ({"judge.retain": 5000}, "judge.retain is 5000, but set 'class' leaves"),
        ({"train.steps": 0}, "train.steps is 0: set --config.train.steps to 1 or more"),
        ({"request.unlearners": ("scrub2",)}, "'scrub2' is unknown in request.unlearners"),
        ({"request.unlearners": ()}, "request.unlearners is ()"),
        ({"dpsgd.clip": 0.0}, "dpsgd.clip is 0.0"),
        ({"model.name": "mpl"}, "model.name 'mpl' is unknown"),
        ({"data.name": "digit"}, "digit"),
    ],
)
def test_what_cannot_be_judged_is_refused_in_one_line_before_anything_is_written(changes, told, tmp_path):
    with pytest.raises(UserError) as caught:
        run.run(config_of(changes), str(tmp_path / "new"))
    assert told in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "flags, told",
    [
        (["--config.judge.lanes=3"], "judge.lanes is 3: set --config.judge.lanes to 12 or more"),
        (["--config.judge.sets={'a': {'setting': 'cless', 'target': 3}}"], "give it a setting, one of random, class"),
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

"""The strong attack of a judgement: what it runs, whom it is tuned on, and what it tells."""

import json

import numpy as np
import pytest

from experiments.configs import comparison, readiness
from experiments.configs import judge as configs
from experiments.core import files, forgetting, keys, workdirs
from experiments.core.config import validated
from experiments.core.errors import ConfigError
from experiments.core.keys import Purpose
from experiments.judge import fleets, run, strength
from experiments.judge.fleets import REPEATS
from experiments.scoring import relearning
from experiments.training import loop
from tests.helpers import judgements, tiny
from tests.helpers.configs import changed, with_keys
from unlearn.metrics.relearning import LIMIT

RATES = (0.1, 0.3)
NONE = forgetting.StrongRelearn(rates=(), strong_steps=0)


def attack(*lanes):
    """[rates, lanes, steps + 1], the same at both rates but for the first, which stays where it begins."""
    still = [[lane[0]] * len(lane) for lane in lanes]
    return {"part": {"curves": [still, [list(lane) for lane in lanes]], "watched": 100}}


def test_the_weak_attack_is_the_strong_one_at_its_rate():
    section = forgetting.StrongRelearn(steps=3, rates=(0.01,), strong_steps=3)
    config = changed(configs.Judge(), {"judge.lanes": 3, "seeds": 2, "train.steps": 20, "relearn": section})
    case = judgements.case(config, "class", workdirs.Workdir("nowhere"), tiny.digits())
    params = loop.init_lanes(case.trainer.way(1), fleets._lanes(case, "vanilla", REPEATS)).params
    found = strength.attacked(case, params)
    weak = relearning.relearn(case.scorer, section, case.problem, params, keys.raw(range(3), Purpose.RELEARNING))
    assert found.keys() == {"part", "all"} and found["part"]["watched"] == len(case.problem.forget) - 50
    for name, one in found.items():
        assert one["curves"].shape == (1, 3, 4), "the third model is tuned on"
        np.testing.assert_allclose(one["curves"][0], weak[name], atol=1e-5)
    assert strength.attacked(case._replace(shared=case.shared._replace(relearn=NONE)), params) == {}


def test_the_strength_is_chosen_on_some_models_and_told_of_others():
    """Tuned on, models lie furthest apart after 1 step; those that are told are apart after 2 and after 3."""
    oracles = attack((0.0, 0.2, 0.5, 0.9), (0.0, 0.2, 0.7, 0.9), (0.0, 0.2, 0.5, 0.9), (0.0, 0.2, 0.7, 0.9))
    models = attack((0.0, 0.2, 0.95, 0.95), (0.0, 0.2, 0.85, 0.95), (0.0, 0.9, 0.6, 0.9), (0.0, 0.9, 0.6, 0.9))
    told = strength.judged(models, oracles, RATES, 2)["part"]
    assert (told["rate"], told["step"]) == (0.3, 1) and told["estimate"].value == 0
    assert told["accuracy"].value == told["oracle"].value == pytest.approx(0.2)
    deviation = np.std([0.5, 0.7], ddof=1)
    assert told["unlike"] == ({"rate": 0.3, "step": 2} if 0.3 / deviation > LIMIT else {"rate": 0.3, "step": 3})
    assert told["areas"]["0.1"].value == 0 and told["areas"]["0.3"].value == pytest.approx((0.3 + 0.05) / 4)
    np.testing.assert_allclose(told["spread"], [0.01, 0.01, deviation, 0.01])
    np.testing.assert_allclose(told["curves"]["0.3"], [0, 0.2, 0.9, 0.95])
    assert json.loads(files.dumps(told))["unlike"] == told["unlike"]
    same = strength.judged(oracles, oracles, RATES, 2)["part"]
    assert same["unlike"] is None and same["estimate"].value == 0


def test_a_check_of_the_oracles_is_by_the_held_out_ones():
    assert strength.reference("oracle") == "heldout_oracle" == strength.reference("vanilla")
    assert strength.reference("heldout_oracle") == "oracle"


@pytest.mark.parametrize(
    "keys_, says",
    [
        ({"relearn.strong_steps": 0}, "config.relearn.strong_steps is 0, but relearn.rates has rates"),
        ({"relearn.rates": (0.3, 0.1)}, "config.relearn.rates is (0.3, 0.1): give rates that increase"),
        ({"seeds": 15}, "config.seeds is 15 of 16 models, and the strong relearning attack is tuned on two others"),
    ],
)
def test_a_strong_attack_that_cannot_be_made_is_refused(keys_, says):
    with pytest.raises(ConfigError) as caught:
        validated(configs.Judge, with_keys(configs.get_config(), keys_))
    assert [line for line in caught.value.mistakes if line.startswith(says)], caught.value.mistakes


def test_a_comparison_has_no_strong_attack_to_ask_for():
    with pytest.raises(ConfigError, match=r"config\.relearn\.rates is no key of this config"):
        validated(comparison.Comparison, with_keys(readiness.get_config(), {"relearn.rates": RATES}))


def test_a_judgement_that_an_older_version_began_goes_on_without_it(tmp_path):
    config = validated(configs.Judge, configs.get_config())
    old = config.model_dump()
    del old["relearn"]["rates"], old["relearn"]["strong_steps"]
    files.write_json(tmp_path / "config.json", old)
    folder = workdirs.Workdir(tmp_path)
    begun = run.attacked_as_begun(config, folder.begun())
    assert begun.relearn == NONE and folder.finished(begun.model_dump()) is None
    with pytest.raises(workdirs.WorkdirError, match=r"config\.relearn\.rates"):
        folder.finished(config.model_dump())
    files.write_json(tmp_path / "config.json", config.model_dump())
    assert (
        run.attacked_as_begun(config, folder.begun())
        == config
        == run.attacked_as_begun(config, workdirs.Workdir(tmp_path / "new").begun())
    )
    files.write_json(tmp_path / "config.json", begun.model_dump())
    assert run.attacked_as_begun(config, folder.begun()) == config, (
        "it was begun without rates by this version: another config"
    )

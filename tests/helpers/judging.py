"""Configs of judgements at toy size."""

import functools

import ml_collections

from experiments.configs import judge as configs
from experiments.core import workdirs
from tests.helpers import judgements, tiny
from tests.helpers.configs import changed

LANES = 8
NONE = {"relearn.rates": (), "relearn.strong_steps": 0}  # no strong attack


def config_of(**overrides):
    return changed(configs.Judge(), {"judge.lanes": LANES, "judge.tuning.lanes": 2, "train.steps": 20, **NONE, **overrides})


@functools.cache
def case(name):
    return judgements.case(config_of(), name, workdirs.Workdir("nowhere"), tiny.digits())


TINY = {
    "judge.lanes": 12,
    "judge.private_lanes": 12,
    "judge.memorisation_lanes": 6,
    "judge.tuning.lanes": 2,
    "judge.tuning.learning_rates": (0.01,),
    "judge.tuning.steps": (1, 2),
    "seeds": 2,
    "train.steps": 20,
    "relearn.steps": 3,
    "relearn.rates": (0.01, 0.1),
    "relearn.strong_steps": 2,
    "request.unlearners": ("ascent", "level"),
    "request.to_level.learning_rates": (0.1,),
    "model.options.widths": (16,),
}


SETS = {
    "class": {"setting": "class", "target": 3},
    "tier": {"setting": "memorised", "tier": "high", "fraction": 0.05},
}


def tiny_config(trainings, sets):
    """Of a whole run of some trainings over some forget sets."""
    config = configs.get_config("digits")
    config.update_from_flattened_dict({**TINY, "trainings": ("oracle", "heldout_oracle", *trainings)})
    config.judge.sets = ml_collections.ConfigDict(sets)
    return config

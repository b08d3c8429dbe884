"""What the judge refuses before anything is computed or written; what it shares with the comparison is in `checks`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from experiments.comparison import checks
from experiments.comparison.setup import Config
from experiments.configs import judge as configs
from experiments.core.errors import UserError
from experiments.data import forget_sets
from experiments.judge.calibration import POOLED
from experiments.judge.fleets import ORACLES

LEAST = {  # 12 models: intervals need 10, and either half of the shadows 3 with and 3 without each example
    "lanes": 12,
    "private_lanes": 12,
    "memorisation_lanes": 4,
    "memory_bytes": 1,
    "batch_size": 1,
    "retain": 1,
}
WAYS = ("vanilla", "reweight", "readiness", "dpsgd")

# Keys of the comparison that would change nothing here. What is set in vain is better refused.
UNUSED = (
    "equal_flops",
    "variants",
    "reweight.others",
    *(f"forget.{name}" for name in ("setting", "target", "fraction", "revocable")),
    *(f"request.{name}" for name in ("learning_rates", "clips", "max_steps", "batch_size", "observe", "parts", "overlap")),
    *(f"request.{name}" for name in ("tune_steps", "tune_rate")),
)

share: Callable[[Any], bool] = lambda value: checks.is_number(value) and 0 < value < 1  # noqa: E731
whole: Callable[[Any], bool] = lambda value: checks.is_number(value) and value == int(value)  # noqa: E731
tier: Callable[[Any], bool] = lambda value: value in forget_sets.TIERS  # noqa: E731

# setting of a forget set -> its other keys, what each may be, and that in words
SETS: dict[str, dict[str, tuple[Callable[[Any], bool], str]]] = {
    "random": {"fraction": (share, "a share between 0 and 1")},
    "class": {"target": (whole, "the number of a class")},
    "memorised": {"tier": (tier, f"one of {', '.join(forget_sets.TIERS)}"), "fraction": (share, "a share between 0 and 1")},
    "near_duplicates": {"fraction": (share, "a share between 0 and 1")},
    "cluster": {"fraction": (share, "a share between 0 and 1")},
}


def check(config: Config) -> None:
    """Refuse what a judgement cannot work with.

    Raises:
      UserError: one line that says what to do.
    """
    like = configs.defaults()
    checks.check_keys(config, like)
    for name, low in LEAST.items():
        if config.judge[name] < low:
            raise UserError(f"judge.{name} is {config.judge[name]}: set --config.judge.{name} to {low} or more")
    _tuning(config.judge.tuning)
    _trainings(config)
    _unused(config, like)
    if not config.judge.sets:
        raise UserError("judge.sets is empty: give one forget set or more, as in the config file")
    for name, wanted in config.judge.sets.items():
        _set(name, wanted)


def _tuning(tuning: Config) -> None:
    steps, rates = list(tuning.steps), list(tuning.learning_rates)
    if tuning.lanes < 1:
        raise UserError(f"judge.tuning.lanes is {tuning.lanes}: set --config.judge.tuning.lanes to 1 or more")
    if not steps or not all(whole(step) and step >= 1 for step in steps) or sorted(set(steps)) != steps:
        raise UserError(f"judge.tuning.steps is {tuple(steps)}: give whole numbers from 1 up that increase")
    if not rates or not all(checks.is_number(rate) and rate > 0 for rate in rates) or len(set(rates)) < len(rates):
        raise UserError(f"judge.tuning.learning_rates is {tuple(rates)}: give one or more numbers above 0, each once")


def _trainings(config: Config) -> None:
    first, ways = tuple(config.trainings[:2]), tuple(config.trainings[2:])
    if first != ORACLES or "vanilla" not in ways or set(ways) - set(WAYS) or len(set(ways)) < len(ways):
        raise UserError(
            f"trainings must be oracle, heldout_oracle, vanilla and any of {', '.join(WAYS[1:])}, each once: "
            "set --config.trainings"
        )
    fewest = min(config.judge.lanes, config.judge.private_lanes if "dpsgd" in ways else config.judge.lanes)
    if not 1 <= config.seeds <= fewest:
        raise UserError(f"seeds is {config.seeds}: set --config.seeds from 1 to {fewest}, the models of the smallest fleet")
    last = 2**32 - max(config.judge.lanes, config.judge.private_lanes, config.judge.memorisation_lanes)
    if not 0 <= config.seed <= last:
        raise UserError(f"seed is {config.seed}: choose one from 0 to {last}, so that seeds stay apart")
    if config.data.stream:
        raise UserError("the judge needs the images in memory: set --config.data.stream=False")
    if config.parallel != "jit":
        raise UserError("the judge divides models among devices, not batches: set --config.parallel=jit")


def _unused(config: Config, like: Config) -> None:
    for key in UNUSED:
        given, usual = config.to_dict(), like.to_dict()
        for name in key.split("."):
            given, usual = given[name], usual[name]
        if given != usual:
            raise UserError(f"{key} means nothing to the judge (see judge.sets and judge.tuning): leave it as it is")


def _set(name: Any, wanted: Any) -> None:
    """Refuse a forget set that is none; its name is part of the names of files."""
    if not isinstance(name, str) or not name.isprintable() or not name or "/" in name:
        raise UserError(f"forget set {name!r} is no name: choose one that is printable and without '/'")
    if name == POOLED:
        raise UserError(f"forget set {name!r} is named as all of them together: choose another name")
    if len(name.encode()) > checks.LONGEST:
        raise UserError(f"forget set {name!r} has a long name: choose one of at most {checks.LONGEST} bytes")
    if not isinstance(wanted, Config) or wanted.get("setting") not in tuple(SETS):
        told = dict(wanted) if isinstance(wanted, Config) else wanted
        raise UserError(f"forget set {name!r} is {told!r}: give it a setting, one of {', '.join(SETS)}")
    needed = SETS[wanted.setting]
    if set(wanted) != {"setting", *needed}:
        raise UserError(
            f"forget set {name!r} has {', '.join(sorted(wanted))}: {wanted.setting} takes setting, {', '.join(needed)}"
        )
    for key, (works, words) in needed.items():
        if not works(wanted[key]):
            raise UserError(f"forget set {name!r} has {key} {wanted[key]!r}: give {words}")

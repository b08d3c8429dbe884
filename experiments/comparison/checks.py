"""What is refused before anything is computed or written: keys, types, numbers, names and sets that cannot work."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from experiments.core import execution
from experiments.core.errors import UserError, line
from experiments.data.sets import Sets
from experiments.models import MODELS
from experiments.scoring import algorithms, requests
from unlearn import Model, Request
from unlearn.losses import cross_entropy
from unlearn.metrics.membership import FOLDS

Config = ml_collections.ConfigDict
TRAININGS = ("oracle", "heldout_oracle", "vanilla", "reweight", "dpsgd", "readiness")
NEEDED = ("oracle", "vanilla")
SETTINGS = ("class", "random")
LONGEST = 100  # name of a variant, in bytes: it is part of file names

# Sections that hold what they like: options of a model or an algorithm, overrides, what suits a kind of request.
FREE = (
    "data.scale",
    "judge.sets",
    "model.factory_options",
    "model.options",
    "readiness.algorithm_options",
    "request.options",
    "suited",
    "variants",
)

# A number is finite, and what stands here. A key that a config does not have is passed over.
NUMBERS: dict[str, tuple[Callable[[float], bool], tuple[str, ...]]] = {
    "0 or more": (
        lambda value: value >= 0,
        (
            "seed",
            "checkpoint_seconds",
            "data.train_size",
            "train.weight_decay",
            "train.clip",
            "readiness.efficiency",
            "readiness.retention",
            "readiness.resistance",
            "readiness.relearning",
            "readiness.inner_steps",
            "readiness.start",
            "readiness.relearn_steps",
            "reweight.weight",
            "dpsgd.noise",
            "request.batch_size",
            "request.observe",
            "budget",
            "study.flops",
            "request.tune_steps",
        ),
    ),
    "1 or more": (
        lambda value: value >= 1,
        (
            "seeds",
            "train.steps",
            "train.batch_size",
            "readiness.every",
            "request.parts",
            "relearn.steps",
            "relearn.batch_size",
        ),
    ),
    # A request's curves are kept whole, for all lanes.
    "a number from 1 to 100000": (lambda value: 1 <= value <= 100_000, ("request.max_steps",)),
    "2 or more": (lambda value: value >= 2, ("relearn.size",)),
    f"0 for all, or {FOLDS} or more": (lambda value: value == 0 or value >= FOLDS, ("data.score_examples",)),
    "a number above 0": (
        lambda value: value > 0,
        (
            "train.learning_rate",
            "readiness.relearn_rate",
            "dpsgd.clip",
            "request.tune_rate",
            "relearn.learning_rate",
            "full_lora.learning_rate",
            "lora.alpha",
        ),
    ),
    "a share from 0 to 1": (lambda value: 0 <= value <= 1, ("readiness.noise", "request.overlap")),
    "a share above 0 and up to 1": (lambda value: 0 < value <= 1, ("readiness.fraction", "relearn.share")),
    "a share between 0 and 1, both excluded": (lambda value: 0 < value < 1, ("data.validation_fraction",)),
    "0 or more and below 1": (lambda value: 0 <= value < 1, ("train.momentum",)),
}

CHOICES: dict[str, tuple[Any, ...]] = {
    "parallel": execution.MODES,
    "model.name": tuple(MODELS),
    "train.optimizer": ("sgd", "nesterov", "adamw"),
    "readiness.capped": ("each", "mean"),
    "readiness.form": ("gain", "raw"),
    "readiness.order": (1, 2),
    "readiness.relearn_order": (1, 2),
    "readiness.requests": ("known", "groups", "classes", "random"),
    "readiness.recovery": ("nearest_classes", "nearest_examples", "stable"),
}

# key -> what its entries are, whether one may be.
NAME_LISTS: dict[str, tuple[str, ...] | None] = {"trainings": TRAININGS, "request.unlearners": None}  # None: see below
NUMBER_LISTS: dict[str, tuple[Callable[[float], bool], str, int]] = {
    "request.learning_rates": (lambda value: value > 0, "one or more numbers above 0", 1),
    "request.clips": (lambda value: value >= 0, "one or more numbers from 0 up", 1),
    "reweight.others": (lambda value: value >= 0, "numbers from 0 up", 0),
}


def check(config: Config) -> None:
    """Refuse a comparison that cannot be run.

    Args:
      config: as `bench.resolved` gives it.

    Raises:
      UserError: one line that says what to do.
    """
    _forgetting(config)  # first: what readiness leaves unset depends on it
    check_values(config)
    _trainings(config)
    _requests(config)
    for variant, section in _rehearsals(config):
        try:
            _rehearsal(section, config)
        except UserError as error:
            raise UserError(f"{variant}{error}") from error


def check_keys(config: Config, like: Config, prefix: str = "") -> None:
    """Refuse a config whose keys are not those of `like`, or whose values have other types; FREE sections aside.

    A config file sees to that for single keys, but not for a section that is given as a whole.

    Raises:
      UserError: one line that says what to do.
    """
    for name in [*like, *config]:
        key = f"{prefix}{name}"
        if name not in config:
            raise UserError(f"the config has no {key}: give it, or set single keys, as in --config.{key}=VALUE")
        if name not in like:
            raise UserError(f"the config has no key {key}: the keys and their meaning stand in the config file")
        kind = like.get_type(name)
        value, is_section = config[name], isinstance(config[name], Config)
        if is_section != (kind is Config) or not (is_section or _fits(value, kind, like[name] is None)):
            raise UserError(f"{key} is {_plain(value)!r}, which is no {kind.__name__}: set another --config.{key}")
        if is_section and key not in FREE:
            check_keys(value, like[name], f"{key}.")


def check_values(config: Config) -> None:
    """Refuse numbers that cannot work and names that nothing has, wherever a config has the key.

    Raises:
      UserError: one line that says what to do.
    """
    for words, (works, keys) in NUMBERS.items():
        for key in keys:
            for value in _values(config, key):
                if not (is_number(value) and works(value)):
                    raise UserError(f"{key} is {value}: set --config.{key} to {words}")
    for key, choices in CHOICES.items():
        for value in _values(config, key):
            if value not in choices:
                raise UserError(f"{key} {value!r} is unknown; choose {_either(choices)}")
    last = 2**32 - config.get("seeds", 1)
    if config.seed > last:
        raise UserError(f"seed is {config.seed}: choose one from 0 to {last}, so that seeds stay apart")


def check_suited(config: Config, like: Config) -> None:
    """Refuse a section `suited` with other entries than kinds of requests and what readiness leaves unset.

    Args:
      like: the config file's own config.

    Raises:
      UserError: one line that says what to do.
    """
    unset = [name for name, value in like.readiness.items() if value is None]
    for setting, given in config.suited.items():
        if setting not in SETTINGS:
            raise UserError(f"suited has {setting!r}, which is no forget.setting; choose {_either(SETTINGS)}")
        if not isinstance(given, Config):
            raise UserError(f"suited {setting!r} is {given!r}: give a dict of what readiness leaves unset")
        for name in given:
            if name not in unset:
                raise UserError(
                    f"suited {setting!r} has {name!r}, which readiness never leaves unset: choose {_either(unset)}"
                )


def check_sets(config: Config, asked: Mapping[str, Any], sets: Sets) -> None:
    """Refuse sets of examples that are too small for what is measured on them.

    Args:
      asked: what the request is about, as a Batch.

    Raises:
      UserError: one line that says what to do.
    """
    more = "data.train_size" if config.forget.setting == "class" else "forget.fraction"
    for what, batch, least, mend in (
        ("to forget", asked, FOLDS, f"raise --config.{more}"),
        ("to compare forgotten ones with", sets.others, FOLDS, "choose other data or another class"),
        ("to test on", sets.test_retain, 1, "choose other data or another class"),
        ("to validate on", sets.validation_retain, 1, "raise --config.data.validation_fraction"),
    ):
        if len(batch["id"]) < least:
            raise UserError(f"there are {len(batch['id'])} examples {what}, {least} or more are needed: {mend}")
    request = config.request
    for i, part in enumerate(requests.parts(asked["id"], request.parts, request.overlap, config.forget.seed), 1):
        if not part.any():
            raise UserError(
                f"part {i} of the request is empty: its {len(part)} examples do not fill {request.parts} parts; "
                "set fewer --config.request.parts"
            )


def _trainings(config: Config) -> None:
    for key, choices in NAME_LISTS.items():
        names = next(_values(config, key))
        for name in names:
            if choices and name not in choices:
                raise UserError(f"{name!r} is unknown in {key}; choose from {', '.join(choices)}")
        if not names or len(set(names)) < len(names):
            raise UserError(f"{key} is {tuple(names)}: give one or more names, each once")
    algorithms.check_names(config.request.unlearners)
    for name in NEEDED:
        if name not in config.trainings:
            raise UserError(f"trainings lacks {name!r}: every comparison needs it; add it to --config.trainings")
    for key, (works, words, least) in NUMBER_LISTS.items():
        numbers = next(_values(config, key))
        if len(numbers) < least or not all(is_number(value) and works(value) for value in numbers):
            raise UserError(f"{key} is {tuple(numbers)}: give {words}, as in --config.{key}='(0.01, 0.1)'")
    weights = [f"{weight:g}" for weight in (config.reweight.weight, *config.reweight.others)]  # as rows are named
    if len(set(weights)) < len(weights):
        raise UserError(
            f"reweight.weight and reweight.others are {', '.join(weights)}: set --config.reweight.others to other weights, "
            "each once"
        )


def _forgetting(config: Config) -> None:
    if config.forget.setting not in SETTINGS:
        raise UserError(f"forget.setting {config.forget.setting!r} is unknown; choose {_either(SETTINGS)}")
    if config.forget.setting == "random" and config.forget.revocable >= 0:
        raise UserError(
            f"forget.revocable is {config.forget.revocable}, a class, but random examples are forgotten: "
            "set --config.forget.revocable=-1"
        )


def _requests(config: Config) -> None:
    names = {algorithms.short(name): name for name in config.request.unlearners}
    for name in config.request.options:
        if name not in names:
            raise UserError(f"request.options has {name!r}, which serves no request: add it to --config.request.unlearners")
    for name, algorithm in names.items():
        if algorithms.is_own(algorithm) or name in config.request.options:
            _options(f"request.options of {name}", algorithm, config.request.options.get(name, Config()))


def _rehearsals(config: Config) -> Iterator[tuple[str, Config]]:
    """(what to say of it, the section `readiness` with its overrides), the default first."""
    yield "", config.readiness
    for name, overrides in config.variants.items():
        _file_name(name)
        if not isinstance(overrides, Config):
            raise UserError(f"variant {name!r} is {overrides!r}: give a dict of overrides of readiness")
        varied = config.readiness.copy_and_resolve_references()
        for key, value in overrides.items():
            if key not in varied:
                raise UserError(f"variant {name!r} overrides readiness.{key}, which does not exist")
            try:
                varied.update({key: value})
            except (TypeError, ValueError) as error:
                raise UserError(f"variant {name!r} sets readiness.{key} to {value!r}: {line(error)}") from error
        yield f"variant {name!r}: ", varied


def _file_name(variant: Any) -> None:
    """Refuse a variant whose name cannot be part of the names of its files, or is that of another."""
    if not isinstance(variant, str) or not variant.isprintable() or variant in ("", "default") or "/" in variant:
        raise UserError(f"variant {variant!r} is no name: choose one other than 'default', printable and without '/'")
    if len(variant.encode()) > LONGEST:
        raise UserError(f"variant {variant!r} has a long name: choose one of at most {LONGEST} bytes")


def _rehearsal(section: Config, config: Config) -> None:
    check_values(Config({"seed": 0, "readiness": section}))
    if "readiness" in config.trainings and section.start >= config.train.steps:
        raise UserError(
            f"readiness.start is {section.start}, but training ends after {config.train.steps} steps: start sooner"
        )
    sizes = section.step_size
    are_two = isinstance(sizes, list | tuple) and len(sizes) == 2 and all(map(is_number, sizes))
    if not (are_two and 0 < sizes[0] <= sizes[1]):
        raise UserError(
            f"readiness.step_size is {sizes}: give (lowest, highest), as in --config.readiness.step_size='(0.3, 0.5)'"
        )
    if section.relearning and not section.relearn_steps:
        raise UserError("readiness.relearning needs steps to relearn in: set --config.readiness.relearn_steps to 1 or more")
    cap = section.cap
    if cap not in ("", "log_classes") and not _is_positive(cap):
        raise UserError(f"readiness.cap {cap!r} is no number above 0: give one, log_classes, or nothing")
    algorithms.algorithm(section.algorithm, "readiness.algorithm")
    _options("readiness.algorithm_options", section.algorithm, section.algorithm_options)


def _options(where: str, algorithm: str, options: Any) -> None:
    """Refuse options that an algorithm does not have or cannot take: one update of a toy model is traced with them."""
    if not isinstance(options, Config) or not all(is_number(value) and value >= 0 for value in options.values()):
        raise UserError(f"{where} are {_plain(options)!r}: give each option a number from 0 up, as in '{{\"gamma\": 0.5}}'")
    model = Model(lambda params, x, key: x @ params, lambda logits, batch: cross_entropy(logits, batch["y"]))
    ones = jnp.ones(1)
    batch = {"x": ones[None], "y": jnp.zeros(1, jnp.int32), "id": jnp.zeros(1, jnp.int32), "weight": ones}
    request, key = Request(batch, batch), jax.random.key(0)

    def update(params: jax.Array) -> Any:
        made = algorithms.checked(algorithm, algorithms.algorithm(algorithm)(model, optax.sgd(0.1), **options))
        return made.update(made.init(params, request, key), request, key)[1]

    try:
        jax.eval_shape(update, jnp.ones((1, 2)))
    except UserError:
        raise
    except Exception as error:  # a user's own raises what it likes
        if algorithms.is_own(algorithm):
            raise UserError(
                f"{algorithm!r} fails on a toy model ({type(error).__name__}: {line(error, 160)}): mend it"
            ) from error
        if not isinstance(error, TypeError | ValueError | ArithmeticError):
            raise
        raise UserError(f"{where} cannot be used ({line(error)}): set others") from error


def _values(config: Config, key: str) -> Iterator[Any]:
    """The value at a dotted key, if the config has it."""
    section, _, name = key.rpartition(".")
    holder = config.get(section) if section else config
    if isinstance(holder, Config) and name in holder:
        yield holder[name]


def _fits(value: Any, kind: type, optional: bool) -> bool:
    if value is None:
        return optional
    if kind in (int, float):
        return is_number(value, finite=False) and (kind is float or not isinstance(value, float))
    return isinstance(value, list | tuple) if kind is tuple else isinstance(value, kind)


def is_number(value: Any, finite: bool = True) -> bool:
    """Whether a value is a number, and a finite one."""
    numeric = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    return numeric and (not finite or math.isfinite(value))


def _is_positive(text: str) -> bool:
    try:
        return 0 < float(text) < math.inf
    except ValueError:
        return False


def _plain(value: Any) -> Any:
    return value.to_dict() if isinstance(value, Config) else value


def _either(names: Any) -> str:
    *most, last = map(str, names)
    return f"{', '.join(most)} or {last}" if most else last

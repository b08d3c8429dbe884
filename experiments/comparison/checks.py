"""The door, and what only algorithms and data can tell: options an algorithm cannot take, sets that are too small."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from experiments.configs.begun import as_begun
from experiments.configs.comparison import Comparison
from experiments.configs.judge import Judge
from experiments.configs.readiness import shipped
from experiments.core import forgetting, keys, sections
from experiments.core.config import Loc, key, validated
from experiments.core.errors import ConfigError, UserError, kind, line
from experiments.core.notices import LOG
from experiments.data.datasets import Dataset
from experiments.data.problem import Problem
from experiments.data.text.loading import is_text
from experiments.models import ModelFns, as_model, classifies_text
from experiments.scoring import algorithms, requests
from unlearn import Request, UnlearnAlgorithm, classifier, second_order, sequence_model, traits_of
from unlearn.base import CLASSIFIER, LANGUAGE, Batch, Model, UnlearnState
from unlearn.losses import weighted_mean
from unlearn.metrics.membership import FOLDS

Tokenised = TypeVar("Tokenised", Comparison, Judge)


def resolved(
    config: ml_collections.ConfigDict | Comparison, begun: Callable[[], dict[str, Any] | None] = lambda: None
) -> Comparison:
    """The validated config, with what readiness leaves unset filled in as suits the kind of request.

    Args:
      begun: reads the config.json of the run's folder, if there is one.

    Raises:
      ConfigError: one line for each mistake.
    """
    made = validated(Comparison, config)
    made = with_tokeniser(as_begun(made, shipped(made), begun()).resolved())
    check_options(made.request, made.by_variant(), kind_of(made.data, made.model))
    return made


def with_tokeniser(config: Tokenised) -> Tokenised:
    """The config; of text that names no tokeniser it is that of pre-trained weights."""
    data, model = config.data, config.model
    if not is_text(data.name) or data.factory or data.tokeniser or not model.is_pretrained:
        return config
    return config.model_copy(update={"data": data.model_copy(update={"tokeniser": model.tokeniser})})


def kind_of(data: sections.Data, model: sections.Model) -> str:
    """What the models of a config are: of text that is not classified, language models.

    A folder that cannot be read is refused later: without it a finished run can still be looked at.
    """
    if not is_text(data.name) or data.factory:
        return CLASSIFIER
    try:
        return CLASSIFIER if classifies_text(model) else LANGUAGE
    except UserError:
        return LANGUAGE


def check_options(
    request: forgetting.Unlearners, readiness: Mapping[str, forgetting.Readiness], models: str = CLASSIFIER
) -> None:
    """Refuse names of no algorithm, those that cannot unlearn the run's models, and options that one does not have or take.

    Args:
      readiness: by variant, the default one under "".
      models: their kind, one of `unlearn.KINDS`.

    Raises:
      ConfigError: a line for each algorithm of which there are.
    """
    algorithms.check_names(request.unlearners)
    told: list[tuple[Loc, str]] = []
    for name in request.unlearners:
        algorithms.check_kind(name, models)
        base = algorithms.base(name)
        if base in request.options and not algorithms.is_own(name):
            told.append((("request", "options", base), _refusal(base, request.options[base], models)))
    for variant, section in readiness.items():
        algorithms.algorithm(section.rehearsed, key(_rehearsed_at(variant)))
        algorithms.check_kind(section.rehearsed, models, key(_rehearsed_at(variant)))
        if not algorithms.is_own(section.rehearsed):
            at = (*_section_at(variant), "algorithm_options")
            told.append((at, _refusal(section.rehearsed, section.algorithm_options, models)))
    if lines := [f"{key(at)} cannot be used ({said}): set others" for at, said in told if said]:
        raise ConfigError(lines)


def check_own(
    request: forgetting.Unlearners,
    readiness: Mapping[str, forgetting.Readiness],
    fns: ModelFns,
    problem: Problem,
    batch_size: int,
) -> None:
    """Refuse algorithms of a user's own that fail on the run's model and data, or do not keep to the contract.

    And those of the shelf that need something of a model or of a request which this one has not.

    Args:
      readiness: by variant, the default one under "".
      batch_size: of a step of the request; 0: the whole request.

    Raises:
      ConfigError: a line for each such algorithm.
    """
    trial = _trial(fns, problem, batch_size)
    lines = [
        _told(
            ("request", "unlearners"),
            name,
            "it, or config.request.options",
            trial,
            _try,
            **algorithms.options(request, name),
        )
        for name in request.unlearners
        if algorithms.is_own(name)
    ]
    lines += [_unsuited(("request", "unlearners"), name, trial) for name in request.unlearners]
    for variant, section in readiness.items():
        at, name = _rehearsed_at(variant), section.rehearsed
        lines.append(_unsuited(at, name, trial))
        if algorithms.is_own(name):
            needs_retain = traits_of(algorithms.algorithm(name)).needs_retain
            given = trial if needs_retain else Trial(*trial[:2], Request(trial.whole.forget), Request(trial.batch.forget))
            which = "it, which readiness gives mean, grad and algorithm_options"
            lines.append(_told(at, name, which, given, _rehearse, **section.algorithm_options))
    if any(lines):
        raise ConfigError([told for told in lines if told])


def _told(at: Loc, name: str, which: str, trial: Trial, attempt: Callable[..., Any], **options: Any) -> str:
    """What is wrong with an algorithm of a user's own, in one line; empty if nothing is."""
    try:
        attempt(name, trial, **options)
    except UserError as error:
        return f"{key(at)} {name!r} {line(error)}"
    except (Exception, SystemExit) as error:  # a user's own raises what it likes
        return f"{key(at)} {name!r} fails on this run's model and data ({kind(error)}): mend {which}"
    return ""


def _unsuited(at: Loc, name: str, trial: Trial) -> str:
    """What an algorithm of the shelf misses in a model or in a request, in one line; empty if nothing."""
    if algorithms.is_own(name):
        return ""
    forget = dict(trial.whole.forget)
    whole = Request(forget | {"level": forget["weight"]}, trial.whole.retain)  # levels come with requests to them
    try:
        algorithm = algorithms.algorithm(name)(trial.model, optax.sgd(0.1))
        jax.eval_shape(algorithm.init, trial.params, whole, keys.unused())
    except ValueError as error:
        return f"{key(at)} {name!r} cannot be used ({line(error)}): mend the model or the data, or choose another"
    return ""


def _section_at(variant: str) -> Loc:
    return ("variants", variant) if variant else ("readiness",)


def _rehearsed_at(variant: str) -> Loc:
    return (*_section_at(variant), "algorithm")


class Trial(NamedTuple):
    """What an algorithm is tried on, as shapes: its updates are traced, and nothing is computed."""

    model: Model
    params: Any
    whole: Request
    batch: Request


def _trial(fns: ModelFns, problem: Problem, batch_size: int) -> Trial:
    """The run's model, with a request and a batch of it as large as the run's."""
    sides = problem.asked, problem.sets.retain
    size = batch_size or len(problem.asked["id"])
    params = jax.eval_shape(fns.init, keys.unused())
    whole, batch = (Request(*(_shapes(side, most) for side in sides)) for most in (None, size))
    return Trial(as_model(fns), params, whole, batch)


def _shapes(batch: Batch, most: int | None) -> Batch:
    """Of at most so many examples, as JAX will hold them."""

    def shape(leaf: Any) -> jax.ShapeDtypeStruct:
        rows = leaf[:most]
        return jax.ShapeDtypeStruct(rows.shape, jax.dtypes.canonicalize_dtype(rows.dtype))

    shapes: Batch = jax.tree.map(shape, dict(batch))
    return shapes


def _try(name: str, trial: Trial, **options: Any) -> None:
    """Trace the start of an algorithm and one update.

    Raises:
      UserError: what it gives is not of the contract; its words follow the algorithm's name.
      Exception: whatever else a user's own raises.
    """
    algorithm = algorithms.algorithm(name)(trial.model, optax.sgd(0.1), **options)
    jax.eval_shape(functools.partial(_updated, algorithm), trial.params, trial.whole, trial.batch)


def _rehearse(name: str, trial: Trial, **options: Any) -> None:
    """Trace the same as readiness does: reduced and derived by its means, and differentiated."""
    algorithm = algorithms.algorithm(name)(trial.model, optax.sgd(0.1), mean=weighted_mean, grad=second_order, **options)

    def total(*given: Any) -> jax.Array:
        return jnp.sum(jnp.stack([jnp.sum(leaf) for leaf in jax.tree.leaves(_updated(algorithm, *given))]))

    jax.eval_shape(jax.grad(total), trial.params, trial.whole, trial.batch)


def _updated(algorithm: Any, params: Any, whole: Request, batch: Request) -> Any:
    """The parameters after one update; raises as `_try` does."""
    if not isinstance(algorithm, UnlearnAlgorithm):
        raise UserError(f"gives a {_type(algorithm)}: give an unlearn.UnlearnAlgorithm(init, update)")
    state = algorithm.init(params, whole, keys.unused())
    if not isinstance(state, UnlearnState):
        raise UserError(f"has an init that gives a {_type(state)}: give an unlearn.UnlearnState(params, opt_state, memory)")
    _check_kept("init", "params", params, state.params)
    given = algorithm.update(state, batch, keys.unused())
    if not (type(given) is tuple and len(given) == 2 and isinstance(given[0], UnlearnState)):
        raise UserError(f"has an update that gives a {_type(given)}: give a pair (unlearn.UnlearnState, info)")
    for field in UnlearnState._fields:
        _check_kept("update", field, getattr(state, field), getattr(given[0], field))
    return given[0].params


def _check_kept(part: str, field: str, before: Any, after: Any) -> None:
    """Refuse a field of the state whose structure, shapes or types do not stay: no loop could carry it.

    Raises:
      UserError: the first place that differs.
    """
    structures: list[Any] = [jax.tree.structure(tree) for tree in (before, after)]
    if structures[0] != structures[1]:
        raise UserError(f"has an {part} that gives {field} of another structure: keep that of the {field} it was given")
    for (path, old), new in zip(jax.tree_util.tree_leaves_with_path(before), jax.tree.leaves(after), strict=True):
        held, made = (f"{jnp.result_type(leaf)}{list(jnp.shape(leaf))}" for leaf in (old, new))
        if held != made:
            where = field + jax.tree_util.keystr(path)
            raise UserError(f"has an {part} that makes {where} {made}, which was {held}: keep its shape and type")


def _type(value: Any) -> str:
    return type(value).__name__


def _refusal(algorithm: str, options: Mapping[str, float], models: str) -> str:
    """What an algorithm of the shelf says against options, if it does: one update of a toy model is traced with them."""
    try:
        _try(algorithm, _toy(models), **options)
    except (TypeError, ValueError, ArithmeticError) as error:
        return line(error)
    return ""


def _toy(models: str) -> Trial:
    """A model of that kind with two parameters, and a request of one example."""
    index, ones = jnp.zeros(1, jnp.int32), jnp.ones(1)
    if models == LANGUAGE:
        text = {"x": index[None], "y": index[None]}
        batch = text | {"id": index, "weight": ones, "level": ones, "alternative": text}
        model = sequence_model(lambda params, x, key: params[x], lambda params, x, key: params[x])
    else:
        batch = {"x": ones[None], "y": index, "id": index, "weight": ones}
        model = classifier(lambda params, x, key: x @ params, lambda params, x, key: x @ params)
    request = Request(batch, batch)
    return Trial(model, jnp.ones((1, 2)), request, request)


def check_private(dataset: Dataset) -> None:
    """Refuse DP-SGD on documents of several rows: it would guard each row, and a document's would be as many times weaker.

    Raises:
      UserError: one line that says what to do.
    """
    if dataset.units is not None and (rows := int(np.unique(dataset.units, return_counts=True)[1].max())) > 1:
        planted = dataset.corpus.planted if dataset.corpus else None
        copies = planted is not None and planted.repeats > 1
        mend = "--config.data.canaries.repeats=1" if copies else "a larger --config.data.length"
        raise UserError(
            f"dpsgd guards single rows, and a document here has {rows} of them: set {mend}, or leave dpsgd out of trainings"
        )


def check_problem(problem: Problem, noise: float, parts: int = 1, overlap: float = 0.0) -> None:
    """Refuse sets of examples that are too small for what is measured on them, and noise that there is no room for.

    Args:
      noise: share of what training is told that is wrong.
      parts, overlap: of the request.

    Raises:
      UserError: one line that says what to do.
    """
    if overlap and parts == 1:
        LOG.warning("request.overlap is of several request.parts: a request of one part goes without it")
    asked, sets = problem.asked, problem.sets
    named = forgetting.ASKED_BY.get(problem.setting)
    more = f"raise --config.{'data.train_size' if problem.by_class else 'forget.fraction'}"
    more = f"ask for more in --config.forget.{named}, or train on more" if named else more
    for what, batch, least, mend in (
        ("to forget", asked, FOLDS, more),
        ("to compare forgotten ones with", sets.others, FOLDS, "choose other data or another class"),
        ("to test on", sets.test_retain, 1, "choose other data or another class"),
        ("to validate on", sets.validation_retain, 1, "raise --config.data.validation_fraction"),
    ):
        if len(batch["id"]) < least:
            raise UserError(f"there are {len(batch['id'])} examples {what}, {least} or more are needed: {mend}")
    if overlap and requests.by_classes(problem.labels, parts):
        raise UserError(
            f"request.overlap is {overlap:g}, but {parts} parts of {parts} classes are one class each: set "
            "--config.request.overlap=0"
        )
    for i, part in enumerate(requests.parts(problem.units, parts, overlap, problem.seed, problem.labels), 1):
        if not part.any():
            raise UserError(
                f"part {i} of the request is empty: its {len(part)} examples do not fill {parts} parts; "
                "set fewer --config.request.parts"
            )
    problem.told(noise)  # refused here, whoever will be told

"""Mistakes of a library user: one line each that says what to do, told while a program is traced."""

import re

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.core.machines import execution
from readiness import Terms, init_state, make_readiness, make_step
from tests.helpers import toys
from unlearn import Request, ascent, classifier, find_algorithm, level, losses, unlearn, unlearn_until, weighted_mean
from unlearn.base import mean_loss, merged, roll_out
from unlearn.until import never

KEY = jax.random.key(0)
BATCH = toys.first(toys.requests()).forget
MODULE = nn.Dense(3)


def algorithm(model=toys.MLP):
    return ascent(model, optax.sgd(0.1))


def begun(request, model=toys.MLP):
    """`init` and one update, traced alone."""
    made = algorithm(model)
    return jax.eval_shape(lambda p: made.update(made.init(p, request, KEY), request, KEY), toys.mlp_params())


def refused(error, match, call):
    with pytest.raises(error, match=match) as caught:
        call()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["x", "y", "id", "weight"])
def test_a_batch_that_lacks_something_is_told_what(key):
    without = {name: leaf for name, leaf in BATCH.items() if name != key}
    refused(ValueError, f"^forget data have no {key!r}: add ", lambda: begun(Request(without)))
    refused(ValueError, f"^retain data have no {key!r}: add ", lambda: begun(Request(BATCH, without)))
    if key in ("x", "weight"):
        refused(ValueError, f"have no {key!r}: add ", lambda: mean_loss(toys.MLP, toys.mlp_params(), without, KEY))


def test_what_is_no_batch_and_no_request_is_refused():
    refused(TypeError, "^forget data are of type ndarray: give a mapping", lambda: begun(Request(BATCH["x"])))
    refused(TypeError, "^a request is of type dict: give Request", lambda: begun(BATCH))


def test_examples_that_do_not_line_up_are_refused():
    refused(
        ValueError,
        r"^\['y'\] of the forget data has shape \(3,\) where",
        lambda: begun(Request(BATCH | {"y": BATCH["y"][:3]})),
    )


def test_batches_without_a_step_axis_are_refused():
    state = algorithm().init(toys.mlp_params(), Request(BATCH), KEY)
    hint = r"^forget data have no step axis: weight has shape \(4,\), not \[steps, examples\]; for one step give"
    refused(ValueError, hint, lambda: roll_out(algorithm(), state, Request(BATCH), KEY))
    refused(ValueError, hint, lambda: unlearn(algorithm(), toys.mlp_params(), Request(BATCH), Request(BATCH), KEY))


def test_a_step_axis_where_one_batch_is_meant_is_refused():
    refused(
        ValueError,
        r"weight of the forget data has shape \(3, 4\): it should be \[examples\]",
        lambda: begun(toys.requests()),
    )


@pytest.mark.parametrize(
    "loss, shape",
    [
        (lambda logits, batch: jnp.mean(toys.loss_per_example(logits, batch)), r"\(\)"),
        (lambda logits, batch: jnp.stack([toys.loss_per_example(logits, batch)] * 4, axis=1), r"\(4, 4\)"),
    ],
    ids=["scalar", "tokens"],
)
def test_a_loss_that_is_not_one_value_per_example_is_refused(loss, shape):
    model = toys.MLP._replace(loss=loss)
    refused(
        ValueError, rf"^model.loss returns shape {shape} for weights of shape \(4,\)", lambda: begun(Request(BATCH), model)
    )


def test_tokens_are_no_examples_even_where_there_are_as_many_of_them():
    """Logits [4, 4, vocabulary] under a classifier: broadcasting would weigh the tokens by their documents' weights."""
    batch = toys.token_batch(0, toys.LENGTH)
    model, params = classifier(toys.token_apply), toys.token_params()
    refused(ValueError, r"shape \(4, 4\) for weights of shape \(4,\)", lambda: mean_loss(model, params, batch, KEY))
    sequence = toys.KINDS["sequence"].model
    per_token = sequence._replace(divergence=model.divergence)
    made, request = find_algorithm("ascent_kl")(per_token, optax.sgd(0.1)), Request(batch, batch)
    hint = r"^values of shape \(4, 4\) cannot be reduced with weights of shape \(4,\): reduce tokens to one value"
    refused(ValueError, hint, lambda: made.update(made.init(params, request, KEY), request, KEY))


@pytest.mark.parametrize(
    "mean", [weighted_mean, execution.make("pmap").mean, execution.make("jit").mean], ids=["plain", "pmap", "jit"]
)
@pytest.mark.parametrize("shape", [(4, 4), (), (3,), (1,), (4, 1)])
def test_every_mean_refuses_values_of_another_shape(mean, shape):
    refused(ValueError, "reduce tokens to one value per example first", lambda: mean(jnp.ones(shape), jnp.ones(4)))


@pytest.mark.parametrize(
    "loss", [losses.cross_entropy, losses.margin, losses.correct, losses.confidence, losses.modified_entropy]
)
@pytest.mark.parametrize("logits, labels", [((4, 4, 5), (4, 1)), ((3, 2), (1,)), ((3, 2), ()), ((4, 4, 5), (4,))])
def test_labels_are_those_of_the_logits(loss, logits, labels):
    hint = f"^labels of shape {re.escape(str(labels))} are not those of logits of shape"
    refused(ValueError, hint, lambda: loss(jnp.zeros(logits), jnp.zeros(labels, int)))


def test_a_divergence_is_of_the_same_examples():
    refused(ValueError, "cannot be compared: give both", lambda: losses.kl_divergence(jnp.zeros((1, 3)), jnp.zeros((4, 3))))


@pytest.mark.parametrize(
    "name, option, value, wanted",
    [
        ("npo", "beta", 0, "a number above 0"),
        ("npo", "beta", float("nan"), "a number above 0"),
        ("npo", "beta", np.float32(-1), "a number above 0"),
        ("ascent", "cap", -1.0, "a number above 0"),
        ("graddiff", "gamma", -0.5, "a number of 0 or more"),
        ("ascent_kl", "gamma", float("inf"), "a number of 0 or more"),
        ("random_label", "gamma", -1, "a number of 0 or more"),
        ("neggrad_plus", "beta", 1.5, "a number from 0 to 1"),
        ("level", "beta", -0.5, "a number from 0 to 1"),
        ("level", "target", float("nan"), r"a number from -1e\+06 to 1e\+06"),
        ("level", "width", 0, "a number above 0"),
    ],
)
def test_an_option_out_of_range_is_refused(name, option, value, wanted):
    made = lambda value: find_algorithm(name)(toys.MLP, optax.sgd(0.1), **{option: value})  # noqa: E731
    refused(ValueError, f"^{option} is {value}: give {wanted}$", lambda: made(value))
    made(jnp.float32(value))  # an array may be a lane of a sweep


@pytest.mark.parametrize(
    "field, value", [("cap", -1.0), ("cap", 0), ("retention", -1), ("efficiency", float("nan")), ("width", 0.0)]
)
def test_a_term_out_of_range_is_refused(field, value):
    rehearsed = lambda size: ascent(toys.MLP, optax.sgd(size))  # noqa: E731
    terms = Terms(cap=1.0)._replace(**{field: value})
    refused(ValueError, f"^{field} is {value}: give", lambda: make_readiness(toys.MLP, rehearsed, terms))


@pytest.mark.parametrize("shape", [(1,), (3,), (4, 1), (1, 1)])
def test_levels_are_one_number_or_one_for_each_example(shape):
    hint = rf"^levels of shape {re.escape(str(shape))} for examples of shape \(4,\): give one, or one for each"

    def updated(forget, target=None):
        made, request = level(toys.MLP, optax.sgd(0.1), target=target), Request(forget, BATCH)
        return jax.eval_shape(lambda p: made.update(made.init(p, request, KEY), request, KEY), toys.mlp_params())

    refused(ValueError, hint, lambda: updated(BATCH, jnp.ones(shape)))
    if shape[0] == 4:
        refused(ValueError, hint, lambda: updated(BATCH | {"level": np.ones(shape, np.float32)}))
    updated(BATCH, jnp.ones(4))
    updated(BATCH, jnp.ones(()))


def test_a_batch_of_a_request_with_levels_has_some():
    made, params = level(toys.MLP, optax.sgd(0.1)), toys.mlp_params()
    state = made.init(params, Request(BATCH | {"level": np.ones(4, np.float32)}, BATCH), KEY)
    hint = "^the whole request has levels, and a batch of it has none: give every forget batch its `level`"
    refused(ValueError, hint, lambda: made.update(state, Request(BATCH, BATCH), KEY))


@pytest.mark.parametrize(
    "unseen, match",
    [
        ({name: BATCH[name] for name in ("x", "y")}, "^unseen data have no 'weight': add"),
        (BATCH | {"x": BATCH["x"][:2]}, r"^\['x'\] of the unseen data has shape"),
        ({name: leaf[:0] for name, leaf in BATCH.items()}, "^unseen data have no examples: give some, or None"),
    ],
)
def test_held_out_examples_that_are_no_batch_are_refused(unseen, match):
    rehearsed = lambda size: level(toys.MLP, optax.sgd(size))  # noqa: E731
    refused(ValueError, match, lambda: make_readiness(toys.MLP, rehearsed, Terms(), unseen=unseen))
    without_ids = {name: leaf for name, leaf in BATCH.items() if name != "id"}
    make_readiness(toys.MLP, rehearsed, Terms(), unseen=without_ids)


def test_a_budget_below_nothing_is_refused():
    refused(
        ValueError,
        "^max_steps is -1: give a number of 0 or more$",
        lambda: unlearn_until(algorithm(), Request, lambda *_: Request(BATCH), lambda *_: {}, never, -1),
    )


def test_an_unknown_algorithm_is_answered_with_the_nearest_names():
    refused(
        ValueError, "^algorithm 'negrad_plus' is unknown: did you mean neggrad_plus", lambda: find_algorithm("negrad_plus")
    )
    refused(ValueError, "^algorithm 'zzz' is unknown: choose one of level, ascent", lambda: find_algorithm("zzz"))


@pytest.mark.parametrize("model", [MODULE, toys.mlp_apply], ids=["module", "function"])
def test_what_is_no_model_is_refused(model):
    hint = f"^model is of type {type(model).__name__}, not unlearn.Model: make one of functions, as in classifier"
    rehearsed = lambda size: ascent(toys.MLP, optax.sgd(size))  # noqa: E731
    refused(TypeError, hint, lambda: algorithm(model))
    refused(TypeError, hint, lambda: ascent(model=model, optimizer=optax.sgd(0.1)))
    refused(TypeError, hint, lambda: make_step(model, optax.sgd(0.1)))
    refused(TypeError, hint, lambda: make_readiness(model, rehearsed, Terms(cap=1.0)))


def test_moments_of_batch_norm_are_no_parameters():
    variables = nn.BatchNorm(use_running_average=False).init(KEY, np.ones((2, 3)))
    hint = "^params hold 'batch_stats', the moments of BatchNorm, which are no parameters"
    until = unlearn_until(algorithm(), Request, lambda data, key, step: Request(data), lambda p, d: {}, never, 1)
    batches = jax.tree.map(lambda leaf: leaf[None], Request(BATCH))
    refused(ValueError, hint, lambda: algorithm().init(variables, Request(BATCH), KEY))
    refused(ValueError, hint, lambda: unlearn(algorithm(), variables, merged(batches), batches, KEY))
    refused(ValueError, hint, lambda: until(variables, BATCH, KEY))
    refused(ValueError, hint, lambda: init_state(variables, optax.sgd(0.1)))


@pytest.mark.parametrize(
    "params, match",
    [
        (
            eqx.nn.MLP(3, 3, 4, 1, key=KEY),
            r"^params hold 'activation' of type \w+: give float arrays alone: .*eqx.partition",
        ),
        (eqx.nn.make_with_state(eqx.nn.BatchNorm)(3, "batch", mode="ema")[0], "^params hold 'StateIndex', the moments of"),
        (
            {"params": {"w": np.zeros(2)}, "bn": {"running_mean": np.zeros(2)}},
            "^params hold 'running_mean', the moments of",
        ),
        ({"a": {"batch_stats": {"mean": np.zeros(2)}}}, "^params hold 'batch_stats', the moments of"),
        ({"w": np.zeros(3, int)}, "^params hold 'w' of type int64: give float arrays alone"),
        ({"w": 1.0}, "^params hold 'w' of type float: give float arrays alone"),
        ({"key": KEY}, "^params hold 'key' of type key"),
        ({}, "^params hold no array: give float arrays alone"),
        (None, "^params hold no array: give float arrays alone"),
    ],
    ids=["module", "norm", "running", "nested", "integers", "number", "key", "empty", "none"],
)
def test_what_gradient_descent_cannot_move_is_no_parameter(params, match):
    refused(ValueError, match, lambda: algorithm().init(params, Request(BATCH), KEY))
    refused(ValueError, match, lambda: init_state(params, optax.sgd(0.1)))


def test_arrays_of_a_module_are_parameters():
    params = eqx.partition(eqx.nn.MLP(3, 3, 4, 1, key=KEY), eqx.is_inexact_array)[0]
    assert init_state(params, optax.sgd(0.1)).params is params


def test_checks_leave_nothing_in_the_program():
    """The program of a declared algorithm is that of the same one unchecked."""
    request, made = Request(BATCH), algorithm()
    state = made.init(toys.mlp_params(), request, KEY)
    bare = ascent.__wrapped__(toys.MLP, optax.sgd(0.1))
    checked, unchecked = (str(jax.make_jaxpr(each.update)(state, request, KEY)) for each in (made, bare))
    assert len(checked) == len(unchecked) and checked.count("\n") == unchecked.count("\n")

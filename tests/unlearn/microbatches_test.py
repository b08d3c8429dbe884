"""Batches in parts: values and derivatives are the whole batch's in float64, and no array holds all of its activations."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.interpreters.partial_eval import dce_jaxpr

from readiness import MetaBatch, Terms, make_readiness, make_step
from readiness.step import init_state
from tests.helpers import toys
from unlearn import ALGORITHMS, microbatched, sequence_model, traits_of
from unlearn.base import example_losses, mean_loss, per_example
from unlearn.gradient import first_order, second_order

SAME = 1e-10
KEY = jax.random.key(3)


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("parts, examples, unroll", [(2, 6, False), (3, 7, False), (4, 6, True), (9, 5, False)])
def test_value_gradient_and_hessian_of_a_mean_are_the_whole_batch_s(parts, examples, unroll):
    """Weights are uneven, the last one is 0, and most batches do not divide; of 9 parts 5 have an example."""
    data, params = toys.batch(0, examples, padded=1), toys.mlp_params()

    def told(model):
        loss = lambda params: mean_loss(model, params, data, None)  # noqa: E731
        (value, gradient), hessian = jax.value_and_grad(loss)(params), jax.jacfwd(jax.grad(loss))(params)
        return value, gradient, hessian, jax.jacrev(jax.grad(loss))(params), model.apply(params, data["x"], None)

    both = lambda: (told(microbatched(toys.MLP, parts, unroll=unroll)), told(toys.MLP))  # noqa: E731
    toys.assert_close(*toys.quick_jit(both)(), SAME)


def test_what_is_no_mean_is_not_the_mean_of_the_parts():
    """A pull that stops at a cap: it is active on the whole batch, and on one half of it alone."""
    data, params = toys.batch(0, 6), toys.mlp_params()
    losses = example_losses(toys.MLP, params, data, None)
    cap = float(toys.average(losses, data["weight"])) + 1e-3
    capped = lambda model: lambda params: jnp.minimum(mean_loss(model, params, data, None), cap)  # noqa: E731
    gradients = [jax.grad(capped(model))(params) for model in (toys.MLP, microbatched(toys.MLP, 2))]
    halves = [toys.average(losses[i::2], data["weight"][i::2]) for i in range(2)]
    assert min(halves) < cap < max(halves) and toys.relative_error(gradients[1], gradients[0]) < SAME


def meta_batch(asked, size):
    """Two inner steps and two of relearning; 5 examples in each part."""
    return MetaBatch(asked(0), *(toys.first(asked(seed)).forget for seed in (2, 3, 4)), asked(5))


def asked_of(kind):
    """(seed) -> requests of two steps, in which levels stand for themselves."""
    rows = toys.token_batch if kind == "sequence" else toys.batch

    def asked(seed):
        forget, retain = rows(seed, 5, padded=1, steps=2), rows(seed + 100, 5, steps=2)
        levels = np.random.default_rng(seed).normal(size=(2, 5))
        return toys.Request(forget | {"level": levels}, retain)

    return asked


QUICK = (("level", first_order), ("level", second_order), ("wga", second_order))
REHEARSED = [name for name, algorithm in ALGORITHMS.items() if traits_of(algorithm).differentiable]
EVERY = [(name, order) for name in REHEARSED for order in (first_order, second_order)]


@pytest.mark.parametrize(
    "name, order", [pytest.param(*case, marks=() if case in QUICK else pytest.mark.slow) for case in EVERY]
)
def test_a_step_that_rehearses_every_algorithm_is_the_whole_batch_s(name, order):
    """K = 2; readiness has all of its terms, and each part of the meta-batch is of 5 examples in 3 parts."""
    kind = "classifier" if "classifier" in traits_of(ALGORITHMS[name]).kinds else "sequence"
    plain, params, asked = toys.KINDS[kind].model, toys.KINDS[kind].params(), asked_of(kind)
    batch, meta = toys.first(asked(7)).retain, meta_batch(asked, 5)
    terms = Terms(efficiency=0.5, resistance=0.3, relearning=0.2, holding=0.1, cap="level", width=0.5)

    def after(model):
        rehearsed = lambda rate: ALGORITHMS[name](model, optax.sgd(rate), grad=order)  # noqa: E731
        relearner = ALGORITHMS["finetune"](model, optax.sgd(0.2), grad=order)
        step = make_step(model, optax.sgd(1.0), readiness=make_readiness(model, rehearsed, terms, relearner=relearner))
        state, info = toys.quick_jit(step)(init_state(params, optax.sgd(1.0)), batch, KEY, meta, 0.3)
        return state.params, info

    (whole, told), (parts, told_of_parts) = after(plain), after(microbatched(plain, 3))
    toys.assert_close((parts, told_of_parts), (whole, told), SAME)
    assert toys.relative_error(whole, params) > 0.01 and told.readiness != 0


def test_each_part_draws_by_a_key_of_its_own():
    """So that dropout of parts is not alike; the draws of two calls with one key are."""
    data = toys.batch(0, 6) | {"x": np.ones((6, toys.FEATURES))}
    model, params = microbatched(toys.DROPOUT_MLP, 3), toys.mlp_params()
    logits = [np.asarray(model.apply(params, data["x"], key)) for key in (KEY, KEY, jax.random.key(4), None)]
    parts = logits[0].reshape(2, 3, -1).swapaxes(0, 1)
    assert np.array_equal(logits[0], logits[1]) and not np.array_equal(logits[0], logits[2])
    assert not any(np.array_equal(parts[i], parts[j]) for i, j in ((0, 1), (0, 2), (1, 2)))
    np.testing.assert_allclose(logits[3], toys.mlp_apply(params, data["x"], None), rtol=SAME)
    losses, mean = example_losses(model, params, data, KEY), mean_loss(model, params, data, KEY)
    np.testing.assert_allclose(losses, toys.loss_per_example(logits[0], data), rtol=SAME)
    np.testing.assert_allclose(jax.value_and_grad(lambda p: mean_loss(model, p, data, KEY))(params)[0], mean, rtol=SAME)


def sizes(jaxpr):
    """Numbers in each array that a trace makes."""
    for equation in jaxpr.eqns:
        yield from (var.aval.size for var in equation.outvars)
        for value in equation.params.values():
            for entry in value if isinstance(value, tuple | list) else (value,):
                entry = getattr(entry, "jaxpr", entry)
                if hasattr(entry, "eqns"):
                    yield from sizes(entry)


@pytest.mark.parametrize("name", ["level", "ascent_kl", "undial", "npo", "wga", "dpo"])
def test_no_array_of_a_rehearsal_holds_the_logits_of_all_documents(name):
    """8 documents of 3 tokens, of 1000 entries, in parts of 2: nothing is larger than logits of a part."""
    rows, length, vocabulary, width = 8, 3, 1000, 2
    plain = sequence_model(lambda params, x, key: params["in"][x] @ params["out"])
    params = {"in": jnp.ones((vocabulary, width)), "out": jnp.ones((width, vocabulary))}
    text = {"x": jnp.zeros((rows, length), int), "y": jnp.zeros((rows, length), int)}
    one = text | {"id": jnp.arange(rows), "weight": jnp.ones(rows), "level": -jnp.ones(rows), "alternative": text}
    meta = MetaBatch(toys.stack([toys.Request(one, one)]), one, one)

    def largest(model):
        rehearsed = lambda rate: ALGORITHMS[name](model, optax.sgd(rate))  # noqa: E731
        step = make_step(model, optax.sgd(1.0), readiness=make_readiness(model, rehearsed, Terms(efficiency=1.0)))
        traced = jax.make_jaxpr(step)(init_state(params, optax.sgd(1.0)), one, KEY, meta, 0.1).jaxpr
        return max(
            sizes(dce_jaxpr(traced, [True] * len(traced.outvars))[0])
        )  # without what nobody reads, as it is compiled

    part = rows // 4 * length * vocabulary
    assert largest(plain) >= 4 * part and largest(microbatched(plain, 4)) == part


def test_functions_of_several_logits_and_trees_of_examples():
    model, data = microbatched(toys.pytree_model(toys.MLP), 2), toys.as_pytree(toys.batch(0, 5))
    start, now = toys.mlp_params(0), toys.mlp_params(1)
    function = lambda before, after, batch: {"drift": model.divergence(before, after, batch), "y": batch["y"]}  # noqa: E731
    told = per_example(model, function, data, None, start, now)
    expected = per_example(toys.pytree_model(toys.MLP), function, data, None, start, now)
    toys.assert_close(told, expected, SAME)


def test_one_part_is_the_model_itself_and_mistakes_are_told():
    assert microbatched(toys.MLP, 1) is toys.MLP
    for parts in (0, -2, 1.5, True):
        with pytest.raises(ValueError, match=f"parts is {parts}: give a whole number from 1 up"):
            microbatched(toys.MLP, parts)
    with pytest.raises(ValueError, match="in parts already: give the one that it was made of"):
        microbatched(microbatched(toys.MLP, 2), 2)
    with pytest.raises(TypeError, match=r"not unlearn.Model: make one of functions"):
        microbatched(toys.mlp_apply, 2)
    scalar = microbatched(toys.MLP._replace(loss=lambda logits, batch: jnp.zeros(())), 2)
    with pytest.raises(ValueError, match="return one value per example, and no mean"):
        mean_loss(scalar, toys.mlp_params(), toys.batch(0, 4), None)

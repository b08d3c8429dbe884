"""The readiness loss that ends at a level, against its formula under nested `jax.grad` and against finite differences."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from readiness import Terms, make_readiness, paper_terms
from tests.helpers import toys
from tests.readiness.step_test import ALPHA, KEY, RELEARN_RATE, meta_batch
from unlearn import ALGORITHMS, Request, tree
from unlearn.gradient import first_order, second_order

TERMS = Terms(efficiency=0.4, retention=0.6, resistance=0.7, relearning=0.3)


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def asked(steps, told):
    """A meta-batch of requests; `told` examples bring a level with them."""
    batch = meta_batch(steps, relearn_steps=1)
    if not told:
        return batch
    goals = lambda part, seed: dict(part, level=np.random.default_rng(seed).normal(-2, 2, part["weight"].shape))  # noqa: E731
    requests = Request(goals(batch.requests.forget, 1), batch.requests.retain)
    return batch._replace(requests=requests, forget=goals(batch.forget, 2))


def made(terms=TERMS, name="level", grad=second_order, unseen=None):
    rehearsed = lambda rate: ALGORITHMS[name](toys.MLP, optax.sgd(rate), grad=grad)  # noqa: E731
    relearner = ALGORITHMS["finetune"](toys.MLP, optax.sgd(RELEARN_RATE), grad=grad)
    return make_readiness(toys.MLP, rehearsed, terms, relearner=relearner, unseen=unseen)


@functools.cache
def compiled(steps, told, each, name):
    return toys.quick_jit(
        jax.value_and_grad(lambda p: made(TERMS._replace(each=each), name)(p, asked(steps, told), ALPHA, KEY)[0])
    )


def naive(params, batch, each=False, name="level", *, stop=lambda tree: tree):
    """The loss from its formula; `stop` is applied to inner gradients."""
    levels = toys.class_levels(toys.MLP, tree.stop_gradient(params), batch.stable)

    def descend(at, rate, objective):
        return jax.tree.map(lambda p, g: p - rate * g, at, stop(jax.grad(objective)(at)))

    def huber(d):
        return jnp.where(jnp.abs(d) < 2, d**2 / 4, jnp.abs(d) - 1)

    after = params
    for i in range(batch.requests.forget["x"].shape[0]):
        request = toys.lane(batch.requests, i)
        objective = lambda at: toys.literal_objective(name, toys.MLP, at, None, request, None, levels=levels)  # noqa: B023, E731
        after = descend(after, ALPHA, objective)
    loss = lambda at, data: toys.label_loss(toys.MLP, at, data, None)  # noqa: E731
    again = descend(after, RELEARN_RATE, lambda at: loss(at, toys.lane(batch.relearn.retain, 0)))
    goals = batch.forget.get("level", levels[batch.forget["y"]])
    p = jnp.exp(-toys.example_losses(toys.MLP, after, batch.forget))
    away, weight = jnp.log(p) - jnp.log(1 - p) - goals, batch.forget["weight"]
    pull = toys.average(huber(away), weight) if each else huber(toys.average(away, weight))
    caps = -jnp.log(1 / (1 + jnp.exp(-goals)))  # the loss of an example at its level
    lasting = toys.average(jnp.minimum(toys.example_losses(toys.MLP, again, batch.forget), caps), weight)
    kept = 0.6 * loss(after, batch.stable) + 0.7 * loss(after, batch.recovery)
    return 0.4 * pull + kept - 0.3 * lasting


CASES = pytest.mark.parametrize(
    "steps, told, each, name",
    [(1, False, False, "level"), (2, False, False, "level"), (2, True, True, "level"), (1, True, False, "neggrad_plus")],
)


@CASES
def test_meta_gradient_is_that_of_nested_grad(steps, told, each, name):
    """The model's own levels or the data's, one inner step or two, the mean or each example."""
    params = toys.mlp_params()
    twin = toys.quick_jit(jax.value_and_grad(lambda p: naive(p, asked(steps, told), each, name)))
    toys.assert_close(compiled(steps, told, each, name)(params), twin(params), 1e-10)


@pytest.mark.parametrize("steps", [1, 2])
def test_meta_gradient_is_the_finite_difference_with_the_models_own_levels_held(steps):
    """A derivative sees no change of levels: so it is that of the loss whose examples bring the same levels along."""
    params, batch = toys.mlp_params(), asked(steps, told=False)
    levels = np.asarray(toys.class_levels(toys.MLP, params, batch.stable))
    told = lambda part: dict(part, level=levels[part["y"]])  # noqa: E731
    held = batch._replace(requests=Request(told(batch.requests.forget), batch.requests.retain), forget=told(batch.forget))
    value = toys.quick_jit(lambda p: made()(p, held, ALPHA, KEY)[0])
    slope = compiled(steps, False, False, "level")(params)[1]
    assert toys.relative_error(slope, toys.central_differences(value, params)) <= 1e-5


def with_level(batch, level):
    """The meta-batch with one level for all."""
    told = lambda part: dict(part, level=np.full(part["weight"].shape, level))  # noqa: E731
    return batch._replace(requests=Request(told(batch.requests.forget), batch.requests.retain), forget=told(batch.forget))


def test_held_out_examples_give_the_level_and_no_gradient():
    """As many as are stable, or all where there are fewer: then their mean margin can be told by hand."""
    params, batch = toys.mlp_params(), asked(2, told=False)
    unseen = jax.tree.map(lambda leaf: leaf[:2], {name: batch.stable[name] for name in ("x", "y", "weight")})
    p = np.exp(-np.array(toys.example_losses(toys.MLP, params, unseen)))
    level = np.average(np.log(p) - np.log(1 - p), weights=unseen["weight"])
    ours = toys.quick_jit(jax.value_and_grad(lambda p: made(unseen=unseen)(p, batch, ALPHA, KEY)[0]))(params)
    held = toys.quick_jit(jax.value_and_grad(lambda p: made()(p, with_level(batch, level), ALPHA, KEY)[0]))(params)
    toys.assert_close(ours, held, 1e-10)
    assert toys.relative_error(ours[1], compiled(2, False, False, "level")(params)[1]) > 1e-3


def test_other_held_out_examples_are_drawn_at_each_rehearsal():
    params, batch = toys.mlp_params(), asked(1, told=False)
    many = jax.tree.map(
        lambda leaf: np.concatenate([leaf, leaf[::-1]]), dict(batch.stable, weight=np.ones(len(batch.stable["weight"])))
    )
    scales = np.linspace(0.1, 3, len(many["weight"]))
    many["x"] = many["x"] * scales[:, None]
    value = toys.quick_jit(lambda key: made(unseen=many)(params, batch, ALPHA, key)[0])
    assert len({float(value(jax.random.key(i))) for i in range(4)}) > 1


def test_order_one_is_the_stop_gradient_twin():
    """Relearning is first order as well, so that nothing of the second order is left."""
    params, batch = toys.mlp_params(), asked(2, told=False)
    ours = toys.quick_jit(jax.grad(lambda p: made(grad=first_order)(p, batch, ALPHA, KEY)[0]))(params)
    twin = toys.quick_jit(jax.grad(lambda p: naive(p, batch, stop=jax.lax.stop_gradient)))(params)
    toys.assert_close(ours, twin, 1e-10)
    assert toys.relative_error(ours, compiled(2, False, False, "level")(params)[1]) > 1e-2


def still(terms, levels=(-1.0, 3.0, 0.0, -2.0)):
    """The readiness loss where neither a request nor relearning moves anything, and what it is made of."""
    batch = meta_batch(1, relearn_steps=0)
    batch = batch._replace(forget=dict(batch.forget, level=np.array(levels)))
    batch = batch._replace(requests=Request(dict(batch.requests.forget, level=np.array([levels])), batch.requests.retain))
    params = toys.mlp_params()
    value, told = made(terms)(params, batch, 0.0, KEY)
    weight, losses = batch.forget["weight"], np.array(toys.example_losses(toys.MLP, params, batch.forget))
    return float(value), told, np.array(levels), losses, lambda each: np.average(each, weights=weight)


@pytest.mark.parametrize("each", [False, True])
def test_the_pull_is_towards_the_level_and_told(each):
    value, told, levels, losses, mean = still(Terms(efficiency=1.0, retention=0.0, each=each))
    away = -np.log(np.expm1(losses)) - levels
    pull = lambda d: np.where(np.abs(d) < 2, d**2 / 4, np.abs(d) - 1)  # noqa: E731
    assert value == pytest.approx(mean(pull(away)) if each else float(pull(mean(away))), rel=1e-10)
    assert float(told.margin_after) == pytest.approx(mean(away), rel=1e-10)
    assert [bool(jnp.isnan(part)) for part in told] == [True] * 5 + [False]


@pytest.mark.parametrize("steps", [0, 1])
def test_holding_pulls_members_to_their_levels_before_any_request(steps):
    """With and without a rehearsal, which adds what it would without holding; and of the level form alone."""
    params, batch = toys.mlp_params(), asked(steps, told=True)
    held = made(TERMS._replace(holding=0.5, each=True))(params, batch, ALPHA, KEY)[0]
    value = held - made(TERMS._replace(each=True))(params, batch, ALPHA, KEY)[0]
    away = -np.log(np.expm1(np.array(toys.example_losses(toys.MLP, params, batch.forget)))) - batch.forget["level"]
    pull = np.where(np.abs(away) < 2, away**2 / 4, np.abs(away) - 1)
    assert float(value) == pytest.approx(0.5 * np.average(pull, weights=batch.forget["weight"]), rel=1e-9)
    with pytest.raises(ValueError, match=r"^holding keeps members at a level"):
        made(paper_terms(2.0, holding=0.5))


@pytest.mark.parametrize("capped", ["each", "mean"])
def test_resistance_is_rewarded_up_to_the_level_alone(capped):
    """The cap is the loss of an example at its level, log(1 + exp(-level)): .05 at 3, 2.13 at -2."""
    value, told, levels, losses, mean = still(Terms(efficiency=0.0, retention=0.0, relearning=1.0, capped=capped))
    caps = np.log1p(np.exp(-levels))
    assert np.any(losses > caps) and np.any(losses < caps)
    lasting = mean(np.minimum(losses, caps)) if capped == "each" else min(mean(losses), mean(caps))
    assert value == pytest.approx(-lasting, rel=1e-10) and float(told.forget_relearned) == pytest.approx(mean(losses))


def test_a_cap_at_the_level_is_of_that_form_alone():
    for terms in (paper_terms("level"), Terms(cap="log_classes")):
        with pytest.raises(ValueError, match=rf"^cap {terms.cap!r} is unknown in form {terms.form!r}; give a number, as"):
            made(terms)


def test_the_papers_terms_are_what_they_were():
    assert paper_terms(2.0) == Terms(0.5, 8.0, 0.0, 0.0, "gain", 2.0, False, 2.0, "each")
    assert paper_terms(None, form="raw", retention=1.0) == Terms(0.5, 1.0, form="raw", cap=None)


def test_a_model_of_sequences_must_be_told_its_levels():
    kind = toys.KINDS["sequence"]
    part = lambda seed: toys.token_batch(seed, 4)  # noqa: E731
    batch = meta_batch(1)._replace(requests=kind.requests(0, 1), forget=part(1), stable=part(2))
    rehearsed = lambda rate: ALGORITHMS["level"](kind.model, optax.sgd(rate))  # noqa: E731
    readiness = make_readiness(kind.model, rehearsed, Terms())
    with pytest.raises(ValueError, match=r"^only a classifier's levels .*: give the forget batch"):
        jax.eval_shape(readiness, kind.params(), batch, ALPHA, KEY)
    told = lambda part: dict(part, level=np.full(part["weight"].shape, -2.0))  # noqa: E731
    asked = Request(told(batch.requests.forget), batch.requests.retain)
    value, seen = jax.jit(readiness)(kind.params(), batch._replace(requests=asked, forget=told(batch.forget)), ALPHA, KEY)
    assert np.isfinite(value) and np.isfinite(seen.margin_after)

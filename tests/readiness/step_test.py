"""The readiness loss and its meta-gradient, against finite differences, nested `jax.grad` and matrices written out."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.configs import readiness as configs
from readiness import Draw, Terms, init_state, make_readiness, make_step, paper_terms
from tests.helpers import toys
from tests.helpers.rehearsals import (
    ALPHA,
    KEY,
    RELEARN_RATE,
    UNCAPPED,
    algorithm,
    every_algorithm,
    meta_batch,
    relearner,
)
from unlearn import Request, tree
from unlearn.algorithms.relabelling import other_labels
from unlearn.base import UNDECLARED, UnlearnAlgorithm, UnlearnInfo, UnlearnState
from unlearn.gradient import first_order, second_order

WEIGHTS = {"efficiency": 0.5, "retention": 1.0, "resistance": 0.7, "relearning": 0.3}


CAPS = {"active": 1e-2, "part": 1.0, "inactive": 50.0}  # below every forget loss, some of them, none


ALL = paper_terms(CAPS["inactive"], **WEIGHTS)


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield


def loss(name, terms, *, grad=second_order, model=toys.MLP, **options):
    """A readiness loss (params, batch, step size, key) -> scalar."""
    readiness = make_readiness(
        model, lambda rate: algorithm(name, rate, model, grad=grad), terms, relearner=relearner(model), **options
    )
    return lambda *args: readiness(*args)[0]


def held_loss(name, terms, reference, memory_key):
    """As `loss`, but the algorithm remembers `reference` and `memory_key`, wherever it starts."""

    def rehearsed(rate):
        inner = algorithm(name, rate)
        memory = inner.init(reference, toys.first(toys.requests()), memory_key).memory
        return inner._replace(init=lambda *args: inner.init(*args)._replace(memory=memory))

    readiness = make_readiness(toys.MLP, rehearsed, terms, relearner=relearner())
    return lambda *args: readiness(*args)[0]


def naive(name, params, batch, cap, capped, form, memory, *, stop=lambda tree: tree):
    """The readiness loss from its formula, with `jax.grad` within `jax.grad`; `stop` is applied to inner gradients."""
    count = lambda requests: requests.forget["x"].shape[0]  # noqa: E731
    outer = lambda at, data: toys.label_loss(toys.MLP, at, data, None)  # noqa: E731

    def held(at, data):
        if capped == "mean":
            return jnp.minimum(outer(at, data), cap)
        return toys.average(jnp.minimum(toys.example_losses(toys.MLP, at, data), cap), data["weight"])

    def descend(at, rate, objective):
        return jax.tree.map(lambda p, g: p - rate * g, at, stop(jax.grad(objective)(at)))

    def inner(at, request):
        wrong = None
        if name == "random_label":
            wrong = other_labels(memory, request.forget["id"], request.forget["y"], toys.CLASSES)
        return toys.literal_objective(name, toys.MLP, at, memory, request, None, wrong, levels=memory)

    after = params
    for i in range(count(batch.requests)):
        after = descend(after, ALPHA, lambda at: inner(at, toys.lane(batch.requests, i)))  # noqa: B023
    again = after
    for i in range(count(batch.relearn)):
        again = descend(again, RELEARN_RATE, lambda at: outer(at, toys.lane(batch.relearn.retain, i)))  # noqa: B023

    gain = held(after, batch.forget)
    if form == "gain":
        gain -= outer(params, batch.forget)
    kept = WEIGHTS["retention"] * outer(after, batch.stable) + WEIGHTS["resistance"] * outer(after, batch.recovery)
    return kept - WEIGHTS["efficiency"] * gain - WEIGHTS["relearning"] * held(again, batch.forget)


# the meta-gradient


@functools.cache
def compiled(name, steps, form, capped="each"):
    """(params, cap, reference) -> readiness loss and meta-gradient, in float64."""
    batch, memory_key = meta_batch(steps, relearn_steps=1), jax.random.key(5)

    def value(params, cap, reference):
        terms = ALL._replace(cap=cap, capped=capped, form=form)
        return held_loss(name, terms, reference, memory_key)(params, batch, ALPHA, KEY)

    return toys.quick_jit(jax.value_and_grad(value))


@every_algorithm
@pytest.mark.parametrize(
    "steps, form, capped",
    [(1, "gain", "each"), (2, "gain", "each"), (2, "raw", "mean"), pytest.param(3, "gain", "each", marks=pytest.mark.slow)],
)
@pytest.mark.parametrize("cap", CAPS.values(), ids=CAPS)
def test_meta_gradient_is_the_finite_difference(name, steps, form, capped, cap, float64):
    params, value_and_slope = toys.mlp_params(), compiled(name, steps, form, capped)
    differences = toys.central_differences(lambda p: value_and_slope(p, cap, params)[0], params)
    assert toys.relative_error(value_and_slope(params, cap, params)[1], differences) <= 1e-5


@every_algorithm
@pytest.mark.parametrize("form, capped", [("gain", "each"), ("raw", "mean")])
def test_meta_gradient_is_that_of_nested_grad(name, form, capped, float64):
    params, batch = toys.mlp_params(), meta_batch(2, relearn_steps=1)
    remembered = toys.first(toys.requests()).retain
    memory = {
        "random_label": jax.random.key(5),
        "level": toys.class_levels(toys.MLP, params, remembered),
        "rmu": (params, jax.random.key(5)),
    }.get(name, params)
    twin = toys.quick_jit(jax.value_and_grad(lambda p, cap: naive(name, p, batch, cap, capped, form, memory)))
    for cap in CAPS.values():
        toys.assert_close(compiled(name, 2, form, capped)(params, cap, params), twin(params, cap), 1e-10)


@pytest.mark.parametrize("name", ["ascent_kl", "npo"])
def test_memory_is_a_constant_of_the_meta_gradient(name, float64):
    """The algorithm as it is, which remembers where it starts, has the gradient of the one whose memory is held.

    Under `jax.value_and_grad`, which differentiates all it is given, where `second_order` sees to the memory itself.
    """
    params, batch, cap = toys.mlp_params(), meta_batch(2, relearn_steps=1), CAPS["inactive"]
    free = toys.quick_jit(jax.value_and_grad(loss(name, ALL, grad=jax.value_and_grad)))(params, batch, ALPHA, KEY)
    toys.assert_close(free, compiled(name, 2, "gain")(params, cap, params), 1e-12)


@pytest.mark.parametrize("name", ["ascent", "npo"])
def test_order_one_is_the_stop_gradient_twin(name, float64):
    """Relearning is first order as well, so that nothing of the second order is left."""
    params, batch, key = toys.mlp_params(), meta_batch(2), jax.random.key(7)
    first = make_readiness(
        toys.MLP,
        lambda rate: algorithm(name, rate, grad=first_order),
        ALL,
        relearner=algorithm("finetune", RELEARN_RATE, grad=first_order),
    )
    ours = toys.quick_jit(jax.grad(lambda p: first(p, batch, ALPHA, key)[0]))(params)
    twin = lambda p: naive(name, p, batch, ALL.cap, "each", "gain", params, stop=jax.lax.stop_gradient)  # noqa: E731
    toys.assert_close(ours, toys.quick_jit(jax.grad(twin))(params), 1e-10)
    second = toys.quick_jit(jax.grad(loss(name, ALL)))(params, batch, ALPHA, key)
    assert toys.relative_error(ours, second) > 1e-2


@pytest.mark.parametrize("form, cap", [("gain", "inactive"), ("gain", "active"), ("raw", "inactive")])
def test_closed_form_of_one_inner_step(form, cap, float64):
    """grad J = grad L(B) + v + alpha H_f v (+ l1 grad L(B_f') in the gain form), v the outer gradient at theta'."""
    params, batch, key = toys.mlp_params(), meta_batch(1), jax.random.key(7)
    terms = Terms(efficiency=0.5, retention=1.0, resistance=0.7, cap=CAPS[cap], form=form)
    train = toys.batch(30, 6)
    theta, shape = jax.flatten_util.ravel_pytree(params)
    on = lambda data: lambda flat: toys.label_loss(toys.MLP, shape(flat), data, None)  # noqa: E731
    asked = toys.lane(batch.requests, 0).forget

    def closed():
        moved = theta + ALPHA * jax.grad(on(asked))(theta)
        v = jax.grad(on(batch.stable))(moved) + 0.7 * jax.grad(on(batch.recovery))(moved)
        if cap == "inactive":
            v -= 0.5 * jax.grad(on(batch.forget))(moved)
        total = jax.grad(on(train))(theta) + v + ALPHA * jax.hessian(on(asked))(theta) @ v
        return total + 0.5 * jax.grad(on(batch.forget))(theta) if form == "gain" else total

    readiness = make_readiness(toys.MLP, lambda rate: algorithm("ascent", rate), terms)
    step = toys.quick_jit(make_step(toys.MLP, optax.sgd(1.0), readiness=readiness))
    after, _ = step(init_state(params, optax.sgd(1.0)), train, key, batch, ALPHA)
    moved_by = jax.tree.map(lambda p, q: p - q, params, after.params)
    toys.assert_close(moved_by, shape(toys.quick_jit(closed)()), 1e-12)


# limits


def test_no_weights_no_gradient(float64):
    nothing = paper_terms(None, efficiency=0.0, retention=0.0)
    value, slope = jax.value_and_grad(loss("ascent", nothing))(toys.mlp_params(), meta_batch(), ALPHA, jax.random.key(0))
    assert float(value) == 0 and float(tree.norm(slope)) == 0


def test_nothing_relearned_is_measured_where_the_request_ended(float64):
    """R = 0: the relearning term is the forget loss after the request."""
    params, batch = toys.mlp_params(), meta_batch(1, relearn_steps=0)
    lasting, gained = (
        Terms(**{"cap": None, "retention": 1.0, name: 0.3, "form": "raw"}) for name in ("relearning", "efficiency")
    )
    lasting, gained = lasting._replace(efficiency=0.0, retention=0.0), gained._replace(retention=0.0)
    run = [toys.quick_jit(loss("ascent", terms))(params, batch, ALPHA, jax.random.key(0)) for terms in (lasting, gained)]
    assert float(run[0]) == pytest.approx(float(run[1]), rel=1e-12) and float(run[0]) != 0


@pytest.mark.parametrize("cap", ["active", "inactive"])
def test_a_step_of_length_zero_gains_nothing(cap, float64):
    """Below the cap the gain is L - L, at every theta; above it only the loss before the request is left."""
    params, batch = toys.mlp_params(), meta_batch(1)
    terms = paper_terms(CAPS[cap], retention=0.0)
    slope = toys.quick_jit(jax.grad(loss("ascent", terms)))(params, batch, 0.0, jax.random.key(0))
    if cap == "inactive":
        assert float(tree.norm(slope)) == pytest.approx(0, abs=1e-15)
        return
    before = toys.quick_jit(jax.grad(lambda p: 0.5 * toys.label_loss(toys.MLP, p, batch.forget, None)))(params)
    toys.assert_close(slope, before, 1e-12)


def test_the_literal_form_has_no_lower_bound_and_the_cap_gives_it_one(float64):
    """One ascent step of growing length stands for the growing parameters of a diverging run."""
    params, batch, key = toys.mlp_params(), meta_batch(1), jax.random.key(0)
    literal = Terms(efficiency=0.5, retention=0.0, form="raw", cap=None)
    lengths = 10.0 ** np.arange(1, 7)
    values = {
        name: toys.quick_jit(jax.vmap(loss("ascent", terms), in_axes=(None, None, 0, None)))(params, batch, lengths, key)
        for name, terms in {
            "uncapped": literal,
            "mean": literal._replace(cap=np.log(3), capped="mean"),
            "each": literal._replace(cap=np.log(3)),
        }.items()
    }
    assert np.all(np.diff(values["uncapped"]) < 0) and values["uncapped"][-1] < -1e4
    np.testing.assert_allclose(values["mean"], -0.5 * np.log(3))
    assert np.all(values["each"] >= -0.5 * np.log(3))


# ordinary training


def plain_sgd(params, batch, rate):
    """A training step that has never heard of readiness."""

    def mean_loss(p):
        values = toys.loss_per_example(toys.mlp_apply(p, batch["x"], None), batch)
        return jnp.sum(values * batch["weight"]) / jnp.sum(batch["weight"])

    value, gradient = jax.value_and_grad(mean_loss)(params)
    return jax.tree.map(lambda p, g: p - rate * g, params, gradient), value


@pytest.mark.parametrize("case", ["no readiness", "no meta-batch", "no weights", "no steps"])
def test_without_readiness_training_is_ordinary_bit_for_bit(case):
    batch, key, optimizer = toys.batch(1, 6, padded=1), jax.random.key(0), optax.sgd(0.1)
    terms = paper_terms(1.0, efficiency=0.0, retention=0.0) if case == "no weights" else paper_terms(1.0)
    readiness = make_readiness(toys.MLP, lambda rate: algorithm("ascent", rate), terms)
    step = jax.jit(make_step(toys.MLP, optimizer, readiness=None if case == "no readiness" else readiness))
    meta = {"no weights": (meta_batch(2), ALPHA), "no steps": (meta_batch(0), ALPHA)}.get(case, ())
    state, params, plain = init_state(toys.mlp_params(), optimizer), toys.mlp_params(), jax.jit(plain_sgd)
    for i in range(3):
        state, info = step(state, batch, key, *meta)
        params, value = plain(params, batch, 0.1)
        assert tree.bits_equal(state.params, params) and tree.bits_equal(info.loss, value)
        assert int(state.step) == i + 1 and state.step.dtype == jnp.int32 and float(info.readiness) == 0


def test_a_meta_step_is_the_sum_of_both_gradients_under_any_optimiser(float64):
    params, train, batch, key = toys.mlp_params(), toys.batch(1, 6), meta_batch(2), jax.random.key(0)
    readiness = make_readiness(toys.MLP, lambda rate: algorithm("graddiff", rate), ALL, relearner=relearner())
    optimizer = optax.adam(0.1)

    @toys.quick_jit
    def both(params):
        step = make_step(toys.MLP, optimizer, readiness=readiness)
        extra = lambda p: readiness(p, batch, ALPHA, jax.random.fold_in(key, 1))[0]  # noqa: E731
        plain = lambda p: toys.label_loss(toys.MLP, p, train, None)  # noqa: E731
        gradient = jax.tree.map(jnp.add, jax.grad(plain)(params), jax.grad(extra)(params))
        updates, _ = optimizer.update(gradient, optimizer.init(params), params)
        by_hand = optax.apply_updates(params, updates), plain(params), extra(params)
        return step(init_state(params, optimizer), train, key, batch, ALPHA), by_hand

    (state, info), (after, plain, extra) = both(params)
    toys.assert_close((state.params, info.loss, info.readiness), (after, plain, extra), 1e-9)


# one program, several ways to run it


@pytest.mark.parametrize("name", ["ascent_kl", "random_label"])
def test_loop_scan_and_rematerialisation_agree(name, float64):
    """With dropout, memory and a raw key, which all have to come out the same in a recomputed step."""
    args = toys.mlp_params(), meta_batch(2), ALPHA, KEY

    def slope(**options):
        return toys.quick_jit(jax.value_and_grad(loss(name, UNCAPPED, model=toys.DROPOUT_MLP, **options)))(*args)

    reference = slope(unroll=False, remat=False)
    ways = [{}, {"remat": True, "unroll": True}, {"unroll": True, "remat": False}]
    for options in ways if name == "ascent_kl" else ways[:1]:
        toys.assert_close(slope(**options), reference, 1e-11)


def test_lanes_with_seeds_keys_and_step_sizes_of_their_own(float64):
    keys, rates = jax.random.split(jax.random.key(1), 3), np.array([0.1, 0.2, 0.3])
    starts, batch = [toys.mlp_params(seed) for seed in range(3)], meta_batch(2)
    slope = jax.value_and_grad(loss("npo", ALL, model=toys.DROPOUT_MLP))
    lanes = toys.quick_jit(jax.vmap(slope, in_axes=(0, None, 0, 0)))(toys.stack(starts), batch, rates, keys)
    single = toys.quick_jit(slope)
    for i in range(3):
        toys.assert_close(toys.lane(lanes, i), single(starts[i], batch, rates[i], keys[i]), 1e-11)


def test_rehearsal_tells_what_the_loss_is_made_of(float64):
    params, batch, key = toys.mlp_params(), meta_batch(2), jax.random.key(0)
    build = lambda terms: make_readiness(toys.MLP, lambda rate: algorithm("ascent", rate), terms, relearner=relearner())  # noqa: E731
    value, seen = toys.quick_jit(build(ALL))(params, batch, ALPHA, key)
    rebuilt = -0.5 * (seen.forget_after - seen.forget_before) + seen.stable_after + 0.7 * seen.recovery_after
    assert float(value) == pytest.approx(float(rebuilt - 0.3 * seen.forget_relearned), rel=1e-12)
    assert float(seen.forget_before) == pytest.approx(float(toys.label_loss(toys.MLP, params, batch.forget, None)))
    assert seen.forget_after > seen.forget_before
    _, seen = toys.quick_jit(build(UNCAPPED._replace(form="raw")))(params, batch, ALPHA, key)
    assert [bool(jnp.isnan(leaf)) for leaf in seen] == [True, False, False, True, True, True]


# defaults, and what a rehearsal hands to the algorithm


def test_the_defaults_are_the_shipped_settings():
    """Those of a class to be forgotten; the paper's cap depends on the number of classes, so it must be given."""
    config = configs.Comparison()
    resolved = config.resolved().readiness
    shipped = {name: getattr(resolved, name) for name in Terms._fields if name != "cap"}
    assert Terms()._asdict() == {"cap": "level", **shipped}
    paper = {name: configs.PAPER[name] for name in ("form", "efficiency", "retention")}
    assert paper_terms(1.0) == Terms(cap=1.0)._replace(**paper) and config.readiness.cap == "log_classes"
    shape = {name: getattr(config.readiness, name) for name in ("inner_steps", "fresh")}
    assert {name: getattr(Draw(size=1), name) for name in shape} == shape
    with pytest.raises(TypeError, match="cap"):
        paper_terms()


@pytest.mark.parametrize("steps", [1, 3])
def test_init_sees_all_batches_of_a_rehearsal_together(steps):
    """A one-shot edit that adds, to the logits' shift, how many examples it sees; its slope is the identity's."""
    batch, terms = meta_batch(steps), UNCAPPED._replace(efficiency=0.0)

    def init(params, request, key):
        seen = jnp.sum(request.forget["weight"] > 0).astype(jnp.float32)
        return UnlearnState(jax.tree.map(lambda leaf: leaf + seen, params), (), seen)

    def update(state, request, key):
        return state, UnlearnInfo(jnp.zeros(()), jnp.zeros(()))

    def shifting(rate):
        return UnlearnAlgorithm(init, update, UNDECLARED._replace(differentiable=True, one_shot=True))

    readiness = make_readiness(toys.MLP, shifting, terms)
    ours = jax.value_and_grad(lambda p: readiness(p, batch, ALPHA, jax.random.key(0))[0])(toys.mlp_params())
    moved = jax.tree.map(lambda leaf: np.float32(leaf + 3 * steps), toys.mlp_params())  # a fourth of each batch pads
    toys.assert_close(ours, jax.value_and_grad(lambda p: toys.label_loss(toys.MLP, p, batch.stable, None))(moved), 1e-5)


# memory


def temporary_bytes(steps, examples, hidden, **options):
    """What one meta-gradient needs beside its arguments and results, as compiled."""
    wide = lambda batch: jax.tree.map(lambda leaf: np.repeat(leaf, examples // 4, axis=1), batch)  # noqa: E731
    batch = meta_batch(1)._replace(requests=Request(wide(toys.batch(0, 4, steps=steps))))
    slope = jax.grad(loss("ascent", UNCAPPED, **options))
    args = toys.mlp_params(hidden=hidden), batch, ALPHA, jax.random.key(0)
    return jax.jit(slope).lower(*args).compile().memory_analysis().temp_size_in_bytes


@pytest.mark.slow
def test_memory_grows_by_parameters_and_not_by_activations():
    steps, examples, hidden = (1, 4, 16), 2048, 64
    ways = {"default": {}, "grad of grad, no remat": {"remat": False, "grad": jax.value_and_grad}}
    sizes = {name: [temporary_bytes(k, examples, hidden, **way) for k in steps] for name, way in ways.items()}
    slopes = {name: (size[2] - size[1]) / (steps[2] - steps[1]) for name, size in sizes.items()}
    floats = lambda tree: 4 * sum(np.size(leaf) for leaf in jax.tree.leaves(tree))  # noqa: E731
    params, request = floats(toys.mlp_params(hidden=hidden)), floats(toys.batch(0, examples))
    activations = 4 * examples * hidden
    print(f"\nbytes: parameters {params}, one request {request}, activations of the hidden layer {activations}")
    for name in sizes:
        print(f"{name}: {dict(zip(steps, sizes[name], strict=True))} bytes, {slopes[name]:.0f} a step")
    assert slopes["default"] <= 3 * params + request
    assert slopes["grad of grad, no remat"] >= activations

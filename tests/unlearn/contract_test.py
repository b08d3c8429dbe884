"""One suite for every unlearning algorithm: what the contract promises, and each objective by hand.

Float64 throughout, so that finite differences and reorderings can be told from errors.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.helpers import toys
from unlearn import ALGORITHMS, Model, Request, UnlearnState, objectives, tree, unlearn
from unlearn.base import roll_out

NEED_RETAIN = {"graddiff", "neggrad_plus", "ascent_kl", "finetune", "random_label"}
RATE = 0.3

every_algorithm = pytest.mark.parametrize("name", sorted(ALGORITHMS))


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def make(name, optimizer=None, model=toys.MLP, **options):
    return ALGORITHMS[name](model, optimizer or optax.sgd(RATE), **options)


# what a caller relies on


@every_algorithm
def test_update_is_pure(name):
    algorithm, key = make(name, optax.sgd(RATE, momentum=0.9)), np.array([0, 1], np.uint32)
    params, request = toys.mlp_params(), toys.first(toys.requests())
    kept = jax.tree.map(np.copy, (params, request, key))
    state = algorithm.init(params, request, key)
    once, again = (algorithm.update(state, request, key) for _ in range(2))
    assert tree.bits_equal(once, again)
    assert tree.bits_equal((params, request, key), kept)
    assert tree.bits_equal(state, algorithm.init(params, request, key))
    assert not tree.bits_equal(once[0].params, params)


@every_algorithm
def test_jit_changes_nothing(name):
    algorithm, request, key = make(name, optax.adam(RATE)), toys.first(toys.requests()), jax.random.key(1)
    state = algorithm.init(toys.mlp_params(), request, key)
    toys.assert_close(toys.quick_jit(algorithm.update)(state, request, key), algorithm.update(state, request, key), 1e-12)


@every_algorithm
def test_scan_is_the_python_loop(name):
    algorithm, requests, key = make(name, optax.adam(RATE), toys.DROPOUT_MLP), toys.requests(steps=2), jax.random.key(1)
    init_key, step_key = jax.random.split(key)
    begun = state = algorithm.init(toys.mlp_params(), toys.first(requests), init_key)
    infos, update = [], toys.quick_jit(algorithm.update)
    for i in range(2):
        state, info = update(state, toys.lane(requests, i), jax.random.fold_in(step_key, i))
        infos.append(info)
    for unroll in (False, True):
        run = toys.quick_jit(lambda params: unlearn(algorithm, params, requests, key, unroll=unroll))  # noqa: B023
        ended, seen = run(toys.mlp_params())
        toys.assert_close((ended, seen), (state, toys.stack(infos)), 1e-12)
        assert tree.bits_equal(ended.memory, begun.memory)


@every_algorithm
def test_vmap_over_seeds_is_separate_runs(name):
    algorithm, requests = make(name, optax.sgd(RATE, momentum=0.9), toys.DROPOUT_MLP), toys.requests(steps=2)
    run = lambda params, key: unlearn(algorithm, params, requests, key)  # noqa: E731
    starts, keys = [toys.mlp_params(seed) for seed in range(3)], jax.random.split(jax.random.PRNGKey(0), 3)
    lanes, single = toys.quick_jit(jax.vmap(run))(toys.stack(starts), keys), toys.quick_jit(run)
    for i, params in enumerate(starts):
        toys.assert_close(toys.lane(lanes, i), single(params, keys[i]), 1e-12)


@every_algorithm
def test_two_updates_are_those_of_the_formula(name):
    """Value, gradient norm, and parameters under momentum written by hand."""
    algorithm, request = make(name, optax.sgd(RATE, momentum=0.9)), toys.first(toys.requests())
    start, params, key = toys.mlp_params(1), toys.mlp_params(2), jax.random.PRNGKey(3)
    wrong = objectives.other_labels(key, request.forget["id"], request.forget["y"], toys.CLASSES)
    formula = lambda p: toys.literal_objective(name, toys.MLP, p, start, request, key, wrong)  # noqa: E731
    value_and_grad, update = toys.quick_jit(jax.value_and_grad(formula)), toys.quick_jit(algorithm.update)
    state, velocity = algorithm.init(start, request, key)._replace(params=params), jax.tree.map(np.zeros_like, params)
    for _ in range(2):
        value, gradient = value_and_grad(params)
        velocity = jax.tree.map(lambda v, g: 0.9 * v + g, velocity, gradient)
        params = jax.tree.map(lambda p, v: p - RATE * v, params, velocity)
        state, info = update(state, request, key)
        toys.assert_close((info.objective, info.grad_norm), (value, optax.tree.norm(gradient)), 1e-10)
        toys.assert_close(state.params, params, 1e-10)


@every_algorithm
def test_update_keeps_structure_and_dtypes(name):
    """Parameters of two dtypes, bfloat16 and float64, under every optimiser, one that gives wider updates too."""
    params, request, key = toys.mlp_params(), toys.first(toys.requests()), jax.random.key(0)
    params["hidden"] = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params["hidden"])
    wide = optax.stateless(lambda updates, params: jax.tree.map(lambda u: u.astype(jnp.float64), updates))
    for optimizer in [wide, *(build(jnp.asarray(RATE)) for build in toys.OPTIMIZERS.values())]:
        algorithm = make(name, optimizer)
        state = jax.eval_shape(algorithm.init, params, request, key)
        after, info = jax.eval_shape(algorithm.update, state, request, key)
        kind = lambda s: jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), s)  # noqa: E731
        assert isinstance(after, UnlearnState) and kind(after) == kind(state)
        assert info.objective.shape == info.grad_norm.shape == ()


# padding


def padded(batch, garbage):
    """Three more rows of weight 0 at every step: huge inputs, label 0, any id."""
    rows = {"x": garbage, "y": 0, "id": 7, "weight": 0}
    fill = lambda name, v: np.full((v.shape[0], 3, *v.shape[2:]), rows[name], v.dtype)  # noqa: E731
    return {name: np.concatenate([v, fill(name, v)], axis=1) for name, v in batch.items()}


@every_algorithm
def test_padding_has_no_effect(name):
    requests = toys.requests(steps=2)
    more = Request(padded(requests.forget, 1e200), padded(requests.retain, -1e200))

    @toys.quick_jit
    def both(params, requests):
        """The unlearned parameters, and a derivative through them."""
        after, pull = jax.vjp(lambda p: unlearn(make(name), p, requests, jax.random.key(0))[0].params, params)
        return after, pull(after)

    result = both(toys.mlp_params(), more)
    assert bool(tree.all_finite(result))
    toys.assert_close(result, both(toys.mlp_params(), requests), 1e-11)


@every_algorithm
def test_nothing_but_padding_is_finite_and_pushes_nowhere(name):
    empty = Request(*({**batch, "weight": 0 * batch["weight"]} for batch in toys.first(toys.requests())))
    state = make(name).init(toys.mlp_params(), empty, jax.random.key(0))
    after, info = toys.quick_jit(make(name).update)(state, empty, jax.random.key(0))
    toys.assert_close(after.params, state.params, 1e-15)
    assert float(info.objective) == 0 == float(info.grad_norm)


# derivatives


def outer(params, request):
    """Any smooth function of the unlearned parameters."""
    return toys.label_loss(toys.MLP, params, request.retain, None) + 0.1 * tree.dot(params, params)


@every_algorithm
def test_gradient_through_two_updates_is_the_finite_difference(name):
    """What `init` returns is a constant, so the differences are taken with `start` standing still."""
    requests, algorithm = toys.requests(steps=2), make(name, optax.sgd(RATE, momentum=0.9))

    @toys.quick_jit
    @jax.value_and_grad
    def f(params, start):
        state = algorithm.init(start, toys.first(requests), jax.random.key(0))._replace(params=params)
        return outer(roll_out(algorithm, state, requests, jax.random.key(1))[0].params, toys.first(requests))

    start = toys.mlp_params()
    differences = toys.central_differences(lambda p: f(p, start)[0], start)
    assert toys.relative_error(f(start, start)[1], differences) <= 1e-5


@pytest.mark.parametrize("name, optimizer", [*((name, "adam") for name in sorted(ALGORITHMS)), ("npo", "clip")])
def test_any_optimiser_has_finite_meta_gradients(name, optimizer):
    """Plain gradient descent and momentum are differentiated by the tests around this one."""
    algorithm, requests = make(name, toys.OPTIMIZERS[optimizer](RATE)), toys.requests(steps=2)
    f = lambda p: outer(unlearn(algorithm, p, requests, jax.random.key(1))[0].params, toys.first(requests))  # noqa: E731
    slope = toys.quick_jit(jax.grad(f))(toys.mlp_params())
    assert bool(tree.all_finite(slope)) and float(tree.norm(slope)) > 0


@pytest.mark.parametrize("optimizer", [optax.sgd(1.0), optax.adam(0.1, eps_root=1e-8)], ids=["sgd", "adam"])
def test_meta_gradient_through_a_zero_gradient_is_finite(optimizer):
    """Above its cap ascent stands still. Adam needs eps_root there: the slope of a square root at 0 is infinite."""
    algorithm, requests = make("ascent", optimizer, cap=1e-3), toys.requests(steps=2)
    run = lambda p: outer(unlearn(algorithm, p, requests, jax.random.key(0))[0].params, toys.first(requests))  # noqa: E731
    direct = jax.grad(lambda p: outer(p, toys.first(requests)))(toys.mlp_params())
    toys.assert_close(toys.quick_jit(jax.grad(run))(toys.mlp_params()), direct, 1e-12)


def test_options_and_rates_may_be_traced_lane_by_lane():
    """A sweep over a weight and a step size as lanes of one program, differentiated."""
    requests = toys.requests(steps=2)

    def slope(params, gamma, rate):
        run = lambda p: unlearn(make("graddiff", optax.sgd(rate), gamma=gamma), p, requests, jax.random.key(0))[0]  # noqa: E731
        return jax.grad(lambda p: outer(run(p).params, toys.first(requests)))(params)

    gammas, rates = jnp.array([0.0, 0.5, 2.0]), jnp.array([0.1, 0.2, 0.3])
    lanes = toys.quick_jit(jax.vmap(slope, in_axes=(None, 0, 0)))(toys.mlp_params(), gammas, rates)
    for i in range(3):
        single = toys.quick_jit(slope)(toys.mlp_params(), gammas[i], rates[i])
        toys.assert_close(toys.lane(lanes, i), single, 1e-12)


# mistakes


@every_algorithm
def test_missing_retain_data_is_said_in_one_line(name):
    request = Request(toys.first(toys.requests()).forget)
    state = make(name).init(toys.mlp_params(), request, jax.random.key(0))
    if name not in NEED_RETAIN:
        jax.eval_shape(make(name).update, state, request, jax.random.key(0))
        return
    with pytest.raises(ValueError, match=f"^{name} needs retain data") as error:
        make(name).update(state, request, jax.random.key(0))
    assert "\n" not in str(error.value)


@every_algorithm
def test_unknown_option_is_a_type_error(name):
    with pytest.raises(TypeError, match=r"^\w+ has no option 'strength'; it takes"):
        make(name, strength=1.0)


def test_no_steps_leave_everything_as_it_is():
    algorithm, params = make("ascent"), toys.mlp_params()
    none = jax.tree.map(lambda leaf: leaf[:0], toys.requests())
    state = algorithm.init(params, toys.first(toys.requests()), jax.random.key(0))
    for unroll in (False, True):
        after, infos = roll_out(algorithm, state, none, jax.random.key(0), unroll=unroll)
        assert tree.bits_equal(after, state) and infos.objective.shape == (0,)


# by hand: two classes, logits are the parameters, log 3 and 0, so p = (3/4, 1/4); the start is uniform


BY_HAND = Model(lambda params, x, key: jnp.broadcast_to(params, (x.shape[0], 2)), toys.loss_per_example)


def constant_batch(label, weights=(1.0,)):
    n = len(weights)
    return {"x": np.zeros((n, 1)), "y": np.full(n, label), "id": np.arange(n), "weight": np.array(weights)}


LOW, HIGH = np.log(4 / 3), np.log(4)  # the losses of labels 0 and 1


@pytest.mark.parametrize(
    "name, options, value",
    [
        ("ascent", {}, -HIGH),
        ("ascent", {"cap": 1.0}, -1.0),
        ("ascent", {"cap": 2.0}, -HIGH),
        ("graddiff", {}, -HIGH + LOW),
        ("graddiff", {"gamma": 2.0}, -HIGH + 2 * LOW),
        ("neggrad_plus", {}, 0.95 * LOW - 0.05 * HIGH),
        ("neggrad_plus", {"beta": 0.5}, 0.5 * LOW - 0.5 * HIGH),
        ("ascent_kl", {}, -HIGH + 0.5 * LOW),  # KL(1/2, 1/2 || 3/4, 1/4) = 1/2 log 2/3 + 1/2 log 2
        ("ascent_kl", {"gamma": 3.0}, -HIGH + 1.5 * LOW),
        ("npo", {"beta": 1.0}, 2 * np.log(3 / 2)),  # p / p_start = 1/2, sigmoid(log 2) = 2/3
        ("npo", {"beta": 2.0}, np.log(5 / 4)),  # sigmoid(2 log 2) = 4/5
        ("finetune", {}, LOW),
        ("random_label", {}, LOW + LOW),  # of two classes the other one is 0
        ("random_label", {"gamma": 3.0}, LOW + 3 * LOW),
    ],
)
def test_objective_by_hand(name, options, value):
    request = Request(constant_batch(1), constant_batch(0, weights=(2.0, 0.0)))
    state = make(name, model=BY_HAND, **options).init(np.zeros(2), request, jax.random.key(0))
    state = state._replace(params=np.array([np.log(3), 0.0]))
    _, info = make(name, model=BY_HAND, **options).update(state, request, jax.random.key(0))
    assert float(info.objective) == pytest.approx(value, rel=1e-12)


def test_ascent_moves_up_by_the_rate_times_the_gradient():
    """The slope of -log p_1 in the logits is p - (0, 1) = (3/4, -3/4)."""
    params, request = np.array([np.log(3), 0.0]), Request(constant_batch(1))
    algorithm = make("ascent", optax.sgd(0.4), BY_HAND)
    after, info = algorithm.update(algorithm.init(params, request, None), request, None)
    np.testing.assert_allclose(after.params, [np.log(3) + 0.3, -0.3], rtol=1e-12)
    assert float(info.grad_norm) == pytest.approx(0.75 * 2**0.5)


@pytest.mark.parametrize("cap, moves", [(HIGH - 1e-6, False), (HIGH + 1e-6, True), (None, True)])
def test_capped_ascent_stands_still_above_the_cap(cap, moves):
    params, request = np.array([np.log(3), 0.0]), Request(constant_batch(1))
    algorithm = make("ascent", model=BY_HAND, cap=cap)
    after, info = algorithm.update(algorithm.init(params, request, None), request, None)
    assert tree.bits_equal(after.params, params) is not moves
    assert (float(info.grad_norm) > 0) is moves


def test_the_cap_is_on_the_mean_and_not_on_each_example():
    """Losses log 4 and log 4/3: their mean, 0.837, lies below 0.9 although one of them does not."""
    batch = {**constant_batch(1, (1.0, 1.0)), "y": np.array([1, 0])}
    algorithm = make("ascent", model=BY_HAND, cap=0.9)
    state = algorithm.init(np.array([np.log(3), 0.0]), Request(batch), None)
    assert float(algorithm.update(state, Request(batch), None)[1].objective) == pytest.approx(-(LOW + HIGH) / 2)


@pytest.mark.parametrize("name, objective", [("ascent_kl", -np.log(2)), ("npo", 2 / 0.1 * np.log(2))])
def test_at_the_start_the_reference_is_the_model(name, objective):
    """KL(p, p) = 0 and -log sigmoid(0) = log 2; and NPO's first gradient is that of ascent."""
    params, request = np.zeros(2), Request(constant_batch(1), constant_batch(0))
    algorithm = make(name, model=BY_HAND)
    after, info = algorithm.update(algorithm.init(params, request, None), request, None)
    assert float(info.objective) == pytest.approx(objective, rel=1e-12)
    ascent = make("ascent", model=BY_HAND)
    toys.assert_close(after.params, ascent.update(ascent.init(params, request, None), request, None)[0].params, 1e-12)


# random labels


IDS = np.arange(5000)


def relabel(ids, labels, classes=4, seed=0):
    draw = toys.quick_jit(objectives.other_labels, static_argnums=3)
    return np.asarray(draw(jax.random.key(seed), ids, labels, classes))


def test_random_labels_are_never_the_true_ones_and_uniform_over_the_others():
    true = IDS % 4
    new = relabel(IDS, true)
    for label in range(4):
        counts = np.bincount(new[true == label], minlength=4)
        assert counts[label] == 0
        assert np.all(np.abs(np.delete(counts, label) - 1250 / 3) < 5 * np.sqrt(1250 * (1 / 3) * (2 / 3)))


def test_a_random_label_belongs_to_an_id_whatever_the_batch():
    labels, order = IDS % 4, np.random.default_rng(0).permutation(5000)
    full = relabel(IDS, labels)
    np.testing.assert_array_equal(relabel(IDS[order], labels[order]), full[order])
    np.testing.assert_array_equal(relabel(IDS[7:9], labels[7:9]), full[7:9])
    assert np.any(relabel(IDS, labels, seed=1) != full)


@pytest.mark.parametrize("dtype, classes", [(np.uint8, 200), (np.int8, 100)])
def test_random_labels_do_not_overflow_small_integers(dtype, classes):
    labels = relabel(IDS, np.full(5000, classes - 1, dtype), classes)
    assert labels.dtype == dtype
    assert set(labels.tolist()) == set(range(classes - 1))


def test_random_labels_are_the_same_in_float32_and_float64_programs():
    wide = relabel(IDS, IDS % 4)
    with jax.enable_x64(False):
        np.testing.assert_array_equal(relabel(IDS, IDS % 4), wide)


def test_random_labels_are_stable_over_steps():
    """Parameters that never move (rate 0) see one and the same objective at every step, whatever the step's key."""
    algorithm = make("random_label", optax.sgd(0.0))
    still = toys.stack([toys.first(toys.requests())] * 4)
    _, infos = toys.quick_jit(lambda params: unlearn(algorithm, params, still, jax.random.key(0)))(toys.mlp_params())
    assert len(set(np.asarray(infos.objective).tolist())) == 1

"""Penalties beside an objective: numbers by hand, slow twins, and derivatives by finite differences, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.helpers import toys
from unlearn import Request, ascent, classifier, finetune, first_order, level, npo, tree
from unlearn.base import merged, roll_out
from unlearn.penalties import beside, invariance, likeness

BY_HAND = classifier(lambda params, x, key: jnp.broadcast_to(params, (x.shape[0], 2)))
P = np.array([np.log(3), 0.0])  # logits, so p = (3/4, 1/4)
KEY = np.array([0, 1], np.uint32)
PENALTIES = {
    "logits": lambda model, weight=0.7: invariance(model, weight, environments=("forget", "retain")),
    "params": lambda model, weight=0.7: invariance(model, weight, environments=("forget", "retain"), reading="params"),
    "likeness": lambda model, weight=0.7: likeness(model, weight),
}
every_penalty = pytest.mark.parametrize("name", PENALTIES)


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def labelled(label, weights=(1.0,)):
    n = len(weights)
    return {"x": np.zeros((n, 1)), "y": np.full(n, label), "id": np.arange(n), "weight": np.array(weights)}


def nothing(*_):
    """An objective."""
    return jnp.zeros(())


def value(penalty, params, request):
    """What stands beside an objective of 0."""
    return penalty(nothing)(params, (), request, KEY)[0]


# by hand


@pytest.mark.parametrize(
    "options, expected",
    [
        # d/dw of log(3^w + 1) - w log 3 [y = 0] at 1 is 3/4 log 3 - log 3, and without the log 3 for y = 1.
        ({}, (np.log(3) / 4) ** 2),
        ({"environments": ("forget",)}, (3 * np.log(3) / 4) ** 2),
        ({"environments": ("retain", "forget")}, 10 * (np.log(3) / 4) ** 2),
        # the slope of -log p_y in the logits is p - e_y: (-1/4, 1/4) and (3/4, -3/4)
        ({"reading": "params"}, 1 / 8),
        ({"reading": "params", "environments": ("forget",)}, 9 / 8),
        ({"environments": ()}, 0.0),
    ],
)
def test_invariance_by_hand(options, expected):
    request = Request(labelled(1), labelled(0, weights=(2.0, 0.0)))
    assert float(value(invariance(BY_HAND, 2.0, **options), P, request)) == pytest.approx(2 * expected, rel=1e-12)


def test_the_gradient_that_is_squared_is_the_mean_one_and_not_each_example_s():
    """One example of either label: the mean slope is ((-1/4, 1/4) + (3/4, -3/4)) / 2."""
    both = {**labelled(0, (1.0, 1.0)), "y": np.array([0, 1])}
    assert float(value(invariance(BY_HAND, 1.0, reading="params"), P, Request(both, both))) == pytest.approx(1 / 8)
    assert float(value(invariance(BY_HAND, 1.0), P, Request(both, both))) == pytest.approx((np.log(3) / 4) ** 2)


def test_likeness_by_hand():
    """Features 0 and 2 (of weight 3) go, 1 stays: 2 * 1 - 2 * (1/4) (3/4) 2 - 0, but for 1e-4 that round the root off."""
    model = classifier(lambda params, x, key: x, features=lambda params, x, key: params * x)
    goes = {**labelled(0, (1.0, 3.0)), "x": np.array([[0.0], [2.0]])}
    stays = {**labelled(0, (1.0, 0.0)), "x": np.array([[1.0], [9.0]])}
    request, penalty = Request(goes, stays), likeness(model, 1.0)
    assert float(value(penalty, np.ones(1), request)) == pytest.approx(2 - 0.75, abs=2e-4)
    assert float(value(penalty, np.full(1, 2.0), request)) == pytest.approx(2 * (2 - 0.75), abs=2e-4)
    assert float(value(penalty, np.ones(1), Request(goes, goes))) == pytest.approx(0, abs=1e-15)


# of models


def twin(name, kind, params, request):
    """Every penalty once more: differences of losses for slopes, loops over pairs for distances."""

    def loss(at, data, scale=1.0):
        logits = jax.tree.map(lambda z: scale * z, kind.model.apply(at, data["x"], None))
        return float(toys.average(kind.model.loss(logits, data), data["weight"]))

    if name == "logits":
        return sum(((loss(params, data, 1 + 1e-5) - loss(params, data, 1 - 1e-5)) / 2e-5) ** 2 for data in request)
    if name == "params":
        slopes = [toys.central_differences(lambda at: loss(at, data), params) for data in request]  # noqa: B023
        return sum(float(tree.dot(slope, slope)) for slope in slopes)
    rows = [np.asarray(kind.model.features(params, data["x"], None)).reshape(len(data["weight"]), -1) for data in request]
    weights = [data["weight"] / data["weight"].sum() for data in request]

    def apart(i, j):
        pairs = np.ndindex(len(rows[i]), len(rows[j]))
        return sum(weights[i][a] * weights[j][b] * np.linalg.norm(rows[i][a] - rows[j][b]) for a, b in pairs)

    return 2 * apart(0, 1) - apart(0, 0) - apart(1, 1)


@pytest.mark.parametrize("name, kind", [("logits", "pytree"), ("params", "classifier"), ("likeness", "sequence")])
def test_penalties_are_those_of_their_twins(name, kind):
    kind = toys.KINDS[kind]
    params, request = kind.params(), toys.first(kind.requests())
    found = toys.quick_jit(lambda at: value(PENALTIES[name](kind.model), at, request))(params)
    assert float(found) == pytest.approx(0.7 * twin(name, kind, params, request), rel=1e-6 if name != "likeness" else 1e-3)


@every_penalty
def test_an_update_goes_down_objective_and_penalty(name):
    """The parameters after a step of SGD, against finite differences of the sum."""
    request, params = toys.first(toys.requests()), toys.mlp_params()
    algorithm = level(toys.MLP, optax.sgd(1.0), target=toys.LEVEL, grad=PENALTIES[name](toys.MLP))
    plain = level(toys.MLP, optax.sgd(0.0), target=toys.LEVEL)

    @toys.quick_jit
    def total(at):
        info = plain.update(plain.init(at, request, KEY), request, KEY)[1]
        return info.objective + value(PENALTIES[name](toys.MLP), at, request)

    state, info = algorithm.update(algorithm.init(params, request, KEY), request, KEY)
    assert float(info.objective) == pytest.approx(float(total(params)), rel=1e-12)
    moved = jax.tree.map(lambda before, after: before - after, params, state.params)
    assert toys.relative_error(moved, toys.central_differences(total, params)) <= 1e-6


@every_penalty
def test_the_gradient_through_two_updates_is_the_finite_difference(name):
    batches, start = toys.requests(steps=2), toys.mlp_params()
    algorithm = ascent(toys.MLP, optax.sgd(0.1), grad=PENALTIES[name](toys.MLP, 0.2))

    @toys.quick_jit
    @jax.value_and_grad
    def f(params):
        state = algorithm.init(params, merged(batches), KEY)
        after = roll_out(algorithm, state, batches, KEY)[0].params
        return toys.label_loss(toys.MLP, after, toys.first(batches).retain, None)

    assert toys.relative_error(f(start)[1], toys.central_differences(lambda params: f(params)[0], start)) <= 1e-5


def test_any_algorithm_takes_any_penalty():
    request, params = toys.first(toys.requests()), toys.mlp_params(1)
    for make in (ascent, npo, finetune):
        plain, more = (make(toys.MLP, optax.sgd(0.1), **told) for told in ({}, {"grad": PENALTIES["params"](toys.MLP)}))
        state = plain.init(toys.mlp_params(), request, KEY)._replace(params=params)
        without, beside_it = (float(algorithm.update(state, request, KEY)[1].objective) for algorithm in (plain, more))
        assert beside_it - without == pytest.approx(float(value(PENALTIES["params"](toys.MLP), params, request)), rel=1e-12)


def test_a_traced_weight_is_a_lane_of_a_sweep():
    request, params = toys.first(toys.requests()), toys.mlp_params()

    def after(weight):
        algorithm = finetune(toys.MLP, optax.sgd(0.1), grad=invariance(toys.MLP, weight, reading="params"))
        return algorithm.update(algorithm.init(params, request, KEY), request, KEY)[0].params

    weights = np.array([0.0, 0.5])
    lanes = toys.quick_jit(jax.vmap(after))(weights)
    for i, weight in enumerate(weights):
        toys.assert_close(toys.lane(lanes, i), after(weight), 1e-12)
    plain = finetune(toys.MLP, optax.sgd(0.1))
    toys.assert_close(toys.lane(lanes, 0), plain.update(plain.init(params, request, KEY), request, KEY)[0].params, 1e-12)


def test_the_operator_around_is_the_one_that_is_given():
    """Of first order the gradient is a constant: through an update comes what was there before it, and no more."""
    request, params = toys.first(toys.requests()), toys.mlp_params()
    grad = invariance(toys.MLP, 1.0, reading="params", grad=first_order)
    algorithm = finetune(toys.MLP, optax.sgd(0.1), grad=grad)
    state = algorithm.init(params, request, KEY)
    after, pull = jax.vjp(lambda at: algorithm.update(state._replace(params=at), request, KEY)[0].params, params)
    toys.assert_close(pull(after)[0], after, 1e-15)


@every_penalty
def test_padding_is_never_read_and_nothing_but_padding_pushes_nowhere(name):
    request, params = toys.first(toys.requests()), toys.mlp_params()
    algorithm = finetune(toys.MLP, optax.sgd(0.1), grad=PENALTIES[name](toys.MLP))
    huge = Request(*(dict(data, x=np.where(data["weight"][:, None] > 0, data["x"], 1e200)) for data in request))
    empty = Request(*(dict(data, weight=0 * data["weight"]) for data in request))
    state = algorithm.init(params, request, KEY)
    update = toys.quick_jit(algorithm.update)
    toys.assert_close(update(state, huge, KEY), update(state, request, KEY), 1e-12)
    after, info = update(state, empty, KEY)
    toys.assert_close(after.params, params, 1e-15)
    assert float(info.objective) == 0 == float(info.grad_norm)


def test_features_that_coincide_have_a_slope():
    """What goes is what stays: at the least distance there is, no push and no NaN."""
    stays = {key: leaf[:3] for key, leaf in toys.first(toys.requests()).retain.items()}
    params = toys.mlp_params()
    slope = likeness(toys.MLP, 1.0)(nothing)(params, (), Request(stays, stays), KEY)[1]
    assert bool(tree.all_finite(slope)) and float(tree.norm(slope)) < 1e-12


# mistakes


def test_what_cannot_work_is_refused_in_one_line():
    with pytest.raises(ValueError, match=r"^reading 'weights' of invariance is unknown: choose 'logits' or 'params'$"):
        invariance(toys.MLP, 1.0, reading="weights")
    with pytest.raises(ValueError, match=r"^environment 'test' of invariance is unknown: choose 'forget' or 'retain'$"):
        invariance(toys.MLP, 1.0, environments=("test",))
    with pytest.raises(TypeError, match="make one of functions"):
        invariance(toys.mlp_apply, 1.0)
    with pytest.raises(ValueError, match=r"^likeness compares features; this model has none: give features="):
        likeness(BY_HAND, 1.0)
    for make in (lambda: invariance(BY_HAND, -1.0), lambda: beside(nothing, float("nan"))):
        with pytest.raises(ValueError, match=r"^weight is .*: give a number of 0 or more$"):
            make()
    alone = Request(toys.first(toys.requests()).forget)
    for penalty in (invariance(toys.MLP, 1.0), likeness(toys.MLP, 1.0)):
        algorithm = ascent(toys.MLP, optax.sgd(0.1), grad=penalty)
        with pytest.raises(ValueError, match=r"^the penalty reads retain data, and the request has none: give Request\("):
            algorithm.update(algorithm.init(toys.mlp_params(), alone, KEY), alone, KEY)

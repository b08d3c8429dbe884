"""Levels by hand: the pull towards them, what retained look-alikes tell, where a request ends, and what goes too far."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.helpers import toys
from unlearn import Request, ascent, classifier, level, levels
from unlearn.losses import huber

KEY, LOG3 = jax.random.key(0), np.log(3)
LOGITS = classifier(lambda params, x, key: x + params)  # what is moved is added to logits that the data give


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def batch(logits, labels, weight=None, **more):
    count = len(labels)
    x = np.array(logits, float)
    return {"x": x, "y": np.array(labels), "id": np.arange(count), "weight": np.array(weight or [1.0] * count)} | more


# the pull


@pytest.mark.parametrize("distance, pull, slope", [(0, 0, 0), (1, 0.25, 0.5), (-1, 0.25, -0.5), (2, 1, 1), (-5, 4, -1)])
def test_huber_by_hand(distance, pull, slope):
    """Width 2: d^2 / 4 within 2, |d| - 1 beyond, where the slope is 1."""
    found = jax.value_and_grad(lambda d: huber(d, 2.0))(float(distance))
    assert tuple(map(float, found)) == (pull, slope)


def one_update(algorithm, forget, retain, params=(0.0, 0.0)):
    start, request = np.array(params), Request(forget, retain)
    return algorithm.update(algorithm.init(start, request, KEY), request, KEY)


RETAIN = batch([[LOG3, 0.0]], [0])  # known by 3/4, and of label 1 the margin is -log 3


@pytest.mark.parametrize(
    "options, pull",
    [
        ({}, 1.0),  # the distances are 1 and -5, their mean -2
        ({"each": True}, (0.25 + 4.0) / 2),
        ({"each": True, "width": 8.0}, (1 / 16 + 25 / 16) / 2),
        ({"target": -LOG3 + 1}, 0.25),  # both are 1 below it
    ],
)
def test_levels_of_the_batch_by_hand(options, pull):
    forget = batch([[LOG3, 0.0]] * 2, [1, 1], level=np.array([-LOG3 - 1, -LOG3 + 5]))
    info = one_update(level(LOGITS, optax.sgd(1.0), beta=0.25, **options), forget, RETAIN)[1]
    assert float(info.objective) == pytest.approx(0.25 * np.log(4 / 3) + 0.75 * pull, rel=1e-12)


@pytest.mark.parametrize("target, sign", [(-5.0, -1), (5.0, 1)])
def test_the_forgotten_are_brought_to_a_level_from_both_sides(target, sign):
    """Of two classes the margin is z_0 - z_1: an update of rate 1 moves it by 2, from 0 towards the target."""
    after = one_update(level(LOGITS, optax.sgd(1.0), target=target, beta=0.0), batch([[0.0, 0.0]], [0]), RETAIN)[0].params
    np.testing.assert_allclose(after, [sign, -sign])


def test_at_its_level_nothing_pulls():
    info = one_update(level(LOGITS, optax.sgd(1.0), target=LOG3, beta=0.0), batch([[LOG3, 0.0]], [0]), RETAIN)[1]
    assert float(info.grad_norm) == pytest.approx(0, abs=1e-12)


def test_what_is_known_by_heart_is_pulled_down_where_ascent_stands_still():
    """p rounds to 1: the slope of its loss is 0, that of its margin (1, -1)."""
    forget = batch([[60.0, 0.0]], [0])
    stuck = one_update(ascent(LOGITS, optax.sgd(1.0)), forget, RETAIN)[1]
    moved = one_update(level(LOGITS, optax.sgd(1.0), target=-3.0, beta=0.0), forget, RETAIN)[1]
    assert float(stuck.grad_norm) < 1e-20 and float(moved.grad_norm) == pytest.approx(2**0.5)


def test_a_level_is_that_of_the_start_however_far_the_model_has_moved():
    """Retained examples of label 0 gave label 1 a margin of -log 3; later parameters change the margins, not the level."""
    algorithm, request = level(LOGITS, optax.sgd(1.0), beta=0.0), Request(batch([[0.0, 0.0]], [1]), RETAIN)
    state = algorithm.init(np.zeros(2), request, KEY)._replace(params=np.array([7.0, 0.0]))
    assert float(algorithm.update(state, request, KEY)[1].objective) == pytest.approx(7 - LOG3 - 1)


@pytest.mark.parametrize("kind", ["sequence", "pytree"])
def test_a_model_that_is_no_classifier_must_be_told_its_level(kind):
    kind = toys.KINDS[kind]
    request, params, model = toys.first(kind.requests()), kind.params(), kind.model
    with pytest.raises(ValueError, match=r"^only a classifier's levels .*: give the forget batch a `level`") as caught:
        level(model, optax.sgd(0.1)).init(params, request, KEY)
    assert "\n" not in str(caught.value)
    told = request._replace(forget=request.forget | {"level": np.full(len(request.forget["weight"]), -2.0)})
    for algorithm, asked in ((level(model, optax.sgd(0.1)), told), (level(model, optax.sgd(0.1), target=-2.0), request)):
        _, info = algorithm.update(algorithm.init(params, asked, KEY), asked, KEY)
        assert np.isfinite(info.objective) and float(info.grad_norm) > 0


# look-alikes


def test_look_alikes_are_those_of_a_loop_over_classes_and_examples():
    """More classes than are computed side by side, unequal weights, and padding that may hold anything."""
    classes, examples = levels.TOGETHER + 3, 9
    rng = np.random.default_rng(0)
    retain = batch(rng.normal(size=(examples, classes)), rng.integers(0, 4, examples), [*rng.uniform(0.5, 2, 8), 0.0])
    model, params = LOGITS, rng.normal(size=classes)
    expected = np.array(toys.class_levels(model, params, retain))
    retain["x"][-1] = np.nan
    of = toys.quick_jit(lambda params: levels.of_classes(model, params, retain))
    np.testing.assert_allclose(of(params), expected, rtol=1e-12)
    labels = np.array([[3, 0], [66, 3]])
    np.testing.assert_allclose(levels.look_alikes(model, params, labels, retain), expected[labels], rtol=1e-12)


def test_look_alikes_are_reduced_by_the_mean_that_is_given():
    """Margins of label 1 are -log 3, 0 and, of its own class, what does not count."""
    retain = batch([[LOG3, 0.0], [0.0, 0.0], [0.0, 9.0]], [0, 0, 1])
    highest = lambda values, weights: jnp.max(jnp.where(weights > 0, values, -jnp.inf))  # noqa: E731
    assert levels.look_alikes(LOGITS, np.zeros(2), 1, retain) == pytest.approx(-LOG3 / 2)
    assert levels.look_alikes(LOGITS, np.zeros(2), 1, retain, highest) == 0.0


def test_of_a_class_beside_which_there_is_no_other_the_level_is_the_boundary():
    """As the mean of nothing: a number, which no model of one class can be brought to."""
    assert levels.look_alikes(LOGITS, np.zeros(2), np.array([0]), RETAIN).tolist() == [0.0]


# the end


@pytest.mark.parametrize("at, tolerance", [(-20.0, 2.0), (20.0, 2.0), (-5.0, 0.5), (-0.1, 0.5)])
def test_the_tolerance_is_a_tenth_of_the_level_and_half_a_nat_at_least(at, tolerance):
    aim = levels.aim_at(at, known=0.0, retained=1.0)
    assert (float(aim.level), float(aim.tolerance)) == (at, pytest.approx(tolerance))


AIM = levels.Aim(-16.0, 2.0, 0.25, 1.0)


def seen(margin, known=0.0, retained=1.0):
    return {"forget_margin": margin, "forget_accuracy": known, "retained_accuracy": retained}


@pytest.mark.parametrize(
    "after, done",
    [
        (seen(-18.0, 0.25, 0.99), True),  # each at its edge
        (seen(-14.0), True),
        (seen(-18.01), False),
        (seen(-13.99), False),
        (seen(-16.0, known=0.26), False),
        (seen(-16.0, retained=0.9899), False),
        (seen(np.nan), False),
    ],
)
def test_a_request_has_settled_by_hand(after, done):
    assert bool(levels.settled(after, AIM)) is done


@pytest.mark.parametrize(
    "before, after, undone",
    [
        (seen(0.0), seen(-8.0), False),
        (seen(0.0), seen(-32.0), False),  # as far on the other side
        (seen(0.0), seen(-32.01), True),
        (seen(-16.5), seen(-18.0), False),  # farther, and within the tolerance
        (seen(-16.5), seen(-18.01), True),
        (seen(0.0, retained=0.75), seen(-8.0, retained=0.74), False),
        (seen(0.0, retained=0.75), seen(-8.0, retained=0.739), True),
        (seen(0.0, retained=0.75), seen(-16.0, retained=0.739), True),
    ],
)
def test_an_update_overshoots_by_hand(before, after, undone):
    assert bool(levels.overshoots(after, before, AIM)) is undone

"""Gradient operators: the same gradients as jax, and derivatives of them that are a Hessian product or nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.helpers import toys
from unlearn import tree
from unlearn.gradient import first_order, normalised, second_order

A = np.array([[2.0, 1.0, 0.0], [1.0, -3.0, 4.0], [0.0, 4.0, 1.0]])  # symmetric, not definite
B = np.array([1.0, -2.0, 3.0])
P, V = np.array([1.0, 2.0, -1.0]), np.array([3.0, 1.0, 2.0])

operators = pytest.mark.parametrize("operator", [second_order, first_order, jax.value_and_grad], ids=lambda f: f.__name__)


def quadratic(p, a, b):
    return p @ a @ p / 2 + b @ p


def mlp_loss(params, batch):
    return toys.label_loss(toys.MLP, params, batch, None)


def through(operator, f):
    """A scalar of `(params, *rest)` that depends on both params and the operator's gradient of `f`, not linearly."""

    def g(params, *rest):
        step = operator(f)(params, *rest)[1]
        moved = jax.tree.map(lambda p, s: p - 0.5 * s, params, step)
        return sum(jnp.sum(jnp.sin(leaf)) for leaf in jax.tree.leaves(moved)) + tree.dot(step, step)

    return g


def twin(operator):
    """What each operator should amount to, said with nothing but `jax.grad` and `stop_gradient`."""
    if operator is first_order:
        return lambda f: lambda *args: (None, jax.lax.stop_gradient(jax.grad(f)(*args)))
    return lambda f: lambda *args: (None, jax.grad(f)(*args))


# by hand


@operators
def test_quadratic_value_and_gradient(operator):
    value, gradient = operator(quadratic)(P, A, B)
    assert float(value) == P @ A @ P / 2 + B @ P == -10.5 - 6
    assert gradient.tolist() == (A @ P + B).tolist() == [5, -11, 10]


def test_the_derivative_of_second_order_is_the_hessian_product_exactly():
    _, pull = jax.vjp(lambda p: second_order(quadratic)(p, A, B)[1], P)
    assert pull(jnp.asarray(V, jnp.float32))[0].tolist() == (A @ V).tolist() == [7, 8, 6]


def test_the_derivative_of_first_order_is_zero():
    _, pull = jax.vjp(lambda p: first_order(quadratic)(p, A, B)[1], P)
    assert pull(jnp.asarray(V, jnp.float32))[0].tolist() == [0, 0, 0]


@pytest.mark.parametrize("operator", [second_order, first_order], ids=lambda f: f.__name__)
def test_the_value_and_the_rest_are_constants(operator):
    assert jax.grad(lambda p: operator(quadratic)(p, A, B)[0])(P).tolist() == [0, 0, 0]
    assert jax.grad(lambda b: operator(quadratic)(P, A, b)[1] @ V)(B).tolist() == [0, 0, 0]
    assert jax.grad(lambda a: operator(quadratic)(P, a, B)[1] @ V)(A).tolist() == np.zeros((3, 3)).tolist()


# against grad of grad


@operators
def test_mlp_derivative_is_the_twins(operator):
    params, batch = toys.mlp_params(), toys.batch(0, 5)
    ours = toys.quick_jit(jax.value_and_grad(through(operator, mlp_loss)))(params, batch)
    theirs = toys.quick_jit(jax.value_and_grad(through(twin(operator), mlp_loss)))(params, batch)
    toys.assert_close(ours, theirs, 1e-6)


def test_first_and_second_order_differ():
    first, second = (jax.grad(through(operator, quadratic))(P, A, B) for operator in (first_order, second_order))
    assert float(jnp.max(jnp.abs(first - second))) > 0.1


def test_third_derivatives_pass_through_second_order():
    """Its backward pass is ordinary code, so it may be differentiated again: a cube, by hand."""
    cube = lambda p: p**3  # noqa: E731
    slope = lambda p: second_order(cube)(p)[1]  # noqa: E731
    assert float(jax.grad(slope)(2.0)) == 12 and float(jax.grad(jax.grad(slope))(2.0)) == 6


# transformations


def lanes(value):
    return jax.tree.map(lambda leaf: np.stack([leaf, 1.5 * leaf]), value)


TRANSFORMS = {
    "eager": lambda g: jax.grad(g),
    "jit": lambda g: jax.jit(jax.grad(g)),
    "jit-inside": lambda g: jax.grad(jax.jit(g)),
    "vmap": lambda g: lambda p, *rest: jax.vmap(jax.grad(g), in_axes=(0, *[None] * len(rest)))(lanes(p), *rest),
    "vmap-inside": lambda g: jax.grad(
        lambda p, *rest: jax.vmap(lambda s: g(jax.tree.map(lambda q: q * s, p), *rest))(B).sum()
    ),
    "checkpoint": lambda g: jax.grad(jax.checkpoint(g)),
    "scan": lambda g: jax.grad(
        lambda p, *rest: jax.lax.scan(
            lambda c, s: (c + g(jax.tree.map(lambda q: q * s, p), *rest), None), jnp.zeros(()), B
        )[0]
    ),
    "checkpoint-in-scan": lambda g: jax.grad(
        lambda p, *rest: jax.lax.scan(
            jax.checkpoint(lambda c, s: (c + g(jax.tree.map(lambda q: q * s, p), *rest), None)), jnp.zeros(()), B
        )[0]
    ),
}


def wavy(p, a, b):
    return jnp.sum(jnp.cos(a @ p) * b)


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("operator", [second_order, first_order], ids=lambda f: f.__name__)
def test_transformations_agree_with_the_twin(operator, transform):
    ours, theirs = (TRANSFORMS[transform](through(op, wavy))(P, A, B) for op in (operator, twin(operator)))
    np.testing.assert_allclose(ours, theirs, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("operator", [second_order, first_order], ids=lambda f: f.__name__)
@pytest.mark.parametrize("key", [jax.random.PRNGKey, jax.random.key], ids=["raw", "typed"])
def test_keys_and_integers_in_rest(operator, key):
    def noisy(p, request, key):
        scale = jax.random.uniform(jax.random.fold_in(key, request["y"][0]), p.shape)
        return jnp.sum(jnp.sin(p * scale)[request["y"]] * request["on"])

    request = {"y": np.array([0, 2, 2], np.int32), "on": np.array([True, False, True]), "none": None}

    def g(op):
        def step(p, i):
            return p - 0.1 * op(noisy)(p, request, jax.random.fold_in(key(1), i))[1], None

        run = lambda p: jax.lax.scan(jax.checkpoint(step), step(p, 0)[0], jnp.arange(3))[0]  # noqa: E731
        return toys.quick_jit(jax.grad(lambda p: jnp.sum(run(p) ** 2)))(P)

    np.testing.assert_allclose(g(operator), g(twin(operator)), rtol=2e-6, atol=2e-6)


# normalised


def test_normalised_steps_have_one_length_whatever_the_gradient():
    step = optax.chain(normalised(), optax.sgd(0.5))
    for size in (1e-6, 1.0, 1e6):
        updates, _ = step.update({"a": size * P, "b": size * V}, step.init(None))
        assert float(tree.norm(updates)) == pytest.approx(0.5, rel=1e-5)
        np.testing.assert_allclose(updates["a"] / updates["a"][0], P / P[0], rtol=1e-6)


def test_normalised_takes_its_norm_as_a_constant():
    _, pull = jax.vjp(lambda u: normalised().update(u, None)[0], np.array([3.0, 4.0]))
    np.testing.assert_allclose(pull(jnp.array([1.0, 2.0]))[0], [0.2, 0.4], rtol=1e-6)


def test_normalised_zero_is_zero():
    assert normalised().update(np.zeros(3), None)[0].tolist() == [0, 0, 0]

"""Numbers, bits and means by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unlearn import losses, tree

NAN, INF = float("nan"), float("inf")


def f32(*values):
    return jnp.array(values, jnp.float32)


# tree: arithmetic


def test_dot_norm_axpy_by_hand():
    a, b = {"u": f32(1, 2), "v": f32(3)}, {"u": f32(4, -1), "v": f32(2)}
    assert float(tree.dot(a, b)) == 4 - 2 + 6
    assert float(tree.norm({"u": f32(3), "v": f32(0, 4)})) == 5
    assert tree.bits_equal(tree.axpy(2.0, a, b), {"u": f32(6, 3), "v": f32(8)})


def test_axpy_keeps_the_dtype_of_y():
    assert tree.axpy(jnp.float32(0.5), f32(1.0), jnp.array([1.0], jnp.bfloat16)).dtype == jnp.bfloat16


def test_dot_and_norm_of_an_empty_tree_are_zero():
    assert float(tree.dot((), ())) == 0 and float(tree.norm(())) == 0


@pytest.mark.parametrize(
    "a, b, expected", [((1, 0), (1, 1), 0.5**0.5), ((2, 0), (-3, 0), -1), ((0, 0), (1, 1), 0), ((0, 0), (0, 0), 0)]
)
def test_cosine(a, b, expected):
    assert float(tree.cosine(f32(*a), f32(*b))) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("last, finite", [(1.0, True), (NAN, False), (INF, False), (-INF, False)])
def test_all_finite(last, finite):
    assert bool(tree.all_finite({"a": f32(0.0), "n": jnp.arange(2), "b": f32(1.0, last)})) is finite


def test_all_finite_of_nothing():
    assert bool(tree.all_finite(()))


def test_stop_gradient_makes_constants_and_passes_integers_and_keys():
    held = tree.stop_gradient({"x": f32(2.0), "n": jnp.array([3]), "raw": jax.random.PRNGKey(0), "key": jax.random.key(0)})
    assert held["n"].dtype == jnp.int32 and held["key"].dtype == jax.random.key(0).dtype
    assert float(jax.grad(lambda x: x * tree.stop_gradient({"x": x})["x"])(3.0)) == 3.0


# tree: bits


@pytest.mark.parametrize(
    "a, b, same",
    [
        (f32(1.0, NAN), f32(1.0, NAN), True),
        (f32(0.0), f32(-0.0), False),
        (f32(1.0), jnp.array([1.0], jnp.bfloat16), False),
        (f32(1.0), jnp.array([1], jnp.int32), False),
        (f32(0.0), jnp.array([0], jnp.int32), False),
        (f32(1.0), np.array([1.0], np.float32), True),
        (f32(1.0), f32(1.0)[None], False),
        (f32(1.0), f32(np.nextafter(np.float32(1), np.float32(2))), False),
        ({"a": f32(1.0)}, {"b": f32(1.0)}, False),
        ((f32(1.0),), [f32(1.0)], False),
        ((), (), True),
        (jax.random.key(1), jax.random.key(1), True),
        (jax.random.key(1), jax.random.key(2), False),
    ],
    ids=[
        "nan",
        "minus-zero",
        "bfloat16",
        "int",
        "zeros",
        "numpy",
        "shape",
        "one-ulp",
        "path",
        "container",
        "empty",
        "key",
        "other-key",
    ],
)
def test_bits_equal(a, b, same):
    assert tree.bits_equal(a, b) is same
    assert tree.bits_equal(b, a) is same
    if jax.tree.structure(a) != jax.tree.structure(b) and isinstance(a, tuple):
        return  # a digest names leaves, and a list's first leaf has a tuple's name
    assert (tree.digest(a) == tree.digest(b)) is same


def test_bits_equal_tells_two_nans_apart():
    quiet, other = (np.array([bits], np.uint32).view(np.float32) for bits in (0x7FC00000, 0x7FC00001))
    assert not tree.bits_equal(quiet, other)


def test_digest_is_of_contents_not_of_layout_or_order():
    rows = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert tree.digest({"a": rows, "b": f32(1.0)}) == tree.digest({"b": f32(1.0), "a": np.asfortranarray(rows)})
    assert tree.digest({"a": rows}) != tree.digest({"a": rows.T}) != tree.digest({"a": rows.reshape(3, 2)})
    assert tree.digest({"a": f32(1.0), "b": f32(2.0)}) != tree.digest({"a": f32(2.0), "b": f32(1.0)})


# losses


def test_weighted_mean_by_hand():
    assert float(losses.weighted_mean(f32(1, 2, 6), f32(1, 1, 2))) == (1 + 2 + 12) / 4


@pytest.mark.parametrize("garbage", [NAN, INF, -INF, 3e38])
def test_weighted_mean_never_reads_weight_zero(garbage):
    value, gradient = jax.value_and_grad(losses.weighted_mean)(f32(2, garbage, 4), f32(1, 0, 3))
    assert float(value) == 3.5
    assert gradient.tolist() == [0.25, 0, 0.75]


@pytest.mark.parametrize("values", [(1.0, 2.0), (NAN, INF)])
def test_weighted_mean_of_nothing_is_zero_with_a_zero_gradient(values):
    value, gradient = jax.value_and_grad(losses.weighted_mean)(f32(*values), f32(0, 0))
    assert float(value) == 0 and gradient.tolist() == [0, 0]


def test_weighted_mean_lets_nan_of_positive_weight_through():
    assert np.isnan(losses.weighted_mean(f32(1, NAN), f32(1, 1)))


def test_cross_entropy_and_confidence_by_hand():
    logits, labels = jnp.log(f32(1, 2, 5))[None].repeat(2, 0), jnp.array([2, 0])
    np.testing.assert_allclose(losses.cross_entropy(logits, labels), -np.log([5 / 8, 1 / 8]), rtol=1e-6)
    np.testing.assert_allclose(losses.confidence(logits, labels), [5 / 8, 1 / 8], rtol=1e-6)


def test_losses_are_at_least_float32_and_shift_free():
    assert losses.cross_entropy(jnp.zeros((1, 3), jnp.bfloat16), jnp.array([0])).dtype == jnp.float32
    assert losses.kl_divergence(jnp.zeros((1, 3), jnp.float16), jnp.zeros((1, 3), jnp.float16)).dtype == jnp.float32
    assert float(losses.cross_entropy(f32(1e4, 1e4)[None], jnp.array([0]))[0]) == pytest.approx(np.log(2))


def test_kl_divergence_by_hand():
    p, q = jnp.log(f32(3, 1))[None], jnp.log(f32(1, 1))[None]
    expected = 0.75 * np.log(0.75 / 0.5) + 0.25 * np.log(0.25 / 0.5)
    assert float(losses.kl_divergence(p, q)[0]) == pytest.approx(expected, rel=1e-6)
    reverse = 0.5 * np.log(0.5 / 0.75) + 0.5 * np.log(0.5 / 0.25)
    assert float(losses.kl_divergence(q, p)[0]) == pytest.approx(reverse, rel=1e-6)


def test_kl_divergence_of_a_distribution_with_itself_is_zero_and_flat():
    logits = f32(0.3, -2, 50)[None]
    assert losses.kl_divergence(logits, logits).tolist() == [0.0]
    assert losses.kl_divergence(logits, logits + 1).tolist() == pytest.approx([0.0], abs=1e-5)
    slope = jax.grad(lambda x: losses.kl_divergence(logits, x)[0])(logits)
    np.testing.assert_allclose(slope, 0, atol=1e-6)


def test_correct_and_nan():
    logits = f32([1, 3, 2], [NAN, 3, 2], [1, 3, NAN], [NAN, NAN, NAN], [5, 5, 0])
    assert losses.correct(logits, jnp.array([1, 1, 1, 0, 1])).tolist() == [1, 0, 0, 0, 0]
    assert losses.correct(logits, jnp.array([2, 0, 2, 1, 0])).tolist() == [0, 0, 0, 0, 1]

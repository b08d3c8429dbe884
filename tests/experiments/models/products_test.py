"""Convolutions as matrix products: beside the convolution, gradients too, and what is left as it is."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import models
from experiments.models import functions, layers, products
from tests.helpers import toys

KEY = jax.random.key(0)


@pytest.mark.parametrize("strides, padding", [((1, 1), "SAME"), ((2, 3), "SAME"), ((2, 1), "VALID")])
def test_patches_times_kernel_are_the_convolution(strides, padding):
    rng = np.random.default_rng(0)
    x, kernel = jnp.asarray(rng.normal(size=(1, 7, 8, 2))), jnp.asarray(rng.normal(size=(3, 2, 2, 5)))
    conv = nn.Conv(5, (3, 2), strides=strides, padding=padding, use_bias=False)
    wanted = conv.apply({"params": {"kernel": kernel}}, x)
    got = layers.patches(x, (3, 2), strides, padding) @ kernel.reshape(-1, 5)
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)


NETS = {"cnn": {"widths": (8, 16)}, "resnet18": {"width": 8, "stages": (1, 1)}, "whitened": {"widths": (8,)}}


@pytest.mark.parametrize("name", NETS)
def test_a_model_of_products_is_the_model(name):
    shape = (9, 8, 3)
    fns = models.of_module(models.make_module(name, NETS[name], 4), shape, convolutional=True)
    found = products.as_products(fns)
    params, x = fns.init(KEY), jax.random.normal(KEY, (3, *shape))
    assert functions.convolves(fns, shape) and not functions.convolves(found, shape) and not found.convolutional
    gap = toys.quick_jit(lambda: jnp.abs(found.apply(params, x, None) - fns.apply(params, x, None)).max())()
    assert gap < 1e-5
    gap = toys.quick_jit(lambda: jnp.abs(found.features(params, x, None) - fns.features(params, x, None)).max())()
    assert gap < 1e-5
    gradient = lambda apply: jax.grad(lambda params: jnp.sum(apply(params, x, None) ** 2))(params)  # noqa: E731
    # The largest of four positions passes its gradient on, and rounding may change which one that is.
    assert toys.relative_error(*toys.quick_jit(lambda: (gradient(found.apply), gradient(fns.apply)))()) < 2e-4


def test_equal_models_are_one_program():
    fns = models.of_module(models.make_module("cnn", {}, 4), (8, 8, 1), convolutional=True)
    assert products.as_products(fns) is products.as_products(fns)


@pytest.mark.parametrize("options", [{"feature_group_count": 2}, {"kernel_dilation": 2}, {"padding": 1}])
def test_a_convolution_that_is_not_plain_stays_one(options):
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(2)(nn.Conv(4, (3, 3), **options)(x).mean(axis=(1, 2)))

    fns = models.of_module(Net(), (6, 6, 2), convolutional=True)
    params, x = fns.init(KEY), jax.random.normal(KEY, (3, 6, 6, 2))
    found = products.as_products(fns)
    assert functions.convolves(found, (6, 6, 2))
    np.testing.assert_array_equal(found.apply(params, x, None), fns.apply(params, x, None))


BOXED = nn.with_partitioning(nn.initializers.lecun_normal(), (None, None, None, "width"))
CALLS = {
    "by name": lambda x: nn.Conv(4, (3, 3))(inputs=x),
    "one size": lambda x: nn.Conv(4, 3, strides=2)(x.reshape(len(x), -1, 2)),
    "in a box": lambda x: nn.Conv(4, (3, 3), kernel_init=BOXED)(x),
    "masked": lambda x: nn.Conv(4, (3, 3), mask=(jnp.arange(72) % 3).reshape(3, 3, 2, 4))(x),
    "circular": lambda x: nn.Conv(4, (3, 3), padding="CIRCULAR")(x),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_convolution_is_a_product_however_it_is_called(name):
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            return CALLS[name](x).reshape(len(x), -1)

    fns = models.of_module(Net(), (6, 5, 2), convolutional=True)
    params, x = fns.init(KEY), jax.random.normal(KEY, (3, 6, 5, 2))
    found = products.as_products(fns)
    assert not functions.convolves(found, (6, 5, 2))
    np.testing.assert_allclose(found.apply(params, x, None), fns.apply(params, x, None), rtol=1e-5, atol=1e-5)


def test_what_a_user_makes_of_a_convolution_stays():
    def doubled(layer, args, kwargs, context):
        return (2 if isinstance(context.module, nn.Conv) else 1) * layer(*args, **kwargs)

    def apply(params, x, key):
        with nn.intercept_methods(doubled):
            return plain.apply(params, x, key)

    plain = models.of_module(models.make_module("cnn", {"widths": (8,)}, 4), (6, 5, 2), convolutional=True)
    params, x = plain.init(KEY), jax.random.normal(KEY, (3, 6, 5, 2))
    found = products.as_products(plain._replace(apply=apply, features=None))
    assert not functions.convolves(found, (6, 5, 2))
    np.testing.assert_allclose(found.apply(params, x, None), apply(params, x, None), rtol=1e-5, atol=1e-5)


def test_activations_keep_their_type():
    module = models.make_module("cnn", {"widths": (8,)}, 4).clone(dtype=jnp.bfloat16)
    fns = models.of_module(module, (8, 8, 1), convolutional=True)
    params, x = fns.init(KEY), jax.random.normal(KEY, (3, 8, 8, 1))
    found, wanted = products.as_products(fns).apply(params, x, None), fns.apply(params, x, None)
    assert found.dtype == wanted.dtype
    np.testing.assert_allclose(found, wanted, atol=0.05)

"""DP-SGD's clipped sum and its noise against per-example gradients handed to optax."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict

from experiments import models
from experiments.core import keys
from experiments.core.keys import Purpose
from experiments.training import dpsgd, loop
from tests.helpers import tiny, toys
from unlearn import tree
from unlearn.losses import cross_entropy

CLASSES, EXAMPLES, KEY = 3, 5, jax.random.key(7)


class Doubled(nn.Dense):
    """A Dense by type, though not by what it does."""

    def __call__(self, x):
        return 2 * super().__call__(x)


class Odd(nn.Module):
    """Layers that must not take the short cut, one of each kind, and one that may."""

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(4, (3, 3), kernel_dilation=2, name="dilated")(x)
        x = nn.Conv(4, (3, 3), feature_group_count=2, name="grouped")(x)
        x = nn.Conv(4, (3, 3), padding=1, name="padded")(x)
        x = nn.tanh(nn.ConvTranspose(4, (2, 2), name="transposed")(x))
        x = nn.DenseGeneral(6, axis=(1, 3), name="inner_axes")(x)
        x = Doubled(6, name="subclass")(x) + nn.Embed(6, 6, name="embedding")(jnp.arange(x.shape[1]))
        twice, tied = nn.Dense(6, name="twice"), nn.Dense(6, use_bias=False, name="tied")
        x = nn.tanh(tied(twice(nn.tanh(twice(x)))))
        x = x @ tied.variables["params"]["kernel"].T
        return nn.Dense(CLASSES, name="plain")(x.mean(axis=1)) * self.param("gain", nn.initializers.ones, ())


class Bare(nn.Module):
    """No layer at all."""

    @nn.compact
    def __call__(self, x):
        return x.reshape(len(x), -1) @ self.param("w", nn.initializers.normal(1.0), (x[0].size, CLASSES))


class Noisy(nn.Module):
    """Draws a dropout mask."""

    @nn.compact
    def __call__(self, x):
        return nn.Dense(CLASSES)(nn.Dropout(0.5, deterministic=False)(nn.Dense(8)(x.reshape(len(x), -1))))


MODULES = {  # module, image, parameters differentiated example by example beside biases and scales
    "mlp": (models.MLP(CLASSES, (6, 5)), (3, 4, 1), ""),
    "vit": (models.ViT(CLASSES, patch=2, width=8, depth=1, heads=2), (4, 6, 1), "positions"),
    "cnn": (models.CNN(CLASSES, (4, 4), hidden=5, groups=2), (7, 6, 2), ""),
    "resnet18": (models.ResNet18(CLASSES, width=4, groups=2, stages=(1, 1)), (4, 4, 2), ""),
    "unknown": (
        Odd(),
        (6, 6, 2),
        "dilated grouped padded transposed inner_axes subclass embedding twice tied gain",
    ),
    "nothing known": (Bare(), (2, 2, 1), "w"),
    "dropout": (Noisy(), (3, 3, 1), ""),
}


def case(name, dtype):
    module, image, _ = MODULES[name]
    rng = np.random.default_rng(3)
    x = jnp.asarray(rng.normal(size=(EXAMPLES, *image)), dtype)
    params = jax.eval_shape(lambda: module.init({"params": KEY, "dropout": KEY}, x))["params"]
    params = jax.tree.map(lambda leaf: jnp.asarray(0.5 * rng.normal(size=leaf.shape), dtype), params)
    weight = jnp.asarray([1.0, 0.5, 0.0, 1.0, 1.0], dtype)
    return module, params, {"x": x, "y": jnp.arange(EXAMPLES) % CLASSES, "weight": weight}


def loss(logits, batch):
    return cross_entropy(logits, batch["y"])


def ghost(module, params, batch, clip):
    return dpsgd.clipped_sum(models.of_module(module, batch["x"].shape[1:]), loss, params, batch, KEY, clip)


def gradients(module, params, batch):
    """Of every example, as a batch of one."""

    def one(params, example):
        example = jax.tree.map(lambda leaf: leaf[None], example)
        logits = module.apply({"params": params}, example["x"], rngs={"dropout": KEY})
        return jnp.sum(loss(logits, example) * example["weight"])

    return jax.vmap(jax.value_and_grad(one), (None, 0))(params, batch)


def twin(module, params, batch, clip):
    losses, found = gradients(module, params, batch)
    total, _ = optax.per_example_global_norm_clip(jax.tree.leaves(found), clip)
    return jax.tree.unflatten(jax.tree.structure(params), total), losses, jax.vmap(optax.tree.norm)(found)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * (name in ("resnet18", "vit", "unknown", "cnn"))) for name in MODULES],
)
def test_the_clipped_sum_is_that_of_per_example_gradients(name):
    """At clips between the norms and beyond them all, with a padded example and one of half weight."""
    with jax.enable_x64(True):
        module, params, batch = case(name, jnp.float64)
        norms = np.asarray(twin(module, params, batch, 1.0)[2])
        between = float(np.median(norms[norms > 0]))
        assert norms.min() == 0 < between < norms.max()
        got, wanted = (
            toys.quick_jit(jax.vmap(lambda clip, f=f: f(module, params, batch, clip)))(jnp.array([between, 1e3]))
            for f in (ghost, twin)
        )
        assert jax.tree.structure(got) == jax.tree.structure(wanted)
        assert toys.relative_error(got, wanted) < 1e-10
        assert tree.norm(jax.tree.map(lambda leaf: leaf[0] - leaf[1], got[0])) > 0.01


@pytest.mark.parametrize("name", ["mlp", "vit"])
def test_float32_agrees_to_rounding(name):
    module, params, batch = case(name, jnp.float32)
    got, wanted = (toys.quick_jit(lambda f=f: f(module, params, batch, 1.0))() for f in (ghost, twin))
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(got))
    assert toys.relative_error(got, wanted) < 2e-6


@pytest.mark.parametrize("name", MODULES)
def test_known_layers_take_the_short_cut_and_no_others(name):
    module, params, batch = case(name, jnp.float32)
    taken = set(dpsgd.multiplied(module, params, batch["x"][:1], KEY))
    left = {path for path in flatten_dict(params) if path not in taken and path[-1] not in ("bias", "scale")}
    assert {path[0] for path in left} == set(MODULES[name][2].split())
    assert bool(taken) == (name != "nothing known")


def test_padding_may_hold_anything():
    module, params, batch = case("mlp", jnp.float32)
    dirty = dict(batch, x=batch["x"].at[2].set(jnp.nan))
    run = toys.quick_jit(lambda batch: ghost(module, params, batch, 1.0))
    assert tree.bits_equal(run(dirty), run(batch))
    assert not tree.all_finite(run(dict(dirty, weight=jnp.ones(EXAMPLES)))[0]), "an example's own NaN is not hidden"


def test_one_layer_by_hand():
    """Zero weights, two classes: the cotangent is (-1/2, 1/2) for class 0; x = (3, 4) and a bias: |g|^2 = (25 + 1) / 2."""
    batch = {"x": jnp.array([[3.0, 4.0]]), "y": jnp.array([0]), "weight": jnp.ones(1)}
    params = {"kernel": jnp.zeros((2, 2)), "bias": jnp.zeros(2)}
    total, losses, norms = ghost(nn.Dense(2), params, batch, 2.0)
    np.testing.assert_allclose(losses, [np.log(2)], rtol=1e-6)
    np.testing.assert_allclose(norms, [13**0.5], rtol=1e-6)
    np.testing.assert_allclose(total["kernel"], np.array([[-1.5, 1.5], [-2, 2]]) * 2 / 13**0.5, rtol=1e-6)
    np.testing.assert_allclose(total["bias"], np.array([-0.5, 0.5]) * 2 / 13**0.5, rtol=1e-6)


@pytest.mark.parametrize("columns", [1, 4])  # the first forms a'b, the second two matrices of positions
def test_square_by_hand(columns):
    """Rows (1, 2) and (3, 4) with cotangents 1 and 1 sum to (4, 6); cotangents 1 and -1/3 cancel in the first column."""
    a = jnp.array([[1.0, 2.0], [3.0, 4.0]])
    b = lambda second: jnp.zeros((2, columns)).at[:, 0].set(jnp.array([1.0, second]))  # noqa: E731
    np.testing.assert_allclose(dpsgd.square(a, b(1.0)), 52, rtol=1e-6)
    np.testing.assert_allclose(dpsgd.square(a, b(-1 / 3)), (2 / 3) ** 2, rtol=1e-5)


def test_one_size_of_a_window_is_that_of_one_axis():
    x = jnp.arange(12.0).reshape(1, 6, 2)
    rows = dpsgd.rows_of(nn.Conv(4, 3, padding="VALID"), x)
    np.testing.assert_array_equal(rows, [np.arange(2 * i, 2 * i + 6) for i in range(4)])


def test_the_noise_is_what_optax_draws():
    module, params, batch = case("mlp", jnp.float32)
    aggregate = optax.contrib.differentially_private_aggregate(0.7, 0.4, key=KEY)
    found = toys.quick_jit(lambda: gradients(module, params, batch)[1])()
    wanted, _ = aggregate.update(found, aggregate.init(params))
    total = toys.quick_jit(lambda: ghost(module, params, batch, 0.7)[0])()
    assert toys.relative_error(dpsgd.noisy_mean(total, KEY, 0.7 * 0.4, EXAMPLES), wanted) < 1e-6
    assert toys.relative_error(dpsgd.noisy_mean(total, KEY, 0.0, EXAMPLES), wanted) > 0.1


def test_a_training_step_is_optaxs():
    """Rate 1 and plain descent: the parameters move by the private gradient of the examples drawn."""
    way = tiny.way("dpsgd")._replace(optimizer=optax.sgd(1.0), private=(0.3, 0.5))
    lanes = tiny.lanes([3])
    state, lane = (jax.tree.map(lambda leaf: leaf[0], t) for t in (loop.init_lanes(way, lanes), lanes))
    drawn = loop.draw(way, lane, tiny.data(), None, jnp.arange(6), jnp.asarray(4), False)
    after, info = toys.quick_jit(loop.make_apply(way, tiny.one_device()))(state, drawn)
    key = keys.fold(jax.random.wrap_key_data(drawn.key), Purpose.NOISE)
    aggregate = optax.contrib.differentially_private_aggregate(0.3, 0.5, key=key)
    losses, found = toys.quick_jit(lambda: gradients(tiny.MODEL.module, state.params, drawn.batch))()
    wanted, _ = aggregate.update(found, aggregate.init(state.params))
    assert toys.relative_error(jax.tree.map(jnp.subtract, state.params, after.params), wanted) < 1e-5
    np.testing.assert_allclose(info.loss, np.mean(losses), rtol=1e-6)


def test_a_model_of_another_library_is_clipped_by_whole_gradients():
    module, params, batch = case("mlp", jnp.float32)
    model = models.of_module(module, batch["x"].shape[1:])._replace(module=None)
    got = toys.quick_jit(lambda: dpsgd.clipped_sum(model, loss, params, batch, KEY, 0.7))()
    wanted = toys.quick_jit(lambda: twin(module, params, batch, 0.7))()
    toys.assert_close(got, wanted, 1e-5)

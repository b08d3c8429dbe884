"""Models of a user's own: trained, refused in one line, begun from a file."""

import sys

import jax
import numpy as np
import pytest

from experiments import models
from experiments.core import sections
from experiments.models import params
from tests.helpers import things
from unlearn import tree


@pytest.fixture
def mine(tmp_path, monkeypatch):
    with things.folder_of(tmp_path, monkeypatch) as folder:
        yield folder


def section(**changes):
    return sections.Model(**changes)


IMAGE, ROW = np.zeros((1, 8, 8, 1), np.float32), np.zeros((1, 5), np.float32)


OWN = """
import equinox as eqx, flax.linen as nn, jax, jax.numpy as jnp
from flax import nnx
from experiments.models import ModelFns


class Averaged(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.BatchNorm(use_running_average=True)(nn.Dense(3)(x))


class Normed(nnx.Module):
    def __init__(self, rngs):
        self.norm, self.dense = nnx.BatchNorm(5, rngs=rngs), nnx.Linear(5, 3, rngs=rngs)


def whole(example, classes):
    return ModelFns(lambda key: eqx.nn.MLP(5, classes, 4, 1, key=key), lambda p, x, key: jax.vmap(p)(x))


def averaged(example, classes):
    return ModelFns(lambda key: Averaged().init(key, example), lambda p, x, key: Averaged().apply(p, x))


def normed(example, classes):
    return ModelFns(lambda key: nnx.split(Normed(nnx.Rngs(key)))[1], lambda p, x, key: x)


def counted(example, classes):
    return ModelFns(lambda key: {"w": jnp.ones((5, 3)), "n": jnp.zeros((), int)}, lambda p, x, key: x @ p["w"])


def paired(example, classes):
    return ModelFns(lambda key: jnp.ones((5, 3)), lambda p, x, key: (x @ p, None))


def narrow(example, classes):
    return ModelFns(lambda key: jnp.ones((5, 2)), lambda p, x, key: x @ p)


def none(example, classes):
    return None


def fails(example, classes):
    raise KeyError("conf")


def keyed(example, classes):
    return ModelFns(lambda key: jnp.ones((5, 3)), lambda p, x, key: x @ p + jax.random.normal(key, (3,)))


def linear(features=None, apply=lambda p, x, key: x @ p):
    return lambda example, classes: ModelFns(lambda key: jnp.ones((5, 3)), apply, features)


two = linear(apply=lambda p, x, key: (x @ p)[:1].repeat(2, 0))
fixed = linear(apply=lambda p, x, key: x.reshape(2, -1) @ p)
featureless = linear(features=lambda p, x, key: 1 / 0)
summed = linear(features=lambda p, x, key: x.sum())
listed = linear(features=lambda p, x, key: [x])


def leaves(example, classes):
    raise SystemExit(3)
"""


@pytest.mark.parametrize(
    "name, message",
    [
        ("whole", "eqx.partition"),
        ("averaged", "has state among its parameters .batch_stats."),
        ("normed", "has state among its parameters .BatchStat."),
        ("counted", "a parameter 'n' of type int32"),
        ("paired", "gives 2 things: give logits alone"),
        ("narrow", r"gives \[2, 2\] for 2 examples: give logits \[examples, 3\]"),
        ("none", "gives a NoneType: give an experiments.models.ModelFns"),
        ("fails", "KeyError: 'conf'"),
        ("keyed", "apply, key None, of"),
        ("two", r"gives \[2, 3\] for 3 examples: give logits"),
        ("fixed", r"apply of .* fails .*called with params and x \[3, 5\]"),
        ("featureless", "features of .* fails .ZeroDivisionError"),
        ("summed", r"features of .* give \[\] for 2 examples: give one array \[examples, ...\]"),
        ("listed", "features of .* give list for 2 examples"),
        ("leaves", "fails .SystemExit: 3.: mend it"),
    ],
)
def test_a_model_that_cannot_be_trained_is_refused_in_one_line(mine, name, message):
    (mine / "networks.py").write_text(OWN)
    with pytest.raises(ValueError, match=message) as caught:
        models.build(section(factory=f"networks:{name}"), ROW, 3)
    assert "\n" not in str(caught.value)
    sys.modules.pop("networks", None)


@pytest.mark.parametrize("name", ["cnn", "resnet18", "vit", "whitened"])
def test_what_looks_at_images_refuses_a_table(name):
    with pytest.raises(ValueError, match="looks at images, these data are a table"):
        models.build(section(name=name, options={}), ROW, 3)


@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
def test_parameters_begin_as_a_file_has_them(tmp_path, suffix):
    from safetensors.numpy import save_file

    drawn = models.build(section(), IMAGE, 3).init(jax.random.key(5))
    path = tmp_path / f"params.{suffix}"
    flat = {name: np.asarray(leaf) for name, leaf in params.flatten(drawn).items()}
    np.savez(path, **flat) if suffix == "npz" else save_file(flat, path)
    model = models.build(section(params=str(path)), IMAGE, 3)
    lanes = jax.vmap(model.init)(jax.random.split(jax.random.key(0), 2))
    for lane in range(2):
        assert tree.bits_equal(jax.tree.map(lambda leaf, lane=lane: leaf[lane], lanes), drawn)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda flat: flat.pop("Dense_0/bias"), "lacks 'Dense_0/bias'"),
        (lambda flat: flat.update(more=np.zeros(3)), "has 'more'"),
        (lambda flat: flat.update({"Dense_0/bias": np.zeros(3)}), r"'Dense_0/bias' in .* is float64\[3\]"),
        (lambda flat: flat["Dense_0/bias"].fill(np.nan), "is not finite"),
        (lambda flat: flat.update({"Dense_0/bias": np.full(128, 1e300)}), "'Dense_0/bias' in .* is not finite as float32"),
    ],
)
def test_a_file_of_other_parameters_is_refused(tmp_path, change, message):
    flat = params.flatten(models.build(section(), IMAGE, 3).init(jax.random.key(5)))
    flat = {name: np.array(leaf) for name, leaf in flat.items()}
    change(flat)
    np.savez(tmp_path / "params.npz", **flat)
    with pytest.raises(ValueError, match=message) as caught:
        models.build(section(params=str(tmp_path / "params.npz")), IMAGE, 3)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n in ("vit", "whitened"))) for n in models.MODELS]
)
def test_dropout_and_short_activations_leave_parameters_and_predictions_alike(name):
    options = {
        "mlp": {"widths": (8,)},
        "vit": {"width": 8, "depth": 1, "heads": 2},
        "resnet18": {"width": 8, "stages": (1,)},
        "whitened": {"widths": (8,)},
    }
    one, other = (
        models.build(section(name=name, options=options.get(name, {}), **kw), IMAGE, 3)
        for kw in ({}, {"dropout": 0.5, "dtype": "bfloat16"})
    )
    drawn = one.init(jax.random.key(0))
    assert tree.bits_equal(drawn, other.init(jax.random.key(0)))
    x = jax.random.normal(jax.random.key(1), (4, 8, 8, 1))
    predicted = other.apply(drawn, x, None)
    np.testing.assert_allclose(predicted, one.apply(drawn, x, None), atol=0.1)
    dropped = other.apply(drawn, x, jax.random.key(2))
    assert predicted.dtype == dropped.dtype == np.float32 and np.abs(dropped - predicted).max() > 1e-3


def test_factory_options_that_cannot_be_compared_are_refused(mine):
    with pytest.raises(ValueError, match=r"model.factory_options are .*: give numbers, texts"):
        models.build(section(factory="mine:network", factory_options={"width": {"a": [1]}}), ROW, 3)

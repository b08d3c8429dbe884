"""Decoders and encoders by name: what a config may ask for, and what is refused in one line."""

import jax
import numpy as np
import pytest

from experiments import models
from experiments.core.errors import UserError
from experiments.core.sections import Model
from experiments.data.splits import Tokens

TEXT = np.zeros((1, 8), np.int32)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_a_decoder_by_name_is_a_language_model(name):
    fns = models.build(Model(name=name, options={"width": 8, "depth": 1, "heads": 2}), TEXT, 11)
    model = models.as_model(fns)
    shape = jax.eval_shape(lambda key: model.apply(fns.init(key), TEXT, None), jax.random.key(0))
    assert shape.shape == (1, 8, 11) and model.token_loss is not None
    assert models.build(Model(name=name, options={"width": 8, "depth": 1, "heads": 2}), TEXT, 11) == fns


def test_an_encoder_by_name_classifies_and_pads_change_nothing():
    section, pad = Model(name="bert", options={"width": 8, "depth": 1, "heads": 2}), 10
    fns = models.build(section, np.zeros((1, 12), np.int32), 3, Tokens(11, pad))
    assert models.as_model(fns).token_loss is None
    assert models.build(section, np.zeros((1, 12), np.int32), 3, Tokens(11, pad)) == fns
    init, apply = jax.jit(fns.init), jax.jit(fns.apply)
    params, texts = init(jax.random.key(0)), np.random.default_rng(0).integers(0, pad, (4, 7)).astype(np.int32)
    padded = np.pad(texts, ((0, 0), (0, 5)), constant_values=pad)
    found = [np.asarray(apply(params, x, None)) for x in (texts, padded)]
    assert found[0].shape == (4, 3)
    np.testing.assert_allclose(*found, rtol=1e-4, atol=1e-6)
    table = params["tokens"]["embedding"].at[pad].set(9.0)
    np.testing.assert_array_equal(apply(params | {"tokens": {"embedding": table}}, padded, None), found[1])


@pytest.mark.parametrize(
    ("section", "example", "line"),
    [
        (
            {"name": "gpt2", "options": {"widths": (3,)}},
            TEXT,
            "has no option 'widths'; it takes width, depth, heads, remat$",
        ),
        ({"name": "gpt2", "options": {"width": 0}}, TEXT, "option 'width' of model 'gpt2' is 0: give a whole number"),
        ({"name": "gpt2", "options": {"width": 9, "heads": 2}}, TEXT, "cannot be: a width of 9 is not shared among 2"),
        ({"name": "mlp"}, TEXT, "looks at images or tables, these data are text: set --config.model.name=gpt2, which"),
        ({"name": "gpt2"}, np.zeros((1, 8), np.float32), "reads text, these data are none: set another"),
        ({"name": "bert"}, np.zeros((1, 8), np.float32), "reads text, these data are none: set another"),
        ({"name": "bert", "options": {}}, TEXT, "classifies documents, these are rows to predict: set --config.model.name"),
        ({"name": "bert", "options": {"mlp": 3}}, TEXT, "has no option 'mlp'; it takes width, depth, heads, remat$"),
    ],
)
def test_what_cannot_be_is_one_line(section, example, line):
    with pytest.raises(UserError, match=line):
        models.build(Model(**section), example, 11)

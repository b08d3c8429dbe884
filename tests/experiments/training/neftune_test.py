"""NEFTune: noise of the stated size on embedded tokens, in training alone, and none at alpha 0."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import models
from experiments.configs import readiness as configs
from experiments.core import keys
from experiments.core.errors import UserError
from experiments.core.keys import Purpose
from experiments.core.sections import Model, NEFTune
from experiments.training import loop, neftune
from readiness import init_state
from tests.experiments.comparison.run_test import shrink
from tests.helpers import comparisons, tiny
from tests.helpers.configs import with_keys
from tests.helpers.toys import quick_jit

KEY = jax.random.key(3)
TOKENS = np.array([[1, 2, 3, 0], [4, 5, 0, 0]], np.int32)
WEIGHT = np.array([[0, 1, 1, 0], [1, 1, 0, 0]], np.float32)  # the first token of the first row is a prompt


def decoder(name="gpt2"):
    return models.build(Model(name=name, options={"width": 4, "depth": 1, "heads": 2}), TOKENS[:1], 6)


def data():
    return {
        "x": jnp.asarray(TOKENS),
        "y": jnp.asarray(TOKENS),
        "token_weight": jnp.asarray(WEIGHT),
        "id": jnp.arange(2),
        "weight": jnp.ones(2),
    }


def test_the_length_of_a_row_is_that_of_its_real_tokens():
    """Prompts count, of whose tokens no loss is asked for, and pads do not."""
    tokens, real = neftune.counted(data())["x"]
    assert np.array_equal(tokens, TOKENS) and real.tolist() == [3, 2]


def test_noise_is_uniform_within_alpha_by_the_root_of_tokens_times_width():
    """alpha 6: within 6 / sqrt(9 * 4) = 1, and 6 / sqrt(1 * 4) = 3, of 0; a row of pads alone counts as one token."""
    drawn = neftune.noise(KEY, jnp.array([9, 1, 0]), (3, 500, 4), 6.0)
    unit = jax.random.uniform(keys.fold(KEY, Purpose.EMBEDDING), (3, 500, 4), minval=-1, maxval=1)
    np.testing.assert_allclose(drawn, unit * np.array([1.0, 3.0, 3.0])[:, None, None], rtol=1e-6)
    assert abs(float(jnp.max(jnp.abs(drawn[0]))) - 1) < 0.01 and abs(float(jnp.mean(drawn[0]))) < 0.05


def test_noise_moves_the_embedding_of_each_token():
    """Of a row of distinct tokens that is the table with its rows moved; the logits have a table of their own."""
    fns = decoder("llama")
    params, tokens = jax.jit(fns.init)(jax.random.key(0)), jnp.array([[1, 2, 3, 4]])
    noise = 0.1 * jax.random.normal(KEY, (1, 4, 4))
    table = params["tokens"]["embedding"].at[tokens[0]].add(noise[0])
    moved = params | {"tokens": {"embedding": table}}
    apply, apply_noisy = jax.jit(fns.apply), jax.jit(fns.noisy)
    noisy = apply_noisy(params, tokens, None, noise)
    np.testing.assert_allclose(noisy, apply(moved, tokens, None), atol=1e-6)
    assert jnp.max(jnp.abs(noisy - apply(params, tokens, None))) > 1e-4


def test_a_step_is_noisy_by_its_key_and_without_alpha_is_vanilla():
    """A way of alpha 0 is the ordinary one, and so the same program."""
    fns = decoder()
    plain = loop.Way(fns, loop.optimizer(tiny.SETTINGS, 2), 2, 2, 2)
    assert plain._replace(noise=NEFTune(alpha=0.0).alpha) == plain
    lane = jax.tree.map(lambda leaf: leaf[0], loop.make_lanes([0], np.ones(2, bool), np.ones(2)))
    params, rows = jax.jit(fns.init)(jax.random.key(0)), jnp.arange(2)
    step = jax.jit(loop.make_apply(plain._replace(noise=5.0), tiny.one_device()))
    state = init_state(params, plain.optimizer)
    drawn = [loop.draw(plain, lane, data(), None, rows, jnp.asarray(i), False) for i in range(2)]
    told = [step(state, one)[1].loss for one in drawn]
    assert told[0] == step(state, drawn[0])[1].loss and told[0] != told[1]
    key = keys.fold(jax.random.wrap_key_data(lane.key), Purpose.STEP, 0)
    noise = neftune.noise(key, jnp.array([3, 2]), (2, 4, 4), 5.0)
    logits = jax.jit(fns.noisy)(params, data()["x"], key, noise)
    np.testing.assert_allclose(told[0], jnp.mean(models.as_model(fns).loss(logits, data())), rtol=1e-5)


def test_predictions_have_no_noise():
    """Scores call `apply`, which a training with noise leaves as it is."""
    fns = decoder()
    assert models.as_model(fns).apply is fns.apply and neftune.noisy(fns, 5.0).apply is not fns.apply


def test_a_model_that_embeds_no_tokens_is_refused_in_one_line():
    neftune.check(decoder(), "trainings has 'neftune'")
    with pytest.raises(UserError, match="for text and its decoders: take it out, or set --config"):
        neftune.check(tiny.MODEL, "trainings has 'neftune'")


def test_readiness_trains_with_noise_and_rehearses_without():
    """Beside a way without noise: another loss of the batch, and the same of the rehearsal."""
    told = []
    for alpha in (0.0, 5.0):
        config = with_keys(
            shrink(configs.get_config("pydoc")), {"readiness.neftune": alpha, "readiness.start": 0, "seeds": 1}
        )
        parts = comparisons.parts(config)
        (made,), trainer = parts.plan.rehearsals, parts.trainer
        ones = np.ones(len(trainer.data["id"]))
        lanes = loop.make_lanes([0], ones > 0, ones)
        lane, state = (jax.tree.map(lambda leaf: leaf[0], tree) for tree in (lanes, loop.init_lanes(made.way, lanes)))
        drawn = loop.draw(made.way, lane, trainer.data, made.pools, jnp.arange(4), jnp.asarray(0), True)
        told.append(quick_jit(loop.make_apply(made.way, trainer.devices))(state, drawn)[1])
    plain, noisy = told
    assert plain.loss != noisy.loss
    np.testing.assert_allclose(plain.readiness, noisy.readiness, rtol=1e-5)
    assert plain.readiness != 0

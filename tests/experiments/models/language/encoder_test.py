"""The encoder: pads are never seen, masks and pads agree, means are of tokens, and what it refuses."""

import jax
import numpy as np
import pytest

from experiments.models.language.encoder import Encoder, EncoderConfig, masked_mean
from tests.helpers.toys import quick_jit

BERT = EncoderConfig(vocabulary=9, width=8, depth=1, heads=2, mlp=12, positions=8, types=2, norm_epsilon=1e-12, pad=0)
ROBERTA = EncoderConfig(
    vocabulary=9, width=8, depth=1, heads=2, mlp=12, positions=8, types=1, norm_epsilon=1e-5, pad=1, position_offset=2
)
TOKENS = np.array([[2, 5, 3, 8], [2, 7, 1, 1]])


def some(config, **options):
    module = Encoder(config, classes=3, **options)
    rng, shapes = np.random.default_rng(0), jax.eval_shape(module.init, jax.random.key(0), {"tokens": TOKENS})["params"]
    params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes)
    return lambda x, **call: quick_jit(lambda x: module.apply({"params": params}, x, **call))(x)


@pytest.mark.parametrize("config, pooling", [(BERT, "first"), (ROBERTA, "mean")], ids=["bert", "roberta"])
def test_pads_are_never_seen(config, pooling):
    apply = some(config, pooling=pooling)
    mask = np.array([[1, 1, 1, 1], [1, 1, 0, 0]])
    tokens = np.where(mask, TOKENS, config.pad)
    logits = apply({"tokens": tokens, "mask": mask})
    np.testing.assert_array_equal(apply({"tokens": tokens}), logits)  # the mask that its pads tell
    rubbish = np.where(mask, tokens, 6)
    np.testing.assert_allclose(apply({"tokens": rubbish, "mask": mask}), logits, rtol=1e-4, atol=1e-5)


def test_pads_at_the_left_are_no_places_of_roberta():
    left, right = some(ROBERTA, pooling="mean")({"tokens": np.array([[1, 1, 2, 7], [2, 7, 1, 1]])})
    np.testing.assert_allclose(left, right, rtol=1e-4, atol=1e-5)


def test_a_row_of_pads_is_finite():
    assert np.isfinite(some(BERT, pooling="mean")({"tokens": np.zeros((1, 4), int)})).all()


def test_the_mean_is_of_tokens():
    hidden = np.array([[[1.0], [3.0], [50.0]], [[1.0], [1.0], [1.0]]])
    np.testing.assert_allclose(masked_mean(hidden, np.array([[1, 1, 0], [0, 0, 0]])), [[2.0], [0.0]])


def test_types_are_added():
    apply = some(BERT)
    zeros = np.zeros_like(TOKENS)
    without, first, second = apply({"tokens": TOKENS}), *(apply({"tokens": TOKENS, "types": zeros + t}) for t in (0, 1))
    np.testing.assert_array_equal(without, first)
    assert not np.allclose(first, second)


def test_what_is_given_may_be_lists():
    apply, given = some(BERT), {"tokens": TOKENS, "mask": (TOKENS != 1).astype(int), "types": np.zeros_like(TOKENS)}
    np.testing.assert_array_equal(apply({name: leaf.tolist() for name, leaf in given.items()}), apply(given))
    np.testing.assert_array_equal(apply(TOKENS.tolist()), apply(TOKENS))


def test_remat_and_features():
    x = {"tokens": TOKENS}
    np.testing.assert_allclose(some(BERT)(x), some(BERT, remat=True)(x), rtol=1e-5, atol=1e-6)
    assert some(BERT)(x, method="features").shape == some(BERT)(x, method="mean").shape == (2, 8)


def test_refusals_are_one_line():
    for config, most in ((BERT, 8), (ROBERTA, 6)):
        with pytest.raises(ValueError, match=f"{most + 1} tokens are too many for a model of {most} positions"):
            some(config)({"tokens": np.full((1, most + 1), 5)})
    with pytest.raises(ValueError, match="8 is not shared among 3 heads"):
        EncoderConfig(vocabulary=9, width=8, depth=1, heads=3, mlp=12, positions=8, types=2, norm_epsilon=1e-12, pad=0)

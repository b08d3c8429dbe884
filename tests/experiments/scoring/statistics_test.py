"""Statistics reduced on the device, against numbers by hand and the slow twin in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.core.machines import execution
from experiments.scoring.statistics import CHUNK, Statistics, finite, in_chunks, make_divergence, make_statistics, of_logits
from unlearn import classifier, losses
from unlearn.metrics.zrf import js_divergence

MODEL = classifier(lambda params, x, key: x * params)  # one number per lane scales the logits
EXECUTIONS = {"vmap": execution.one_device(), "loops": execution.one_device(convolutional=True)}
either_way = pytest.mark.parametrize("devices", EXECUTIONS.values(), ids=EXECUTIONS)


def batch_of(x, y=0):
    return {"x": np.asarray(x, np.float32), "y": np.broadcast_to(y, len(x)).astype(np.int32)}


def test_of_a_half_and_two_quarters():
    found = make_statistics(MODEL, EXECUTIONS["vmap"])(
        np.ones(1, np.float32), batch_of(np.log([[0.5, 0.25, 0.25]] * 2), [0, 1])
    )
    log2, log3 = np.log(2), np.log(3)
    right = 0.5 * log2 + 0.5 * np.log(4 / 3)
    wrong = 0.75 * 2 * log2 + 0.5 * log2 + 0.25 * np.log(4 / 3)
    by_hand = Statistics([log2, 2 * log2], [0, -log3], [1, 0], [1.5 * log2] * 2, [right, wrong])
    for name, values in by_hand._asdict().items():
        np.testing.assert_allclose(getattr(found, name)[0], values, rtol=1e-6, atol=1e-7, err_msg=name)


def test_chunks_of_texts_are_of_so_many_tokens_whatever_else_comes_with_them():
    looked_at = {"token_weight": np.ones((3, 4096), np.float32), "x": np.ones((3, 4096), np.int32)}
    sizes = []
    sums = in_chunks(lambda part: sizes.append(len(part["x"])) or part["x"].sum(axis=1)[None], looked_at)
    assert sizes == [2, 2] and sums.tolist() == [[4096] * 3]
    sizes.clear()  # 1 << 25 logits of 8192 entries are those of 4096 tokens
    in_chunks(lambda part: sizes.append(len(part["x"])) or part["x"].sum(axis=1)[None], looked_at, entries=8192)
    assert sizes == [1, 1, 1]


@either_way
def test_they_are_their_slow_twin_over_several_chunks(devices):
    """float32 against float64; lanes from flat to sure of themselves, and more examples than fit one chunk."""
    rng, scales = np.random.default_rng(0), np.array([0.1, 1.0, 10.0], np.float32)
    batch = batch_of(rng.normal(size=(CHUNK + 7, 6)), rng.integers(0, 6, CHUNK + 7))
    found = make_statistics(MODEL, devices)(scales, batch)
    twin = of_logits((batch["x"] * scales[:, None, None]).astype(np.float64), batch["y"])
    for name, values in found._asdict().items():
        assert values.shape == (3, CHUNK + 7) and values.dtype == np.float32
        np.testing.assert_allclose(values, getattr(twin, name), rtol=1e-5, atol=3e-6, err_msg=name)
    np.testing.assert_array_equal(found.correct, twin.correct)


def test_what_rounds_to_0_or_1_is_not_lost():
    """Relative precision at probabilities within e-40 of 1, in float32."""
    x, y = [[40.0, 0.0], [40.0, 0.0], [1000.0, 0.0]], [0, 1, 1]
    found = make_statistics(MODEL, EXECUTIONS["vmap"])(np.ones(1, np.float32), batch_of(x, y))
    tiny = np.exp(-40)
    np.testing.assert_allclose(found.margin[0], [40, -40, -1000], rtol=1e-6)
    np.testing.assert_allclose(found.loss[0], [tiny, 40, 1000], rtol=1e-5)
    np.testing.assert_allclose(found.entropy[0], [41 * tiny, 41 * tiny, 0], rtol=1e-5)
    np.testing.assert_allclose(found.modified_entropy[0], [0, 80, 2000], rtol=1e-5, atol=1e-30)


@either_way
def test_a_logit_that_is_not_finite_spoils_its_example_and_no_other(devices):
    x = [[1.0, 0.0], [np.inf, 0.0], [1.0, np.nan]]
    found = make_statistics(MODEL, devices)(np.ones(2, np.float32), batch_of(x))
    for values in found:
        np.testing.assert_array_equal(np.isfinite(values), [[True, False, False]] * 2)
    assert finite(found).tolist() == [False, False]
    assert finite(Statistics(*(values[:, :1] for values in found))).tolist() == [True, True]
    np.testing.assert_array_equal(np.isfinite(of_logits(np.array(x), np.zeros(3, int)).loss), [True, False, False])


@either_way
def test_divergence_is_the_mean_over_teachers(devices):
    rng = np.random.default_rng(1)
    x, lanes, teachers = rng.normal(size=(CHUNK + 3, 5)).astype(np.float32), np.float32([1, 4]), np.float32([0, 0.5, 20])
    found = make_divergence(MODEL, devices)(lanes, teachers, {"x": x})
    logits = lambda scales: (x * scales[:, None, None]).astype(np.float64)  # noqa: E731
    twin = js_divergence(logits(lanes)[:, None], logits(teachers)).mean(axis=1)
    np.testing.assert_allclose(found, twin, atol=1e-6)
    assert found.shape == (2, CHUNK + 3) and found.dtype == np.float32


def test_js_of_opposite_certainties_is_1_and_of_the_same_0():
    certain, even = jnp.array([[1000.0, 0.0]]), jnp.zeros((1, 2))
    np.testing.assert_allclose(losses.js_divergence(certain, certain[:, ::-1]), [1.0])
    np.testing.assert_allclose(losses.js_divergence(certain, certain), [0.0])
    expected = -(0.75 * np.log2(0.75) + 0.25 * np.log2(0.25)) - 0.5
    np.testing.assert_allclose(losses.js_divergence(certain, even), [expected], rtol=1e-6)


def test_one_shape_is_compiled_whatever_the_number_of_examples():
    seen = []

    def fn(part):
        seen.append(jax.tree.map(jnp.shape, part))
        return part["x"][None]

    for count in (1, CHUNK, CHUNK + 1):
        x = np.arange(count, dtype=np.float32)
        np.testing.assert_array_equal(in_chunks(fn, {"x": x}), x[None])
    assert seen == [{"x": (CHUNK,)}] * 4

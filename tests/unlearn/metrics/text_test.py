"""Scores of what a language model remembers: numbers by hand, published definitions written out, and their traps."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unlearn.metrics import text
from unlearn.metrics.text import TokenStatistics, token_statistics

ONE = np.ones((1, 4))
DOCUMENTS = (text.token_loss, text.perplexity, text.token_accuracy, text.exact_memorisation, text.extraction_strength)
DOCUMENTS += (text.min_k, text.min_k_plus)


def of_log_p(*rows):
    log_p = np.array(rows, np.float32)
    return TokenStatistics(log_p, np.zeros_like(log_p), np.ones_like(log_p), log_p > -1)


def of_hits(*rows):
    hit = np.array(rows, bool)
    return TokenStatistics(*[np.where(hit, -0.1, -2.0)] * 3, hit)


def random_statistics(seed=0, documents=5, length=7):
    rng = np.random.default_rng(seed)
    logits, y = rng.normal(scale=2, size=(documents, length, 6)), rng.integers(0, 6, (documents, length))
    weights = rng.integers(0, 2, (documents, length)).astype(float)
    weights[:, 2] = 1
    return logits, y, weights, token_statistics(jnp.asarray(logits, jnp.float32), jnp.asarray(y))


# statistics of tokens


def test_statistics_of_three_quarters_and_a_quarter():
    """mean = 3/4 log 3/4 + 1/4 log 1/4; the two log p lie log 3 apart, so that their deviation is sqrt(3/16) log 3."""
    logits = jnp.log(jnp.array([[[3.0, 1.0], [1.0, 3.0]]]))
    found = token_statistics(logits, jnp.array([[0, 0]]))
    mean = 0.75 * math.log(0.75) + 0.25 * math.log(0.25)
    np.testing.assert_allclose(found.log_p, [[math.log(0.75), math.log(0.25)]], rtol=1e-6)
    np.testing.assert_allclose(found.mean, [[mean, mean]], rtol=1e-6)
    np.testing.assert_allclose(found.deviation, [[math.sqrt(3 / 16) * math.log(3)] * 2], rtol=1e-6)
    assert found.hit.tolist() == [[True, False]]


def test_statistics_are_the_sums_written_out_whatever_the_offset():
    logits, y, _, found = random_statistics()
    p = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    mean = (p * np.log(p)).sum(axis=-1)
    deviation = np.sqrt((p * np.log(p) ** 2).sum(axis=-1) - mean**2)
    wanted = (np.log(np.take_along_axis(p, y[..., None], axis=-1)[..., 0]), mean, deviation, p.argmax(axis=-1) == y)
    for statistics in (found, token_statistics(jnp.asarray(logits + 50, jnp.float32), y)):
        for value, expected in zip(statistics, wanted, strict=True):
            np.testing.assert_allclose(value, expected, rtol=1e-3, atol=1e-5)


def test_statistics_are_in_float32_where_logits_are_in_less():
    logits = jnp.array([[[0.0, 8.0]]], jnp.bfloat16)
    found = token_statistics(logits, jnp.array([[1]]))
    assert {value.dtype.name for value in found} == {"float32", "bool"}
    np.testing.assert_allclose(found.log_p, [[-math.log1p(math.exp(-8))]], rtol=1e-4)


def test_a_token_without_any_probability_adds_nothing():
    found = token_statistics(jnp.array([[[0.0, 0.0, -jnp.inf]]]), jnp.array([[0]]))
    np.testing.assert_allclose([*found[:3]], [[[-math.log(2)]], [[-math.log(2)]], [[0]]], atol=1e-7)


def test_equal_logits_have_no_deviation_and_nan_logits_no_hit():
    """Of equal logits the first token is the most probable one; of no numbers none is, and log p is no number either."""
    logits = jnp.array([[[1.0, 1.0], [jnp.nan, 0.0]]])
    found = token_statistics(logits, jnp.array([[0, 0]]))
    assert found.hit.tolist() == [[True, False]] and float(found.deviation[0, 0]) == 0
    with pytest.raises(ValueError, match="log p: 1 of 2 values are not finite"):
        text.perplexity(found, np.ones((1, 2)))
    assert np.isfinite(text.perplexity(found, np.array([[1.0, 0.0]]))).all()


def test_statistics_know_no_other_shape_of_y():
    with pytest.raises(ValueError, match=r"labels of shape \(2, 1\) are not those of logits of shape \(1, 2, 3\)"):
        token_statistics(jnp.zeros((1, 2, 3)), jnp.zeros((2, 1), int))


def test_statistics_are_reduced_in_one_program():
    logits, y, _, found = random_statistics()
    for value, expected in zip(jax.jit(token_statistics)(jnp.asarray(logits, jnp.float32), y), found, strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-6)


# perplexity and hits


def test_perplexity_is_that_of_the_mean_token_by_its_weight():
    """Probabilities 1/2 and 1/8 are 1/4 on geometric average, and 1/2^2.5 if the second counts three times."""
    statistics = of_log_p([math.log(1 / 2), math.log(1 / 8)], [math.log(1 / 2), -np.inf])
    np.testing.assert_allclose(text.perplexity(statistics, np.array([[1, 1], [1, 0]])), [4, 2], rtol=1e-6)
    first = TokenStatistics(*(value[:1] for value in statistics))
    np.testing.assert_allclose(text.perplexity(first, np.array([[1, 3]])), [2**2.5], rtol=1e-6)
    np.testing.assert_allclose(text.token_loss(first, np.array([[1, 3]])), [2.5 * math.log(2)], rtol=1e-6)


def test_a_hopeless_perplexity_is_infinite_and_no_warning():
    assert text.perplexity(of_log_p([-800.0]), np.ones((1, 1))).tolist() == [np.inf]


def test_accuracy_goes_by_weights_and_memorisation_by_tokens():
    hits, weights = of_hits([1, 1, 0, 1]), np.array([[3.0, 1.0, 1.0, 0.0]])
    assert text.token_accuracy(hits, weights).tolist() == [4 / 5]
    np.testing.assert_allclose(text.exact_memorisation(hits, weights), [2 / 3])


@pytest.mark.parametrize(
    "hits, weights, strength",
    [
        ([1, 1, 1, 1], [1, 1, 1, 1], 1.0),
        ([0, 1, 1, 1], [1, 1, 1, 1], 3 / 4),
        ([1, 1, 0, 1], [1, 1, 1, 1], 1 / 4),  # what was hit before a miss does not count
        ([1, 1, 1, 0], [1, 1, 1, 1], 1 / 4),  # the trap: 1 / n where not even the last token is hit
        ([0, 0, 0, 0], [1, 1, 1, 1], 1 / 4),
        ([0, 0, 1, 1], [0, 1, 1, 1], 2 / 3),  # a question's token is no part of it
        ([1, 0, 1, 0], [1, 0, 1, 0], 1.0),  # misses of padding and between
        ([0], [2], 1.0),
    ],
)
def test_extraction_strength(hits, weights, strength):
    np.testing.assert_allclose(text.extraction_strength(of_hits(hits), np.array([weights])), [strength])


def test_extraction_strength_is_the_loop_over_prefixes():
    _, _, weights, statistics = random_statistics(1, documents=40)
    for row, found in enumerate(text.extraction_strength(statistics, weights)):
        hits = np.asarray(statistics.hit[row])[weights[row] > 0]
        starts = [k for k in range(len(hits)) if hits[k:].all()] or [len(hits) - 1]
        assert found == pytest.approx(1 - starts[0] / len(hits))


# was it seen


def test_min_k_takes_the_lowest_and_at_least_one():
    statistics = of_log_p([-1, -4, -2, -3], [-1, -4, -2, -9])
    weights = np.array([[1, 1, 1, 1], [1, 1, 1, 0]])
    np.testing.assert_allclose(text.min_k(statistics, weights, 0.5), [-3.5, -4])
    np.testing.assert_allclose(text.min_k(statistics, weights, 0.1), [-4, -4])
    np.testing.assert_allclose(text.min_k(statistics, weights, 1.0), [-2.5, -7 / 3])


def test_a_share_of_tokens_is_no_token_short_by_rounding():
    """.29 * 100 is 28.999999999999996 in floating point, and 29 tokens are meant."""
    statistics = of_log_p(-np.arange(100.0))
    assert int(0.29 * 100) == 28
    np.testing.assert_allclose(text.min_k(statistics, np.ones((1, 100)), 0.29), [-np.arange(71, 100).mean()])


def test_min_k_plus_is_in_deviations_of_the_models_own_law():
    """(-1 - 0) / 2 and (-3 - -1) / 1."""
    statistics = TokenStatistics(np.array([[-1.0, -3]]), np.array([[0.0, -1]]), np.array([[2.0, 1]]), np.ones((1, 2)))
    np.testing.assert_allclose(text.min_k_plus(statistics, np.ones((1, 2)), 0.5), [-2])
    np.testing.assert_allclose(text.min_k_plus(statistics, np.ones((1, 2)), 1.0), [-1.25])


def test_a_variance_is_a_millionth_at_least():
    statistics = TokenStatistics(np.array([[-0.5]]), np.array([[0.0]]), np.array([[0.0]]), np.ones((1, 1)))
    np.testing.assert_allclose(text.min_k_plus(statistics, np.ones((1, 1))), [-500])


@pytest.mark.parametrize("score", [text.min_k, text.min_k_plus])
def test_a_higher_score_says_that_it_was_seen(score):
    """A sure and right model against one that is sure and wrong, of the same law."""
    logits = jnp.log(jnp.array([[[8.0, 1, 1]] * 4] * 2))
    seen, unseen = score(token_statistics(logits, jnp.array([[0] * 4, [1] * 4])), np.ones((2, 4)))
    assert seen > unseen


@pytest.mark.parametrize("share", [0.0, -0.2, 1.5, float("nan")])
def test_a_share_is_one(share):
    with pytest.raises(ValueError, match=r"a share of tokens must be above 0 and at most 1, got"):
        text.min_k(of_log_p([-1, -2, -3, -4]), ONE, share)


def test_looking_unseen_counts_pairs():
    """Of six pairs the forgotten one is lower in 1 + 2, and one is a tie."""
    assert text.looks_unseen(np.array([-3.0, -1.0]), np.array([-2.0, -1.0, -4.0])) == pytest.approx((2 + 0.5) / 6)
    assert text.looks_unseen(np.ones(3), np.ones(2)) == 0.5


def test_the_sign_of_privleak():
    """Still known: -100 percent, as MUSE has of a model that forgot nothing. Conspicuously unknown: +100."""
    rng = np.random.default_rng(0)
    holdout = rng.normal(-5, 1, 200)
    oracle = holdout.copy(), holdout
    assert text.privleak((holdout + 50, holdout), oracle) == -100
    assert text.privleak((holdout - 50, holdout), oracle) == 100
    assert text.privleak(oracle, oracle) == 0
    assert text.privleak((holdout + 0.3, holdout), oracle) < 0 < text.privleak((holdout - 0.3, holdout), oracle)


def test_privleak_is_relative_to_the_retrained_model():
    """AUCs 3/4 and 1/4."""
    holdout = np.array([1.0, 3.0])
    pair = (np.array([0.0, 2.0]), holdout), (np.array([2.0, 4.0]), holdout)
    assert text.privleak(*pair) == pytest.approx(200)
    assert text.privleak(*pair[::-1]) == pytest.approx(-200 / 3)
    assert text.privleak_of(*(text.looks_unseen(*scores) for scores in pair)) == text.privleak(*pair)


def test_privleak_refuses():
    with pytest.raises(ValueError, match="divides by the retrained model's AUC, which is 0"):
        text.privleak((np.ones(2), np.ones(2)), (np.ones(2), np.zeros(2)))
    with pytest.raises(ValueError, match="forget scores: 1 of 2 values are not finite"):
        text.privleak((np.array([1, np.nan]), np.ones(2)), (np.ones(2), np.ones(2)))
    with pytest.raises(ValueError, match="holdout scores: no values"):
        text.looks_unseen(np.ones(2), np.ones(0))


# canaries


def test_exposure_of_ranks():
    candidates = np.arange(1.0, 8.0)
    np.testing.assert_allclose(text.exposure(np.array([0.5, 1.5, 9.0]), candidates), [3, 2, 0])


def test_exposure_is_that_of_a_rank_found_by_counting():
    """A slow twin; losses are whole numbers, so that there are ties."""
    rng = np.random.default_rng(1)
    canaries, candidates = rng.integers(0, 9, 5).astype(float), rng.integers(0, 9, 40).astype(float)
    ranks = [1 + sum((other < own) + (other == own) / 2 for other in candidates) for own in canaries]
    np.testing.assert_allclose(text.exposure(canaries, candidates), [math.log2(41) - math.log2(rank) for rank in ranks])


def test_a_model_that_tells_nothing_apart_exposes_nobody():
    """The trap: counting only lower losses, all canaries of a constant model would have rank 1."""
    exposed = text.exposure(np.zeros(2), np.zeros(2**10))
    np.testing.assert_allclose(exposed, [math.log2(2**10 + 1) - math.log2(2**9 + 1)] * 2)
    assert exposed[0] < 1.01


def test_exposure_by_chance_is_about_one_over_log_2():
    losses = np.random.default_rng(0).normal(size=3000)
    assert text.exposure(losses[:2000], losses[2000:]).mean() == pytest.approx(1 / math.log(2), abs=0.1)


@pytest.mark.parametrize("canaries, candidates", [([], [1.0]), ([1.0], []), ([np.inf], [1.0]), ([1.0], [np.nan])])
def test_exposure_refuses(canaries, candidates):
    with pytest.raises(ValueError, match=r"can(aries|didates): (no values|1 of 1 values are not finite)"):
        text.exposure(np.array(canaries), np.array(candidates))


# what all of them keep to


@pytest.mark.parametrize("score", DOCUMENTS)
def test_tokens_that_do_not_count_are_never_read(score):
    _, _, weights, statistics = random_statistics(2)
    spoilt = TokenStatistics(
        *(np.where(weights > 0, np.asarray(value), np.nan) for value in statistics[:3]),
        np.where(weights > 0, np.asarray(statistics.hit), True),
    )
    values = score(statistics, weights)
    assert values.shape == (5,) and values.dtype == np.float64
    np.testing.assert_array_equal(score(spoilt, weights), values)
    for row in range(5):
        short = TokenStatistics(*(np.asarray(value)[row][weights[row] > 0][None] for value in statistics))
        np.testing.assert_allclose(score(short, np.ones(short.log_p.shape)), values[row : row + 1], rtol=1e-12)


@pytest.mark.parametrize("score", DOCUMENTS)
def test_models_may_lead(score):
    _, _, weights, statistics = random_statistics(3)
    both = TokenStatistics(*(np.stack([value, value[::-1]]) for value in map(np.asarray, statistics)))
    found = score(both, np.stack([weights, weights[::-1]]))
    np.testing.assert_array_equal(found[0], found[1][::-1])


@pytest.mark.parametrize("score", DOCUMENTS)
@pytest.mark.parametrize(
    "weights, says",
    [
        (np.ones((1, 3)), r"\[documents, length\] alike, got \(1, 4\), \(1, 3\)"),
        (np.ones(4), r"alike, got \(1, 4\), \(4,\)"),
        (np.zeros((1, 4)), "1 of 1 documents have no token that counts: leave them out"),
        (np.array([[1, 1, -1, 1]]), "some are negative, give 0"),
        (np.array([[1, 1, np.nan, 1]]), "1 of 4 values are not finite"),
    ],
)
def test_weights_are_refused(score, weights, says):
    with pytest.raises(ValueError, match=says) as error:
        score(of_log_p([-1, -2, -3, -4]), weights)
    assert "\n" not in str(error.value)

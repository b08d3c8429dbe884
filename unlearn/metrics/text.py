"""What a language model remembers of documents, from statistics of single tokens; logits stay on the device.

`token_statistics` reduces logits there. All else takes those statistics with `weights` [documents, length], of which 0
marks a token that does not count and is never read, and gives [documents] in float64. A canary's exposure and PrivLeak are
of numbers that stand for whole documents.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import rankdata

from unlearn import losses
from unlearn.metrics import checks

LEAST_VARIANCE = 1e-6  # of log p under the model's own law, in Min-K%++


class TokenStatistics(NamedTuple):
    """Of every token, [documents, length].

    log_p: log-probability of the right token.
    mean, deviation: of log p under the model's own law of that token; the mean is minus its entropy.
    hit: whether the right token is the most probable one.
    """

    log_p: np.ndarray | jax.Array
    mean: np.ndarray | jax.Array
    deviation: np.ndarray | jax.Array
    hit: np.ndarray | jax.Array


def token_statistics(logits: jax.Array, y: jax.Array) -> TokenStatistics:
    """Logits [documents, length, vocabulary] and the right tokens y [documents, length], reduced on the device.

    log_p = log p_y, mean = sum_v p_v log p_v, deviation^2 = sum_v p_v (log p_v - mean)^2, in float32 or wider. A token that
    has no probability at all adds nothing to either sum.

    Raises:
      ValueError: y of another shape than the logits' leading axes.

    Example:
      >>> found = token_statistics(jnp.log(jnp.array([[[3.0, 1.0]]])), jnp.array([[1]]))
      >>> print(f"{found.log_p[0, 0]:.3f} {found.mean[0, 0]:.3f} {found.hit[0, 0]}")  # -log 4; 3/4 log 3/4 - 1/4 log 4
      -1.386 -0.562 False
    """
    log_p = jax.nn.log_softmax(logits.astype(jnp.promote_types(logits.dtype, jnp.float32)))
    p, finite = jnp.exp(log_p), jnp.where(jnp.isneginf(log_p), 0.0, log_p)
    mean = jnp.sum(p * finite, axis=-1)
    variance = jnp.sum(p * (finite - mean[..., None]) ** 2, axis=-1)
    hit = losses.correct(logits, y) > 0
    return TokenStatistics(-losses.cross_entropy(logits, y), mean, jnp.sqrt(variance), hit)


def token_loss(statistics: TokenStatistics, weights: np.ndarray) -> np.ndarray:
    """The mean of -log p over a document's tokens by their weights, in nats."""
    return -_average(_real(statistics.log_p, weights, "log p"), weights)


def perplexity(statistics: TokenStatistics, weights: np.ndarray) -> np.ndarray:
    """Exp of the mean token loss: between how many tokens the model is undecided. Infinite where that has no float."""
    with np.errstate(over="ignore"):
        return np.exp(token_loss(statistics, weights))


def token_accuracy(statistics: TokenStatistics, weights: np.ndarray) -> np.ndarray:
    """The share of tokens that are the most probable ones, by their weights."""
    return _average(_hits(statistics, weights), weights)


def exact_memorisation(statistics: TokenStatistics, weights: np.ndarray) -> np.ndarray:
    """The share of tokens that are the most probable ones after the right tokens before them, each that counts alike."""
    return _average(_hits(statistics, weights), (np.asarray(weights) > 0).astype(np.float64))


def extraction_strength(statistics: TokenStatistics, weights: np.ndarray) -> np.ndarray:
    """1 - k / n: how little of a document must be given for the model to continue it to its end, word for word.

    Of n tokens that count, k is the first position from which on all are the most probable ones, given the right ones
    before them. Where not even the last one is, k = n - 1 as in published code: the lowest value is 1 / n, never 0.

    Reference:
      Carlini et al. (2012.07805); as in OpenUnlearning (2506.12618).

    Example:
      >>> hit = np.array([[True, False, True, True], [True, True, True, False]])
      >>> print(extraction_strength(TokenStatistics(hit * 0.0, hit * 0.0, hit * 0.0, hit), np.ones((2, 4))))
      [0.5  0.25]
    """
    hits, counts = _hits(statistics, weights) > 0, np.asarray(weights) > 0
    to_the_end = np.logical_and.accumulate((hits | ~counts)[..., ::-1], axis=-1)[..., ::-1]
    return np.maximum((to_the_end & counts).sum(axis=-1), 1) / counts.sum(axis=-1)


def min_k(statistics: TokenStatistics, weights: np.ndarray, share: float = 0.2) -> np.ndarray:
    """Min-K%: the mean of the lowest max(1, floor(share n)) of a document's n log p. Higher: more likely seen.

    Published code often gives it with the other sign. TOFU takes a share of .2, MUSE .4.

    Reference:
      Shi et al., Detecting Pretraining Data from Large Language Models (2310.16789).

    Example:
      >>> log_p = np.array([[-1.0, -4.0, -2.0, -3.0, -5.0]])
      >>> print(min_k(TokenStatistics(log_p, log_p, log_p, log_p > -2), np.ones((1, 5)), share=0.4))
      [-4.5]
    """
    return _lowest(_real(statistics.log_p, weights, "log p"), weights, share)


def min_k_plus(statistics: TokenStatistics, weights: np.ndarray, share: float = 0.2) -> np.ndarray:
    """Min-K%++: Min-K% of (log p - mean) / deviation, by what the model itself expected there. Higher: more likely seen.

    A variance is taken to be 1e-6 at least.

    Reference:
      Zhang et al., Min-K%++ (2404.02936).
    """
    log_p, mean, deviation = (
        _real(values, weights, what)
        for values, what in ((statistics.log_p, "log p"), (statistics.mean, "mean"), (statistics.deviation, "deviation"))
    )
    return _lowest((log_p - mean) / np.sqrt(np.maximum(deviation**2, LEAST_VARIANCE)), weights, share)


def looks_unseen(forget: np.ndarray, holdout: np.ndarray) -> float:
    """The AUC of "was not seen": how often a forgotten document scores below a held-out one, a tie counting one half.

    Args:
      forget, holdout: [documents] scores of which a higher one means "more likely seen", as `min_k` gives.
    """
    forget, holdout = checks.finite(np.ravel(forget), "forget scores"), checks.finite(np.ravel(holdout), "holdout scores")
    ranks = rankdata(np.concatenate([forget, holdout]))[len(forget) :]
    return float((ranks.sum() - len(holdout) * (len(holdout) + 1) / 2) / (len(forget) * len(holdout)))


def privleak(unlearned: tuple[np.ndarray, np.ndarray], retrained: tuple[np.ndarray, np.ndarray]) -> float:
    """PrivLeak: 100 (AUC_unlearned - AUC_retrained) / AUC_retrained, in percent, with the AUC of `looks_unseen`.

    Negative: forgotten documents still look seen (-100 at the lowest). Positive: they stand out as unseen. MUSE wants it
    within 5 percent of 0.

    Args:
      unlearned, retrained: scores (forget, holdout) of a model, `min_k` for instance; higher means "more likely seen".

    Raises:
      ValueError: scores not finite, or a retrained model to which every forgotten document looks seen.

    Reference:
      Shi et al., MUSE (2407.06460).

    Example:
      >>> privleak((np.array([-1.0, -1.5]), np.array([-2.0, -3.0])), (np.array([-2.0]), np.array([-1.0, -3.0])))
      -100.0
    """
    return privleak_of(looks_unseen(*unlearned), looks_unseen(*retrained))


def privleak_of(auc: float, reference: float) -> float:
    """`privleak` of two AUCs of `looks_unseen`, the unlearned model's and the retrained one's; raises as it does."""
    if reference == 0:
        raise ValueError("PrivLeak divides by the retrained model's AUC, which is 0: its documents were not held out")
    return 100 * (auc - reference) / reference


def exposure(canaries: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """log2 of how far up a planted canary stands among what could have been planted: log2 (n + 1) - log2 rank.

    Its rank is 1 + the candidates of lower loss + half of those of equal loss: a model that tells nothing apart exposes
    nobody. About 1 is what chance gives; log2 (n + 1) is the most that n candidates can show.

    Args:
      canaries: [canaries] losses of what was planted.
      candidates: [n] losses of what could have been: all of it, or a random sample (without the canaries).

    Reference:
      Carlini et al., The Secret Sharer (1802.08232).

    Example:
      >>> print(exposure(np.array([0.5, 3.0]), np.array([1.0, 2.0, 4.0])))  # ranks 1 and 3 of 4
      [2.        0.4150375]
    """
    canaries, ordered = checks.finite(canaries, "canaries"), np.sort(checks.finite(candidates, "candidates"), axis=None)
    lower, upper = (np.searchsorted(ordered, canaries, side=side) for side in ("left", "right"))
    return np.log2(len(ordered) + 1) - np.log2(1 + (lower + upper) / 2)


def _real(values: np.ndarray | jax.Array, weights: np.ndarray, what: str) -> np.ndarray:
    """Values of tokens as float64, 0 where a token does not count.

    Raises:
      ValueError: weights of another shape, negative or not finite, a document without tokens, or a token that counts and
        has no finite value.
    """
    numbers, weights = np.asarray(values), checks.finite(weights, "token weights")
    if numbers.shape != weights.shape or numbers.ndim < 2:
        raise ValueError(
            f"{what} and token weights must be [documents, length] alike, got {numbers.shape}, {weights.shape}"
        )
    if weights.min() < 0:
        raise ValueError("token weights: some are negative, give 0 to a token that does not count")
    counts = weights > 0
    if empty := int((~counts.any(axis=-1)).sum()):
        raise ValueError(f"{empty} of {counts[..., 0].size} documents have no token that counts: leave them out")
    numbers = np.where(counts, numbers, 0).astype(np.float64)
    return checks.finite(numbers, what)


def _hits(statistics: TokenStatistics, weights: np.ndarray) -> np.ndarray:
    return _real(statistics.hit, weights, "hits")


def _average(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    weights = np.asarray(weights, np.float64)
    return (values * weights).sum(axis=-1) / weights.sum(axis=-1)


def _lowest(values: np.ndarray, weights: np.ndarray, share: float) -> np.ndarray:
    """The mean of the lowest of the tokens that count, at least one of each document."""
    if not 0 < share <= 1:
        raise ValueError(f"a share of tokens must be above 0 and at most 1, got {share}")
    counts = np.asarray(weights) > 0
    # A product such as .29 * 100 comes out a little below the whole number that it is.
    taken = np.maximum(1, np.floor(share * counts.sum(axis=-1) + 1e-9)).astype(np.intp)
    ordered = np.sort(np.where(counts, values, np.inf), axis=-1)
    within = np.arange(ordered.shape[-1]) < taken[..., None]
    return np.where(within, ordered, 0.0).sum(axis=-1) / taken

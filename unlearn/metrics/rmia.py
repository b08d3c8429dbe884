"""RMIA: a robust membership attack with one to four reference models (Zarifzadeh, Liu and Shokri, 2312.03262)."""

from __future__ import annotations

import numpy as np

from unlearn.metrics import checks

POPULATION = 10  # examples that a share is taken over, at least


def rmia(
    log_p: np.ndarray,
    population_log_p: np.ndarray,
    *,
    references: np.ndarray,
    population_references: np.ndarray,
    gamma: float = 2.0,
    a: float = 0.3,
) -> np.ndarray:
    """The share of a population z that an example x outdoes: P_z(LR(x, z) >= gamma).

    LR(x, z) = [p(x | target) / p(x)] / [p(z | target) / p(z)], where p(. | model) is the probability of the label and p(x)
    that of a world that may hold x or not. References were trained without x ("offline"), so that
    p(x) = ((1 + a) mean_references p(x | reference) + 1 - a) / 2: a = 1 says that training on x would not change its
    probability, a = 0 that it would become 1. Defaults: the paper's gamma, its code's a for CIFAR-10. Computed in logs.

    Args:
      log_p: [examples] log p_y (`-scores.loss`) of the target model.
      population_log_p: [population] that of examples which neither target nor references were trained on, apart from
        the examples asked about.
      references: [references, examples] log p_y of models trained without the examples; one to four suffice.
      population_references: [references, population].
      gamma: how much better than z an example must do.
      a: in [0, 1].

    Returns:
      [examples] float64 in [0, 1], high for members; `rates.rates` with a fixed `threshold` reads it.

    Raises:
      ValueError: values not finite or positive, no reference, shapes that do not match, fewer than 10 of the population,
        gamma or a out of range.
    """
    log_p, population_log_p = _log_probabilities(log_p, 1), _log_probabilities(population_log_p, 1)
    references, population_references = _log_probabilities(references, 2), _log_probabilities(population_references, 2)
    expected = (len(references), *log_p.shape), (len(references), *population_log_p.shape)
    if (references.shape, population_references.shape) != expected:
        raise ValueError(f"references must be {expected}, got {references.shape} and {population_references.shape}")
    if len(population_log_p) < POPULATION:
        raise ValueError(f"RMIA needs a population of at least {POPULATION} examples, got {len(population_log_p)}")
    if not gamma > 0 or not 0 <= a <= 1:
        raise ValueError(f"gamma must be positive and a between 0 and 1, got {gamma} and {a}")
    ratio = log_p - _log_prior(references, a)
    population = np.sort(population_log_p - _log_prior(population_references, a))
    return np.searchsorted(population, ratio - np.log(gamma), side="right") / len(population)


def _log_prior(references: np.ndarray, a: float) -> np.ndarray:
    """The logarithm of p(x): [references, examples] -> [examples]."""
    log_out = np.logaddexp.reduce(references, axis=0) - np.log(len(references))
    return log_out if a == 1 else np.logaddexp(np.log((1 + a) / 2) + log_out, np.log((1 - a) / 2))


def _log_probabilities(values: np.ndarray, axes: int) -> np.ndarray:
    numbers = checks.finite(values, "log-probabilities")
    if numbers.ndim != axes or numbers.max() > 0:
        raise ValueError(
            f"log-probabilities must be at most 0, on {axes} axes; got up to {numbers.max():g}, on {numbers.ndim}"
        )
    return numbers

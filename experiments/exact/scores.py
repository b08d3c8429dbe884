"""What answers are scored by: the accuracy of classes, the loss of tokens to predict, or TOFU's truth ratio."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.exact.sources.text_models import LEAST
from unlearn.metrics import tofu

Tree = Any

ACCURACY, LOSS = "accuracy", "loss"  # as they end in rows: test_accuracy, validation_loss
TRUTH = "truth_ratio"  # as it stands in rows


class Target(NamedTuple):
    """What answers are held against.

    name: ACCURACY, of answers that are logits [..., examples, classes]; or LOSS in nats per token, of answers that are
      probabilities of tokens [..., examples, length].
    y: labels [examples] or {"weight": [examples, length]}, as the source has them.
    nobody: [examples], the score where there is no model to answer. A classifier is then never right; of tokens it is the
      loss of the backbone alone.
    """

    name: str
    y: Tree
    nobody: np.ndarray

    def part(self, where: slice) -> Target:
        """Some of the examples."""
        return Target(self.name, jax.tree.map(lambda leaf: leaf[where], self.y), self.nobody[where])

    def of(self, summed: np.ndarray, total: np.ndarray | float = 1.0) -> np.ndarray:
        """[...] mean score over examples.

        Args:
          summed: [..., examples, ...] answers, each times its weight.
          total: [...] the sum of the weights; where it is 0, nobody answered.
        """
        weights = np.asarray(total, np.float64)
        if self.name == ACCURACY:
            values = (np.argmax(summed, axis=-1) == self.y).mean(axis=-1)
        else:
            mean = summed / np.where(weights > 0, weights, 1.0)[..., None, None]
            values = losses(mean, self.y["weight"]).mean(axis=-1)
        scored: np.ndarray = np.where(weights > 0, values, self.nobody.mean())
        return scored


class Truth(NamedTuple):
    """What answers to TOFU's questions are held against; rows are as `questions.Questions` has them.

    weight: [rows, length], of tokens.
    number, wrong: questions, and wrong answers to each.
    nobody: [rows], the losses of the backbone alone, for where there is no model to answer.
    """

    weight: np.ndarray
    number: int
    wrong: int
    nobody: np.ndarray

    def of(self, summed: np.ndarray, total: np.ndarray | float = 1.0) -> np.ndarray:
        """[...] the mean of max(0, 1 - R) over questions, losses averaged over wrong answers: 1 where none is likely.

        Args:
          summed: [..., rows, length] probabilities, each times its weight.
          total: [...] the sum of the weights; where it is 0, nobody answered.
        """
        weights = np.asarray(total, np.float64)
        mean = summed / np.where(weights > 0, weights, 1.0)[..., None, None]
        nats = np.where((weights > 0)[..., None], losses(mean, self.weight), self.nobody)
        lanes = nats.reshape(-1, nats.shape[-1])
        right, wrong = np.split(lanes, [self.number], axis=1)
        kept = [
            tofu.kept_truth(tofu.truth_ratio(right[i], wrong[i].reshape(self.number, self.wrong), "losses"))
            for i in range(len(lanes))
        ]
        return np.array(kept).reshape(nats.shape[:-1])


def losses(probabilities: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """[..., examples] mean of -log p over the tokens of each document.

    Example:
      >>> losses(np.array([[1.0, np.exp(-2)]]), np.array([[1.0, 1.0]])).tolist()
      [1.0]
    """
    nats = -np.log(np.maximum(probabilities, LEAST)) * weight
    found: np.ndarray = nats.sum(axis=-1) / np.maximum(weight.sum(axis=-1), 1.0)
    return found

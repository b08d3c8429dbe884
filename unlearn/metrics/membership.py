"""Population membership attacks: one classifier over examples, members against non-members.

A value is to be read beside the oracle's own: a retrained model, too, may tell the two populations apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_score

from unlearn.metrics import checks

FOLDS = 5
TINY = 1e-12  # losses and entropies below it are alike
SCORES = ("loss", "confidence", "entropy", "modified_entropy")


class Attack(NamedTuple):
    """How well members are told from non-members by a score; .5 is chance for both."""

    auc: float
    balanced_accuracy: float


def loss_attack(members: np.ndarray, others: np.ndarray) -> Attack:
    """The loss attack: members are expected to have the lower loss.

    AUC is that of the negative loss. Balanced accuracy is a logistic regression's on log-loss, cross-validated over
    5 folds, so it may find either direction.

    Args:
      members: [examples] losses of the examples in question.
      others: [examples] losses of examples never trained on, of the same distribution.

    Returns:
      An Attack; NaN where a loss is not finite.

    Raises:
      ValueError: fewer than 5 members or 5 others: cross-validation would be a guess.
    """
    _enough(members, others)
    losses = np.concatenate([members, others]).astype(np.float64)
    if not np.isfinite(losses).all():
        return Attack(float("nan"), float("nan"))
    return _attack(-losses, np.log(np.maximum(losses, TINY)), len(members))


def population_attacks(members: Mapping[str, np.ndarray], others: Mapping[str, np.ndarray]) -> dict[str, Attack]:
    """Attacks by loss, confidence, entropy and modified entropy, of one model.

    Members are expected to have low losses and entropies and high confidence. Confidence is exp(-loss): it gives the
    loss's AUC, and its own balanced accuracy, since the regression sees another scale. Losses and entropies enter the
    regression as logarithms, confidence as it is.

    Args:
      members: each of SCORES -> [examples], of the examples in question.
      others: the same of examples never trained on, of the same distribution.

    Returns:
      each of SCORES -> Attack.

    Raises:
      ValueError: fewer than 5 members or 5 others, or a score that is not finite or the same for all examples.
    """
    attacks = {}
    for name in SCORES:
        _enough(members[name], others[name])
        values = checks.finite(np.concatenate([members[name], others[name]]), name)
        checks.varying(values, name)
        rises = name == "confidence"
        feature = values if rises else np.log(np.maximum(values, TINY))
        attacks[name] = _attack(values if rises else -values, feature, len(members[name]))
    return attacks


def _enough(members: np.ndarray, others: np.ndarray) -> None:
    if min(len(members), len(others)) < FOLDS:
        raise ValueError(f"a membership attack needs at least {FOLDS} members and {FOLDS} others")


def _attack(values: np.ndarray, feature: np.ndarray, members: int) -> Attack:
    """The AUC of `values` [examples], high for members, which come first; a cross-validated classifier on `feature`."""
    is_member = np.arange(len(values)) < members
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    classifier = LogisticRegression(class_weight="balanced")
    accuracy = cross_val_score(classifier, feature[:, None], is_member, cv=folds, scoring="balanced_accuracy")
    return Attack(float(roc_auc_score(is_member, values)), float(accuracy.mean()))

"""Population membership attacks: one classifier over examples, members against non-members.

A value is to be read beside the oracle's own: a retrained model, too, may tell the two populations apart.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_score

FOLDS = 5


class Attack(NamedTuple):
    """How well members are told from non-members by their loss; .5 is chance for both."""

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
    if min(len(members), len(others)) < FOLDS:
        raise ValueError(f"a membership attack needs at least {FOLDS} members and {FOLDS} others")
    losses = np.concatenate([members, others]).astype(np.float64)
    if not np.isfinite(losses).all():
        return Attack(float("nan"), float("nan"))
    is_member = np.arange(len(losses)) < len(members)
    feature = np.log(np.maximum(losses, 1e-12))[:, None]
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    classifier = LogisticRegression(class_weight="balanced")
    scores = cross_val_score(classifier, feature, is_member, cv=folds, scoring="balanced_accuracy")
    return Attack(float(roc_auc_score(is_member, -losses)), float(scores.mean()))

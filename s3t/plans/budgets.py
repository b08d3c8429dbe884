"""What planners take: a number of slices, a budget and a prior, and the limits of all three."""

from __future__ import annotations

import math
from collections.abc import Sequence

from s3t.plans.structure import as_prior

Budget = float | None
Prior = Sequence[float] | None

MOST = 256  # slices of a shard: each comes with at least one block of the backbone
LARGEST = 1_000_000  # nodes of a plan; more is a mistake and not a plan


def check(slices: int, budget: Budget, prior: Prior) -> None:
    """Refuse arguments that no planner takes.

    Raises:
      ValueError: too few or too many slices, a malformed prior, or a budget that is not positive and finite.
    """
    if not 1 <= slices <= MOST:
        raise ValueError(f"a shard has 1 to {MOST} slices, got {slices}")
    as_prior(slices, prior)
    if budget is not None and not 0 < budget < math.inf:
        raise ValueError(f"a budget must be positive, got {budget:g}")


def count_sequences(budget: Budget, slices: int, most: int) -> int:
    """The budget as a number of sequences, L by default.

    Raises:
      ValueError: not a whole number, more than `most`, or a plan that is too large.
    """
    count = slices if budget is None else int(budget)
    if budget is not None and count != budget:
        raise ValueError(f"a budget of sequences is a whole number, got {budget:g}")
    if count > most:
        raise ValueError(f"only {most} sequences of {slices} slices are distinct, got budget {count:g}")
    check_size(count * slices)
    return count


def check_size(nodes: int) -> None:
    """Refuse a plan of so many nodes that it is a mistake.

    Raises:
      ValueError: more than LARGEST.
    """
    if nodes > LARGEST:
        raise ValueError(f"this plan could hold more than {LARGEST:,} nodes: use fewer slices or sequences, or stumps")

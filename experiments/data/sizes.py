"""What is refused because a data set has too few examples for it."""

from __future__ import annotations

from experiments.core.errors import UserError
from experiments.data.datasets import Dataset


def check_splits(dataset: Dataset, batch_size: int) -> None:
    """Refuse data without examples to validate or test on, or with fewer to train on than a batch has.

    Raises:
      UserError: one line that says what to do.
    """
    for name in ("validation", "test"):
        if not len(getattr(dataset, name).id):
            raise UserError(f"{dataset.name!r} has no {name} examples: set a larger --config.data.validation_fraction")
    if batch_size > (count := len(dataset.train.id)):
        raise UserError(
            f"train.batch_size is {batch_size}, but {dataset.name!r} has {count} training examples here: "
            f"set --config.train.batch_size to {count} or less"
        )

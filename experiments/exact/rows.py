"""Rows of results.json: what all of an s3t run have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from experiments.core.results import Row
from experiments.exact.scores import TRUTH

Scored = Mapping[str, Any]  # what has scores, among other things


def make_row(dataset: str, name: tuple[str, str], seed: int, **fields: Any) -> Row:
    """A row of (training, variant); its other fields by name."""
    training, variant = name
    return Row(
        training=training,
        variant=variant,
        unlearner="none",
        setting="deletions",
        dataset=dataset,
        seed=seed,
        stop="reached",
        **fields,
    )


def scores(scored: Scored) -> dict[str, float]:
    """The scores among what was measured: accuracies, or losses of text to predict, with a truth ratio of questions."""
    return {name: scored[name] for name in sorted(scored) if name == TRUTH or name.startswith(("test_", "validation_"))}

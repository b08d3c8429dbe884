"""What is pre-trained: a model, its data, and how it is kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from experiments.data.splits import Dataset
from experiments.models.functions import ModelFns


class Learner(NamedTuple):
    """A model and its data.

    model: as functions.
    dataset: in splits.
    save: (workdir, parameters) -> writes them.
    """

    model: ModelFns
    dataset: Dataset
    save: Callable[[Path, Any], None]

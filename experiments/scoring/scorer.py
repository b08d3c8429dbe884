"""Who scores: one model, how its lanes are carried out, and the sets that they are scored on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from experiments.core.machines.execution import Execution
from experiments.data.sets import Sets
from experiments.scoring import evaluation
from experiments.scoring.statistics import Reduction, make_statistics
from unlearn.base import Array, Batch, Model


class Scorer(NamedTuple):
    """Who scores lanes of a model; `evaluation` says how.

    generate: what continues texts, as of `ModelFns`; None: nothing is continued.
    """

    model: Model
    devices: Execution
    sets: Sets
    generate: Callable[..., Array] | None = None

    @property
    def statistics(self) -> Reduction:
        """`make_statistics` of the model."""
        return make_statistics(self.model, self.devices)

    def measure(self, params: Any, batch: Batch) -> tuple[np.ndarray, np.ndarray]:
        """Whether each example is told right, and its loss, [lanes, examples] each."""
        return evaluation.measure(self.statistics, params, batch)

    def score(self, params: Any) -> list[dict[str, float]]:
        """Scores of every lane on the sets."""
        return evaluation.score(self.statistics, params, self.sets)

    def diagnose(self, params: Any, forget: Batch, stable: Batch) -> dict[str, Array]:
        """Gradients of forget and stable data at the parameters of every lane."""
        return evaluation.make_diagnose(self.model, self.devices)(params, forget, stable)

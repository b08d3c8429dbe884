"""What an unlearning algorithm is, and a shelf of them behind one contract.

An algorithm is made by its factory, `ALGORITHMS[name](model, optimizer, **options)`; see `unlearn.base`.
"""

from functools import partial
from importlib import metadata

from unlearn import objectives
from unlearn.base import (
    Batch,
    Model,
    Request,
    UnlearnAlgorithm,
    UnlearnInfo,
    UnlearnState,
    from_objective,
    remember_key,
    remember_params,
    unlearn,
)
from unlearn.until import STOPS, Outcome, unlearn_until

ALGORITHMS = {
    "ascent": partial(from_objective, objective=objectives.ascent),
    "graddiff": partial(from_objective, objective=objectives.graddiff),
    "neggrad_plus": partial(from_objective, objective=objectives.neggrad_plus),
    "ascent_kl": partial(from_objective, objective=objectives.ascent_kl, remember=remember_params),
    "npo": partial(from_objective, objective=objectives.npo, remember=remember_params),
    "finetune": partial(from_objective, objective=objectives.finetune),
    "random_label": partial(from_objective, objective=objectives.random_label, remember=remember_key),
}

__all__ = [
    "ALGORITHMS",
    "STOPS",
    "Batch",
    "Model",
    "Outcome",
    "Request",
    "UnlearnAlgorithm",
    "UnlearnInfo",
    "UnlearnState",
    "from_objective",
    "unlearn",
    "unlearn_until",
]

try:
    __version__ = metadata.version("forethought")
except metadata.PackageNotFoundError:  # a source tree that was not installed
    __version__ = "0+unknown"

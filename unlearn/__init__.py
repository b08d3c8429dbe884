"""What an unlearning algorithm is, a shelf of them behind one contract, and how a request is carried out.

Example, a linear classifier that forgets one of three examples by name:

  >>> import jax, jax.numpy as jnp, optax
  >>> model = classifier(lambda params, x, key: x @ params)
  >>> data = dict(x=jnp.eye(3), y=jnp.array([0, 1, 1]), id=jnp.array([10, 11, 12]), weight=jnp.ones(3))
  >>> goes = jax.tree.map(lambda leaf: leaf[:1], data)
  >>> stays = jax.tree.map(lambda leaf: leaf[1:], data)
  >>> algorithm = ascent(model, optax.sgd(1.0))  # or find_algorithm("ascent")
  >>> request = Request(goes, stays)
  >>> batches = jax.tree.map(lambda leaf: jnp.stack([leaf] * 4), request)  # four full-batch updates
  >>> params = jnp.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
  >>> state, infos = unlearn(algorithm, params, request, batches, jax.random.key(0))
  >>> print((model.apply(state.params, data["x"], None).argmax(axis=1) == data["y"]).tolist())
  [False, True, True]
"""

from importlib import metadata

from unlearn import levels, penalties
from unlearn.algorithms import (
    ALGORITHMS,
    ascent,
    ascent_kl,
    dpo,
    find_algorithm,
    finetune,
    graddiff,
    idk_dpo,
    level,
    neggrad_plus,
    npo,
    random_label,
    rmu,
    simnpo,
    undial,
    wga,
)
from unlearn.base import (
    KINDS,
    Batch,
    Model,
    Request,
    Traits,
    UnlearnAlgorithm,
    UnlearnInfo,
    UnlearnState,
    classifier,
    declare,
    from_objective,
    sequence_model,
    traits_of,
    unlearn,
)
from unlearn.gradient import first_order, normalised, second_order
from unlearn.losses import weighted_mean
from unlearn.microbatches import microbatched
from unlearn.until import STOPS, Outcome, Recorded, unlearn_until

__all__ = [
    "ALGORITHMS", "KINDS", "STOPS", "Batch", "Model", "Outcome", "Recorded", "Request", "Traits", "UnlearnAlgorithm",
    "UnlearnInfo", "UnlearnState", "ascent", "ascent_kl", "classifier", "declare", "dpo", "find_algorithm", "finetune",
    "first_order", "from_objective", "graddiff", "idk_dpo", "level", "levels", "microbatched", "neggrad_plus",
    "normalised", "npo", "penalties", "random_label", "rmu", "second_order", "sequence_model", "simnpo", "traits_of",
    "undial", "unlearn", "unlearn_until", "weighted_mean", "wga",
]  # fmt: skip

try:
    __version__ = metadata.version("forethought")
except metadata.PackageNotFoundError:  # a source tree that was not installed
    __version__ = "0+unknown"

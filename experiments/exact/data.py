"""Model and data of a run: made as the store's factory makes them, the backbone pre-trained here if none is given."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from experiments.configs.pretrain import Pretrain
from experiments.core import files, keys
from experiments.data import digests
from experiments.data.images import DECODE_AT_ONCE
from experiments.data.splits import Split
from experiments.exact import factory
from experiments.pretrain import run
from s3t.service import creation
from s3t.training.source import Source
from unlearn.losses import correct

PRETRAINED = Path("pretrain") / run.CHECKPOINT  # in the workdir


class Data(NamedTuple):
    """Training examples with a model for them, and what its nodes are scored on.

    name: of the data set.
    source: model, recipe and training examples.
    x, y: validation and test examples, `held` of them for validation, which come first.
    """

    name: str
    source: Source
    x: np.ndarray
    y: np.ndarray
    held: int

    def scored(self, logits: np.ndarray) -> dict[str, float]:
        """Accuracies of logits [validation and test examples, classes]."""
        right = np.asarray(correct(jnp.asarray(logits), jnp.asarray(self.y)))
        return {"validation_accuracy": float(right[: self.held].mean()), "test_accuracy": float(right[self.held :].mean())}


def check_trainable(source: Source, seen: Pretrain | None) -> None:
    """Refuse adapters that hit no layer, and what the backbone cannot be pre-trained on.

    Args:
      seen: how it is pre-trained; None if one is given.

    Raises:
      ValueError (DataError among them): one line that says what to do.
    """
    creation.check_trainable(source, keys.unused())  # the targets of the adapters are layers
    if seen is not None:
        try:
            run.look(seen.data, seen.classes, seen.model, seen.train.batch_size)
        except ValueError as error:
            raise ValueError(f"pretrain: {error}") from error


def passes(seen: Pretrain | None) -> float:
    """What pre-training is expected to take: examples forward and backward through the model."""
    return run.passes(seen.train) if seen is not None else 0.0


def load(source: Source) -> Data:
    """The data of a run, with what its nodes are scored on."""
    splits = [source.split(name) for name in ("validation", "test")]
    (x, y), (test_x, test_y) = (fetch(ids) for ids, fetch in splits)
    return Data(source.hyper["dataset"], source, np.concatenate([x, test_x]), np.concatenate([y, test_y]), len(y))


def inputs(source: Source, checkpoint: str) -> dict[str, str]:
    """Digests of what a workdir is bound to beside its config: the examples, and the backbone if one is given.

    Args:
      source: as the factory made it.
      checkpoint: the file of the backbone; '' is none.
    """

    def parts() -> Iterator[Split]:
        for ids, fetch in ((source.ids, source.fetch), *map(source.split, ("validation", "test"))):
            for part in np.split(ids, range(DECODE_AT_ONCE, len(ids), DECODE_AT_ONCE)):
                yield Split(*fetch(part), part)

    return {"data": digests.digest(parts()), "parameters": files.digest(checkpoint)}


def pretrained(data: Data, arguments: dict[str, Any], seen: Pretrain | None, folder: Path) -> Data:
    """The data with a backbone that is pre-trained in a folder in place of the random one, if none is given.

    Args:
      data: as the factory made it.
      arguments: that the factory was called with beside hyper-parameters.
      seen: how the backbone is pre-trained; None if one is given.
    """
    if seen is None:
        return data
    run.run(seen, str((folder / PRETRAINED).parent))
    source = factory.make(data.source.hyper, **{**arguments, "checkpoint": str(folder / PRETRAINED)})
    return data._replace(source=source)

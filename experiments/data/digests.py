"""Which data a run has read, as one number: what a workdir is bound to, since a config holds only the name of the data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping

import jax
import numpy as np

from experiments.data.images import Images
from experiments.data.splits import Split
from experiments.data.text.sources.tofu import Queries


def digest(splits: Iterable[Split]) -> str:
    """SHA-256 of ids, labels and features of some splits.

    Images that stay on disk count by their shape: to read them all is what streaming avoids.
    """
    sha = hashlib.sha256()
    for split in splits:
        for leaf in (split.id, *jax.tree.leaves((split.y, split.x))):
            sha.update(repr((str(getattr(leaf, "dtype", "")), tuple(leaf.shape))).encode())
            if not isinstance(leaf, Images):
                sha.update(np.ascontiguousarray(leaf).data)
    return sha.hexdigest()


def of_ids(ids: np.ndarray) -> str:
    """SHA-256 of ids, in whatever order they come."""
    return hashlib.sha256(np.sort(ids).astype("<i8").tobytes()).hexdigest()


def of_queries(queries: Mapping[str, Queries]) -> str:
    """SHA-256 of questions with other answers, which no split holds; '' if there are none."""
    plain = json.dumps({name: [part.ids.tolist(), *part[1:]] for name, part in sorted(queries.items())})
    return hashlib.sha256(plain.encode()).hexdigest() if queries else ""

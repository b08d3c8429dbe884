"""The model that an archive belongs to: a file beside it, called by the digest that the archive's log tells of it.

    DIR/models/DIGEST.bin    the model, float32, ravelled; `sha256sum` prints its name, and certificates have it

A model is on the disk before the row that tells of it, and older ones go once the row is there. So after a kill at any time
the model of the last row can be read, and after an erasure no model from before it is left.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.core import files
from experiments.federated import archives, layout, store
from experiments.federated.log import ArchiveError
from experiments.federated.store import Store
from federated.archive import Scheme

MODELS = "models"


def create(root: Path, scheme: Scheme, seed: int, start: jax.Array, structure: str = "") -> Store:
    """Make an archive that an engine can write to; raises as `archives.create` does, and as `check_scheme` below.

    Args:
      structure: of the task's parameters, see `task.structure`; empty if anything of that size will do.
    """
    check_scheme(scheme)
    return archives.create(root, scheme, seed, start, structure=structure)


def open_archive(root: Path) -> Store:
    """Open an engine's archive for writing, without the models that a kill left.

    Raises:
      ArchiveError: as `store.open_store` does; a scheme that an engine cannot go on with.
    """
    opened = store.open_store(root, write=True)
    try:
        check_scheme(archives.scheme_of(opened))
        if model_path(root, model_digest(opened)).exists():  # else one of the others may be all that there is
            remove_others(opened)
    except BaseException:
        opened.close()
        raise
    return opened


def check_scheme(scheme: Scheme) -> None:
    """Refuse a scheme whose encoder must remember all users.

    Raises:
      ArchiveError: updates are told as differences from the last ones.
    """
    if scheme.reference == "last":
        raise ArchiveError(
            "reference=last needs a server that remembers every user's last update: give reference=zero or reference=mean"
        )


def next_round(opened: Store) -> int:
    """The number of the round that would follow."""
    return max((row["round"] for row in opened.rows if row["kind"] == "round"), default=-1) + 1


def erased_users(opened: Store) -> set[str]:
    """Who was erased, ever."""
    return {row["user"] for row in opened.rows if row["kind"] == "erased"}


# --- The model --------------------------------------------------------------------------------------------------------


def model_digest(opened: Store) -> str:
    """The digest of the model that is served: of the last round or erasure, or w_0."""
    for row in reversed(opened.rows):
        if row["kind"] == "round":
            return str(row["model"])
        if row["kind"] == "erased":
            return str(row["model_after"])
    return str(opened.rows[0]["start"]["digest"])


def model_path(root: Path, digest: str) -> Path:
    """The file of a model."""
    return root / MODELS / f"{digest}.bin"


def read_model(opened: Store) -> np.ndarray:
    """The model that is served, [parameters].

    Raises:
      ArchiveError: its file is missing or altered, or the archive was not written by an engine.
    """
    digest = model_digest(opened)
    if not digest:
        raise ArchiveError(f"the log of {opened.root} has no digest of its model: no engine wrote it, so erase by Python")
    if digest == opened.rows[0]["start"]["digest"]:
        content = opened.start()[1]
    else:
        content = layout.content(model_path(opened.root, digest), digest)
    return np.frombuffer(content, "<f4")


def write_model(root: Path, model: Any) -> str:
    """Write a model whose row is about to follow; returns its digest."""
    digest = archives.model_digest(model)
    files.write_bytes(model_path(root, digest), archives.model_bytes(model))
    return digest


def remove_others(opened: Store) -> None:
    """Remove the files of all models but that which is served."""
    kept = model_path(opened.root, model_digest(opened))
    layout.remove(path for path in (opened.root / MODELS).glob("*") if path != kept)

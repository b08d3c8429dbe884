"""Orbax behind three functions: open a folder of checkpoints, save one, restore the latest or begin."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from experiments.errors import line
from experiments.results import WorkdirError


def open_folder(path: Path) -> ocp.CheckpointManager:
    """A manager of the checkpoints in `path`, which is made if it is missing; the two latest are kept."""
    options = ocp.CheckpointManagerOptions(max_to_keep=2, create=True)
    return ocp.CheckpointManager(path.absolute(), options=options)


def save(manager: ocp.CheckpointManager, step: int, state: Any) -> None:
    """Save `state` in the background under `step`; a process killed meanwhile leaves the former checkpoint untouched."""
    manager.save(step, args=ocp.args.StandardSave(state))


def restore_or(manager: ocp.CheckpointManager, initial: Any) -> tuple[int, Any]:
    """The latest checkpoint as (step, state), or (0, initial); `initial` also gives structure, shapes and devices.

    Raises:
      WorkdirError: a checkpoint that cannot be read.
    """
    step = manager.latest_step()
    if step is None:
        return 0, initial
    abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, initial)
    try:
        state = manager.restore(step, args=ocp.args.StandardRestore(abstract))
    except Exception as error:  # Orbax, TensorStore and the parsers of metadata each raise their own kinds
        raise WorkdirError(
            f"the checkpoint {manager.directory / str(step)} cannot be read ({line(error)}): remove that folder and run "
            "again, which goes on from the checkpoint before it"
        ) from error
    return step, jax.tree.map(lambda new, old: np.asarray(new) if isinstance(old, np.ndarray) else new, state, initial)

"""Orbax behind three functions: open a folder of checkpoints, save one, restore the latest or begin.

Of several processes the first alone has the folder, and gives the others what it restores.
"""

from __future__ import annotations

import functools
import logging
import shutil
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from experiments.core import files
from experiments.core.errors import line
from experiments.core.machines import processes
from experiments.core.workdirs import WorkdirError

CHECKSUM = "crc32"
Manager: TypeAlias = ocp.CheckpointManager | None  # None in all processes but the first
UNFINISHED = "*.orbax-checkpoint-tmp*"  # the folder of a checkpoint while it is written


@contextmanager
def open_folder(path: Path, *, read_only: bool = False) -> Iterator[Manager]:
    """A manager of the checkpoints in `path`, which is made if it is missing; the two latest are kept.

    At the end saves under way are waited for, and what one that failed, or that a kill cut short, left is removed.

    Args:
      read_only: of a run that has finished; nothing is made or removed.

    Raises:
      WorkdirError: what stands there cannot be read, or a checkpoint could not be written.
    """
    _hide_repetitions()
    made: list[ocp.CheckpointManager] = []
    processes.first(lambda: made.append(_manager(path, read_only)))
    if not made:
        yield None
        return
    (manager,) = made
    try:
        yield manager
    except BaseException:
        with suppress(WorkdirError), _saving(manager):  # what ended the block is what is told
            manager.close()
        _remove_unfinished(path)
        raise
    with _saving(manager):
        manager.close()


def _manager(path: Path, read_only: bool) -> ocp.CheckpointManager:
    if not read_only:
        _remove_unfinished(path)
    options = ocp.CheckpointManagerOptions(max_to_keep=2, create=not read_only)
    if jax.process_count() > 1:
        with files.writing(path):
            path.mkdir(parents=True, exist_ok=True)
        options.create, options.multiprocessing_options = False, ocp.options.MultiprocessingOptions(active_processes={0})
    try:
        return ocp.CheckpointManager(path.absolute(), options=options)
    except Exception as error:  # of several kinds, as below
        raise WorkdirError(
            f"the checkpoints in {path} cannot be read ({line(error, 120)}): remove the latest of them, and results.json "
            "if there is one, and run again, which goes on from the one before it"
        ) from error


def save(manager: Manager, step: int, state: Any) -> None:
    """Save `state` in the background under `step`; a process killed meanwhile leaves the former checkpoint untouched.

    Raises:
      WorkdirError: a save before this one failed: a disk that is full, say.
    """
    if manager is None:
        return
    if jax.process_count() > 1:  # Orbax takes an array of one process for a mistake
        state = jax.tree.map(np.asarray, state)
    with _saving(manager):
        manager.save(step, args=ocp.args.StandardSave(state), custom_metadata={CHECKSUM: checksum(state)})


def wait(manager: Manager) -> None:
    """Until what was saved is on disk, in all processes: the first that leaves may be the end of the others.

    Raises:
      WorkdirError: it could not be saved.
    """

    def finish() -> None:
        if manager is not None:
            with _saving(manager):
                manager.wait_until_finished()

    processes.first(finish)


@contextmanager
def _saving(manager: ocp.CheckpointManager) -> Iterator[None]:
    folder = Path(manager.directory)
    try:
        yield
    except Exception as error:  # Orbax and TensorStore each raise their own kinds
        _remove_unfinished(folder)
        raise files.unwritable(folder, error) from error


def _remove_unfinished(folder: Path) -> None:
    """Remove checkpoints that were never whole."""
    for left in folder.glob(UNFINISHED):
        shutil.rmtree(left, ignore_errors=True)


def latest(manager: Manager) -> int:
    """The step of the latest checkpoint; 0 if there is none."""
    return processes.first(lambda: (manager and manager.latest_step()) or 0)


def restore_or(manager: Manager, initial: Any) -> tuple[int, Any]:
    """The latest checkpoint as (step, state), or (0, initial); `initial` also gives structure, shapes and devices.

    Raises:
      WorkdirError: a checkpoint that cannot be read.
    """
    if not (step := latest(manager)):
        return 0, initial
    if jax.process_count() == 1:
        return step, _restored(manager, step, initial)
    state = processes.first(lambda: jax.tree.map(np.asarray, _restored(manager, step, initial)))
    return step, jax.tree.map(lambda new, old: jnp.asarray(new) if isinstance(old, jax.Array) else new, state, initial)


def _restored(manager: Any, step: int, initial: Any) -> Any:
    abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, initial)
    try:
        state = manager.restore(step, args=ocp.args.StandardRestore(abstract))
        kept = (manager.metadata(step).custom_metadata or {}).get(CHECKSUM)
        if kept not in (None, checksum(state)):  # None: saved without one
            raise ValueError("its numbers are not those that were saved")
    except Exception as error:  # Orbax, TensorStore and the parsers of metadata each raise their own kinds
        raise WorkdirError(
            f"the checkpoint {manager.directory / str(step)} cannot be read ({line(error, 120)}): remove that folder and "
            "run again, which goes on from the checkpoint before it"
        ) from error
    return jax.tree.map(lambda new, old: np.asarray(new) if isinstance(old, np.ndarray) else new, state, initial)


def restore_raw(path: Path) -> Any:
    """The latest checkpoint in a folder of a finished run as nested dicts of arrays, whatever it was saved from.

    Raises:
      WorkdirError: there is none, or it cannot be read.
    """
    missing = (
        f"there are no checkpoints in {path}: remove results.json of that run and run again, which trains what is missing"
    )
    if not path.is_dir():
        raise WorkdirError(missing)
    with open_folder(path, read_only=True) as manager:
        assert manager is not None  # by one process
        step = manager.latest_step()
        if step is None:
            raise WorkdirError(missing)
        try:
            return manager.restore(step, args=ocp.args.StandardRestore())
        except Exception as error:  # of several kinds, as above
            raise WorkdirError(
                f"the checkpoint {path / str(step)} cannot be read ({line(error, 120)}): remove it and results.json of "
                "that run and run again, which goes on from the checkpoint before it"
            ) from error


@functools.cache
def _hide_repetitions() -> None:
    """Hide what reads and writes that failed tell, once they are collected, of an error that was raised before."""
    logging.getLogger("asyncio").addFilter(lambda record: "exception was never retrieved" not in record.getMessage())
    tell = sys.unraisablehook

    def hook(ignored: Any) -> None:
        if str(ignored.exc_value) != "Event loop is closed":
            tell(ignored)

    sys.unraisablehook = hook


def checksum(state: Any) -> int:
    """CRC-32 over the bytes of all leaves: TensorStore checks its indices, but not large arrays."""
    content: Callable[[Any], Any] = np.ascontiguousarray  # buffers, which stubs do not know
    return functools.reduce(lambda crc, leaf: zlib.crc32(content(leaf), crc), jax.tree.leaves(state), 0)

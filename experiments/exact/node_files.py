"""A study on disk: a file for each node while it trains, so that none is trained twice after a kill; then their logits."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from experiments.core.files import UNREADABLE, read_arrays, unreadable, write_arrays
from experiments.core.workdirs import AGAIN
from s3t.training.schedule import Setup
from s3t.training.source import from_tensors, to_tensors
from s3t.training.stages import Job, Trained

SECONDS = "seconds"

Logits = dict[Job, np.ndarray]  # (shard, node) -> [examples, classes]


def keep(folder: Path, job: Job, trained: Trained, seconds: float) -> None:
    """Write a node, whole or not at all, with the seconds that it took."""
    tensors = {**to_tensors(trained), SECONDS: np.float64(seconds)}
    write_arrays(folder / f"{name(job)}.npz", tensors)


def read(folder: Path, setup: Setup) -> tuple[dict[Job, Trained], dict[Job, float]]:
    """The nodes that were kept, and what each took.

    Raises:
      WorkdirError: a file that cannot be read.
    """
    nodes, seconds = {}, {}
    for path in sorted(folder.glob("*.npz")):
        job = parse(path.stem)
        tensors = read_arrays(path, AGAIN)
        try:
            seconds[job] = float(tensors.pop(SECONDS))
            source = setup.source
            nodes[job] = from_tensors(source.backbone, source.recipe.lora, setup.plan.slices, len(job[1]), tensors)
        except UNREADABLE as error:  # arrays of something else
            raise unreadable(path, error, AGAIN) from error
    return nodes, seconds


def drop(folder: Path) -> None:
    """Remove what was kept: once its logits are there nobody needs a node that saw what may be deleted."""
    shutil.rmtree(folder, ignore_errors=True)


def write_logits(file: Path, logits: Logits) -> None:
    """Write the logits of nodes, whole or not at all."""
    write_arrays(file, {name(job): of_node for job, of_node in logits.items()})


def read_logits(file: Path) -> Logits:
    """What `write_logits` wrote.

    Raises:
      WorkdirError: the file is damaged.
    """
    arrays = read_arrays(file, AGAIN)
    try:
        return {parse(label): of_node for label, of_node in arrays.items()}
    except ValueError as error:  # arrays of something else
        raise unreadable(file, error, AGAIN) from error


def name(job: Job) -> str:
    """A shard and a node as the name of a file or an array."""
    return f"{job[0]}_{'-'.join(map(str, job[1]))}"


def parse(text: str) -> Job:
    """The shard and the node of a name."""
    shard, node = text.split("_")
    return int(shard), tuple(map(int, node.split("-")))

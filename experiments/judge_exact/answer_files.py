"""What fleets answered, on disk: one file for each fleet; version 0.1 kept whole logits, which are read once.

A file holds, by state of a fleet, the three arrays of `fleets.Answers`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from experiments.core.files import unreadable
from experiments.core.workdirs import AGAIN
from experiments.judge import metrics
from experiments.judge_exact.fleets import Answers
from unlearn.metrics import scores


def write(file: Path, states: Mapping[str, Answers]) -> None:
    """Keep the answers of a fleet, whole or not at all."""
    metrics.keep(
        file, {f"{state}.{name}": leaf for state, answers in states.items() for name, leaf in answers._asdict().items()}
    )


def read(file: Path) -> dict[str, Answers]:
    """What `write` wrote.

    Raises:
      WorkdirError: the file cannot be read.
    """
    arrays = metrics.read(file)
    try:
        states = dict.fromkeys(name.rpartition(".")[0] for name in arrays)
        return {state: Answers(*(arrays[f"{state}.{name}"] for name in Answers._fields)) for state in states}
    except KeyError as error:
        raise unreadable(file, error, AGAIN) from error


def convert(old: Path, new: Path, labels: np.ndarray) -> None:
    """Write the answers of the logits that version 0.1 kept of a fleet, if it did and there are none.

    Args:
      old, new: files.
      labels: of the examples.

    Raises:
      WorkdirError: the old file cannot be read.
    """
    if new.exists() or not old.exists():
        return
    try:
        write(new, {state: of_logits(logits, labels) for state, logits in metrics.read(old).items()})
    except (ValueError, IndexError) as error:
        raise unreadable(old, error, AGAIN) from error


def of_logits(logits: np.ndarray, labels: np.ndarray) -> Answers:
    """The slow twin of what `fleets.answers` reduces, on the host: of logits [..., models, examples, classes]."""
    silent = np.asarray((logits == 0).all(axis=(-2, -1)))
    right = (logits.argmax(axis=-1) == labels) & ~silent[..., None]
    return Answers(scores.margin(logits, labels), right, silent)

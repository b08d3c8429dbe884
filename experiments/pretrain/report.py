"""The report of a pre-training, from the files of its workdir alone: the page, and what a terminal shows."""

from __future__ import annotations

import math
from pathlib import Path

from matplotlib.axes import Axes
from scipy import stats

from experiments.core import files, workdirs
from experiments.core.errors import WorkdirError
from experiments.core.results import Row, Run
from experiments.reporting import drawing, names, pages
from experiments.reporting.document import Block, Heading, Headline, Panel, Stat, Table, Text
from experiments.reporting.numbers import Cell, Number, bare, bracketed

SPLITS = {
    "test": "Examples that it was neither trained nor chosen on.",
    "validation": "Examples held out of the training set.",
    "train": "The examples it was trained on.",
}


def present(workdir: str, found: Run) -> str:
    """Write the report of a finished run; what the command line prints of it."""
    report = pages.told(write, workdir)
    accuracies = ", ".join(f"{split} {_accuracy(found.rows[0], split).text}%" for split in reversed(SPLITS))
    return f"accuracy: {accuracies}\n{report}"


def write(workdir: str | Path) -> Path:
    """Write the report of a finished pre-training; see `write_page`."""
    folder = Path(workdir)
    _, found = workdirs.read_run(folder)
    title = f"Forethought: a backbone pre-trained on {found.rows[0].dataset}"
    return pages.write_page(folder, title, compose(found, losses(folder / "metrics.jsonl")))


def losses(file: Path) -> dict[int, float]:
    """step -> training loss, as logged; of a step that was logged again after a kill, the last.

    Raises:
      WorkdirError: a step that no run wrote.
    """
    steps = [entry for entry in workdirs.entries(file) if entry.get("event") == "train"]
    numbers = [value for entry in steps for value in (entry.get("step"), entry.get("loss")) if value is not None]
    if not all(map(files.is_number, numbers)) or any(entry.get("step") is None for entry in steps):
        raise WorkdirError(f"{file} has a step that no run wrote: {workdirs.LOG_AGAIN}")
    return {entry["step"]: math.nan if entry.get("loss") is None else entry["loss"] for entry in steps}


def compose(found: Run, logged: dict[int, float]) -> list[Block]:
    """The blocks of the page."""
    row = found.rows[0]
    headline = [Stat(f"{split.capitalize()} accuracy", _accuracy(row, split), note, "%") for split, note in SPLITS.items()]
    seconds = row.train_seconds or math.nan
    rows: list[list[Cell]] = [[split, _accuracy(row, split)] for split in SPLITS]
    rows += [["steps", bare(row.steps, f"{row.steps:g}")], ["seconds", bare(seconds, f"{seconds:.3g}")]]
    note = (
        "Accuracies in %, with 95% intervals over examples (Wilson's). One model was trained, so that nothing is said of "
        "other seeds. What this model has seen cannot be unlearned by S3T, which freezes it."
    )
    return [
        Headline(_loss(logged), headline),
        Heading("Results"),
        Table(["what", "value"], rows, name="results"),
        Text(note),
    ]


def _accuracy(row: Row, split: str) -> Number:
    """In %, with Wilson's interval where the row counts the examples."""
    share, count = row.before[f"{split}_accuracy"], row.extra.get("examples", {}).get(split)
    if share is None or not count:
        return bracketed(math.nan if share is None else 100 * share, math.nan, math.nan)
    interval = stats.binomtest(round(share * count), count).proportion_ci(method="wilson")
    return bracketed(100 * share, 100 * interval.low, 100 * interval.high)


def _loss(logged: dict[int, float]) -> Panel:
    def draw(axes: Axes) -> None:
        steps = sorted(logged)
        drawing.line(axes, steps, [logged[step] for step in steps], names.OURS)
        axes.set(xlabel="step", ylabel="loss", xlim=(0, max(steps, default=1)))
        axes.set_ylim(bottom=0)

    return drawing.panel("loss", "Training loss, by step", draw)

"""What was tried to choose settings of requests: read off metrics.jsonl, and its table on the page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.comparison import methods, shown
from experiments.core import files, workdirs
from experiments.core.errors import WorkdirError
from experiments.reporting import names, numbers
from experiments.reporting.document import Block, Heading, Table, Text

TRIAL = {"learning_rate", "reached", "steps", "validation_retain_accuracy"}
LED = (
    " Where not all were reached, the mean share of the way to their end that requests led follows; of settings with as "
    "many reached, those that led less than half of the way come last."
)
SECOND = ("clip", "beta")  # what is chosen beside the learning rate: of requests to an accuracy, and of `level`


def sweeps(file: Path) -> list[dict[str, Any]]:
    """The last sweep of each unlearner, and of each way of training whose requests to a level were tuned on their own.

    Raises:
      WorkdirError: a sweep that no run wrote.
    """
    swept = [entry for entry in workdirs.entries(file) if entry.get("event") == "sweep"]
    if not all(map(_is_sweep, swept)):
        raise WorkdirError(f"{file} has a sweep that no run wrote: {workdirs.LOG_AGAIN}")
    return list({(entry["unlearner"], _tuned(entry)): entry for entry in swept}.values())


def section(swept: Sequence[dict[str, Any]], seen: shown.Shown) -> list[Block]:
    """Every setting that was tried, and which were chosen."""
    rows, edges = [], ""
    for event in swept:
        algorithm, way = names.algorithm(event["unlearner"]), _called(_tuned(event))
        rates = [trial["learning_rate"] for trial in event["trials"]]
        if event["chosen"]["learning_rate"] in (min(rates), max(rates)):
            edges += f" The rate chosen for {algorithm} and {way} lies at the edge of its grid."
        for trial in event["trials"]:
            second = _second(trial) or "clip"
            beside = f"{second} {trial[second]:g}" if trial[second] or second == "beta" else "no clip"
            models = len(trial["steps"])
            reached = f"{trial['reached']}/{models}{numbers.led(trial, models)}"
            taken = [reached, f"{np.median(trial['steps']):g} / {max(trial['steps'])}"]
            kept = trial.get(seen.tried)
            kept = methods.plain(math.nan if kept is None else kept, seen.kept)
            mark = "chosen" if event["chosen"].items() <= trial.items() else ""
            rows.append([algorithm, way, f"{trial['learning_rate']:g}", beside, *taken, kept, mark])
    if not rows:
        return []
    explained = LED if any("way" in trial for event in swept for trial in event["trials"]) else ""
    note = (
        f"Settings are chosen on {seen.chosen}. "
        "Requests that end at an accuracy: for vanilla, and all methods then use them. Requests that end at a level: for "
        "each method on its own, with as many trials; one that has rehearsed its request makes it as rehearsed."
        f"{explained}{edges}"
    )
    headers = ["algorithm", "chosen for", "learning rate", "", "reached", "steps\nmed / max", seen.chosen_by]
    return [Heading("Learning rate"), Text(note), Table([*headers, ""], rows, left=2, name="learning-rate")]


def _called(way: str) -> str:
    """What people call a way of training that is TRAINING-VARIANT, or a training alone."""
    training, _, variant = way.partition("-")
    return names.method(training, variant or "default").name


def _tuned(sweep: dict[str, Any]) -> str:
    """The way of training that a sweep is of, as TRAINING-VARIANT; those of 0.1 are vanilla's."""
    return str(sweep.get("selected_for", "vanilla"))


def _is_sweep(entry: dict[str, Any]) -> bool:
    """Whether a sweep has what is read of one."""
    chosen, trials = entry.get("chosen"), entry.get("trials")
    if not (isinstance(entry.get("unlearner"), str) and isinstance(chosen, dict) and isinstance(trials, list) and trials):
        return False
    return all(map(_is_trial, trials)) and files.is_number(chosen.get("learning_rate")) and _second(chosen) is not None


def _second(values: dict[str, Any]) -> str | None:
    """What stands beside the learning rate, if it is a number."""
    return next((name for name in SECOND if files.is_number(values.get(name))), None)


def _is_trial(trial: Any) -> bool:
    """Whether one setting of a sweep has the numbers that are read of it."""
    if not isinstance(trial, dict) or not trial.keys() >= TRIAL or not isinstance(trial["steps"], list):
        return False
    if _second(trial) is None:
        return False
    kept = [trial[name] for name in ("validation_retain_accuracy", "retained_loss") if trial.get(name) is not None]
    if "way" in trial and not (files.is_number(trial["way"]) and 0 <= trial["way"] <= 1):  # older versions have none
        return False
    every = (trial["learning_rate"], trial["reached"], *kept, *trial["steps"])
    return bool(trial["steps"]) and all(map(files.is_number, every))

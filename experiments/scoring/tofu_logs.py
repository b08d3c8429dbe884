"""Evaluation logs as TOFU's own code writes them: losses of answers, and ROUGE, of four sets of questions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from experiments.core import files
from experiments.core.errors import DataError
from unlearn.metrics.tofu import Answers

PARTS = {
    "forget": "eval_log_forget.json",
    "retain": "eval_log.json",
    "real_authors": "eval_real_author_wo_options.json",
    "world_facts": "eval_real_world_wo_options.json",
}
FIELDS = dict(
    zip(Answers._fields, ("avg_gt_loss", "avg_paraphrased_loss", "average_perturb_loss", "rougeL_recall"), strict=True)
)


def read_log(path: Path) -> dict[str, Answers]:
    """The answers of a log: forget, retain, real_authors and world_facts, questions in the order of their numbers.

    Raises:
      UserError: a file that cannot be read, or that lacks a part, a field or a question of one; one line that names it.
    """
    log = files.read_json(path, dict, mend="give a log as TOFU's evaluation aggregates it")
    return {name: _answers(path, part, _held(path, log, part, "the log")) for name, part in PARTS.items()}


def _answers(path: Path, part: str, fields: dict[str, Any]) -> Answers:
    columns = [_held(path, fields, name, part) for name in FIELDS.values()]
    first, *others = ({str(question) for question in column} for column in columns)
    if any(questions != first for questions in others):
        raise DataError(f"{path}: fields of {part} are of different questions: write the log anew")
    try:
        order = sorted(first, key=int)
        return Answers(*(np.array([column[question] for question in order], np.float64) for column in columns))
    except (TypeError, ValueError) as error:
        raise DataError(f"{path}: {part} holds something that is no number: write the log anew") from error


def _held(path: Path, values: dict[str, Any], name: str, where: str) -> dict[str, Any]:
    if not isinstance(values.get(name), dict):
        raise DataError(f"{path}: {where} has no {name!r}: give a log as TOFU's evaluation aggregates it")
    held: dict[str, Any] = values[name]
    return held

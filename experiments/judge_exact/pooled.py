"""U-LiRA of several exact judgements together: runs of one config under different seeds, on one backbone and one data set.

    python -m experiments.judge_exact.pooled DIR DIR ...

A run counts by its models. Given backbone and data runs have nothing in common, so that the half widths of their intervals
add in squares. Those of oracles are central 90% of what memberships that are nobody's give, of one fleet or of both; the
others leave groups of models out.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from experiments.core import workdirs
from experiments.core.errors import UserError, line
from experiments.core.results import Estimate, Row, Run
from experiments.judge.ulira import told
from experiments.judge_exact.report import name
from experiments.reporting import terminal
from experiments.reporting.document import Table
from experiments.reporting.estimates import cell, width

OWN = {"seed", "exact.models"}  # what runs may differ in


def main(folders: list[str]) -> int:
    """Print the table; the exit status."""
    try:
        if len(folders) < 2:
            raise UserError("give the workdirs of two finished exact judgements or more")
        print(terminal.to_text(pooled([workdirs.read_run(Path(folder)) for folder in folders]), terminal.width()))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def pooled(runs: list[tuple[dict[str, Any], Run]]) -> Table:
    """One line for each row of the judgements: every run's AUC with its 90% interval, and that of all models.

    Args:
      runs: (config, results) of each.

    Raises:
      UserError: runs that are not exact judgements of one config under different seeds.
    """
    configs = [config for config, _ in runs]
    if any(config.get("runner") != "judge_exact" for config in configs):
        raise UserError("some of these runs are no exact judgements: choose their workdirs")
    if len({str(config.get("seed")) for config in configs}) < len(configs):
        raise UserError("some of these runs have one seed, and so models in common: choose runs of different seeds")
    for config in configs[1:]:
        if differing := sorted(set(workdirs.differences(configs[0], config, "")) - OWN):
            raise UserError(f"these runs are of different configs ({', '.join(differing[:3])} differ): choose others")
    try:
        weights = np.array([config["exact"]["models"] for config in configs], float)
        found = [{_key(row): _interval(row) for row in run.rows} for _, run in runs]
        lines = [_line(key, [one[key] for one in found], weights / weights.sum()) for key in found[0]]
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise UserError(f"these runs do not go together ({line(error)}): judge them anew with this version") from error
    headers = [f"seed {config['seed']},\n{config['exact']['models']} models" for config in configs]
    return Table(["kind", "served", *headers, "together", "told\napart"], lines, left=2)


def _key(row: Row) -> tuple[str, str]:
    """Kind and what is served."""
    return str(row.facts["kind"]), name(row)


def _interval(row: Row) -> Estimate:
    """The AUC with its 90% interval; one of another version had other intervals, and no balanced accuracy."""
    found: Any = row.extra["ulira"]
    auc = found["estimate90"]
    if found["balanced_accuracy"].value is None or not auc.low <= auc.high:
        raise ValueError("a row has no interval")
    return Estimate(float(auc.value), float(auc.low), float(auc.high))


def _line(key: tuple[str, str], each: list[Estimate], weights: np.ndarray) -> list[str]:
    value = float(weights @ [one.value for one in each])
    half = float(np.hypot.reduce(weights * [width(one) / 2 for one in each]))
    together = Estimate(value, value - half, value + half)
    return [*key, *(str(cell(one)) for one in [*each, together]), told(value - half, value + half)]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

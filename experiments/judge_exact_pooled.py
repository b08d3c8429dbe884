"""U-LiRA of several exact judgements together: independent runs of one config under different seeds.

    python -m experiments.judge_exact_pooled DIR DIR ...

A run counts by its models. Runs share no model, so that the half widths of their intervals add in squares.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from experiments import page, results
from experiments.errors import UserError
from experiments.judge_exact_report import name, told
from experiments.page import Table

WIDTH = 170
OWN = {"seed", "exact.models", "pretrain.seed"}  # what runs may differ in


def main(folders: list[str]) -> int:
    """Print the table; the exit status."""
    try:
        if len(folders) < 2:
            raise UserError("give the workdirs of two finished exact judgements or more")
        print(page.to_text(pooled([results.read_run(Path(folder)) for folder in folders]), WIDTH))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def pooled(runs: list[tuple[dict[str, Any], dict[str, Any]]]) -> Table:
    """One line for each row of the judgements: every run's AUC with its 90% interval, and that of all models.

    Args:
      runs: (config, results) of each.

    Raises:
      UserError: runs that are not exact judgements of one config under different seeds.
    """
    configs = [config for config, _ in runs]
    if any(config.get("runner") != "judge_exact" for config in configs):
        raise UserError("some of these runs are no exact judgements: choose their workdirs")
    if len({config["seed"] for config in configs}) < len(configs):
        raise UserError("some of these runs have one seed, and so models in common: choose runs of different seeds")
    for config in configs[1:]:
        if differing := sorted({where.removeprefix("config.") for where in results.differences(configs[0], config)} - OWN):
            raise UserError(f"these runs are of different configs ({', '.join(differing[:3])} differ): choose others")
    weights = np.array([config["exact"]["models"] for config in configs], float)
    weights /= weights.sum()
    lines = []
    for rows in zip(*(found["rows"] for _, found in runs), strict=True):
        each = [row["extra"]["ulira"] for row in rows]
        value = float(weights @ [one["value"] for one in each])
        half = float(np.hypot.reduce(weights * [np.ptp(one["interval90"]) / 2 for one in each]))
        row, low, high = rows[0], value - half, value + half
        kind = row["variant"].partition(",")[0] if row["training"].endswith("oracle") else row["training"]
        cells = [f"{one['value']:.3f} [{one['interval90'][0]:.3f}, {one['interval90'][1]:.3f}]" for one in each]
        lines.append([kind, name(row), *cells, f"{value:.3f} [{low:.3f}, {high:.3f}]", told(low, high)])
    runs_ = [f"seed {config['seed']},\n{config['exact']['models']} models" for config in configs]
    return Table(["kind", "served", *runs_, "together", "told\napart"], lines, left=2)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""What a judgement found, from the files of its workdir alone: report.html, report.md, and a table for the terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from experiments import page, plots, report, results
from experiments.page import Block, Figures, Heading, Key, Table, Text
from experiments.plots import DASHES, FIXED, OTHERS, Style
from experiments.ways import NONE

WIDTH = 170
Row = dict[str, Any]

# header -> where a row has it, times what, digits
COLUMNS: dict[str, tuple[tuple[str, ...], float, int]] = {
    "forget\nacc.": (("intervals", "forget_accuracy"), 100, 1),
    "test-retain\nacc.": (("intervals", "test_retain_accuracy"), 100, 1),
    "ToW": (("tow",), 1, 3),
    "MIA\nAUC": (("mia",), 1, 3),
    "U-LiRA\nAUC": (("ulira",), 1, 3),
    "TPR\n@1%": (("ulira", "tpr_at_1%"), 100, 1),
    "KLoM\nforget": (("klom", "forget"), 1, 2),
    "KLoM\nretain": (("klom", "retain"), 1, 2),
    "KLoM\nvalid.": (("klom", "validation"), 1, 2),
    "epsilon": (("epsilon",), 1, 2),
    "RMIA\nAUC": (("rmia",), 1, 3),
    "relearn\narea": (("relearn",), 1, 2),
}


def present(workdir: str, found: dict[str, Any]) -> str:
    """Write the report of a finished run; what the command line prints of it."""
    file = write(workdir)
    parts = [f"{case}:\n{page.to_text(_table(rows, brief=True), WIDTH)}" for case, rows in _cases(found).items()]
    return "\n\n".join([*parts, f"report: {file}"])


def write(workdir: str | Path) -> Path:
    """Write report.html and report.md into a finished workdir, and return the path of the first.

    Raises:
      WorkdirError: a file of the run is missing or cannot be read; one line that says what to do.
    """
    folder = Path(workdir)
    config = results.read(folder / "config.json", dict, results.OTHER)
    found = results.read_results(folder / "results.json")
    title, blocks = compose(config, found)
    results.write(folder / "report.md", page.to_markdown(title, blocks))
    results.write(folder / "report.html", page.to_html(title, blocks))
    return folder / "report.html"


def compose(config: dict[str, Any], found: dict[str, Any]) -> tuple[str, list[Block]]:
    """The title and the blocks of the page."""
    models, tuning = config["judge"]["lanes"], config["judge"]["tuning"]
    blocks: list[Block] = [
        Text(
            "Every value is to be read beside the held-out oracle's, the floor: models retrained without the forget set, "
            f"compared with others of their kind. A row is {models} models that forgot one set (KLoM, epsilon, RMIA; the "
            f"first {config['seeds']} of them ToW, MIA and relearning) and {models} shadows that each forgot a half of its "
            "own of a pool (U-LiRA). Brackets are 95% intervals over models. Learning rate and steps were chosen for every "
            f"row from the same {len(tuning['learning_rates']) * len(tuning['steps'])} trials.",
            lead=True,
        )
    ]
    for case, rows in _cases(found).items():
        blocks += [Heading(f"Forget set: {case}"), _table(rows), *_pictures(rows), _costs(rows)]
    return f"Forethought: {config['data']['name']}, judged", [*blocks, *report.settings(config, found)]


def _cases(found: dict[str, Any]) -> dict[str, list[Row]]:
    cases: dict[str, list[Row]] = {}
    for row in found["rows"]:
        cases.setdefault(row["setting"], []).append(row)
    return cases


def _name(row: Row) -> str:
    return row["training"] if row["training"].endswith("oracle") else f"{row['training']}, {row['unlearner']}"


def _table(rows: Sequence[Row], brief: bool = False) -> Table:
    lines = []
    for row in rows:
        cells = [_cell(_at(row["extra"], path), scale, digits, brief) for path, scale, digits in COLUMNS.values()]
        failed = row["extra"]["failed"]
        lines.append([_name(row), *cells, f"{failed['repeats']} + {failed['shadows']}"])
    return Table(["way, algorithm", *COLUMNS, "failed"], lines)


def _at(extra: Any, path: Sequence[str]) -> dict[str, Any]:
    for name in path:
        extra = (extra or {}).get(name)
    return extra or {"value": None, "interval": [None, None]}


def _cell(found: dict[str, Any], scale: float, digits: int, brief: bool) -> str:
    value, (low, high) = found["value"], found["interval"]
    if value is None:
        return NONE
    if brief or low is None:
        return f"{scale * value:.{digits}f}"
    return f"{scale * value:.{digits}f} [{scale * low:.{digits}f}, {scale * high:.{digits}f}]"


def _costs(rows: Sequence[Row]) -> Table:
    lines = []
    for row in rows:
        setting = row["extra"]["setting"]
        chosen = f"{setting['learning_rate']:g} x {setting['steps']}" if setting else NONE
        counts = [
            row["train_flops"],
            row["train_seconds"],
            row["unlearn_flops"],
            row["unlearn_seconds"],
            row["peak_bytes"] / 2**20,
        ]
        lines.append([_name(row), chosen, *(f"{value:.3g}" if value else NONE for value in counts)])
    headers = ["way, algorithm", "rate x steps", "train\nFLOPs", "train\ns", "request\nFLOPs", "request\ns", "peak\nMiB"]
    return Table(headers, lines)


# --- Pictures ---------------------------------------------------------------------------------------------------------


def _pictures(rows: Sequence[Row]) -> list[Block]:
    """The oracle, doing nothing, and the best algorithm of each way by ToW: more could not be told apart."""
    drawn = [row for row in rows if row["training"].endswith("oracle")]
    drawn += [row for row in rows if (row["training"], row["unlearner"]) == ("vanilla", "none")]
    for training in dict.fromkeys(row["training"] for row in rows if row["unlearner"] != "none"):
        mine = [row for row in rows if row["training"] == training and row["unlearner"] != "none"]
        drawn.append(max(mine, key=lambda row: row["extra"]["tow"]["value"] or -math.inf))
    names = [_name(row) for row in drawn]
    free = iter(Style(colour, dash) for colour, dash in zip(OTHERS, DASHES, strict=False))
    styles = [FIXED[("oracle", "default")] if name == "oracle" else next(free) for name in names]
    panels = [
        ("U-LiRA: true-positive by false-positive rate", plots.svg(lambda axes: _roc(axes, drawn, styles))),
        ("U-LiRA AUC of each example, in order", plots.svg(lambda axes: _sorted(axes, drawn, styles, ("ulira",), "AUC"))),
        (
            "KLoM of each forget example, in order",
            plots.svg(lambda axes: _sorted(axes, drawn, styles, ("klom", "forget"), "nats")),
        ),
        ("Relearning from a part of the forgotten", plots.svg(lambda axes: _relearning(axes, drawn, styles))),
    ]
    legend = [Key(name, *style) for name, style in zip(names, styles, strict=True)]
    return [Figures(legend, panels), Text("Drawn is of each way the algorithm with the highest tug of war.")]


def _look(style: Style) -> dict[str, Any]:
    return {"color": style.colour, "linestyle": plots.pattern(style), "linewidth": 1.6}


def _roc(axes: Axes, rows: Sequence[Row], styles: Sequence[Style]) -> None:
    axes.plot([1e-3, 1], [1e-3, 1], color="#b5bdc4", linewidth=1)
    for row, style in zip(rows, styles, strict=True):
        if curve := row["extra"]["ulira"].get("roc"):
            axes.plot(curve["fpr"], np.maximum(curve["tpr"], 1e-4), **_look(style))
    axes.set(xscale="log", yscale="log", xlim=(1e-3, 1), ylim=(1e-3, 1), xlabel="false positives", ylabel="true positives")


def _sorted(axes: Axes, rows: Sequence[Row], styles: Sequence[Style], path: tuple[str, ...], label: str) -> None:
    for row, style in zip(rows, styles, strict=True):
        if each := _at(row["extra"], path).get("examples"):
            axes.plot(np.linspace(0, 100, len(each)), np.sort(each), **_look(style))
    axes.set(xlabel="examples, %", ylabel=label)


def _relearning(axes: Axes, rows: Sequence[Row], styles: Sequence[Style]) -> None:
    for row, style in zip(rows, styles, strict=True):
        axes.plot(100 * np.mean(np.array(row["extra"]["relearn"]["curves"]["part"], float), axis=0), **_look(style))
    axes.set(xlabel="step", ylabel="accuracy, %")

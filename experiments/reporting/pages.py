"""The pages of a finished run: report.html and report.md, its tables and figures, and what every page says of its run."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.core import workdirs
from experiments.core.errors import UnwritableError
from experiments.core.files import write_text
from experiments.core.results import Run
from experiments.reporting import document, exports
from experiments.reporting.document import Block, Heading, Table, Text


def write_page(workdir: str | Path, title: str, blocks: Sequence[Block]) -> Path:
    """Write report.html, report.md, tables/ and figures/ into a finished workdir, and return the path of the first.

    Args:
      blocks: of the page; its files, the settings of the run and its environment come after them.

    Raises:
      WorkdirError: a file of the run is missing or cannot be read; one line that says what to do.
    """
    folder = Path(workdir)
    blocks = [*blocks, *_settings(*workdirs.read_run(folder))]
    exports.write(folder, blocks)
    write_text(folder / "report.md", document.to_markdown(title, blocks))
    write_text(folder / "report.html", document.to_html(title, blocks))
    return folder / "report.html"


def told(write: Callable[[str], Path], workdir: str) -> str:
    """Write a report, and say where it is; or why the disk took none: results are read all the same.

    Args:
      write: writes it.
    """
    try:
        return f"report: {write(workdir)}"
    except UnwritableError as error:
        return f"report: none, {error}"


def _settings(sections: Mapping[str, Any], found: Run) -> list[Block]:
    """What every page ends with: its files, the settings of the run by section, and where it ran."""
    parts = {"run": {name: value for name, value in sections.items() if not isinstance(value, dict)}}
    parts |= {name: value for name, value in sections.items() if isinstance(value, dict) and value}
    values = {
        name: ", ".join(f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in part.items())
        for name, part in parts.items()
    }
    facts = {"command": found.command, **found.environment}
    return [
        Heading("Files"),
        Text(
            "All tables are in tables/ as CSV and LaTeX (booktabs), and all figures in figures/ as SVG and "
            "PDF. The rows behind them are in results.json."
        ),
        Heading("Settings"),
        Table(["section", "values"], list(values.items()), left=2, prose=True),
        Heading("Environment"),
        Table(["what", "value"], [[name, str(value)] for name, value in facts.items() if value], left=2, prose=True),
    ]

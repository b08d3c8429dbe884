"""The pages of a finished run: report.html and report.md, and what every page says of its run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from experiments.core import workdirs
from experiments.core.files import write_text
from experiments.core.results import Run
from experiments.reporting import document
from experiments.reporting.document import Block, Heading, Table


def write_page(workdir: str | Path, compose: Callable[[dict[str, Any], Run], tuple[str, list[Block]]]) -> Path:
    """Write report.html and report.md into a finished workdir, and return the path of the first.

    Args:
      compose: contents of config.json, and the run of results.json -> title and blocks of the page.

    Raises:
      WorkdirError: a file of the run is missing or cannot be read; one line that says what to do.
    """
    folder = Path(workdir)
    title, blocks = compose(*workdirs.read_run(folder))
    write_text(folder / "report.md", document.to_markdown(title, blocks))
    write_text(folder / "report.html", document.to_html(title, blocks))
    return folder / "report.html"


def settings(config: dict[str, Any], found: Run) -> list[Block]:
    parts = {"run": {name: value for name, value in config.items() if not isinstance(value, dict)}}
    parts |= {name: value for name, value in config.items() if isinstance(value, dict) and value}
    said = {
        name: ", ".join(f"{k}: {json.dumps(v, ensure_ascii=False)}" for k, v in part.items())
        for name, part in parts.items()
    }
    told = {"command": found.command, **found.environment}
    return [
        Heading("Settings"),
        Table(["section", "values"], list(said.items()), left=2, prose=True),
        Heading("Environment"),
        Table(["what", "value"], [[name, str(value)] for name, value in told.items() if value], left=2, prose=True),
    ]

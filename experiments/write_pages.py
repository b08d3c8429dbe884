"""The pages of a finished run: report.html and report.md, and what every page says of its run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from experiments import page, results
from experiments.page import Block, Heading, Table


def write_page(workdir: str | Path, compose: Callable[[dict[str, Any], dict[str, Any]], tuple[str, list[Block]]]) -> Path:
    """Write report.html and report.md into a finished workdir, and return the path of the first.

    Args:
      compose: contents of config.json and of results.json -> title and blocks of the page.

    Raises:
      WorkdirError: a file of the run is missing or cannot be read; one line that says what to do.
    """
    folder = Path(workdir)
    title, blocks = compose(*results.read_run(folder))
    results.write(folder / "report.md", page.to_markdown(title, blocks))
    results.write(folder / "report.html", page.to_html(title, blocks))
    return folder / "report.html"


def settings(config: dict[str, Any], found: dict[str, Any]) -> list[Block]:
    parts = {"run": {name: value for name, value in config.items() if not isinstance(value, dict)}}
    parts |= {name: value for name, value in config.items() if isinstance(value, dict) and value}
    said = {
        name: ", ".join(f"{k}: {json.dumps(v, ensure_ascii=False)}" for k, v in part.items())
        for name, part in parts.items()
    }
    told = {"command": found.get("command"), **found.get("environment", {})}
    return [
        Heading("Settings"),
        Table(["section", "values"], list(said.items()), left=2, prose=True),
        Heading("Environment"),
        Table(["what", "value"], [[name, str(value)] for name, value in told.items() if value], left=2, prose=True),
    ]

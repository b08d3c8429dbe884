"""Make the notebooks in docs/notebooks from their sources in experiments/notebooks; `make notebooks`.

Each begins with a badge that opens it in Colab, and with the cell of experiments/notebooks/guard.py. Outputs are not kept:
with --execute, notebooks are run, and what they show goes to build/notebooks.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]
SOURCES, NOTEBOOKS = ROOT / "experiments/notebooks", ROOT / "docs/notebooks"
REPOSITORY = "OWNER/forethought"  # on GitHub, for Colab
NEEDS = {  # notebook, in the order of reading -> extras, and modules of which one is missing where they are
    "readiness": ("experiments", "unlearn", "ml_collections"),
    "s3t": ("experiments", "unlearn", "ml_collections"),
    "your_own": ("experiments", "unlearn", "ml_collections"),
    "judge": ("experiments", "unlearn", "ml_collections"),
    "language": ("experiments,text", "unlearn", "ml_collections", "tokenizers"),
}
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
FOLDED = {"cellView": "form", "tags": ["hide-cell"]}  # in Colab; on the site
TIMEOUT = 900  # seconds for a cell


def made(name: str) -> nbformat.NotebookNode:
    """A notebook, made from its source."""
    address = f"https://colab.research.google.com/github/{REPOSITORY}/blob/main/docs/notebooks/{name}.ipynb"
    badge = f"[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({address})"
    guard = (SOURCES / "guard.py").read_text("utf-8")
    call = f"install({', '.join(repr(need) for need in NEEDS[name])})".replace("'", '"')
    cells = jupytext.read(SOURCES / f"{name}.py", fmt="py:percent").cells
    cells[1:1] = [nbformat.v4.new_code_cell(f"# @title Install\n{guard}\n\n{call}", metadata=FOLDED)]
    cells[:0] = [nbformat.v4.new_markdown_cell(badge)]
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number}"  # the library draws them
        cell["metadata"] = {key: value for key, value in cell["metadata"].items() if key in FOLDED}
    return nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": KERNEL})


def text(name: str) -> str:
    """A notebook as the text of its file."""
    return str(nbformat.writes(made(name))) + "\n"


def executed(name: str, folder: Path) -> nbformat.NotebookNode:
    """A notebook with its outputs.

    Args:
      folder: where it is run.

    Raises:
      nbclient.exceptions.CellExecutionError: a cell that fails.
    """
    notebook = made(name)
    place = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=TIMEOUT, kernel_name=KERNEL["name"], resources=place).execute()
    return notebook


def main() -> None:
    """Make the notebooks, and run them if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--execute", action="store_true", help="run them, and write them with outputs to build/notebooks")
    parser.add_argument("--only", nargs="+", choices=NEEDS, default=list(NEEDS), help="those to run; all unless given")
    args = parser.parse_args()
    for name in NEEDS:
        (NOTEBOOKS / f"{name}.ipynb").write_text(text(name), "utf-8")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    for name in args.only if args.execute else ():
        folder = ROOT / "build/notebooks" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder.parent / f"{name}.ipynb").write_text(nbformat.writes(executed(name, folder)), "utf-8")


if __name__ == "__main__":
    main()

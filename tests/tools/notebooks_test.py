"""The notebooks: committed files are those that the sources make, what they name is there, and they run."""

import ast
import importlib
import json
import re

import pytest

from tests.helpers import docs
from tests.helpers.docs import ROOT

SOURCES = sorted((ROOT / "experiments/notebooks").glob("*.py"))
NAMES = [path.stem for path in SOURCES if path.stem not in ("__init__", "guard")]


@pytest.fixture(scope="module")
def notebooks():
    """What makes them; the extra `notebooks` brings what it stands on."""
    pytest.importorskip("jupytext", reason="needs the extra notebooks")
    pytest.importorskip("nbclient", reason="needs the extra notebooks")
    from tools import notebooks

    return notebooks


def source(name):
    return (ROOT / f"experiments/notebooks/{name}.py").read_text("utf-8")


def committed(name):
    return (ROOT / f"docs/notebooks/{name}.ipynb").read_text("utf-8")


def markdown(name):
    cells = json.loads(committed(name))["cells"]
    return "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


def test_every_source_is_a_notebook_and_is_listed(notebooks):
    assert sorted(notebooks.NEEDS) == NAMES == sorted(path.stem for path in (ROOT / "docs/notebooks").glob("*.ipynb"))
    page = (ROOT / "docs/notebooks/README.md").read_text("utf-8")
    assert re.findall(r"\]\((\w+)\.ipynb\)", page) == list(notebooks.NEEDS)


@pytest.mark.parametrize("name", NAMES)
def test_a_committed_notebook_is_what_its_source_makes(name, notebooks):
    assert committed(name) == notebooks.text(name), "run make notebooks"


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_has_a_badge_a_guard_a_title_and_no_output(name, notebooks):
    first, title, guard, *rest = json.loads(committed(name))["cells"]
    assert f"/{notebooks.REPOSITORY}/blob/main/docs/notebooks/{name}.ipynb" in "".join(first["source"])
    assert "".join(title["source"]).startswith("# ")
    extras, *modules = notebooks.NEEDS[name]
    call = guard["source"][-1]
    assert call.startswith(f'install("{extras}"') and all(f'"{module}"' in call for module in modules)
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in rest)
    assert len(committed(name)) < 100_000


@pytest.mark.parametrize("name", NAMES)
def test_what_a_notebook_imports_is_there(name):
    for node in ast.walk(ast.parse(source(name))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                importlib.import_module(alias.name)
        elif isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module)
            for alias in node.names:
                assert hasattr(module, alias.name) or importlib.import_module(f"{node.module}.{alias.name}")


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_names_no_absolute_path(name):
    strings = [node.value for node in ast.walk(ast.parse(source(name))) if isinstance(node, ast.Constant)]
    assert not [text for text in strings if isinstance(text, str) and re.match(r"(/|~|[A-Za-z]:\\)\w", text)]
    assert not re.search(r"(^|[\s\"'(`])/(home|root|tmp|work|usr|content)\b", committed(name))


@pytest.mark.parametrize("name", NAMES)
def test_links_of_a_notebook_lead_to_files_and_headings(name):
    for target in re.findall(r"\]\(([^)\s]+)\)", markdown(name)):
        path, _, anchor = target.partition("#")
        if "://" in target:
            continue
        file = (ROOT / "docs/notebooks" / path).resolve()
        assert file.exists() and (not anchor or anchor in docs.anchors(file)), target


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_runs(name, notebooks, tmp_path, monkeypatch):
    monkeypatch.setenv("SMOKE", "1")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    done = notebooks.executed(name, tmp_path)
    outputs = [output for cell in done.cells if cell.cell_type == "code" for output in cell.outputs]
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) > 2
    assert not [output.text for output in outputs if output.get("name") == "stderr"]

"""The guard of the notebooks: it installs where something is missing, and never another jax or numpy."""

import subprocess
import sys
from importlib import metadata

import pytest

from experiments.notebooks import guard


@pytest.fixture
def lines(monkeypatch):
    """The command lines that were run; each ends with status 0."""
    run = []
    monkeypatch.setattr(subprocess, "run", lambda line, check: run.append(line) or subprocess.CompletedProcess(line, 0))
    return run


def test_nothing_is_installed_where_all_is_there(lines):
    guard.install("experiments", "unlearn", "jax")
    assert lines == []


def test_what_is_missing_is_installed_beside_the_jax_that_is_there(lines):
    guard.install("experiments,text", "unlearn", "no_such_module")
    (line,) = lines
    assert line[:6] == [sys.executable, "-m", "pip", "install", "-q", "forethought[experiments,text]"]
    pins = {f"{name}=={metadata.version(name)}" for name in ("jax", "jaxlib", "numpy")}
    assert pins <= set(line[6:]) and all("==" in pin for pin in line[6:])
    assert not {"-U", "--upgrade", "--force-reinstall"} & set(line)


def test_plugins_of_jax_stay_too_and_nothing_else(monkeypatch):
    class Part:
        def __init__(self, name, version):
            self.metadata, self.version = {"Name": name}, version

    versions = {"jax": "9.1", "jax-cuda13-plugin": "9.2", "NumPy": "9.3", "flax": "9.4", None: "9.5"}
    monkeypatch.setattr(metadata, "distributions", lambda: [Part(*pair) for pair in versions.items()])
    assert guard.kept() == ["jax-cuda13-plugin==9.2", "jax==9.1", "numpy==9.3"]


def test_a_jax_that_is_too_old_is_one_line(monkeypatch):
    monkeypatch.setattr(subprocess, "run", lambda line, check: subprocess.CompletedProcess(line, 1))
    with pytest.raises(RuntimeError, match="choose a newer runtime") as caught:
        guard.install("experiments", "no_such_module")
    assert "\n" not in str(caught.value)

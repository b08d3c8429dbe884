"""The command line as a program: its version, its entry points, and lines that fit the terminal."""

import importlib.metadata
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from s3t import cli
from s3t.cli import arguments, terminal
from s3t.service.factory import source_of
from s3t.training.source import Source
from tests.helpers import stacks

ROOT = Path(__file__).resolve().parents[3]


def test_the_version_is_that_of_the_distribution_or_unknown(capsys, monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    for version, expected in ((lambda name: {"forethought": "9.8"}[name], "s3t 9.8\n"), (missing, "s3t unknown\n")):
        monkeypatch.setattr(importlib.metadata, "version", version)
        with pytest.raises(SystemExit) as left:
            cli.main(["--version"])
        assert left.value.code in (0, None) and capsys.readouterr().out == expected
    assert arguments.version() == "unknown"


def test_the_module_runs_and_needs_no_jax_for_its_version():
    done = subprocess.run([sys.executable, "-m", "s3t", "--version"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("s3t ")


def test_long_lines_are_folded_at_spaces_and_trees_and_hashes_left_alone():
    head = "head: " + 64 * "a" + " after 3 rows"
    text = "depth served by shard 4, 4, 3\n├─ 0 1 2 3 4 5 6 7 8 9 10 11\nshort\n" + head
    lines = terminal.folded(text, 24).split("\n")
    assert lines[:4] == ["depth served by shard 4,", "  4, 3", "├─ 0 1 2 3 4 5 6 7 8 9 10 11", "short"]
    assert lines[4:] == ["head:", "  " + 64 * "a", "  after 3 rows"]
    assert terminal.folded(text, 200) == text


def test_a_pipe_gets_whole_lines():
    assert terminal.fitted("word " * 99) == "word " * 99  # pytest's standard output is no terminal


def test_an_old_factory_that_gives_positions_is_told_to_name_them(monkeypatch):
    module = ModuleType("old_factory")
    module.make = lambda hyper: Source(stacks.BACKBONE, stacks.frozen())
    monkeypatch.setitem(sys.modules, "old_factory", module)
    with pytest.raises(ValueError, match=r"must name what it gives Source, as Source\(backbone=..., ...\)"):
        source_of("old_factory:make", {}, {})


@pytest.mark.parametrize(
    "text, told",
    [
        ("raise SystemExit(0)", "its module ends the process"),
        ("def make(hyper): raise SystemExit(0)", "ends the process instead of giving a source"),
    ],
)
def test_a_factory_that_ends_the_process_is_one_line(tmp_path, monkeypatch, text, told):
    (tmp_path / "ending_factory.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "ending_factory", raising=False)
    with pytest.raises(ValueError, match=told) as caught:
        source_of("ending_factory:make", {}, {})
    assert "\n" not in str(caught.value)

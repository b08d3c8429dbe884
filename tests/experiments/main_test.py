"""A mistake on the command line: one line on standard error, exit status 2, and nothing touched."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CONFIG = "--config=experiments/configs/readiness.py:digits"


def command(*flags, platforms="cpu"):
    command = [sys.executable, "-m", "experiments.main", *flags]
    env = {**os.environ, "JAX_PLATFORMS": platforms}
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=500, check=False)


@pytest.mark.parametrize(
    "flags, message",
    [
        pytest.param(
            [CONFIG, "--config.readiness.form=odd"], "config.readiness.form is 'odd': choose gain or raw", id="a bad value"
        ),
        pytest.param([CONFIG, "--config.train.stepz=3"], 'no key train.stepz: Did you mean "steps"', id="nearly a key"),
        pytest.param([CONFIG, "--config.odd=3"], "no key odd: the keys and their meaning stand in", id="an unknown key"),
        pytest.param([CONFIG, "--config.seed.odd=3"], "no key seed.odd: ", id="a key of a number"),
        pytest.param([CONFIG, "--config.seeds=many"], "many", id="a wrong type"),
        pytest.param([CONFIG, "--config.model.options.widths[0]=1"], "0 is not a valid index", id="an entry of a tuple"),
        pytest.param([CONFIG, "again"], "unexpected argument 'again'", id="a stray word"),
        pytest.param([CONFIG + "s"], "readiness.py:digitss is unknown", id="an unknown config"),
    ],
)
def test_a_mistake_is_one_line_and_exit_status_2(flags, message, tmp_path):
    used, new = tmp_path / "used", tmp_path / "new"
    used.mkdir()
    (used / "config.json").write_text("{}")
    workdir = used if "again" in flags else new
    done = command(*flags, f"--workdir={workdir}")
    assert done.returncode == 2 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ") and message in line and "Traceback" not in done.stderr
    assert not new.exists() and [file.name for file in used.iterdir()] == ["config.json"]
    assert (used / "config.json").read_text() == "{}"


@pytest.mark.parametrize(
    "flags, platforms, message",
    [
        pytest.param(["--flagfile=/no/such/file"], "cpu", "Unable to open flagfile: ", id="a flagfile"),
        pytest.param([CONFIG], "odd", "Unable to initialize backend 'odd'", id="a platform"),
    ],
)
def test_what_a_library_refuses_is_one_line_and_exit_status_2(flags, platforms, message, tmp_path):
    done = command(*flags, f"--workdir={tmp_path / 'new'}", platforms=platforms)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {message}") and not (tmp_path / "new").exists()

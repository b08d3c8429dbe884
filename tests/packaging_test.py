"""The wheel: what it holds, and both console scripts from it, installed into a virtual environment of its own.

The environment sees the packages that the tests run with, but nothing of the checkout.
"""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from email import message_from_string
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("unlearn", "readiness", "s3t", "federated", "experiments")
SMALL = (
    "--config.seeds=1", "--config.train.steps=22", "--config.trainings=('oracle', 'heldout_oracle', 'vanilla')",
    "--config.equal_flops=False", "--config.request.learning_rates=(0.05,)", "--config.request.max_steps=5",
    "--config.relearn.steps=2",
)  # fmt: skip
PURE = {"jax", "numpy", "optax", "safetensors", "scikit-learn", "scipy"}

pytestmark = pytest.mark.slow


def run(*line, cwd, **env):
    env = {"PATH": os.environ["PATH"], "HOME": str(cwd), "JAX_PLATFORMS": "cpu", **env}
    done = subprocess.run([*map(str, line)], cwd=cwd, env=env, capture_output=True, text=True, timeout=1500, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy of what is packaged, with a template and a style sheet beside those that there are."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for room in ROOMS:
        shutil.copytree(ROOT / room, source / room, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    probes = source / "experiments/reporting/probes"
    probes.mkdir()
    for name in ("page.html.jinja", "page.css", "schema.json", "notes.txt"):
        (probes / name).write_text("probe")
    # An old setuptools cannot build the wheel: a newer one is then fetched, as pip does by default.
    new_enough = int(metadata.version("setuptools").split(".")[0]) >= 77
    here = ["--no-build-isolation"] if new_enough else []
    status, _, told = run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", *here, "-w", out, source, cwd=out)
    assert status == 0, told
    (made,) = out.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def scripts(wheel, tmp_path_factory):
    """The folder of the console scripts."""
    root = tmp_path_factory.mktemp("installed") / "venv"
    for line in (
        [sys.executable, "-m", "venv", "--without-pip", root],
        [sys.executable, "-m", "pip", "-q", "--python", root / "bin/python", "install", "--no-deps", wheel],
    ):
        status, _, told = run(*line, cwd=root.parent)
        assert status == 0, told
    (packages,) = root.glob("lib/python*/site-packages")
    (packages / "of_the_tests.pth").write_text(sysconfig.get_path("purelib"))  # a path in a .pth is not searched for others
    return root / "bin"


@pytest.fixture
def namesakes(tmp_path):
    """Where a user works who has an `experiments`, an `s3t` and an `unlearn` of his own."""
    (tmp_path / "experiments").mkdir()
    for file in ("experiments/__init__.py", "s3t.py", "unlearn.py"):
        (tmp_path / file).write_text("raise ImportError('a namesake')")
    return tmp_path


@pytest.fixture(params=["empty", "namesakes"])
def folder(request, tmp_path):
    """An empty folder, and one with namesakes."""
    return tmp_path if request.param == "empty" else request.getfixturevalue("namesakes")


def test_the_wheel_holds_the_rooms_and_their_data_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == set(ROOMS)
    probes = {Path(name).name for name in names if "/probes/" in name}
    assert probes == {"page.html.jinja", "page.css", "schema.json"}
    packaged = {path.relative_to(ROOT).as_posix() for room in ROOMS for path in (ROOT / room).rglob("*.py")}
    assert packaged <= set(names)


def test_the_pure_rooms_need_little_and_the_extras_the_rest(wheel):
    archive = zipfile.ZipFile(wheel)
    (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
    told = message_from_string(archive.read(name).decode())
    needed = [line.split(";") for line in told.get_all("Requires-Dist")]
    assert {line[0].split(">")[0].strip() for line in needed if len(line) == 1} == PURE
    extras = set(told.get_all("Provides-Extra"))
    assert {"experiments", "privacy", "test"} <= extras and told["Version"].startswith("0.2.0")


def test_both_scripts_answer(scripts, folder):
    status, out, told = run(scripts / "forethought", "--version", cwd=folder)
    assert (status, told) == (0, "") and out.startswith("forethought 0.2.0")
    status, out, told = run(scripts / "forethought", "--list", cwd=folder)
    assert (status, told) == (0, "") and "readiness:digits" in out
    status, out, told = run(scripts / "s3t", "plan", "--planner", "stumps", "--slices", "2", cwd=folder)
    assert (status, told) == (0, "") and out


def test_a_mistake_is_one_line(scripts, folder):
    given = "--config=readiness:digits", "--config.odd=1", "--workdir=there"
    status, out, told = run(scripts / "forethought", *given, cwd=folder)
    assert (status, out) == (2, "") and told.startswith("error: the config has no key odd") and told.count("\n") == 1


def test_a_comparison_runs_and_writes_its_report(scripts, namesakes):
    status, out, told = run(scripts / "forethought", "--config=readiness:digits", "--workdir=there", *SMALL, cwd=namesakes)
    assert status == 0, told
    assert (namesakes / "there/report.html").exists() and "Vanilla" in out
    assert re.search("^100% readiness: done", told, re.MULTILINE) and "Traceback" not in told  # a slow report has a line


def test_modules_of_the_users_own_are_found(scripts, tmp_path):
    (tmp_path / "mine.py").write_text("from experiments.configs.readiness import defaults\nNAME = 'of the user'\n")
    (tmp_path / "config.py").write_text(
        "import mine\ndef get_config():\n    config = mine.defaults()\n    config.runner = mine.NAME\n    return config\n"
    )
    status, _, told = run(scripts / "forethought", "--config=config.py", "--workdir=there", cwd=tmp_path)
    assert status == 2 and told.startswith("error: config.runner 'of the user' is unknown")

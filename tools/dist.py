"""Build the wheel and the sdist, and try them as users get them: `python -m tools.dist PYTHON ...`, or `make dist`.

The wheel is made from the sdist, and twine checks both. Each Python gets an empty environment with the wheel, where the
quickstart's commands run at a small size, outside of the checkout. With --notebooks the notebooks run, too, in an
environment that has JAX and a kernel alone, as in Colab: their first cell installs the wheel. Nothing is published.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from configparser import ConfigParser
from pathlib import Path

from tools.notebooks import NEEDS, NOTEBOOKS, REPOSITORY, ROOT, TIMEOUT

OUT = ROOT / "dist"
LIMIT = 1800  # seconds for a command
NEW_ENOUGH = "import sys, venv; print(sys.executable); sys.exit(sys.version_info < (3, 11))"
INSTALLED = (
    "import platform as p, jax, unlearn; print(unlearn.__version__, p.python_version(), jax.__version__, unlearn.__file__)"
)
SMALL = (
    "--config.seeds=1", "--config.train.steps=22", "--config.trainings=('oracle', 'heldout_oracle', 'vanilla')",
    "--config.equal_flops=False", "--config.request.learning_rates=(0.05,)", "--config.request.max_steps=5",
    "--config.relearn.steps=2",
)  # fmt: skip
TOY = '--hyper={"range": 16.0, "train_size": 60, "epochs": 1, "batch_size": 8}'


class Failed(Exception):
    """What does not work, in one line; or in more, the last of which is a command's own."""


def run(words: Sequence[str | Path], folder: Path, **variables: str) -> str:
    """What a command prints, outside of the checkout and of this environment.

    Raises:
      Failed: its exit status is not 0.
    """
    env = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))}
    env |= {"JAX_PLATFORMS": "cpu"} | variables
    line = [str(word) for word in words]
    try:
        done = subprocess.run(line, cwd=folder, env=env, capture_output=True, text=True, timeout=LIMIT, check=False)
    except subprocess.TimeoutExpired:
        raise Failed(f"{shlex.join(line)} took more than {LIMIT} seconds") from None
    if done.returncode:
        last = (done.stdout + done.stderr).splitlines()[-15:]
        raise Failed("\n".join([f"{shlex.join(line)} ended with status {done.returncode}:", *last]))
    return done.stdout


def interpreter(name: str) -> Path:
    """The path of a Python that can be tried.

    Raises:
      Failed: it is missing, too old, or cannot make environments.
    """
    try:
        return Path(run([name, "-c", NEW_ENOUGH], ROOT).strip())
    except (OSError, Failed):
        raise Failed(
            f"{name} is no Python >= 3.11 with venv: install it, or name others by PYTHONS='python3.12 ...'"
        ) from None


def remarks(version: str, changelog: str, repository: str, changes: str) -> list[str]:
    """What must not be so at a release, a line each.

    Args:
      version: that of setup.cfg.
      changelog: its text.
      repository: where the badges of the notebooks lead.
      changes: what git says of files that differ from the last commit.
    """
    dated = re.search(rf"^## \[?{re.escape(version)}\]? - \d{{4}}-\d\d-\d\d$", changelog, re.MULTILINE)
    unreleased = re.search(r"^## \[Unreleased\]\n(.*?)(?=^## |\Z)", changelog, re.MULTILINE | re.DOTALL)
    badges = f"badges of the notebooks lead to {repository}: set REPOSITORY in tools/notebooks.py, then make notebooks"
    lines = [
        (not re.fullmatch(r"\d+\.\d+\.\d+", version), f"version {version} of setup.cfg is no release's"),
        (not dated, f"CHANGELOG.md has no dated section {version}"),
        (unreleased and unreleased[1].strip(), "CHANGELOG.md has lines under Unreleased"),
        (repository.startswith("OWNER/"), badges),
        (changes.strip(), "files differ from the last commit"),
    ]
    return [line for so, line in lines if so]


def quickstart(page: str) -> list[list[str]]:
    """The commands of a page's sh blocks, at a small size."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    lines = [shlex.split(line, comments=True) for block in blocks for line in block.splitlines()]
    return [small(words) for words in lines if words]


def small(words: list[str]) -> list[str]:
    """A command with options that make it quick."""
    if any(word.startswith("--config=readiness") for word in words):
        return [*words, *SMALL]
    return [*words, TOY] if words[:4] == ["python", "-m", "s3t", "train"] else words


def build() -> tuple[Path, str]:
    """Wheel and sdist in an empty OUT, checked by twine: the wheel and its version."""
    shutil.rmtree(OUT, ignore_errors=True)
    run([sys.executable, "-m", "build", "--outdir", OUT, ROOT], ROOT)
    run([sys.executable, "-m", "twine", "check", "--strict", *sorted(OUT.iterdir())], ROOT)
    (wheel,) = OUT.glob("*.whl")
    return wheel, wheel.name.split("-")[1]


def environment(python: Path, folder: Path, *wanted: str) -> Path:
    """The scripts of a new environment in which this is installed."""
    run([python, "-m", "venv", folder], folder.parent)
    run([folder / "bin/python", "-m", "pip", "install", "--quiet", *wanted], folder.parent)
    return folder / "bin"


def try_quickstart(python: Path, wheel: Path, version: str, folder: Path) -> str:
    """Install the wheel and run the quickstart: what ran where.

    Raises:
      Failed: something does not work.
    """
    scripts = environment(python, folder / "venv", f"{wheel}[experiments]")
    empty = folder / "empty"
    empty.mkdir()
    found, release, jax, file = run([scripts / "python", "-c", INSTALLED], empty).split(maxsplit=3)
    if found != version or not Path(file).is_relative_to(folder):
        raise Failed(f"{python} imports version {found} from {file.strip()}, not the wheel of {version}")
    commands = quickstart((ROOT / "docs/quickstart.md").read_text("utf-8"))
    for words in commands:
        run([scripts / words[0], *words[1:]], empty)
    return f"Python {release} with jax {jax}: {len(commands)} commands of the quickstart"


def try_notebook(scripts: Path, name: str, folder: Path, smoke: bool) -> None:
    """Run a committed notebook; what it is to install lies in OUT.

    Raises:
      Failed: a cell fails.
    """
    shutil.copy(NOTEBOOKS / f"{name}.ipynb", folder)
    size = {"SMOKE": "1"} if smoke else {}
    line: list[str | Path] = [scripts / "jupyter-execute", "--inplace", f"--timeout={TIMEOUT}", f"{name}.ipynb"]
    run(line, folder, PATH=f"{scripts}{os.pathsep}{os.environ['PATH']}", PIP_FIND_LINKS=str(OUT), **size)


def try_notebooks(python: Path, names: Sequence[str], smoke: bool) -> None:
    """Run notebooks as Colab does, one after another in one environment.

    Raises:
      Failed: a cell fails.
    """
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made).resolve()
        scripts = environment(python, folder / "venv", "jax", "ipykernel", "nbclient")
        for name in names:
            started = time.monotonic()
            try_notebook(scripts, name, folder, smoke)
            print(f"  notebook {name} in {time.monotonic() - started:.0f} s", flush=True)


def main(arguments: list[str] | None = None) -> int:
    """The command line; its exit status."""
    parser = argparse.ArgumentParser(prog="python -m tools.dist", description=__doc__.splitlines()[0])
    parser.add_argument("pythons", nargs="+", metavar="PYTHON", help="an interpreter to try the wheel with")
    parser.add_argument("--notebooks", nargs="*", choices=NEEDS, help="run these notebooks, too; all if none is named")
    parser.add_argument("--full", action="store_true", help="notebooks at the size at which users run them")
    asked = parser.parse_args(arguments)
    notebooks = list(NEEDS) if asked.notebooks == [] else asked.notebooks or []
    settings = ConfigParser()
    settings.read(ROOT / "setup.cfg")
    try:
        pythons = [interpreter(name) for name in asked.pythons]
        changes = run(["git", "status", "--porcelain"], ROOT)
        changelog = (ROOT / "CHANGELOG.md").read_text("utf-8")
        for line in remarks(settings["metadata"]["version"], changelog, REPOSITORY, changes):
            print(f"warning: not for a release: {line}", file=sys.stderr)
        wheel, version = build()
        print(f"forethought {version}: wheel and sdist in {OUT.name}, and twine has no remarks", flush=True)
        for python in pythons:
            started = time.monotonic()
            with tempfile.TemporaryDirectory() as made:
                print(try_quickstart(python, wheel, version, Path(made).resolve()), end=" ", flush=True)
            print(f"in {time.monotonic() - started:.0f} s", flush=True)
            if notebooks:
                try_notebooks(python, notebooks, smoke=not asked.full)
    except Failed as failure:
        print(f"error: {failure}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

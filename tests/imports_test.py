"""The arrows of the house: which room may import what.

Every import of a file, wherever it stands, becomes one or more dotted names, `from a.b import c` being `a.b.c`. A name is
allowed if it lies at or below an allowed one, by whole components: `jax` allows `jax.numpy`, not `jaxlib`.
"""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

PURE_STDLIB = {
    "__future__", "bisect", "collections", "contextlib", "dataclasses", "difflib", "enum", "functools", "hashlib", "heapq",
    "inspect", "itertools", "json", "math", "operator", "struct", "typing",
}  # fmt: skip
PURE = PURE_STDLIB | {"jax", "optax", "numpy", "scipy"}
CONTRACT = {"unlearn.base", "unlearn.gradient", "unlearn.losses", "unlearn.tree"}

ALLOWED = {
    "unlearn": PURE | {"unlearn"},
    "readiness": PURE | CONTRACT | {"readiness"},
    "s3t": PURE | {"unlearn.losses", "unlearn.tree", "s3t"},
}
EXCEPTIONS = {
    "unlearn/metrics": {"sklearn"},
    # the files of s3t that touch the world
    "s3t/database.py": {"pathlib", "sqlite3"},
    "s3t/ledger.py": {"sqlite3"},
    "s3t/files.py": {"fcntl", "os", "pathlib", "safetensors"},  # fcntl: one process makes a store
    "s3t/store.py": {"os", "pathlib", "safetensors", "time"},  # a deletion's answer says how long it took
    "s3t/verify.py": {"pathlib"},
    "s3t/stack.py": {"os", "pathlib", "platform"},  # what bytes depend on: processor, threads, flags
    "s3t/factory.py": {"importlib"},  # resolves the factory that a manifest names
    "s3t/options.py": {"argparse", "pathlib", "sys"},  # ids from a file
    "s3t/__main__.py": {"argparse", "os", "sqlite3", "sys"},
}
FORBIDDEN = {"experiments": {"tests"}, "tests": set()}  # the impure rooms import what they like, but not backwards


def imported_names(path: str, source: str) -> list[tuple[int, str]]:
    """(line, dotted name) of every import in the file at `path` (relative to the root); relative imports are resolved."""
    package = path.split("/")[:-1]
    names = []
    for node in ast.walk(ast.parse(source, path)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                names.append((node.lineno, alias.name))
                if alias.asname is None:  # `import a.b` binds a, and with it all that a holds
                    names.append((node.lineno, alias.name.split(".")[0]))
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ["<above the root>"] if node.level > len(package) else above
            base = base + (node.module.split(".") if node.module else [])
            names += [(node.lineno, ".".join([*base, alias.name])) for alias in node.names]
        elif isinstance(node, ast.Name) and node.id == "__import__":
            names.append((node.lineno, "__import__"))
    return names


def within(name: str, prefixes: set[str]) -> bool:
    """Whether a dotted name is one of `prefixes` or lies below one."""
    return any(f"{name}.".startswith(f"{prefix}.") for prefix in prefixes)


def violations(path: str, source: str) -> list[str]:
    """The imports of one file that its room does not allow, as `path:line imports name`."""
    room = path.split("/")[0]
    if room in FORBIDDEN:
        bad = [(line, name) for line, name in imported_names(path, source) if within(name, FORBIDDEN[room])]
    else:
        allowed = set(ALLOWED[room])
        for place, more in EXCEPTIONS.items():
            if path in (place, f"{place}.py") or path.startswith(f"{place}/"):
                allowed |= more
        bad = [(line, name) for line, name in imported_names(path, source) if not within(name, allowed)]
    return [f"{path}:{line} imports {name}" for line, name in sorted(set(bad))]


@pytest.mark.parametrize("room", [*ALLOWED, *FORBIDDEN])
def test_every_import_follows_an_arrow(room):
    files = sorted((ROOT / room).rglob("*.py"))
    found = [bad for file in files for bad in violations(file.relative_to(ROOT).as_posix(), file.read_text("utf-8"))]
    assert not found, "\n".join(found)


def test_the_hook_checks_the_types_of_the_rooms_that_make_lint_does():
    hook, lint = ((ROOT / name).read_text() for name in (".pre-commit-config.yaml", "Makefile"))
    (hooked,), (linted,) = (re.findall(r"-m mypy (.*)", text) for text in (hook, lint))
    assert hooked == linted and f"^({hooked.replace(' ', '|')})/" in hook


def test_the_rooms_are_where_the_walk_looks():
    for room in ("unlearn", "readiness", "s3t", "experiments", "tests"):
        assert any((ROOT / room).rglob("*.py")), room


@pytest.mark.parametrize(
    "path, source, name",
    [
        # The world.
        ("unlearn/base.py", "import flax.linen as nn", "flax.linen"),
        ("unlearn/base.py", "from absl import logging", "absl.logging"),
        ("unlearn/base.py", "import os", "os"),
        ("unlearn/base.py", "import os.path", "os.path"),
        ("unlearn/base.py", "import json, time", "time"),
        ("readiness/step.py", "import logging", "logging"),
        ("readiness/step.py", "import random", "random"),
        ("readiness/step.py", "from pathlib import Path", "pathlib.Path"),
        ("readiness/step.py", "from ml_collections import ConfigDict", "ml_collections.ConfigDict"),
        ("s3t/plan.py", "import tensorflow_datasets as tfds", "tensorflow_datasets"),
        ("s3t/plan.py", "from orbax import checkpoint", "orbax.checkpoint"),
        ("s3t/plan.py", "import matplotlib.pyplot as plt", "matplotlib.pyplot"),
        ("unlearn/tree.py", "import jaxlib", "jaxlib"),
        # Wherever the import stands, and however it is spelled.
        ("unlearn/base.py", "def f():\n    import flax", "flax"),
        ("unlearn/base.py", "try:\n    import flax\nexcept ImportError:\n    pass", "flax"),
        ("unlearn/base.py", "if TYPE_CHECKING:\n    from flax import linen", "flax.linen"),
        ("unlearn/base.py", "from flax import *", "flax.*"),
        ("unlearn/base.py", "nn = __import__('flax')", "__import__"),
        ("unlearn/base.py", "import importlib\nnn = importlib.import_module('flax')", "importlib"),
        # Arrows between rooms.
        ("unlearn/base.py", "from readiness.step import make_step", "readiness.step.make_step"),
        ("unlearn/base.py", "import s3t", "s3t"),
        ("unlearn/base.py", "from experiments import data", "experiments.data"),
        ("readiness/step.py", "from s3t import plan", "s3t.plan"),
        ("s3t/train.py", "from readiness import make_step", "readiness.make_step"),
        ("s3t/train.py", "from unlearn.base import unlearn", "unlearn.base.unlearn"),
        ("experiments/main.py", "from tests import helpers", "tests.helpers"),
        # Readiness knows the contract and no named algorithm.
        ("readiness/step.py", "from unlearn import ALGORITHMS", "unlearn.ALGORITHMS"),
        ("readiness/step.py", "from unlearn import algorithms", "unlearn.algorithms"),
        ("readiness/step.py", "from unlearn.algorithms import ascent", "unlearn.algorithms.ascent"),
        ("readiness/step.py", "from unlearn.algorithms.ascending import *", "unlearn.algorithms.ascending.*"),
        ("readiness/step.py", "import unlearn.algorithms as a", "unlearn.algorithms"),
        ("readiness/step.py", "from unlearn.until import unlearn_until", "unlearn.until.unlearn_until"),
        ("readiness/step.py", "from unlearn.baseline import f", "unlearn.baseline.f"),
        ("readiness/step.py", "import unlearn.base", "unlearn"),
        # Relative imports are resolved.
        ("readiness/step.py", "from .. import s3t", "<above the root>.s3t"),
        ("readiness/inner/step.py", "from ... import s3t", "<above the root>.s3t"),
        ("readiness/inner/step.py", "from ...unlearn import algorithms", "<above the root>.unlearn.algorithms"),
        # Exceptions hold where they are granted, and nowhere else.
        ("unlearn/base.py", "import sklearn", "sklearn"),
        ("unlearn/metrics_of_old.py", "import sklearn", "sklearn"),
        ("unlearn/metrics/gaps.py", "import os", "os"),
        ("s3t/plan.py", "import sqlite3", "sqlite3"),
        ("s3t/store.py", "import importlib", "importlib"),
        ("s3t/ledger.py", "import argparse", "argparse"),
        ("s3t/ledger.py", "import time", "time"),
        ("s3t/deletion.py", "import sqlite3", "sqlite3"),
        ("s3t/__main__.py", "import importlib", "importlib"),
        ("s3t/inner/store.py", "import os", "os"),
    ],
)
def test_a_forbidden_import_is_caught(path, source, name):
    assert any(bad.endswith(f"imports {name}") for bad in violations(path, source)), violations(path, source)


@pytest.mark.parametrize(
    "path, source",
    [
        ("unlearn/base.py", "from __future__ import annotations\nfrom collections.abc import Callable\nimport math"),
        ("unlearn/base.py", "import jax.numpy as jnp\nimport numpy as np, optax\nfrom scipy import special"),
        ("unlearn/base.py", "from unlearn import tree\nfrom . import losses\nfrom .tree import dot"),
        ("unlearn/metrics/gaps.py", "from ..losses import correct\nfrom unlearn.metrics import lira"),
        ("unlearn/metrics/membership.py", "from sklearn.linear_model import LogisticRegression"),
        ("readiness/step.py", "from unlearn.base import Model, unlearn\nfrom unlearn import gradient, losses, tree"),
        ("readiness/step.py", "from unlearn.base import mean_loss\nimport unlearn.tree as tree"),
        ("readiness/step.py", "from readiness.objective import Terms\nfrom .objective import Terms"),
        ("s3t/train.py", "from unlearn import tree\nfrom unlearn.losses import cross_entropy\nfrom s3t import plan"),
        ("s3t/database.py", "import sqlite3\nfrom pathlib import Path"),
        ("s3t/store.py", "from safetensors.numpy import save\nfrom time import perf_counter"),
        ("s3t/__main__.py", "import argparse\nimport os\nimport sys"),
        ("s3t/factory.py", "import importlib"),
        ("experiments/main.py", "import flax, os\nimport unlearn, readiness\nfrom s3t import plan"),
        ("tests/step_test.py", "import os, pytest\nfrom experiments import data"),
    ],
)
def test_an_allowed_import_passes(path, source):
    assert violations(path, source) == []

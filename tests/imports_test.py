"""Pure rooms import jax, optax, numpy, scipy and the side-effect-free standard library, and nothing else.

import-linter keeps the arrows between rooms (setup.cfg, `make lint`). It forbids packages by name; what may be imported at
all is listed here.
"""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("unlearn", "readiness", "s3t", "federated")

ALLOWED = {
    "__future__", "bisect", "collections", "contextlib", "dataclasses", "difflib", "enum", "functools", "hashlib", "heapq",
    "inspect", "itertools", "json", "math", "operator", "struct", "typing",
    "jax", "optax", "numpy", "scipy", *ROOMS,
}  # fmt: skip
EXCEPTIONS = {  # longest prefix of the path -> what else its files may import: those that touch the world
    "unlearn/__init__.py": {"importlib"},  # asks for the version of what is installed, as the next two do
    "readiness/__init__.py": {"importlib"},
    "s3t/__init__.py": {"importlib"},
    "unlearn/metrics/": {"sklearn"},
    "s3t/store/ledger/database.py": {"errno", "logging", "os", "pathlib", "sqlite3"},
    "s3t/store/events.py": {"logging", "pathlib", "sys", "time"},  # sys: a log that cannot be written is said once
    "s3t/store/copies.py": {"datetime", "os", "pathlib", "re", "shutil", "sqlite3"},  # when a backup was taken
    "s3t/store/ledger/marks.py": {"hmac"},
    "s3t/store/deletions.py": {"os"},  # salts are random
    "s3t/store/ledger/redaction.py": {"sqlite3"},
    "s3t/store/ledger/salvage.py": {"pathlib", "sqlite3"},
    "s3t/store/state.py": {"shlex"},
    "s3t/store/ledger/records.py": {"sqlite3"},
    "s3t/store/given.py": {"pathlib", "stat"},
    "s3t/store/files.py": {"fcntl", "os", "pathlib", "stat"},  # fcntl: one process makes a store
    "s3t/store/disk.py": {"os", "pathlib", "re", "stat", "time"},  # a deletion's answer says how long it took
    "s3t/service/verify.py": {"pathlib"},
    "s3t/service/restoring.py": {"os", "pathlib"},
    "s3t/store/signatures.py": {"cryptography", "os", "pathlib", "stat"},  # the library only if it is there
    "s3t/service/serving.py": {"threading"},
    "s3t/service/environment.py": {"os", "pathlib", "platform"},  # what bytes depend on: processor, threads, flags
    "s3t/service/factory.py": {"importlib", "pathlib"},  # resolves the factory that a manifest names, and its paths
    "s3t/store/publishing.py": {"safetensors"},
    "s3t/store/tensors.py": {"ml_dtypes"},
    "s3t/store/ledger/registry.py": {"os", "unicodedata"},  # salts are random
    "s3t/cli/": {"argparse", "csv", "datetime", "importlib", "os", "pathlib", "re", "shutil", "sqlite3", "sys", "textwrap"},
    "s3t/__main__.py": {"sys"},
}


def imported(source: str) -> set[str]:
    """Top-level packages that a file imports, wherever the import stands; relative ones stay within the room."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add((node.module or "").split(".")[0])
        elif isinstance(node, ast.Name) and node.id == "__import__":
            names.add("__import__")
    return names


def unlisted(path: str, source: str) -> set[str]:
    """What the file at `path` imports and may not."""
    more = set().union(*(names for place, names in EXCEPTIONS.items() if path.startswith(place)))
    return imported(source) - ALLOWED - more


@pytest.mark.parametrize("room", ROOMS)
def test_a_pure_room_imports_what_is_listed(room):
    files = sorted((ROOT / room).rglob("*.py"))
    assert files
    bad = {f.relative_to(ROOT).as_posix(): unlisted(f.relative_to(ROOT).as_posix(), f.read_text("utf-8")) for f in files}
    assert not {path: names for path, names in bad.items() if names}


def test_every_exception_is_needed():
    for place, names in EXCEPTIONS.items():
        files = [ROOT / place] if place.endswith(".py") else sorted((ROOT / place).rglob("*.py"))
        assert names <= set().union(*(imported(file.read_text("utf-8")) for file in files)), place


@pytest.mark.parametrize(
    "path, source, name",
    [
        ("unlearn/base.py", "def f():\n    import flax", "flax"),
        ("unlearn/base.py", "try:\n    from flax import linen\nexcept ImportError:\n    pass", "flax"),
        ("unlearn/base.py", "nn = __import__('flax')", "__import__"),
        ("unlearn/base.py", "import importlib", "importlib"),
        ("unlearn/base.py", "import json, time", "time"),
        ("unlearn/base.py", "import sklearn", "sklearn"),
        ("unlearn/metrics_of_old.py", "import sklearn", "sklearn"),
        ("readiness/step.py", "import random", "random"),
        ("s3t/plans/structure.py", "import sqlite3", "sqlite3"),
        ("s3t/store/ledger/records.py", "import os", "os"),
        ("s3t/inner/store/disk.py", "import os", "os"),
    ],
)
def test_an_unlisted_import_is_caught(path, source, name):
    assert unlisted(path, source) == {name}

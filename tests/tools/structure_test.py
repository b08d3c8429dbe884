"""The structure script, on a tree small enough to count by hand, and on revisions of a repository of its own."""

import subprocess

import pytest

from tools import structure

TREE = {
    "unlearn/__init__.py": "",
    "unlearn/base.py": "import jax\nimport json\n\n\ndef f(x):\n    return x\n",
    "unlearn/metrics/lira.py": "import sklearn\nfrom unlearn import base\n",
    "readiness/step.py": "import flax\nfrom unlearn.base import f\n",
    "s3t/store.py": "def keep():\n    import safetensors, sklearn\n",
    "experiments/run.py": "import flax\nimport readiness.step\n\n\ndef run(config):\n    def inner(config): ...\n",
    "experiments/loop.py": "class A:\n    def g(self, *, b: s.Bench | None): ...\n    def h(self, config: Train): ...\n",
    "experiments/configs/readiness.py": "from experiments import loop\n\n\ndef digits(config): ...\n",
    "tests/a_test.py": "import flax\n\n",
    "tools/b.py": "x = 1\n",
}


@pytest.fixture(scope="module")
def counted():
    return structure.measure(TREE)


@pytest.mark.parametrize(
    "number, value",
    [
        ("packages", 4),
        ("folders", 6),
        ("files", 8),
        ("lines", 25),
        ("test files", 1),
        ("test lines", 2),
        ("most files in a folder", 2),
        ("files over 350 lines", 0),
        ("edges between files", 4 + 1),
        ("edges between folders", 4),
        ("folders that import each other", 0),
        ("functions that take a whole config", 2),
        ("imports of pure rooms outside the list", 2),
    ],
)
def test_numbers(counted, number, value):
    assert counted.numbers[number] == value


def test_whoever_takes_a_whole_config_is_named(counted):
    assert counted.takes_config == ["experiments/loop.py:g", "experiments/run.py:inner"]


def test_unlisted_imports_are_named(counted):
    assert counted.unlisted == ["readiness/step.py: flax", "s3t/store.py: sklearn"]


def test_what_is_longest_comes_first(counted):
    assert counted.longest_files[:2] == [(6, "experiments/run.py"), (6, "unlearn/base.py")]
    assert counted.longest_functions[0] == (2, "experiments/run.py:run")


def test_long_functions_and_files_are_counted():
    body = "    pass\n" * 60
    numbers = structure.measure({"a/b.py": f"def f():\n{body}", "a/c.py": "\n" * 351}).numbers
    assert (numbers["functions over 60 lines"], numbers["files over 350 lines"]) == (1, 1)


def test_folders_that_import_each_other_are_counted():
    tree = {"a/x/one.py": "import a.y.two", "a/y/two.py": "from a.x import one"}
    assert structure.measure(tree).numbers["folders that import each other"] == 1


def test_a_checkout_beside_a_revision(tmp_path, capsys):
    def git(*arguments):
        identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        subprocess.run(["git", "-C", tmp_path, *identity, *arguments], check=True, capture_output=True)

    git("init", "-q")
    (tmp_path / "unlearn").mkdir()
    (tmp_path / "unlearn/base.py").write_text("x = 1\n")
    git("add", ".")
    git("commit", "-qm", "first")
    (tmp_path / "unlearn/base.py").write_text("x = 1\ny = 2\n")
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv/hidden.py").write_text("z = 3\n")
    assert structure.main(["--rev", "HEAD", "--root", str(tmp_path)]) == 0
    rows = {line[:40].strip(): line[40:].split() for line in capsys.readouterr().out.splitlines()}
    assert rows["files"] == ["1", "1"] and rows["lines"] == ["1", "2"]
    assert (tmp_path / "unlearn/base.py").read_text() == "x = 1\ny = 2\n"
    assert structure.main(["--rev", "odd", "--root", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("error: ")

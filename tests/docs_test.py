"""The documentation holds: code blocks run, command lines parse and name what there is, links lead somewhere."""

import argparse
import importlib.util
import os
import re
import runpy
import shlex
import subprocess
import sys
import tarfile
import types
from configparser import ConfigParser

import pytest

from experiments import command_line, main
from s3t.cli import program
from tests.faults import suite
from tests.helpers import docs
from tests.helpers.docs import PAGES, ROOT

PYTHON = [page for page in PAGES if docs.blocks(page, "python")]
SMALL = (
    "--config.seeds=1", "--config.train.steps=22", "--config.trainings=('oracle', 'heldout_oracle', 'vanilla')",
    "--config.equal_flops=False", "--config.request.learning_rates=(0.05,)", "--config.request.max_steps=5",
    "--config.relearn.steps=2",
)  # fmt: skip
TOY = '--hyper={"range": 16.0, "train_size": 60, "epochs": 1, "batch_size": 8}'


class Parsed(Exception):
    """Raised in place of running what was parsed."""


def lines_of(page):
    """The command lines of a page: of its sh blocks, and inline code that is one."""
    inline = [span for span in docs.spans(page) if re.match(r"(forethought --config|python -m \S+ )", span)]
    return docs.commands(page) + [shlex.split(span.partition("|")[0]) for span in inline]


@pytest.fixture
def refusal(monkeypatch):
    """Why a command line would not be understood, or None if it would; nothing is run."""

    def told(words):
        start = next(start for start in CHECKS if " ".join(words).startswith(start))
        with monkeypatch.context() as patches:
            try:
                CHECKS[start](words, patches)
            except (Exception, pytest.fail.Exception) as error:
                return f"{words}: {error}"
        return None

    return told


def parse(*arguments):
    """The config and the workdir of a command line, which need not name a workdir."""
    from absl import flags

    named = any(word.startswith("--workdir") for word in arguments)
    return command_line.parse(["forethought", *arguments, *([] if named else ["--workdir=DIR"])], flags.FlagValues())


def check_run(words, monkeypatch):
    """A run: the config file is read, overrides are applied, and the model of the config takes it."""
    from experiments.core.config import validated

    arguments = words[1:] if words[0] == "forethought" else words[3:]
    if not any(word.startswith("--config") for word in arguments):
        assert main.answered(arguments)
        return
    config, workdir = parse(*arguments)
    module = importlib.import_module(f"experiments.configs.{config.runner}")
    assert workdir and validated(getattr(module, main.MODELS[config.runner]), config)


def check_s3t(words, monkeypatch):
    arguments = words[3:] if words[0] == "python" else words[1:]
    if "--store" not in arguments and arguments[0] not in ("plan", "simulate", "check", "key"):
        arguments = [*arguments, "--store", "DIR"]
    monkeypatch.setattr(program.Parser, "error", lambda self, message: pytest.fail(f"{words}: {message}"))
    if arguments == ["--version"]:
        return
    assert program.make_parser().parse_args(arguments).command in program.COMMANDS


def check_benchmark(words, monkeypatch):
    """The module is imported and its parser takes the arguments."""
    parse_args = argparse.ArgumentParser.parse_args

    def stop(parser, *given):
        parse_args(parser, *given)
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stop)
    monkeypatch.setattr(argparse.ArgumentParser, "error", lambda self, message: pytest.fail(f"{words}: {message}"))
    monkeypatch.setattr(sys, "argv", words[2:])
    with pytest.raises(Parsed):
        importlib.import_module(words[2]).main()


def check_pooled(words, monkeypatch):
    assert callable(importlib.import_module(words[2]).main) and len(words) > 4


def check_faults(words, monkeypatch):
    suite.make_parser().parse_args(words[3:])


def check_make(words, monkeypatch):
    makefile = (ROOT / "Makefile").read_text()
    targets, settings = (re.findall(pattern, makefile, re.MULTILINE) for pattern in (r"^(\w+):", r"^(\w+) \?="))
    variables = [word.split("=")[0] for word in words[2:]]
    assert words[1] in targets and set(variables) <= set(settings)
    rooms = [word.partition("=")[2] for word in words[2:] if word.startswith("ROOM=")]
    assert all((ROOT / "tests" / room).is_dir() for room in rooms)


def check_pip(words, monkeypatch):
    settings = ConfigParser()
    settings.read(ROOT / "setup.cfg")
    extras = re.findall(r"\[(\w+)\]", " ".join(words))
    assert settings["metadata"]["name"] == "forethought" and set(extras) <= set(settings["options.extras_require"])


def check_sweep(words, monkeypatch):
    """A sweep: all of its points are understood."""
    from experiments.launch import sweep

    args, common = sweep.parser().parse_known_args(words[2:])
    assert sweep.understood(args.grid, common, args.workdir).points


def check_launch(words, monkeypatch):
    """A job: its options are understood, and so is the run."""
    from experiments.launch import arguments, scripts

    at = words.index("--")
    assert scripts.parser().parse_args(words[2:at]).kind and arguments.configured(words[at + 1 :])


def check_federated(words, monkeypatch):
    """A server, a client or an erasure: its options are understood; its files need not be there."""
    from experiments.launch import federated

    monkeypatch.setattr(federated, "_file", str)
    assert federated.parser().parse_args(words[2:]).command == words[2]


def check_paired(words, monkeypatch):
    """Differences over seeds: options are understood, and columns are named as pages name them."""
    from tools import paired

    assert paired.parser().parse_args(words[3:]).column


def check_image(words, monkeypatch):
    """The file copies all packages and what they are built by, and installs extras that there are."""
    text = (ROOT / words[words.index("--file") + 1]).read_text()
    copied = {name for line in re.findall(r"^COPY (.*) \S+$", text, re.MULTILINE) for name in line.split()}
    assert copied == {
        "pyproject.toml",
        "setup.cfg",
        "README.md",
        "LICENSE",
        "locks",
        "unlearn",
        "readiness",
        "s3t",
        "federated",
        "experiments",
    }
    settings = ConfigParser()
    settings.read(ROOT / "setup.cfg")
    extras = ",".join(re.findall(r"EXTRAS=(\S+)", text)).split(",")
    assert "cuda" in extras and set(extras) <= set(settings["options.extras_require"])


CHECKS = {
    "docker build ": check_image,
    "forethought federated ": check_federated,
    "forethought launch ": check_launch,
    "forethought sweep ": check_sweep,
    "forethought ": check_run,
    "python -m experiments.main ": check_run,
    "python -m experiments.benchmarks.": check_benchmark,
    "python -m experiments.data.text.train_tokeniser ": check_benchmark,
    "python -m experiments.judge_exact.pooled ": check_pooled,
    "python -m s3t ": check_s3t,
    "python -m tests.faults ": check_faults,
    "python -m tools.paired ": check_paired,
    "s3t ": check_s3t,
    "make ": check_make,
    "pip install ": check_pip,
    "python -m pip install ": check_pip,
}


@pytest.mark.parametrize("page", PAGES, ids=docs.name)
def test_links_lead_to_files_and_headings(page):
    for file, anchor in docs.links(page):
        assert file.exists(), f"{docs.name(page)} links to {file}, which is not there"
        assert not anchor or anchor in docs.anchors(file), f"{docs.name(page)} links to #{anchor} of {docs.name(file)}"


@pytest.mark.parametrize("page", [page for page in PAGES if lines_of(page)], ids=docs.name)
def test_command_lines_would_be_understood(page, refusal):
    assert [said for words in lines_of(page) if (said := refusal(words))] == []


def flags_of(page):
    """Inline code that is a flag of a config; without a value, its key alone is meant."""
    return [span for span in docs.spans(page) if span.startswith("--config.")]


@pytest.mark.parametrize("page", [page for page in PAGES if flags_of(page)], ids=docs.name)
def test_flags_are_taken_by_a_config(page):
    refused = {span: refusals_of(span) for span in flags_of(page)}
    assert {span: each for span, each in refused.items() if len(each) == len(main.MODELS)} == {}


def refusals_of(span):
    """What the runners that do not take a flag say of it."""
    (flag,) = shlex.split(span)
    key, _, value = flag.partition("=")
    return [said for runner in main.MODELS if (said := refusal_of(runner, flag, key, value))]


def refusal_of(runner, flag, key, value):
    from experiments.core.config import validated

    module = importlib.import_module(f"experiments.configs.{runner}")
    try:
        if value:
            validated(getattr(module, main.MODELS[runner]), parse(f"--config={runner}:digits", flag)[0])
        elif not config_has(module.get_config("digits"), key):
            raise KeyError(key)
    except Exception as error:
        return f"{runner}: {error}"
    return None


def config_has(config, flag):
    """Whether a config has the key of a flag `--config.a.b`."""
    for name in flag.removeprefix("--config.").split("."):
        if name not in config:
            return False
        config = config[name]
    return True


@pytest.mark.parametrize(
    "line, told",
    [
        ("forethought --config=readiness:digit", "digit"),
        ("forethought --config=readiness:digits --config.seeds=0", "seeds"),
        ("python -m s3t plan --planner mesh --slices 4", "mesh"),
        ("python -m experiments.benchmarks.coverage --fleet=2x", "2x"),
    ],
)
def test_a_command_line_that_is_wrong_is_found(refusal, line, told):
    assert told in refusal(line.split())


def test_a_flag_that_no_config_takes_is_found():
    assert len(refusals_of("--config.seeds=0")) == len(refusals_of("--config.sedes")) == len(main.MODELS)
    assert len(refusals_of("--config.seed=3")) < len(main.MODELS)


@pytest.mark.parametrize("page", PYTHON, ids=docs.name)
def test_python_blocks_run_in_order(page, tmp_path, monkeypatch):
    with tarfile.open(ROOT / "tests/fixtures/golden/readiness.tar.xz") as archive:
        archive.extractall(tmp_path / "runs", filter="data")
    (tmp_path / "runs/readiness").rename(tmp_path / "runs/digits")
    (tmp_path / "page.py").write_text("\n\n".join(docs.blocks(page, "python")))
    monkeypatch.chdir(tmp_path)
    assert runpy.run_path("page.py", run_name=f"page_{page.stem}")  # the room federated has a page of its name


def test_the_algorithm_of_contributing_goes_through_the_contract():
    import jax
    import jax.numpy as jnp
    import optax

    from unlearn import Request, classifier, traits_of

    block = next(block for block in docs.blocks(ROOT / "CONTRIBUTING.md", "python") if "anchored" in block)
    page = types.ModuleType("page")
    exec(block, page.__dict__)
    model = classifier(lambda params, x, key: x @ params)
    batch = {"x": jnp.eye(2)[:1], "y": jnp.array([0]), "id": jnp.array([7]), "weight": jnp.ones(1)}
    algorithm, key = page.anchored(model, optax.sgd(1.0), pull=0.5), jax.random.key(0)
    state = algorithm.init(jnp.zeros((2, 2)), Request(batch), key)
    state, _ = algorithm.update(state, Request(batch), key)  # the pull is 0 at the start, so this is ascent's step
    assert state.params.tolist() == [[-0.5, 0.5], [0.0, 0.0]] and not traits_of(page.anchored).needs_retain


REFERENCE = sorted((ROOT / "docs/site/reference").glob("*.rst"))


@pytest.mark.parametrize("page", REFERENCE, ids=lambda page: page.stem)
def test_the_reference_of_the_site_names_modules_that_there_are(page):
    modules = re.findall(r"^\.\. (?:automodule|(?:py:)?currentmodule):: (\S+)$", page.read_text(), flags=re.MULTILINE)
    assert modules and all(importlib.util.find_spec(module) for module in modules)


def run(words, folder, *more):
    line = [sys.executable, *words[1:]] if words[0] == "python" else [sys.executable, "-m", "experiments.main", *words[1:]]
    env = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([*line, *more], cwd=folder, env=env, capture_output=True, text=True, timeout=1500, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.slow
def test_the_quickstart_runs_at_toy_size(tmp_path):
    (words,) = [line for line in docs.commands(ROOT / "README.md") if line[0] == "forethought"]
    assert "Vanilla" in run(words, tmp_path, *SMALL) and (tmp_path / "runs/digits/report.html").exists()


@pytest.mark.slow
def test_the_walk_through_s3t_runs_at_toy_size(tmp_path):
    commands = [line for line in docs.commands(ROOT / "docs/s3t.md") if line[:3] == ["python", "-m", "s3t"]]
    walk = commands[: [line[3] for line in commands].index("verify") + 1]
    assert [line[3] for line in walk] == ["plan", "train", "predict", "delete", "heal", "verify"]
    for line in walk:
        assert run(line, tmp_path, *([TOY] if line[3] == "train" else []))

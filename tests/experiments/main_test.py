"""The command line: configs by name and by path, questions, and mistakes, each one line, exit status 2 and nothing touched.

What needs no process of its own calls `main.command`; a start costs seconds.
"""

import os
import signal
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from absl import flags

import experiments
import readiness
import s3t
import unlearn
from experiments import command_line, main
from experiments.core import catalogue

ROOT = Path(__file__).resolve().parents[2]
CONFIG = "--config=experiments/configs/readiness.py:digits"
NAMED = "--config=readiness:digits"
PROBE = """
import sys
from experiments import main
status = main.command(sys.argv)
heavy = {"jax", "flax", "tensorflow_datasets", "matplotlib"} & set(sys.modules)
sys.exit(f"imported {sorted(heavy)}" if heavy else status)
"""
SIGNALLED = """
import os, signal, sys
from experiments import main
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
main.parse = lambda *_: os.kill(os.getpid(), int(sys.argv[1]))
sys.exit(main.main())
"""

FAULTY = """
import atexit, sys
from experiments import main
atexit.register(print, "waits for the others")
main.distributed.joined = lambda: sys.argv[1] == "True"
def fault(*_):
    raise RuntimeError("a fault")
main.parse = fault
sys.exit(main.main())
"""


def command(*flags, platforms="cpu"):
    """`python -m experiments.main` in a process of its own."""
    return process("-m", "experiments.main", *flags, platforms=platforms)


def process(*arguments, platforms="cpu"):
    env = {**os.environ, "JAX_PLATFORMS": platforms}
    line = [sys.executable, *arguments]
    return subprocess.run(line, cwd=ROOT, env=env, capture_output=True, text=True, timeout=500, check=False)


def called(*arguments, program="main.py"):
    """The exit status of a command line, in this process."""
    return main.command([program, *arguments], flags.FlagValues())


@pytest.fixture
def ran(monkeypatch):
    """(config, workdir, command) of every run; nothing is run."""
    runs = []
    monkeypatch.setattr(main, "execute", lambda *given: runs.append(given) or 0)
    return runs


# --- Configs by name and by path --------------------------------------------------------------------------------------


def test_all_packaged_configs_are_named():
    assert catalogue.names() == sorted(main.MODELS) == sorted(main.RUNNERS)


@pytest.mark.parametrize("name", ["federated", "judge", "judge_exact", "pretrain", "readiness", "s3t"])
@pytest.mark.parametrize("form", ["--config={}", "-config={}", "--config {}"])
def test_a_config_is_found_by_name_wherever_one_is(ran, tmp_path, monkeypatch, name, form):
    (tmp_path / "experiments").mkdir()
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    assert called(*form.format(f"{name}:digits").split(), "--workdir=there") == 0
    ((config, workdir, *_),) = ran
    assert (config.runner, config.name, workdir) == (name, "digits", "there")


def test_a_config_is_found_by_path_and_takes_overrides(ran, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(
        "from experiments.configs import readiness\n"
        "def get_config(arg='nothing'):\n"
        "    config = readiness.defaults()\n"
        "    config.name = arg\n"
        "    return config\n"
    )
    assert called("--config=mine.py:often", "--config.seeds=3", "--workdir=there") == 0
    assert called("--config", "mine.py", "--workdir", "there") == 0
    assert [(config.name, config.seeds) for config, *_ in ran] == [("often", 3), ("nothing", 10)]


def test_a_config_without_an_experiment_is_the_default_one(ran):
    assert called("--config=readiness", "--workdir=there") == 0
    assert ran[0][0].name == "digits"


def test_a_flagfile_may_name_a_config(ran, tmp_path):
    (tmp_path / "flags").write_text("--config=s3t:digits\n--config.seed=7\n")
    assert called(f"--flagfile={tmp_path / 'flags'}", "--workdir=there") == 0
    assert (ran[0][0].runner, ran[0][0].seed) == ("s3t", 7)


def test_a_flagfile_may_begin_with_a_byte_order_mark(ran, tmp_path):
    (tmp_path / "flags").write_bytes(b"\xef\xbb\xbf--config=s3t:digits\r\n--config.seed=7\r\n")
    assert called(f"--flagfile={tmp_path / 'flags'}", "--workdir=there") == 0
    assert (ran[0][0].runner, ran[0][0].seed) == ("s3t", 7)


def test_a_flagfile_that_is_no_text_is_one_line(ran, tmp_path, capsys):
    (tmp_path / "flags").write_bytes("--config=s3t:digits\n".encode("utf-16"))
    assert called(f"--flagfile={tmp_path / 'flags'}", "--workdir=there") == 2
    assert "a --flagfile is no text in UTF-8" in capsys.readouterr().err and ran == []


def test_a_key_that_is_a_word_of_python_s_is_a_key(ran):
    assert called(NAMED, "--config.suited.class.retention=4", "--config.suited['random'].retention=3", "--workdir=w") == 0
    assert (ran[0][0].suited["class"].retention, ran[0][0].suited.random.retention) == (4.0, 3.0)


@pytest.mark.parametrize("number, status", [(signal.SIGINT, 130), (signal.SIGTERM, 75), (signal.SIGUSR1, 75)])
def test_a_signal_is_one_line_and_a_status_that_tells_a_requeue_from_ctrl_c(number, status):
    done = process("-c", SIGNALLED, str(int(number)))
    assert (done.returncode, done.stdout) == (status, "")
    assert done.stderr == "interrupted: the same command goes on from the last checkpoint\n"


@pytest.mark.parametrize(
    "program, recorded", [("/bin/forethought", "forethought"), ("/x/experiments/main.py", "python -m experiments.main")]
)
def test_the_command_is_recorded_as_it_was_typed(ran, program, recorded):
    assert called(NAMED, "--config.variants={}", "--workdir=a b", program=program) == 0
    assert ran[0][2] == f"{recorded} --config=readiness:digits '--config.variants={{}}' '--workdir=a b'"


# --- Mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given, message",
    [
        pytest.param([CONFIG, "--config.train.stepz=3"], 'no key train.stepz: Did you mean "steps"', id="nearly a key"),
        pytest.param([NAMED, "--config.odd=3"], "no key odd: the keys and their meaning stand in", id="an unknown key"),
        pytest.param([NAMED, "--config.seed.odd=3"], "no key seed.odd: ", id="a key of a number"),
        pytest.param([NAMED, "--config.seeds=many"], "many", id="a wrong type"),
        pytest.param([NAMED, "--config.model.options.widths[0]=1"], "0 is not a valid index", id="an entry of a tuple"),
        pytest.param(
            [NAMED, "--config.data.factory=a:b", "--config.data.name=mnist"], "data.name means nothing beside", id="data"
        ),
        pytest.param(
            [NAMED, "--config.model.options.widths=(8,)", "--config.model.factory=a:b"],
            "--config.model.options.widths means nothing beside --config.model.factory",
            id="a model",
        ),
        pytest.param([NAMED, "again"], "unexpected argument 'again'", id="a stray word"),
        pytest.param([NAMED, "--odd"], "Unknown command line flag 'odd'", id="an unknown flag"),
        pytest.param([CONFIG + "s"], "readiness.py:digitss is unknown", id="an unknown experiment"),
        pytest.param([NAMED + "s"], "readiness.py:digitss is unknown", id="an unknown experiment of a name"),
        pytest.param(
            ["--config=readines:digits"],
            "config 'readines' is neither a file nor one of federated, judge, judge_exact, pretrain, readiness, s3t; "
            "did you mean readiness:digits?",
            id="nearly a name",
        ),
        pytest.param(["--config=there/readiness.py:x"], "did you mean readiness:x?", id="no such file"),
        pytest.param(["--config=odd"], "one of federated, judge, judge_exact, pretrain, readiness", id="an unknown name"),
        pytest.param([], "give --config=readiness:digits and --workdir=DIR", id="no config"),
        pytest.param(["--flagfile=/no/such/file"], "Unable to open flagfile: ", id="a flagfile"),
        pytest.param(["--describe=odd"], "config 'odd' is unknown; choose one of federated", id="describing what is not"),
        pytest.param(["--describe"], "config '' is unknown", id="describing nothing"),
    ],
)
def test_a_mistake_is_one_line_and_exit_status_2(ran, capsys, monkeypatch, given, message):
    monkeypatch.chdir(ROOT)
    assert called(*given, "--workdir=there") == 2
    told = capsys.readouterr()
    (line,) = told.err.splitlines()
    assert line.startswith("error: ") and message in line and (told.out, ran) == ("", [])


def test_a_config_file_that_raises_is_one_line(ran, tmp_path, capsys):
    (tmp_path / "bad.py").write_text("def get_config():\n    raise ValueError('set this')\n")
    assert called(f"--config={tmp_path / 'bad.py'}", "--workdir=there") == 2
    assert capsys.readouterr().err == "error: set this\n"


@pytest.mark.parametrize(
    "text, told",
    [
        ("x = 1\n1 / 0\n", "bad.py, line 2, fails (ZeroDivisionError: division by zero): mend it"),
        (
            "\nimport nosuchpackage\n",
            "bad.py, line 2, fails (ModuleNotFoundError: No module named 'nosuchpackage'): mend it",
        ),
        ("hello\n", "bad.py, line 1, fails (NameError: name 'hello' is not defined): mend it"),
        ("x = (\n", "bad.py, line 1, is no Python ('(' was never closed): mend it"),
        ("x = 1\n", "the config's file has no get_config: define get_config()"),
        ("def get_config():\n    return int('x')\n", "bad.py, line 2, fails (ValueError: invalid literal for int()"),
        ("def get_config():\n    return {}['key']\n", "bad.py, line 2, fails (KeyError: 'key'): mend it"),
        ("import sys\nsys.exit(3)\n", "bad.py, line 2, fails (SystemExit: 3): mend it"),
        ("open('absent')\n", "No such file or directory: 'absent'"),
        ("def get_config():\n    return 3\n", "get_config gives a int: return an ml_collections.ConfigDict"),
        ("def get_config():\n    pass\n", "get_config gives a NoneType: return an ml_collections.ConfigDict"),
        (
            "from experiments.configs import readiness\ndef get_config():\n    c = readiness.defaults()\n"
            "    c.train.steps = 'x'\n    return c\n",
            "bad.py, line 4, fails (TypeError: Could not override field 'steps'",
        ),
    ],
)
def test_a_mistake_in_a_config_file_is_one_line_that_says_where(ran, tmp_path, capsys, monkeypatch, text, told):
    monkeypatch.delitem(sys.modules, command_line.CONFIG_MODULE, raising=False)  # in this process there may be one before
    (tmp_path / "bad.py").write_text(text)
    assert called(f"--config={tmp_path / 'bad.py'}", "--workdir=there") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and told in line and ran == []


def test_several_mistakes_are_a_line_each(capsys):
    class Several(ValueError):
        mistakes = ("one\n line", "another")

    assert main.fail(Several()) == 2
    assert capsys.readouterr().err == "error: one line\nerror: another\n"


def test_a_value_that_a_runner_refuses_leaves_the_workdir_as_it_was(tmp_path):
    used = tmp_path / "used"
    used.mkdir()
    (used / "config.json").write_text("{}")
    done = command(CONFIG, "--config.readiness.form=odd", f"--workdir={used}")
    assert done.returncode == 2 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ") and "config.readiness.form is 'odd': choose level, gain or raw" in line
    assert [file.name for file in used.iterdir()] == ["config.json"] and (used / "config.json").read_text() == "{}"


def test_a_platform_that_cannot_be_used_is_one_line_and_exit_status_2(tmp_path):
    done = command(CONFIG, f"--workdir={tmp_path / 'new'}", platforms="odd")
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: Unable to initialize backend 'odd'") and not (tmp_path / "new").exists()


# --- Questions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("package", [experiments, readiness, s3t, unlearn])
def test_every_room_has_the_version_of_the_distribution(package):
    assert package.__version__ == metadata.version("forethought")


@pytest.mark.parametrize("package", [experiments, s3t])
def test_a_room_whose_version_is_looked_up_has_no_other_name_made_up(package):
    with pytest.raises(AttributeError, match=rf"module '{package.__name__}' has no attribute 'versoin'"):
        _ = package.versoin


def test_a_source_tree_that_is_not_installed_has_a_version_all_the_same(monkeypatch):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    assert experiments.__version__ == s3t.__version__ == "0+unknown"


@pytest.mark.parametrize("joined", [False, True])
def test_a_fault_in_one_of_several_processes_ends_it_at_once(joined):
    """JAX would have it wait, as Python ends, for those that wait for it."""
    ended = process("-c", FAULTY, str(joined))
    assert ended.returncode == 1 and ended.stderr.endswith("RuntimeError: a fault\n")
    assert ("waits for the others" in ended.stdout) != joined


def test_the_version(capsys):
    assert called("--version") == 0
    assert capsys.readouterr().out == f"forethought {metadata.version('forethought')}\n"


def test_the_list_has_every_config_and_experiment_with_a_sentence(capsys):
    assert called("--list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert "readiness  Ready2Unlearn against its rivals: train, request, judge." in lines
    for name in catalogue.names():
        for experiment in getattr(catalogue.module(name), "EXPERIMENTS", {}):
            (line,) = (line for line in lines if line.split()[0] == f"{name}:{experiment}")
            assert len(line.split()) > 3


def test_help_names_every_question(capsys):
    assert called("--help") == 0
    told = capsys.readouterr().out
    assert all(f"--{name}" in told for name in ("config", "workdir", "list", "describe", "version"))


@pytest.mark.parametrize(
    "given, status",
    [
        pytest.param(["--version"], 0, id="version"),
        pytest.param(["--list"], 0, id="list"),
        pytest.param(["--config=odd", "--workdir=there"], 2, id="an unknown config"),
        pytest.param([NAMED, "--config.odd=1", "--workdir=there"], 2, id="an unknown key"),
    ],
)
def test_an_answer_imports_nothing_heavy(given, status):
    done = process("-c", PROBE, *given)
    assert done.returncode == status, done.stderr


def test_without_the_extra_the_command_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ml_collections", None)
    assert called(NAMED, "--workdir=there") == 2
    told = "error: the command line needs ml_collections, which is not installed: pip install 'forethought[experiments]'\n"
    assert capsys.readouterr().err == told


def test_another_module_that_is_missing_is_a_bug(monkeypatch):
    def broken(*_):
        raise ModuleNotFoundError("No module named 'unlearn.metrix'", name="unlearn.metrix")

    monkeypatch.setattr(main, "execute", broken)
    with pytest.raises(ModuleNotFoundError):
        called(NAMED, "--workdir=there")

"""Sweeps: points and their workdirs, what is refused before anything runs, going on, failures, and the table.

But for one slow test, points are run by a stub that leaves what a run leaves.
"""

import csv
import json
import subprocess
import sys
import time

import pytest
from absl import flags

from experiments import main
from experiments.configs.comparison import Comparison
from experiments.core import results, workdirs
from experiments.core.files import dumps
from experiments.core.results import Row
from experiments.launch import jobs, sweep, table

NAMED = "--config=readiness:digits"
SMALL = (
    NAMED, "--config.seeds=1", "--config.train.steps=22", "--config.trainings=('oracle', 'heldout_oracle', 'vanilla')",
    "--config.equal_flops=False", "--config.request.learning_rates=(0.05,)", "--config.request.max_steps=5",
    "--config.request.unlearners=('ascent',)", "--config.relearn.steps=2",
)  # fmt: skip


def called(*words):
    return main.command(["forethought", "sweep", *map(str, words)], flags.FlagValues())


def row(seed, accuracy, training="vanilla"):
    """A row whose test accuracy is all that differs."""
    return Row(training, "default", "npo", "class", "digits", seed, {"test_accuracy": accuracy}, {}, 3, "reached")


@pytest.fixture
def stub(monkeypatch):
    """Points that finish at once with one row of their seed; names of the points that ran. `stub.bad` fail."""

    class Stub:
        ran, bad = [], set()

    def job(made, point):
        Stub.ran.append(point.name)
        folder, seed = made.workdir(point), int(point.values.get("seed", 0))
        every = float(point.values.get("readiness.every", 1))
        text = results.to_json(results.Run("", {}, [row(seed, every / 10 + seed / 1000)]))
        script = f"mkdir -p '{folder}'; echo '{{}}' > '{folder}/config.json'; printf %s \"$0\" > '{folder}/results.json'"
        script = "echo error: it broke; exit 2" if point.name in Stub.bad else script
        return jobs.Job(point.name, ("sh", "-c", script, text), folder, made.folder / "logs" / f"{point.name}.log")

    monkeypatch.setattr(sweep, "job", job)
    return Stub


# --- Running ----------------------------------------------------------------------------------------------------------


def test_every_point_has_a_workdir_and_the_table_has_intervals_over_seeds(stub, tmp_path, capsys):
    given = [NAMED, "--grid", "readiness.every=2,4", "--grid", "seed=0,10", f"--workdir={tmp_path}", "--workers=2"]
    assert called(*given) == 0
    names = {f"readiness.every={e},seed={s}" for e in (2, 4) for s in (0, 10)}
    assert set(stub.ran) == names == {folder.name for folder in (tmp_path / "points").iterdir()}
    rows = list(csv.DictReader((tmp_path / "table.csv").open()))
    assert [(r["readiness.every"], float(r["before.test_accuracy"])) for r in rows] == [
        ("2", pytest.approx(0.205)),
        ("4", pytest.approx(0.405)),
    ]
    # Two seeds, 0.005 from their mean: the half width is t(0.975, 1) 0.005 = 12.706 * 0.005.
    assert float(rows[0]["before.test_accuracy high"]) == pytest.approx(0.205 + 12.706 * 0.005, abs=1e-5)
    assert rows[0]["before.test_accuracy n"] == "2"
    shown = capsys.readouterr().out
    assert "0.205" in shown and "± 0.064" in shown
    assert called(*given) == 0
    assert len(stub.ran) == 4, "what has finished is not run again"


def test_values_may_be_added_and_other_keys_or_settings_may_not(stub, tmp_path, capsys):
    assert called(NAMED, "--grid=readiness.every=2", f"--workdir={tmp_path}") == 0
    assert called(NAMED, "--grid=readiness.every=2,4", f"--workdir={tmp_path}") == 0
    assert stub.ran == ["readiness.every=2", "readiness.every=4"]
    assert called(NAMED, "--grid=readiness.every=2", "--config.train.steps=7", f"--workdir={tmp_path}") == 2
    assert "config.train.steps differ" in capsys.readouterr().err
    assert called(NAMED, "--grid=seed=1", f"--workdir={tmp_path}") == 2
    assert "config.grid differ" in capsys.readouterr().err


def test_a_config_may_need_what_the_grid_gives_and_the_folder_belongs_to_what_is_common(stub, tmp_path, capsys):
    words = [NAMED, "--config.forget.setting=group", f"--workdir={tmp_path}"]
    assert called(*words, "--grid", "forget.groups=('a',)", "--grid=suited.class.retention=0.5") == 0
    kept = json.loads((tmp_path / "sweep" / "config.json").read_text())
    usual = Comparison().model_dump()
    assert kept["forget"]["groups"] == [] and kept["suited"]["class"] == json.loads(dumps(usual["suited"]["class"]))
    assert kept["grid"] == ["forget.groups", "suited.class.retention"]
    assert called(*words, "--grid", "forget.groups=('b',),('a',)", "--grid=suited.class.retention=0.5") == 0
    assert called(NAMED, f"--workdir={tmp_path / 'new'}", "--grid", "tracker=('jsonl',)") == 0
    assert "tracker" not in json.loads((tmp_path / "new" / "sweep" / "config.json").read_text())


def test_failures_are_listed_with_their_line_and_run_again(stub, tmp_path, capsys):
    stub.bad = {"readiness.every=4"}
    given = [NAMED, "--grid=readiness.every=2,4,8", f"--workdir={tmp_path}"]
    assert called(*given) == 1
    err = capsys.readouterr().err
    assert "failed: readiness.every=4: it broke (see " in err and "1 of 3 points failed" in err
    assert [r["readiness.every"] for r in csv.DictReader((tmp_path / "table.csv").open())] == ["2", "8"]
    stub.bad, stub.ran[:] = set(), []
    assert called(*given) == 0 and stub.ran == ["readiness.every=4"]


def test_a_finished_point_that_is_damaged_is_named(stub, tmp_path, capsys):
    given = [NAMED, "--grid=readiness.every=2,4", f"--workdir={tmp_path}"]
    assert called(*given) == 0
    (tmp_path / "points" / "readiness.every=2" / "results.json").write_text("{}")
    assert called(*given) == 1
    assert "failed: readiness.every=2: " in capsys.readouterr().err


def test_without_workers_nothing_runs_and_the_table_has_what_there_is(stub, tmp_path, capsys):
    assert called(NAMED, "--grid=readiness.every=2", f"--workdir={tmp_path}") == 0
    assert called(NAMED, "--grid=readiness.every=2,4", f"--workdir={tmp_path}", "--workers=0") == 1
    assert "1 of 2 points have not finished: readiness.every=4" in capsys.readouterr().err
    assert [r["readiness.every"] for r in csv.DictReader((tmp_path / "table.csv").open())] == ["2"]
    assert stub.ran == ["readiness.every=2"]


def test_two_sweeps_in_one_folder_are_refused(stub, tmp_path, capsys):
    with workdirs.Workdir(tmp_path / "sweep").claimed({}):
        assert called(NAMED, "--grid=seed=0", f"--workdir={tmp_path}") == 2
    assert "another process works in" in capsys.readouterr().err and not stub.ran


def test_a_dry_run_prints_commands_that_a_shell_takes_and_touches_nothing(stub, tmp_path, capsys):
    folder = tmp_path / "a b"
    assert called(NAMED, "--grid", "request.unlearners=('npo',),('npo','rmu')", f"--workdir={folder}", "--dry-run") == 0
    lines = capsys.readouterr().out.splitlines()
    words = subprocess.run(["sh", "-c", f"printf '%s\\n' {lines[1]}"], capture_output=True, text=True, check=True).stdout
    assert "--config.request.unlearners=('npo','rmu')\n" in words and f"--workdir={folder}/points/" in words
    assert len(lines) == 2 and not folder.exists() and not stub.ran


# --- Mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given, said",
    [
        (["--grid=readiness.evry=2"], 'no key readiness.evry: Did you mean "every"'),
        (["--grid=readiness.every=0,2"], "config.readiness.every is 0: give a whole number from 1"),
        (["--grid=seed=a"], "flag --config.seed=a"),
        (["--grid=seed="], "has no value"),
        (["--grid=seed=0,1"], "every run has 10 seeds, so that those of the grid overlap: give them at least 10 apart"),
        (["--grid=seed=0x1,3"], "every run has 10 seeds"),
        (["--grid=seeds=1,5", "--grid=seed=0,4"], "every run has 5 seeds"),
        (
            [f"--grid=seed={','.join(map(str, range(101)))}", f"--grid=seeds={','.join(map(str, range(1, 101)))}"],
            "--grid has 10100 points: give at most 10000",
        ),
        (["--grid=readiness.step_size=(0.1,0.2),(0.10,0.2)"], "is the same point as"),
        (["--grid=seed=0", "--config.seed=1"], "config.seed stands in the grid and beside it"),
        (["--grid=seed=0", "--workers=-1"], "'-1' is no whole number from 0 to 10000"),
        (["--grid=seed=0", "--gird=seed=1"], "Unknown command line flag 'gird'"),
        ([], "--grid: see forethought sweep --help"),
    ],
)
def test_a_mistake_is_one_line_before_anything_runs(stub, tmp_path, capsys, given, said):
    assert called(NAMED, *given, f"--workdir={tmp_path / 'new'}") == 2
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1 and not stub.ran and not (tmp_path / "new").exists()


def test_seeds_that_differ_in_another_key_may_overlap_and_a_key_may_be_a_word_of_python(stub, tmp_path, capsys):
    axes = ["--grid=seeds=1,4", "--grid=seed=0,4", "--grid=suited.class.retention=0.50"]
    assert called(NAMED, *axes, f"--workdir={tmp_path}", "--dry-run") == 0
    assert "/points/seed=4,seeds=4,suited.class.retention=0.5\n" in capsys.readouterr().out


@pytest.mark.parametrize("folder, said", [("a" * 300, "File name too long"), ("", "--workdir is empty: give the folder")])
def test_a_path_that_cannot_be_is_one_line(stub, capsys, folder, said):
    assert called(NAMED, "--grid=seed=0", f"--workdir={folder}") == 2
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1 and not stub.ran


def test_the_workdir_of_a_run_is_no_folder_for_a_sweep(stub, tmp_path, capsys):
    (tmp_path / "config.json").write_text("{}")
    assert called(NAMED, "--grid=seed=0", f"--workdir={tmp_path}") == 2
    assert "is the workdir of a run: give the sweep a folder of its own" in capsys.readouterr().err


# --- The table --------------------------------------------------------------------------------------------------------


def test_rows_that_differ_in_more_than_their_seed_stay_apart():
    flat = lambda seed, value, training="vanilla": {  # noqa: E731
        **dict.fromkeys(table.IDENTITY, "x"), "training": training, "seed": seed, "steps": value,
        "auc.value": value, "auc.low": 0.0, "auc.n": 9,
    }  # fmt: skip
    points = [
        table.Finished({"a": "1", "seed": "0"}, [flat(0, 1.0), flat(0, 5.0), flat(0, 7.0, "oracle")]),
        table.Finished({"a": "1", "seed": "1"}, [flat(1, 3.0), flat(1, 5.0), flat(1, 9.0, "oracle")]),
    ]
    made = table.make(points)
    assert made.headers == ["a", *table.IDENTITY, "steps", "auc.value"]
    assert [r[made.headers.index("steps")].value for r in made.rows] == [2.0, 5.0, 8.0]


@pytest.mark.slow
def test_a_sweep_of_real_runs_goes_on_after_a_kill(tmp_path):
    words = [sys.executable, "-m", "experiments.main", "sweep", *SMALL, "--grid=seed=0,1", f"--workdir={tmp_path}"]
    process = subprocess.Popen(words, stderr=subprocess.DEVNULL)
    while not any((tmp_path / "points").glob("*/stages/*")) and process.poll() is None:
        time.sleep(0.05)
    process.kill()
    process.wait()
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for seed in (0, 1):
        kept = json.loads((tmp_path / "points" / f"seed={seed}" / "results.json").read_text())
        assert kept["command"].startswith("forethought --config=readiness:digits") and kept["rows"][0]["seed"] == seed

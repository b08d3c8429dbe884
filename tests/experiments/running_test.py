"""A run from Python: it is the command line's, and what it leaves is read as tables, figures and data."""

import shutil
import tarfile

import pytest

from experiments import load, main, run
from experiments.core.errors import UserError
from tests.helpers.docs import ROOT


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished comparison."""
    folder = tmp_path_factory.mktemp("finished")
    with tarfile.open(ROOT / "tests/fixtures/golden/readiness.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder / "readiness"


def test_a_run_is_what_the_command_line_would_run(tmp_path, finished, monkeypatch, capsys):
    seen = []

    def carry_out(config, workdir, command, stream):
        seen.append((config.seeds, config.train.steps, config.trainings, config.model.options.widths, command))
        shutil.copytree(finished, workdir)
        return "the table"

    monkeypatch.setattr(main, "carry_out", carry_out)
    changes = {"seeds": 2, "train.steps": 9, "trainings": ("oracle", "vanilla"), "model.options": {"widths": (3,)}}
    done = run("readiness:digits", tmp_path / "there", changes)
    (got,) = seen
    assert got[:4] == (2, 9, ("oracle", "vanilla"), (3,))
    assert got[4].startswith("forethought --config=readiness:digits --config.seeds=2") and "widths" in got[4]
    assert capsys.readouterr().out == "the table\n" and done.path == tmp_path / "there"


@pytest.mark.parametrize(
    "config, changes, match",
    [("readiness:digit", {}, "unknown"), ("readiness:digits", {"seed_s": 1}, "no key"), ("nothing", {}, "neither a file")],
)
def test_a_mistake_is_one_line(tmp_path, config, changes, match):
    with pytest.raises(UserError, match=match) as caught:
        run(config, tmp_path / "there", changes)
    assert "\n" not in str(caught.value) and not (tmp_path / "there").exists()


def test_means_are_those_of_the_rows_of_each_way(finished):
    done = load(finished)
    means = done.means("steps", "after.test_accuracy")
    ways = list(dict.fromkeys((row.training, row.variant, row.unlearner) for row in done.rows))
    assert [tuple(row.values())[:3] for row in means] == ways
    for row in means:
        mine = [one for one in done.rows if (one.training, one.variant, one.unlearner) == tuple(row.values())[:3]]
        assert row["steps"] == pytest.approx(sum(one.steps for one in mine) / len(mine))
        assert row["after.test_accuracy"] == pytest.approx(sum(one.after["test_accuracy"] for one in mine) / len(mine))


def test_what_is_not_there_is_one_line(finished):
    done = load(finished)
    with pytest.raises(ValueError, match=r"try .*after\.test_accuracy"):
        done.means("after.test_acuracy")
    with pytest.raises(ValueError, match="no column of numbers"):
        done.means("stop")
    for ask in (lambda: done.figure("nothing"), lambda: done.statistics("class", "oracle")):
        with pytest.raises(UserError, match="it has") as caught:
            ask()
        assert "\n" not in str(caught.value)


def test_figures_and_data_are_those_of_the_run(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "run/figures").mkdir(exist_ok=True)
    (tmp_path / "run/figures/one.svg").write_text('<?xml version="1.0"?>\n<svg><path/></svg>')
    done = load(tmp_path / "run")
    assert done.figure("one")._repr_html_().endswith("><svg><path/></svg></div>")
    data = done.dataset()
    apply, params = done.model("vanilla")
    assert set(data.train.y[done.forgotten()]) == {3} and (data.train.y == 3).sum() == len(done.forgotten())
    logits = apply(params, data.test.x, None)
    row = next(row for row in done.rows if row.training == "vanilla")
    assert float((logits.argmax(axis=1) == data.test.y).mean()) == pytest.approx(row.before["test_accuracy"], abs=0.01)

"""Whole runs on texts of one's own, made small: a source forgotten, TOFU's authors forgotten, and the real files."""

import math
import os
from pathlib import Path

import ml_collections
import pytest

from experiments.comparison import report, run
from experiments.configs import readiness as configs
from experiments.core import workdirs
from experiments.core.errors import UserError
from experiments.core.sections import Data
from experiments.data import datasets
from tests.helpers.configs import with_keys
from tests.helpers.texts import authors, texts

D = ml_collections.ConfigDict
FOLDER = os.environ.get("FORETHOUGHT_TEXT_DIR", "")
QUICK = {"trainings": ("oracle", "vanilla"), "request.unlearners": ("idk_dpo",), "request.learning_rates": (0.1,)}


def tiny(name, **changes):
    """A config of text at toy size."""
    small = {"data.length": 64, "data.tokeniser": "", "seeds": 2, "train.steps": 8, "train.batch_size": 16}
    small |= {"model.options": D({"width": 8, "depth": 1, "heads": 1}), "request.max_steps": 2, "relearn.steps": 2}
    small |= {"relearn.size": 20, "readiness.every": 2, "readiness.start": 0, "request.to_level.max_steps": 2}
    return with_keys(configs.get_config(name), small | changes)


def few_authors(root):
    """A folder and the keys of a config by which `forget10`, one author of ten, is forgotten."""
    return {
        "data.name": f"tofu:{authors(root)}",
        "data.train_size": 0,
        "data.holdout": ("author 1", "author 2"),
        "forget.partition": "forget10",
        "data.length": 96,
    }


def first_document(changes):
    return datasets.load(Data(name=changes["data.name"], length=96)).units[0]


@pytest.mark.slow
def test_authors_are_forgotten_and_asked_about(tmp_path):
    config = tiny("tofu_small", **few_authors(tmp_path / "tofu"), **QUICK)
    outcome = run.run(config, str(tmp_path / "run"))
    for row in outcome.rows:
        assert row.setting == "partition" and row.extra["tofu"]["after"]["questions"] == 20
        assert 0 < row.extra["tofu"]["after"]["forget_quality"] <= 1
        assert row.unlearner != "none" or row.extra["tofu"]["before"] == row.extra["tofu"]["after"]
    page = Path(report.write(tmp_path / "run")).read_text()
    assert "forget10 forgotten" in page and ">TOFU<" in page
    assert run.run(config, str(tmp_path / "run")) == outcome


@pytest.mark.slow
def test_refusals_to_answer_are_rehearsed(tmp_path):
    changes = few_authors(tmp_path / "tofu") | QUICK
    changes |= {"trainings": ("oracle", "vanilla", "readiness"), "readiness.algorithm": "idk_dpo"}
    outcome = run.run(tiny("tofu_small", **changes), str(tmp_path / "run"))
    ready = [row for row in outcome.rows if row.training == "readiness"]
    assert len(ready) == 2 and all(math.isfinite(row.after["forget_token_loss"]) for row in ready)


def test_what_cannot_be_asked_for_is_one_line(tmp_path):
    changes = few_authors(tmp_path / "tofu")
    config = tiny("tofu_small", **changes, **QUICK)
    (tmp_path / "run").mkdir()
    with pytest.raises(UserError, match="there is no set 'forget05': did you mean 'forget10'"):
        run.run(with_keys(config, {"forget.partition": "forget05"}), str(tmp_path / "run"))
    few = {"data.holdout": (), "forget.setting": "documents", "forget.documents": (str(first_document(changes)),)}
    with pytest.raises(
        UserError, match=r"1 examples to forget, 5 or more .* ask for more in --config.forget.documents, or"
    ):
        run.run(tiny("tofu_small", **changes | few | {"forget.partition": ""}), str(tmp_path / "run"))
    assert not list((tmp_path / "run").iterdir())


@pytest.mark.slow
def test_canaries_are_forgotten_and_shown(tmp_path):
    texts(tmp_path / "files", {f"{i}.txt": f"Text {i:2}. " + 9 * f"word {i % 7} " for i in range(32)})
    keys = {"data.name": f"texts:{tmp_path / 'files'}", "data.train_size": 0, "data.canaries.count": 8}
    keys |= {"forget.setting": "documents", "forget.documents": tuple(f"canary {i}" for i in range(5))}
    config = tiny("pydoc", **QUICK | keys | {"request.unlearners": ("level",), "forget.fraction": 0.05})
    outcome = run.run(config, str(tmp_path / "run"))
    for row in outcome.rows:
        for when in ("before", "after"):
            exposed = row.extra["canaries"][when]
            assert [len(exposed[f"{who}_exposures"]) for who in ("forget", "retain")] == [5, 3]
            assert 0 <= exposed["forget_exposure"] < 10
    page = Path(report.write(tmp_path / "run")).read_text()
    assert ">Canaries<" in page and "5 forgotten and 3 retained" in page


@pytest.mark.slow
def test_a_source_is_forgotten_while_another_is_held_out(tmp_path):
    speakers = ("Johnson", "Ford", "Carter", "Reagan")
    speeches = {f"{1960 + i}-{speakers[i % 4]}.txt": f"Speech {i:2}. " + 20 * f"word {i % 7} " for i in range(32)}
    texts(tmp_path / "speeches", speeches)
    trainings = ("oracle", "vanilla", "readiness")
    config = tiny("speeches", **{"data.name": f"texts:{tmp_path / 'speeches'}", "trainings": trainings})
    outcome = run.run(config, str(tmp_path / "run"))
    assert {row.training for row in outcome.rows} == set(trainings)
    assert all(row.setting == "group" and "tofu" not in row.extra for row in outcome.rows)
    assert "Carter forgotten" in Path(report.write(tmp_path / "run")).read_text()
    assert workdirs.read_results(tmp_path / "run" / "results.json") == outcome


@pytest.mark.slow
@pytest.mark.parametrize(("name", "data"), [("speeches", "texts:{}/speeches/state_union"), ("tofu_small", "tofu:{}/tofu")])
def test_the_real_files(name, data, tmp_path):
    """For a few steps: that a config finds what it names, and that there are questions about it."""
    if not FOLDER or not Path(FOLDER, "tofu").is_dir() or not Path(FOLDER, "speeches").is_dir():
        pytest.skip("FORETHOUGHT_TEXT_DIR does not name a folder with tofu/ and speeches/ in it")
    config = with_keys(configs.get_config(name), QUICK | {"data.name": data.format(FOLDER), "seeds": 1, "train.steps": 5})
    config.request.unlearners, config.request.max_steps, config.relearn.steps = ("ascent",), 2, 2
    outcome = run.run(config, str(tmp_path))
    assert ("tofu" in outcome.rows[0].extra) == (name == "tofu_small")

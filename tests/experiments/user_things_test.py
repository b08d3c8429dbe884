"""A user's own data, model and algorithm, in files of their own, through a whole run; and what a notebook reads of it."""

import csv
import shutil

import ml_collections
import numpy as np
import pytest
from PIL import Image

import experiments
from experiments import models
from experiments.comparison import checks, report, run
from experiments.configs import judge as judge_configs
from experiments.configs import readiness as configs
from experiments.core import references
from experiments.core.errors import UserError
from experiments.core.workdirs import WorkdirError
from experiments.data import datasets
from experiments.judge import run as judge_run
from tests.helpers import comparisons, things


@pytest.fixture
def mine(tmp_path, monkeypatch):
    with things.folder_of(tmp_path, monkeypatch) as folder:
        yield folder


def settings(**data):
    """The shipped config at toy size."""
    config = configs.get_config("digits")
    config.data.update(data)
    config.seeds = 2
    config.trainings = ("oracle", "vanilla", "readiness")
    config.equal_flops, config.variants = False, ml_collections.ConfigDict()
    config.model.options.widths = (4,)
    config.train.update({"steps": 8, "batch_size": 16})
    config.forget.target = 1
    config.request.update({"learning_rates": (0.1,), "max_steps": 2, "observe": 20, "unlearners": ("mine:halve",)})
    config.relearn.update({"steps": 1, "size": 20})
    return config


def pictures(root, count=40):
    for name in ("cat", "dog", "owl"):
        (root / name).mkdir(parents=True)
        for i in range(count):
            pixels = np.random.default_rng([i, ord(name[0])]).integers(0, 256, (4, 5, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{i}.png")
    return root


def table(path, count=120):
    rng = np.random.default_rng(0)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["who", "age", "income", "kind"])
        for i in range(count):
            kind = ("a", "b", "c")[i % 3]
            writer.writerow([f"user{i}", 30 + 9 * rng.normal(), f"{2e4 * (i % 3 + 1) + 1e3 * rng.normal():.2f}", kind])
    return path


def test_a_folder_of_images_and_an_algorithm_of_a_users_own(mine):
    config = settings(name=f"folder:{pictures(mine / 'pets')}")
    config.request.options = {"halve": {"factor": 0.25}}
    config.request.unlearners = ("mine:halve", "mine:halve@level")
    config.request.to_level.max_steps = 3
    results = run.run(config, str(mine / "run"), "test")
    assert {row.unlearner for row in results.rows} == {"none", "halve", "halve@level"}
    assert {row.dataset for row in results.rows} == {config.data.name}
    report.present(str(mine / "run"), results)
    assert "halve" in (mine / "run" / "report.md").read_text() and (mine / "run" / "report.html").exists()


@pytest.mark.slow
def test_a_table_and_a_model_of_a_users_own_and_what_is_read_of_the_run(mine):
    config = settings(name=f"csv:{table(mine / 'people.csv')}", label="kind", id_column="who")
    config.model.factory, config.model.factory_options = "mine:network", {"width": 6}
    config.readiness.resistance = 0.5  # draws from the nearest classes
    run.run(config, str(mine / "run"), "test")
    kept = experiments.load(mine / "run")
    flat = kept.table()
    assert len(flat) == len(kept.rows) == 6 and flat[0]["after.test_accuracy"] == kept.rows[0].after["test_accuracy"]
    assert kept.csv().splitlines()[0].split(",")[0] == "training" and len(kept.csv().splitlines()) == 7
    dataset = datasets.load(config.data)
    for training in config.trainings:
        apply, network = kept.model(training, seed=1)
        assert type(network).__name__ == "MLP"
        right = np.argmax(apply(network, dataset.test.x, None), axis=1) == dataset.test.y
        (row,) = (row for row in kept.rows if (row.training, row.seed) == (training, 1))
        assert right.mean() == pytest.approx(row.before["test_accuracy"])
    with pytest.raises(WorkdirError, match=r"has no reweight .* of seed 0: it has oracle"):
        kept.model("reweight")
    (altered,) = (row for row in kept.rows if (row.training, row.seed) == ("vanilla", 0))
    altered.extra["params_sha256"]["before"] = "0"
    with pytest.raises(WorkdirError, match="other parameters"):
        kept.model("vanilla")
    shutil.rmtree(mine / "run/checkpoints/plain")  # two lanes stand where four were
    shutil.copytree(mine / "run/checkpoints/readiness-default", mine / "run/checkpoints/plain")
    with pytest.raises(WorkdirError, match=r"plain holds other parameters .* remove it and results.json and run again"):
        kept.model("vanilla", seed=1)
    (mine / "run/config.json").write_text("{}")
    with pytest.raises(WorkdirError, match=r"config.json is of no run: put a copy of it back"):
        experiments.load(mine / "run").model("vanilla")


@pytest.mark.slow
def test_a_table_is_judged_with_a_model_and_an_algorithm_of_a_users_own(mine):
    tiny = settings(name=f"csv:{table(mine / 'people.csv', 240)}", label="kind", id_column="who")
    config = judge_configs.get_config("digits")
    for part in ("data", "train", "model"):
        config[part].update({name: value for name, value in tiny[part].items() if name in config[part]})
    config.model.factory = "mine:network"
    config.trainings = ("oracle", "heldout_oracle", "vanilla")
    config.seeds = 2
    config.relearn.update(tiny.relearn)
    config.request.unlearners = ("mine:halve",)
    config.judge.update({"lanes": 12, "private_lanes": 12, "memorisation_lanes": 6, "batch_size": 8, "retain": 20})
    config.judge.tuning.update({"lanes": 2, "learning_rates": (0.01,), "steps": (1, 2)})
    config.judge.sets = ml_collections.ConfigDict(
        {"some": {"setting": "random", "fraction": 0.2}, "close": {"setting": "near_duplicates", "fraction": 0.05}}
    )
    rows = judge_run.run(config, str(mine / "judged"), "test").rows
    assert {(row.setting, row.unlearner) for row in rows} == {(s, u) for s in ("some", "close") for u in ("none", "halve")}
    with pytest.raises(WorkdirError, match="a judgement keeps statistics"):
        experiments.load(mine / "judged").model("vanilla")


@pytest.mark.parametrize(
    "name, message",
    [
        ("mine:absent", "mine has no absent"),
        ("absent:halve", "there is no module 'absent'"),
        ("mine:nothing", r"is not called as nothing\(model, optimizer\)"),
        ("mine:wrong", "^config.request.unlearners 'mine:wrong' gives a NoneType: give an unlearn.UnlearnAlgorithm"),
        ("mine:bare", "^config.request.unlearners 'mine:bare' has an init that gives a dict: give an unlearn.UnlearnState"),
        ("mine:alone", "an update that gives a UnlearnState: give a pair"),
        ("mine:cast", r"an update that makes params\['Dense_0'\]\['bias'\] bfloat16\[4\], which was float32\[4\]: keep"),
        ("mine:widened", r"an update that makes .* float32\[1, 4\], which was float32\[4\]: keep"),
        ("mine:listed", "an update that gives params of another structure: keep"),
        ("mine:counted", r"an update that makes memory float32\[\], which was int32\[\]: keep"),
        ("mine:recast", r"an init that makes .* bfloat16\[4\], which was float32\[4\]: keep"),
        ("mine:leaves", "^config.request.unlearners 'mine:leaves' fails on .* .SystemExit: 3.: mend it"),
        ("os:environ", "is a _Environ: name a function"),
        ("mine:", "give module:function"),
        ("ascend", "give one or more of level, ascent, .* or module:function"),
        ("mine:absent@level", "mine has no absent"),
        ("mine:bare@level", "'mine:bare@level' has an init that gives a dict"),
        ("mine:halve@levels", "give one or more of level, .*; NAME@level goes on"),
    ],
)
def test_an_algorithm_that_is_none_is_refused_in_one_line(mine, name, message):
    config = settings()
    config.request.unlearners = (name,)
    with pytest.raises(ValueError, match=message) as caught:
        run.run(config, str(mine / "run"))
    assert "\n" not in str(caught.value) and not (mine / "run").exists()


@pytest.mark.parametrize(
    "name, message",
    [
        (
            "mine:halve",
            "^config.readiness.algorithm 'mine:halve' fails .* argument 'mean'.*mend it, which readiness gives mean",
        ),
        ("mine:loops", "^config.readiness.algorithm 'mine:loops' fails on this run's model and data .*while_loop"),
    ],
)
def test_an_algorithm_that_cannot_be_rehearsed_is_refused_in_one_line(mine, name, message):
    config = settings()
    config.request.unlearners, config.readiness.algorithm = ("ascent",), name
    with pytest.raises(ValueError, match=message) as caught:
        run.run(config, str(mine / "run"))
    assert "\n" not in str(caught.value) and not (mine / "run").exists()


def test_a_judge_refuses_it_too(mine):
    config = judge_configs.get_config("digits")
    config.request.unlearners = ("mine:bare",)
    with pytest.raises(UserError, match=r"^config.request.unlearners 'mine:bare' has an init that gives a dict"):
        judge_run.run(config, str(mine / "run"))
    assert not (mine / "run").exists()


def test_an_algorithm_may_know_the_runs_model(mine):
    config = settings()
    config.request.unlearners, config.readiness.algorithm = ("mine:reads",), "mine:reads"
    config = checks.resolved(config)
    problem = comparisons.problem_of(config)
    model = models.build(config.model, problem.dataset.train.x[:1], problem.dataset.classes)
    checks.check_own(config.request, config.by_variant(), model, problem, 0)


def test_an_algorithm_of_the_shelf_may_need_what_a_model_has_not(mine):
    config = settings()
    config.request.unlearners, config.readiness.algorithm = ("ascent", "rmu"), "ascent"
    config = checks.resolved(config)
    problem = comparisons.problem_of(config)
    model = models.build(config.model, problem.dataset.train.x[:1], problem.dataset.classes)
    checks.check_own(config.request, config.by_variant(), model, problem, 0)
    with pytest.raises(
        UserError, match=r"^config.request.unlearners 'rmu' cannot be used \(rmu moves features, and"
    ) as error:
        checks.check_own(config.request, config.by_variant(), model._replace(features=None), problem, 0)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("key", ["data.factory", "model.factory"])
def test_a_function_that_ends_the_program_is_told(mine, key):
    with pytest.raises(UserError, match=f"^{key} 'mine:stops' fails .SystemExit: 3.: mend it"):
        references.call(references.resolve("mine:stops", key), f"{key} 'mine:stops'")
    (mine / "ending.py").write_text("import sys\nsys.exit(4)\n")
    with pytest.raises(UserError, match=r"importing ending fails .SystemExit: 4.: mend it"):
        references.resolve("ending:make", key)

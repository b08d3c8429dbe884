"""Whole runs, made small: every config goes through every stage, and a killed run ends as if it had never been killed."""

import itertools

import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from experiments.comparison import run, trainings
from experiments.configs import readiness as configs
from experiments.configs.comparison import Comparison
from experiments.core import workdirs
from experiments.core.config import validated
from experiments.core.machines import execution
from experiments.data import datasets
from experiments.scoring import evaluation
from experiments.scoring.statistics import make_statistics
from tests.helpers import comparisons, kills, texts
from unlearn import classifier

D = ml_collections.ConfigDict
FILES = ("speeches", "tofu_small")  # need texts; see text_run_test
QUICK = ("digits",)  # every way; lanes by loops and random data have tests of their own


def shrink(config):
    """The same config at toy size, on data that need no download."""
    if config.model.name == "smollm2":  # weights have tests of their own
        config.data.update({"name": "pydoc", "answers_only": False})
        config.model.name, config.model.lora.rank = "gpt2", 0
    if config.data.name == "pydoc":
        config.data.update({"train_size": 60, "length": 32, "tokeniser": ""})
    elif config.data.name == "trec":
        config.data.update({"name": f"jsonl:{texts.questions()}", "length": 16, "tokeniser": ""})
        config.forget.target = 1
    else:
        config.data.name, config.data.train_size = "digits", 0
    config.seeds = 2
    config.train.steps = 20
    config.train.batch_size = 16
    config.readiness.every = 2
    for overrides in config.variants.values():
        if "start" in overrides:
            overrides.start = 10
    config.request.learning_rates = (0.01, 0.1)
    config.request.max_steps = 3
    config.request.to_level.update(max_steps=3, learning_rates=(0.1,), betas=(0.5,))
    config.request.observe = 50
    config.relearn.steps = 2
    config.relearn.size = 40
    if config.model.name in ("mlp", "cnn", "whitened"):
        config.model.options.widths = (8,)
    elif config.model.name == "resnet18":
        config.model.options.update({"width": 8, "stages": (1, 1)})
    else:
        config.model.options.update({"width": 8, "depth": 1, "heads": 2})
    return config


def run_config(name, workdir, **overrides):
    config = shrink(configs.get_config(name))
    config.update(overrides)
    return config, run.run(config, str(workdir), "test")


@pytest.mark.parametrize(
    "name",
    [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in configs.EXPERIMENTS if n not in FILES],
)
def test_every_config_runs_to_the_end(name, tmp_path):
    config, outcome = run_config(name, tmp_path)
    ways = {(row.training, row.variant, row.unlearner) for row in outcome.rows}
    assert {training for training, _, _ in ways} == set(config.trainings)
    assert {unlearner for _, _, unlearner in ways} == {"none", *config.request.unlearners}
    assert {variant for training, variant, _ in ways if training == "readiness"} == {"default", *config.variants}
    for way in ways:
        rows = [row for row in outcome.rows if (row.training, row.variant, row.unlearner) == way]
        assert [row.seed for row in rows] == [0, 1]
    for row in outcome.rows:
        assert row.stop in ("reached", "diverged", "budget")
        assert 0 <= row.before["test_accuracy"] <= 1
        assert row.steps <= config.request.max_steps * config.request.parts
        assert set(row.extra["relearning"]) == {"stable", "similar", "part", "all"}
        assert row.train_flops > 0 and row.peak_bytes > 0
        of_documents = {"forget_token_loss", "retain_extraction_strength", "min_k_auc", "privleak"}
        for scores in (row.before, row.after):
            assert of_documents & set(scores) == (of_documents if config.data.name == "pydoc" else set())
        assert ("distance" in row.extra) == (config.data.name == "pydoc")
    assert workdirs.read_results(tmp_path / "results.json") == outcome


@pytest.mark.slow
def test_an_encoder_forgets_a_class_of_text(tmp_path):
    """By DP-SGD, too, which its own config leaves out."""
    ways = {"trainings": ("oracle", "vanilla", "dpsgd"), "equal_flops": False}
    config, outcome = run_config("trec", tmp_path, **ways, seeds=1)
    assert [row.training for row in outcome.rows if row.unlearner == "level"] == ["vanilla", "dpsgd"]
    dataset = datasets.load(validated(Comparison, config).data, classify=True)
    for row in outcome.rows:
        assert all(0 <= row.after[f"{name}_accuracy"] <= 1 for name in ("forget", "others", "test_retain"))
        assert np.isfinite(row.after["mia_auc"]) and set(row.extra["relearning"]) == {"stable", "similar", "part", "all"}
    sizes = next(entry for entry in log(tmp_path, "data"))
    assert sizes["classes"] == 4 and sizes["train"] == len(dataset.train.id)


@pytest.mark.slow
def test_requests_end_at_levels_of_models_and_of_proxies(tmp_path):
    """What was rehearsed is asked for without a trial, and every way has as many of what was not."""
    config = shrink(configs.get_config("digits"))
    config.update({"trainings": ("oracle", "vanilla", "readiness"), "equal_flops": False})
    config.variants, config.train.steps = D(), 8
    config.readiness.update(configs.RESIST)
    config.request.unlearners, config.request.learning_rates = ("level", "ascent@level"), (0.1,)
    config.request.to_level.betas, config.request.repair = (0.5,), 2
    rows = run.run(config, str(tmp_path), "test").rows
    chosen = {(entry["selected_for"], entry["unlearner"]): len(entry["trials"]) for entry in log(tmp_path, "sweep")}
    of_both = {(way, "ascent@level"): 1 for way in ("vanilla-default", "readiness-default")}
    assert chosen == {("vanilla-default", "level"): 1} | of_both
    proxy, ready = (workdirs.Workdir(tmp_path).stage(f"cost-{name}", None) for name in ("proxy", "readiness-default"))
    (cost,) = {row.train_flops for row in rows if row.training == "readiness"}
    assert cost == proxy["train_flops"] + ready["train_flops"] and proxy["train_flops"] > 0
    for row in rows:
        if row.training == "oracle":
            continue
        assert {"forget_margin", "retained_accuracy"} < set(row.extra["curve"])
        assert row.steps <= 3 or (row.unlearner == "level" and row.stop == "reached" and row.steps <= 5)
        assert 0 <= row.extra["level"]["undone"] <= row.steps and np.isfinite(row.extra["level"]["aim"])
        rehearsed = row.training == "readiness" and row.unlearner == "level"
        assert not rehearsed or row.extra["setting"]["learning_rate"] == 0.1
    aims = {(row.training, row.unlearner): row.extra["level"]["aim"] for row in rows if row.training != "oracle"}
    assert aims["readiness", "level"] == aims["readiness", "ascent@level"], "the proxy's, as it rehearsed"
    assert aims["vanilla", "level"] == aims["vanilla", "ascent@level"] != aims["readiness", "level"], "its own"


def log(folder, event):
    return [entry for entry in workdirs.entries(folder / "metrics.jsonl") if entry["event"] == event]


def test_oracles_are_not_unlearned_and_forget_nothing_they_saw(tmp_path):
    _, outcome = run_config("digits", tmp_path, trainings=("oracle", "heldout_oracle", "vanilla"))
    oracles = [row for row in outcome.rows if row.is_oracle]
    assert all(row.before == row.after and row.steps == 0 for row in oracles)
    digests = [row.extra["params_sha256"]["before"] for row in oracles]
    assert len(set(digests)) == len(digests), "the held-out oracle has keys of its own"


def test_a_finished_workdir_is_read_back_and_another_config_is_refused(tmp_path, monkeypatch):
    names = ("oracle", "vanilla")
    _, first = run_config("digits", tmp_path, trainings=names)
    monkeypatch.setattr(trainings, "train_all", lambda *_: pytest.fail("a finished run was run again"))
    assert run_config("digits", tmp_path, trainings=names)[1] == first
    with pytest.raises(workdirs.WorkdirError, match=r"another config \(config.seed differ\)"):
        run_config("digits", tmp_path, trainings=names, seed=5)


@pytest.mark.parametrize(
    "path, value, message",
    [
        ("seeds", 0, "seeds is 0"),
        ("train.steps", 0, "train.steps is 0"),
        ("data.score_examples", -1, "data.score_examples is -1"),
        ("readiness.every", 0, "readiness.every is 0"),
        ("readiness.step_size", (0.3,), "lowest"),
        ("readiness.step_size", (0.3, 0.1), "lowest"),
        ("readiness.fraction", 0.0, "readiness.fraction"),
        ("readiness.form", "odd", "form is 'odd': choose level, gain or raw"),
        ("readiness.order", 3, "order is 3: choose 1 or 2"),
        ("readiness.requests", "odd", "requests is 'odd': choose known"),
        ("readiness.recovery", "odd", "recovery is 'odd': choose nearest_classes"),
        ("readiness.algorithm", "odd", "algorithm is 'odd': give level, ascent, .* or module:function"),
        ("readiness.cap", "odd", "cap"),
        ("request.unlearners", ("odd",), "give one or more of level, ascent, .* or module:function .*; NAME@level goes on"),
        ("request.unlearners", ("npo@levels",), "give one or more of level, .*; NAME@level goes on to the level"),
        ("request.unlearners", ("odd@level",), "give one or more of level, .*; NAME@level goes on to the level"),
        ("request.unlearners", ("level@level",), "give one or more of level, .*; NAME@level goes on to the level"),
        ("request.to_level.betas", (0.5, 1.0), "betas is \\(0.5, 1.0\\): give"),
        ("request.to_level.learning_rates", (), "to_level.learning_rates is \\(\\): give one or more"),
        ("request.to_level.levels", "odd", "levels is 'odd': give own, proxy, oracle, or a text with a number"),
        ("readiness.levels", "oracle", "levels is 'oracle': choose own or proxy"),
        ("request.learning_rates", (), "learning_rates is \\(\\): give one or more"),
        ("request.clips", (), "clips is \\(\\): give one or more"),
        ("request.learning_rates", (float("nan"),), "give one or more numbers above 0"),
        ("request.learning_rates", ("a",), "give one or more numbers above 0"),
        ("readiness.start", 20, "training ends after 20 steps"),
        ("readiness.inner_steps", -1, "readiness.inner_steps is -1"),
        ("seed", -1, "seed is -1"),
        ("trainings", ("vanilla",), "every comparison needs oracle, add it"),
        ("trainings", ("oracle", "vanilla", "odd"), "give none or more of oracle, heldout_oracle"),
        ("train.optimizer", "odd", "choose sgd, nesterov or adamw"),
        ("model.name", "odd", "choose mlp, cnn"),
        ("parallel", "odd", "choose jit or pmap"),
        ("fsdp", 3, "3 devices cannot share a copy of the parameters where there are 1: give a divisor"),
        ("forget.target", 10, "class 10"),
        ("forget.revocable", 12, "class 12"),
        ("forget.setting", "odd", "choose class, random, group, documents or partition"),
        ("data.name", "no_such_set", "no_such_set"),
    ],
)
def test_a_bad_config_is_refused_in_one_line_before_anything_is_trained(path, value, message, tmp_path, monkeypatch):
    monkeypatch.setattr(trainings, "train_all", lambda *_: pytest.fail("training began"))
    config = shrink(configs.get_config("digits"))
    with config.ignore_type():
        config.update_from_flattened_dict({path: value})
    with pytest.raises(ValueError, match=message) as caught:
        run.run(config, str(tmp_path / "run"))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run" / "config.json").exists(), "a corrected config must be free to use the same folder"


@pytest.mark.slow
def test_a_run_by_pmap_ends_with_every_row(tmp_path):
    config = shrink(configs.get_config("digits"))
    config.parallel, config.equal_flops = "pmap", False
    config.trainings = ("oracle", "vanilla", "readiness")
    rows = run.run(config, str(tmp_path)).rows
    assert sorted((row.training, row.seed) for row in rows) == sorted(
        (name, seed) for name in config.trainings for seed in (0, 1)
    )


def test_a_random_request_is_fulfilled_at_the_oracles_accuracy(tmp_path):
    config = shrink(configs.get_config("digits_random"))
    config.trainings = ("oracle", "vanilla")
    config.equal_flops = False
    config.train.steps = 300
    config.request.learning_rates = (0.05,)
    config.request.max_steps = 60
    rows = run.run(config, str(tmp_path)).rows
    oracle = {row.seed: row.after["forget_accuracy"] for row in rows if row.training == "oracle"}
    for row in rows:
        if row.training == "vanilla" and row.stop == "reached":
            assert row.after["forget_accuracy"] <= oracle[row.seed] + 1e-6
            assert row.steps == len(row.extra["curve"]["forget_accuracy"]) - 1


CHILD = """
import sys
from tests.experiments.comparison.run_test import configs, run, shrink
config = shrink(configs.get_config("digits"))
config.train.steps = 400
config.checkpoint_seconds = 0.0
config.trainings = ("oracle", "vanilla", "readiness")
config.equal_flops = False
config.variants.resist = configs.RESIST
run.run(config, sys.argv[1], "test")
"""
DURING_A_SAVE = "checkpoints/plain/*orbax-checkpoint-tmp*"
AFTER_EPOCHS = "checkpoints/readiness-default/[5-9]"
BETWEEN_REQUESTS = "stages/rows-*"


@pytest.mark.slow
def test_a_run_killed_three_times_ends_with_the_same_bits(tmp_path):
    kills.check_ends_the_same(CHILD, tmp_path, [DURING_A_SAVE, AFTER_EPOCHS, BETWEEN_REQUESTS])


def test_scores_of_a_lane_with_nan_are_not_numbers():
    batch = {"x": np.zeros((8, 2), np.float32), "y": np.zeros(8, np.int32), "id": np.arange(8)}
    model = classifier(lambda params, x, key: jnp.zeros((len(x), 3)).at[3].add(params))
    statistics = make_statistics(model, execution.one_device())
    scores = evaluation.score(statistics, np.array([np.nan, 0.0], np.float32), evaluation.Sets(*[batch] * 8))
    assert np.isnan(list(scores[0].values())).all()
    assert scores[1]["test_accuracy"] == 1.0 and scores[1]["forget_loss"] == pytest.approx(np.log(3))


def test_parts_of_a_request_cover_the_forget_set_and_overlap_as_asked():
    config = shrink(configs.get_config("digits_sequence"))
    dataset = datasets.load(config.data)
    requests = comparisons.parts(config, dataset).requests
    parts = [set(np.asarray(part.forget["id"]).tolist()) for part in requests.data("ascent")]
    assert set.union(*parts) == set(requests.problem.sets.forget["id"].tolist())
    assert all(a & b for a, b in itertools.pairwise(parts))
    apart = requests._replace(section=requests.section.model_copy(update={"overlap": 0.0}))
    alone = [set(np.asarray(part.forget["id"]).tolist()) for part in apart.data("ascent")]
    assert sum(map(len, alone)) == len(requests.problem.sets.forget["id"])

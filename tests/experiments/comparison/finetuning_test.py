"""Whole runs that fine-tune a folder, by adapters or all of it: decoders and encoders, and the real MiniLM."""

import importlib.util
import json
import math
import shutil

import jax
import numpy as np
import pytest

from experiments import load
from experiments.comparison import checks, run
from experiments.configs import readiness as configs
from experiments.core.errors import UserError
from experiments.data import datasets
from experiments.data.text import tokenisers
from experiments.data.text.sources import topics
from experiments.models.language import decoder, folders, packaged
from experiments.models.language.backbones import as_functions
from experiments.models.language.encoder import Encoder, EncoderConfig
from tests.experiments.comparison.run_test import shrink
from tests.helpers.texts import authors, questions


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A Llama with random weights and a tokeniser of 300 entries."""
    made = tmp_path_factory.mktemp("llama")
    config = decoder.llama(vocabulary=300, width=16, depth=3, heads=2, mlp=24, positions=64)
    folders.save_folder(made, config, as_functions(decoder.Decoder(config)).init(jax.random.key(0)))
    (made / "tokenizer.json").write_text(tokenisers.train_bpe(topics.read().texts[:20], 300), "utf-8")
    return made


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    """A BERT with random weights, a head of three classes and a tokeniser of 270 entries."""
    made = tmp_path_factory.mktemp("bert")
    config = EncoderConfig(270, 16, 2, 2, 24, 20, 2, 1e-12, 0)
    folders.save_folder(made, config, as_functions(Encoder(config, classes=3)).init(jax.random.key(0)))
    (made / "tokenizer.json").write_text(tokenisers.train_bpe(questions().read_text("utf-8").split("\n"), 270), "utf-8")
    return made


def finetuned(folder, **model):
    config = shrink(configs.get_config("pydoc"))
    config.model.update({"name": "folder", "params": str(folder), **model})
    config.model.options = configs.ml_collections.ConfigDict({"remat": True})
    config.trainings = ("oracle", "vanilla", "neftune", "readiness")
    config.seeds, config.readiness.inner_steps, config.readiness.start = 1, 2, 0
    return config


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 2])
def test_a_folder_is_fine_tuned_in_a_run(folder, tmp_path, rank):
    pytest.importorskip("tokenizers", reason="no tokenizers on this machine: the extra `text` has them")
    config = finetuned(folder)
    config.model.lora.rank = rank
    found = run.run(config, str(tmp_path / "run"), "test")
    assert {row.training for row in found.rows} == {"oracle", "vanilla", "neftune", "readiness"}
    kept = json.loads((tmp_path / "run/config.json").read_text())
    assert kept["data"]["tokeniser"] == str(folder / "tokenizer.json")
    assert "parameters" in json.loads((tmp_path / "run/inputs.json").read_text())
    for row in found.rows:
        assert math.isfinite(row.before["forget_loss"])
        assert importlib.util.find_spec("rouge_score") is None or 0 <= row.after["forget_rouge_l"] <= 1
    for training in ("vanilla", "neftune", "readiness"):
        apply, params = load(tmp_path / "run").model(training)
        assert apply(params, [[1, 2]], None).shape == (1, 2, 300)
        assert ("tokens" in params) == (rank == 0)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 2])
def test_an_encoder_s_folder_is_fine_tuned_in_a_run(bert, tmp_path, rank):
    pytest.importorskip("tokenizers", reason="no tokenizers on this machine: the extra `text` has them")
    config = shrink(configs.get_config("trec"))
    config.model.update({"name": "folder", "params": str(bert)})
    config.model.options = configs.ml_collections.ConfigDict()
    config.model.lora.rank, config.seeds = rank, 1
    config.trainings = ("oracle", "vanilla", "readiness")
    found = run.run(config, str(tmp_path / "run"), "test")
    assert {row.training for row in found.rows} == set(config.trainings)
    assert json.loads((tmp_path / "run/config.json").read_text())["data"]["tokeniser"] == str(bert / "tokenizer.json")
    assert all(math.isfinite(row.after["forget_loss"]) and row.setting == "class" for row in found.rows)
    apply, params = load(tmp_path / "run").model("readiness")
    assert apply(params, np.ones((1, 16), np.int32), None).shape == (1, 4)
    assert ("tokens" in params) == (rank == 0)
    assert run.run(config, str(tmp_path / "run")) == found


@pytest.mark.slow
def test_minilm_tells_questions_apart(tmp_path):
    """After 25 steps of its adapters and head, on 400 questions of trec, better than naming the largest class."""
    pytest.importorskip("tokenizers", reason="no tokenizers on this machine: the extra `text` has them")
    config = configs.get_config("trec")
    config.data.update({"train_size": 400, "tokeniser": "", "score_examples": 64})
    config.model.name, config.model.options = "minilm", configs.ml_collections.ConfigDict()
    config.model.lora.rank, config.seeds, config.trainings = 4, 1, ("oracle", "vanilla")
    config.train.update({"steps": 25, "batch_size": 32, "learning_rate": 0.01})
    config.request.unlearners, config.request.max_steps, config.request.learning_rates = ("ascent",), 1, (0.01,)
    config.request.observe, config.relearn.steps, config.relearn.size = 32, 1, 32
    try:
        packaged.minilm_folder()
        test = datasets.load(checks.resolved(config).data, classify=True).test.y
    except UserError as error:
        pytest.skip(str(error))
    (row,) = (row for row in run.run(config, str(tmp_path / "run")).rows if row.training == "vanilla")
    assert row.before["test_accuracy"] > 1.3 * np.bincount(test).max() / len(test)


@pytest.mark.slow
def test_adapters_say_what_they_know_of_authors(folder, tmp_path):
    """ROUGE-L of continuations, and a model's utility, which a model that knows nothing at all does not have."""
    for package in ("tokenizers", "rouge_score"):
        pytest.importorskip(package, reason=f"no {package} on this machine: the extra `text` has it")
    root = authors(tmp_path / "tofu")
    shutil.copy(root / "world_facts_perturbed.json", root / "real_authors_perturbed.json")
    config = finetuned(folder)
    config.data.update({"name": f"tofu:{root}", "train_size": 0, "length": 64, "answers_only": True})
    config.data.holdout, config.data.validation_fraction = ("author 2", "author 3"), 0.5
    config.forget.setting, config.forget.partition = "partition", "forget10"
    config.model.lora.rank, config.trainings = 2, ("oracle", "vanilla")
    for row in run.run(config, str(tmp_path / "run"), "test").rows:
        assert 0 <= row.after["forget_rouge_l"] <= 1
        for scores in row.extra["tofu"].values():
            assert 0 <= scores["model_utility"] <= 1 and 0 <= scores["retain_rouge_l_recall"] <= 1


@pytest.mark.slow
def test_other_weights_are_another_run(folder, tmp_path):
    pytest.importorskip("tokenizers", reason="no tokenizers on this machine: the extra `text` has them")
    with pytest.raises(UserError, match=r"config\.json"):
        run.run(finetuned(tmp_path), str(tmp_path / "run"), "test")

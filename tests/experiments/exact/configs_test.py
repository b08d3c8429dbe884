"""Configs of s3t runs: complete, and mistakes in one line before anything is written."""

import pytest

from experiments.configs import s3t
from experiments.core.config import validated
from experiments.exact import run, store
from experiments.models import vits
from tests.helpers.studies import TINY, config


@pytest.fixture(autouse=True)
def _tiny(monkeypatch):
    monkeypatch.setitem(vits.VITS, "tiny", TINY)


def test_mistakes_are_one_line_before_anything_is_written(tmp_path):
    mistakes = (
        ("planner", "best", "config.planner is 'best': choose sisa, cyclic"),
        ("slices", 0, "config.slices is 0: give a whole number from 1 to 8"),
        ("slices", 9, "config.slices is 9: give a whole number from 1 to 8"),
        ("deletions", 10**6, "ask for fewer"),
        ("shards", 200, "a slice has no example"),
        ("classes", (4, 5), "examples that s3t is to unlearn"),
        ("retrain_after", (-1,), "give none or more whole numbers from 0 to"),
        ("checkpoint", str(tmp_path / "no.npz"), "cannot be read"),
        ("lanes", 0, "config.lanes is 0: give a whole number from 1 to"),
        ("cache_bytes", -1, "config.cache_bytes is -1: give a whole number from 0 to"),
        ("budget", float("nan"), "config.budget is nan: give a number from 0 to"),
        ("lora.rank", 0, "config.lora.rank is 0: give a whole number from 1 to"),
        ("lora.alpha", float("nan"), "lora.alpha is nan: "),
        ("lora.targets", ("nope",), "no layer is called 'nope'"),
        ("full_lora.learning_rate", -1.0, "full_lora.learning_rate is -1.0: "),
        ("pretrain.train.batch_size", 10**6, "pretrain: train.batch_size is 1000000, but 'digits' has "),
        ("pretrain.train.steps", 0, "config.pretrain.train.steps is 0: give"),
    )
    for name, value, message in mistakes:
        wrong = config()
        wrong.update_from_flattened_dict({name: value})
        with pytest.raises(ValueError, match=message):
            run.run(wrong, str(tmp_path / "dir"))
    wrong = config()
    wrong.scale.std = (0.2, 0.3)
    with pytest.raises(ValueError, match="std has 2 numbers, images have 1 channels: give one"):
        run.run(wrong, str(tmp_path / "dir"))
    assert not (tmp_path / "dir").exists()


def test_every_config_is_complete_and_checked():
    for name in s3t.EXPERIMENTS:
        made = s3t.get_config(name)
        resolved = validated(s3t.S3TStudy, made).resolved()
        assert store.make_plan(resolved.planner, resolved.slices, resolved.budget).slices == made.slices
        assert made.runner == "s3t" and made.name == name
        assert resolved.given or made.pretrain.model == made.model
    with pytest.raises(ValueError, match="unknown; choose one of digits"):
        s3t.get_config("mnist")

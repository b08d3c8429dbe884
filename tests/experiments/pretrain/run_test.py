"""Pre-training: the checkpoint that it leaves, resuming, refusals; and data sets of some classes."""

import json

import jax
import numpy as np
import pytest

from experiments.configs import pretrain
from experiments.core.errors import WorkdirError
from experiments.data import datasets
from experiments.models import vits
from experiments.models.language import small
from experiments.pretrain import report, run
from tests.helpers import tiny
from unlearn import tree


@pytest.fixture(autouse=True)
def _tiny(monkeypatch):
    monkeypatch.setitem(vits.VITS, "tiny", {"patch": 4, "width": 16, "depth": 1, "heads": 2, "mlp_dim": 16})


def config(**train):
    made = pretrain.get_config("digits")
    made.model, made.checkpoint_seconds = "tiny", 0.0
    made.train.update({"steps": 20, "batch_size": 64} | train)
    return made


def test_the_checkpoint_is_a_backbone_and_a_finished_run_is_read_back(tmp_path):
    found = run.run(config(), str(tmp_path))
    frozen, head = vits.load_npz(tmp_path / "vit.npz", vits.vit("tiny", 7), (8, 8, 1))
    assert head["kernel"].shape == (16, 5) and not (tmp_path / "vit.npz.tmp").exists()
    scores = found.rows[0].before
    test = datasets.only_classes(tiny.digits(), (0, 1, 2, 3, 4)).test
    logits = vits.vit("tiny", 5).apply({"params": {**frozen, "head": head}}, test.x)
    assert scores["test_accuracy"] == pytest.approx(np.mean(np.argmax(logits, -1) == test.y))
    assert scores["test_accuracy"] > 0.4
    assert f"test {100 * scores['test_accuracy']:.1f}%" in run.present(str(tmp_path), found)
    (tmp_path / "vit.npz").unlink()
    assert run.run(config(), str(tmp_path)) == found and not (tmp_path / "vit.npz").exists()
    assert "vit.npz is not there any more: remove results.json" in run.present(str(tmp_path), found)
    with pytest.raises(ValueError, match="use an empty --workdir"):
        run.run(config(steps=21), str(tmp_path))


@pytest.mark.slow
def test_a_run_that_was_cut_short_ends_the_same(tmp_path, monkeypatch):
    run.run(config(), str(tmp_path / "whole"))
    log = run.workdirs.Workdir.log

    def cut(self, event, **fields):
        log(self, event, **fields)
        if fields["step"] > 10:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(run.workdirs.Workdir, "log", cut)
        run.run(config(), str(tmp_path / "cut"))
    run.run(config(), str(tmp_path / "cut"))
    whole, resumed = (dict(np.load(tmp_path / name / "vit.npz")) for name in ("whole", "cut"))
    assert tree.bits_equal(whole, resumed)


@pytest.mark.parametrize(
    "change, said",
    [
        ({"model": "huge"}, "ViT 'huge' is unknown"),
        ({"model": "small", "classes": (0, 11)}, "give distinct labels of 0..9"),
        ({"model": "B/16"}, "cannot be cut into patches of 16"),
        ({"train": {"steps": 0}}, "config.train.steps is 0: give a whole number from 1 to"),
    ],
)
def test_a_mistake_is_told_before_anything_is_written(tmp_path, change, said):
    made = config()
    made.update(change)
    with pytest.raises(ValueError, match=said):
        run.run(made, str(tmp_path / "new"))
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("change", [{"step": "1"}, {"step": [1]}, {"step": None}, {"loss": {}}, {"loss": "low"}])
def test_a_log_with_a_step_that_no_run_wrote_is_named(tmp_path, change):
    file = tmp_path / "metrics.jsonl"
    file.write_text(json.dumps({"event": "train", "step": 1, "loss": 0.5} | change))
    with pytest.raises(WorkdirError, match=r"metrics.jsonl has a step that no run wrote: remove it"):
        report.losses(file)


def test_every_config_names_a_model_and_its_settings():
    for name in pretrain.EXPERIMENTS:
        made = pretrain.get_config(name)
        assert made.name == name and made.model in (*vits.VITS, *small.DECODERS)
    with pytest.raises(ValueError, match="unknown; choose one of digits"):
        pretrain.get_config("mnist")


def test_some_classes_keep_their_ids_and_examples():
    whole = tiny.digits()
    some = datasets.only_classes(whole, (7, 2))
    assert some.classes == 2 and datasets.only_classes(whole, ()) is whole
    for split, of in zip(some[1:4], whole[1:4], strict=True):
        keep = np.isin(of.y, (7, 2))
        np.testing.assert_array_equal(split.id, of.id[keep])
        np.testing.assert_array_equal(split.x, of.x[keep])
        np.testing.assert_array_equal(np.array([7, 2])[split.y], of.y[keep])
    for bad in ((1, 1), (10,), (-1,)):
        with pytest.raises(datasets.DataError, match="distinct labels"):
            datasets.only_classes(whole, bad)


def test_a_checkpoint_is_read_as_it_was_written(tmp_path):
    module = vits.vit("tiny", 3)
    params = vits.init(module, jax.random.key(0), tiny.digits().train.x)
    vits.save_npz(tmp_path / "one.npz", params)
    frozen, head = vits.load_npz(tmp_path / "one.npz", module, (8, 8, 1))
    assert tree.bits_equal((frozen, head), vits.split_head(jax.tree.map(np.asarray, params)))

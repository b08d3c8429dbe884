"""The page of a judgement of exact models, from rows made up by hand."""

import numpy as np
import pytest

from experiments.configs import judge_exact as configs
from experiments.core import files
from experiments.judge_exact import report
from experiments.judge_exact.attacks import TIERS
from tests.helpers.pictures import undrawn  # noqa: F401

SERVED = (  # training, variant, unlearner, AUC
    ("oracle", "s3t", "none", 0.5),
    ("heldout_oracle", "s3t", "none", 0.5),
    ("heldout_oracle", "s3t, same slice off", "none", 0.51),
    ("s3t", "default", "none", 0.8),
    ("s3t", "same slice off in both", "off", 0.5),
    ("s3t", "beside whole models", "off", 0.6),
    ("s3t", "default", "heal", 0.505),
)


def valued(value):
    return {"value": value, "interval": [value - 0.02, value + 0.02]}


def row_of(training, variant, unlearner, auc, seed):
    rng = np.random.default_rng(seed)
    fpr = np.geomspace(1e-3, 1, 49)
    ulira = valued(auc) | {
        "interval90": [auc - 0.015, auc + 0.015],
        "tpr_at_1%": valued(0.02),
        "groups": {tier: valued(auc) for tier in TIERS},
        "examples": rng.uniform(0.4, 0.6, 30),
        "roc": {"fpr": fpr, "tpr": fpr ** (1 / (2 * auc))},
    }
    extra = {"ulira": ulira}
    if training != "oracle":
        extra["klom"] = {name: valued(0.6) | {"examples": rng.gamma(2, 0.3, 30)} for name in report.SETS}
    if unlearner in ("off", "heal") or training == "oracle":
        extra["pair"] = {where: valued(0.55) for where in ("same", "apart")}
    if unlearner == "off" or variant == "s3t, same slice off":
        stream = [valued(0.5 + i / 100) for i in range(4)]
        extra["adaptive"] = {how: {"depth": stream, "margin": stream} for how in report.STREAMS}
        extra["silent"] = {"shadows": 2, "repeats": 1}
    if unlearner == "heal":
        extra["adaptive"] = {how: {"margin": valued(0.5)} for how in report.STREAMS}
        extra["audit"] = {"nodes": 7, "equal": 7}
    accuracies = {f"{name}_accuracy": 0.9 for name in ("forget", "retain", "validation", "test")}
    known = {"training": training, "variant": variant, "unlearner": unlearner, "setting": "group", "dataset": "digits"}
    return known | {"seed": 0, "before": accuracies, "after": accuracies, "steps": 0, "extra": extra}


def written(path, models=64):
    """A finished workdir with its page."""
    config = configs.get_config("digits")
    config.exact.models = models
    rows = [row_of(*served, seed) for seed, served in enumerate(SERVED)]
    files.write_json(path / "config.json", config.to_dict())
    files.write_json(path / "results.json", {"schema": 1, "command": "", "environment": {}, "rows": rows})
    return report.write(path)


@pytest.mark.usefixtures("undrawn")
def test_the_page_opens_with_the_verdicts_and_has_every_row(tmp_path):
    written(tmp_path)
    text = (tmp_path / "report.md").read_text()
    first = text[: text.index("## ")]
    assert "**Attack on Healed: 0.505 [0.490, 0.520].** Not told apart." in first
    assert "**Attack on Slice off, in both: 0.500 [0.485, 0.515].**" in first
    assert "**Equal to retraining: 7 of 7.**" in first and "Too few" not in text
    for name in ("Oracle", "Held-out oracle, same slice off", "Nothing deleted", "Slice off, beside whole models"):
        assert f"| {name} | " in text
    assert "| Healed | 0.505 [0.490, 0.520] | no | 2.0 [0.0, 4.0] |" in text
    assert "| Nothing deleted | 0.800 [0.785, 0.815] | yes |" in text and "2 models of U-LiRA and 1 of KLoM" in text
    assert (tmp_path / "tables" / "s3t-attacks.csv").exists() and (tmp_path / "figures" / "s3t-depth.svg").exists()


@pytest.mark.usefixtures("undrawn")
def test_too_few_models_are_told_first(tmp_path):
    written(tmp_path, models=12)
    text = (tmp_path / "report.md").read_text()
    assert text.splitlines()[2].startswith("**Too few models to judge by: each fleet has 12")
    assert "[0.490, 0.520].** No verdict. AUC" in text and "Not told apart." not in text

"""TOFU's evaluation logs: read by hand-made ones, and the published numbers of those of its authors."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from experiments.core.errors import UserError
from experiments.scoring.rouge import rouge_l
from experiments.scoring.tofu_logs import PARTS, read_log
from unlearn.metrics.tofu import forget_quality, model_utility, truth_ratio, utilities

# A folder with the three logs of Llama-2-7b that TOFU's authors publish.
LOGS = os.environ.get("FORETHOUGHT_TOFU_LOGS", "")


def log(shift=0.0):
    """Three questions whose numbers are not in the order of their names: 2, 10, 1."""
    fields = {
        "avg_gt_loss": {"2": 0.5, "10": 0.1, "1": 0.25},
        "avg_paraphrased_loss": {"10": 1.0, "2": 2.0, "1": 3.0},
        "average_perturb_loss": {"1": [3.0 + shift, 3.0], "2": [2.0, 4.0 + shift], "10": [1.0, 1.5]},
        "rougeL_recall": {"1": 1.0, "2": 0.5, "10": 0.0},
        "generated_text": {"1": ["q", "a", "b"]},
    }
    return {part: json.loads(json.dumps(fields)) for part in PARTS.values()}


def written(folder, value):
    path = folder / "log.json"
    path.write_text(json.dumps(value))
    return path


def test_questions_come_in_the_order_of_their_numbers(tmp_path):
    answers = read_log(written(tmp_path, log()))["forget"]
    assert answers.true.tolist() == [0.25, 0.5, 0.1]
    assert answers.paraphrased.tolist() == [3, 2, 1]
    assert answers.perturbed.tolist() == [[3, 3], [2, 4], [1, 1.5]]
    np.testing.assert_allclose(truth_ratio(*answers[1:3], "losses"), np.exp([0, -1, -0.25]))


def test_forget_quality_of_logs_of_ones_own(tmp_path):
    """Ratios exp(0, -1, -1/4) against the same, and against exp(-5, -6, -1/4): 2 of 3 lie below all of the others."""
    first, second = (read_log(written(tmp_path, log(shift)))["forget"] for shift in (0.0, 10.0))
    ratios = [truth_ratio(*answers[1:3], "losses") for answers in (first, second)]
    assert forget_quality(ratios[0], ratios[0]) == pytest.approx((1.0, 0.0))
    assert forget_quality(*ratios).statistic == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    "damage, says",
    [
        (lambda log: log.pop("eval_log.json"), "the log has no 'eval_log.json': give a log as"),
        (lambda log: log["eval_log_forget.json"].pop("avg_gt_loss"), "eval_log_forget.json has no 'avg_gt_loss'"),
        (lambda log: log["eval_log.json"]["rougeL_recall"].pop("2"), "eval_log.json are of different questions"),
        (lambda log: log["eval_log.json"]["avg_gt_loss"].update({"2": "x"}), "eval_log.json holds something that is no"),
        (lambda log: log["eval_log.json"]["average_perturb_loss"].update({"2": [1.0]}), "holds something that is no"),
    ],
)
def test_a_damaged_log_is_told_where(tmp_path, damage, says):
    value = log()
    damage(value)
    with pytest.raises(UserError, match=says) as error:
        read_log(written(tmp_path, value))
    assert "\n" not in str(error.value) and "log.json" in str(error.value)


def test_what_is_no_log_is_refused(tmp_path):
    for content in ("[]", "{", ""):
        path = tmp_path / "log.json"
        path.write_text(content)
        with pytest.raises(UserError, match=r"cannot be read .*: give a log as TOFU's evaluation aggregates it"):
            read_log(path)
    with pytest.raises(UserError, match=r"none\.json cannot be read"):
        read_log(tmp_path / "none.json")


@pytest.fixture(scope="module")
def published():
    if not LOGS:
        pytest.skip("FORETHOUGHT_TOFU_LOGS names no folder with the logs that TOFU's authors publish")
    return {name: Path(LOGS, f"llama2-7b_{name}.json") for name in ("full_wd0", "retain90_wd0", "retain90_wd0.01")}


@pytest.mark.slow
def test_published_forget_quality(published):
    """The full model against one trained without the tenth, and that one against another of its kind: a held-out oracle."""
    ratios = {name: truth_ratio(*read_log(path)["forget"][1:3], "losses") for name, path in published.items()}
    quality = forget_quality(ratios["full_wd0"], ratios["retain90_wd0"])
    assert f"{quality.p_value:.4e}" == "1.0966e-19" and quality.statistic == pytest.approx(0.38)
    assert f"{forget_quality(ratios['retain90_wd0'], ratios['retain90_wd0.01']).p_value:.4f}" == "0.9993"


@pytest.mark.slow
@pytest.mark.parametrize("name, utility", [("full_wd0", "0.63"), ("retain90_wd0", "0.62"), ("retain90_wd0.01", "0.61")])
def test_published_utility(published, name, utility):
    """Of the full model OpenUnlearning publishes .63, too."""
    parts = read_log(published[name])
    scores = utilities(*(parts[part] for part in ("retain", "real_authors", "world_facts")), "losses")
    assert f"{model_utility(scores):.2f}" == utility


@pytest.mark.slow
def test_published_rouge(published):
    pytest.importorskip("rouge_score", reason="the extra text is not installed")
    part = json.loads(published["retain90_wd0"].read_text("utf-8"))[PARTS["forget"]]
    texts = [part["generated_text"][question] for question in part["rougeL_recall"]]
    found = rouge_l([reference for _, _, reference in texts], [text for _, text, _ in texts])
    np.testing.assert_allclose(found.recall, list(part["rougeL_recall"].values()))

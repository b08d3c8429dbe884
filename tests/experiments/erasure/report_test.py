"""The page of federated erasure, from rows made up by hand."""

import dataclasses

import pytest

from experiments.configs import federated as configs
from experiments.core import files, results
from experiments.core.results import Estimate, Row, Run
from experiments.erasure import report, shown
from experiments.erasure.rows import COSTS, SCORES
from tests.helpers.pictures import undrawn  # noqa: F401


def about(value):
    return Estimate(value, value - 0.01, value + 0.01, 8)


def row(variant, unlearner, gap=0.0, backdoor=0.0, **facts):
    """A way's row; everything but the gap and the backdoor is alike in all."""
    extra = {name: about(0.5) for name in (*SCORES, *COSTS)} | {"test_gap": about(gap), "backdoor": about(backdoor)}
    extra |= {"stored": about(5000.0), "ulira": {"estimate": about(0.5), "estimate90": about(0.5)}, "reason": ""}
    if "bits" in facts:
        extra["bits"] = about(facts.pop("bits"))
    facts = {"helpers": "the server alone", "exact": "never", "source": "ours", **facts}
    training = {"oracle": "oracle", "heldout_oracle": "heldout_oracle"}.get(variant, "federated")
    return Row(
        training, variant, unlearner, "backdoor", "digits", 0, {}, {}, 0.0, "reached", unlearn_seconds=0.1, facts=facts,
        extra=extra,
    )  # fmt: skip


def archive(bits, alpha, gap, backdoor):
    name = f"hexagonal {bits:g}"
    facts = {"alpha": alpha, "chosen": alpha < 0, "scheme": name, "lattice": "hexagonal", "rate": bits, "users": None}
    return row(f"medu {name}, alpha={alpha:g}", "medu", gap, backdoor, entries="all", bits=bits, **facts)


def found(*archives):
    rows = [
        row("served", "served", 0.0, 0.9),
        row("oracle", "retrain"),
        row("heldout_oracle", "retrain"),
        row("fast_fedul alpha=-0.1", "fast_fedul", -0.02, alpha=-0.1, chosen=True),
        row("running_sums", "running_sums", -0.3),
        *archives,
    ]
    scored = {name: about(0.5) for name in SCORES}
    facts = {
        "parameters": 10, "examples": 60, "leavers_examples": [20], "raw_bytes": 1000, "sums_bytes": 2000,
        "sweep": {"-0.1": scored, "0": scored},
        "calibration": {"chosen": {"alpha": -0.1}, "grids": {"alpha": [-0.1, 0.0]}, "divergences": {"alpha": [[0.1, 0.2]]}},
    }  # fmt: skip
    return Run("a command", {"jax": "0"}, rows, facts)


BAD = (archive(1.0, -0.1, -0.04, 0.02), archive(1.0, 0.0, -0.3, 0.0))
GOOD = archive(2.0, -0.1, -0.005, 0.03)
PAGE = (*BAD, GOOD, archive(2.0, 0.0, -0.3, 0.0))


def written(path, run=None):
    """A finished run's page."""
    values = configs.get_config("digits_backdoor").to_dict()
    files.write_json(path / "config.json", values)
    files.write_text(path / "results.json", results.to_json(run or found(*PAGE)))
    return report.write(path)


@pytest.mark.parametrize(
    "archives, told",
    [
        (BAD, "0 of 2 ways to erase by an archive of at most 4 bits an entry"),
        (BAD, "The nearest is MEDU, hexagonal 1, α = −0.1: −4.0 points of accuracy, backdoor 2.0%."),
        ((*BAD, GOOD), "1 of 3 ways"),
        ((*BAD, GOOD), "The smallest is MEDU, hexagonal 2, α = −0.1 at 2.00 bits."),
        ((*BAD, archive(5.0, -0.1, 0.0, 0.0)), "0 of 2 ways"),
    ],
)
def test_an_archive_is_good_enough_by_both_numbers_or_not(archives, told):
    assert told in report.verdicts(found(*archives))[0]


def test_a_setting_that_asks_nothing_is_said_to():
    run = found(GOOD)
    assert "does not ask much" not in report.verdicts(run)[0]
    easy = Run("", {}, [row("served", "served", 0.0, 0.0), *run.rows[1:]], run.facts)
    assert "does not ask much" in report.verdicts(easy)[0]


def test_of_a_class_what_is_left_of_it_counts():
    known = {"leaver_accuracy": Estimate(0.06), "backdoor": Estimate()}
    rows = [dataclasses.replace(one, setting="class", extra={**one.extra, **known}) for one in found(*BAD, GOOD).rows]
    said = report.verdicts(Run("", {}, rows, found().facts))[0]
    assert "0 of 3 ways" in said and "tell 5% or less of the class" in said and "points of accuracy, class 6.0%" in said


def test_sizes_are_beside_the_raw_data_and_running_sums():
    assert "takes 5 kB: 5 times the raw data (1 kB), 2.5 times running sums (2 kB)" in report.verdicts(found(GOOD))[1]


def test_a_page_is_written_with_its_tables(undrawn, tmp_path):  # noqa: F811
    page = written(tmp_path).read_text()
    assert all(shown.label(one) in page for one in found(*PAGE).rows)
    assert {file.name for file in (tmp_path / "tables").glob("*.csv")} == {
        "methods.csv", "needs.csv", "archives.csv", "alphas.csv",
    }  # fmt: skip
    assert {file.name for file in (tmp_path / "figures").glob("*.svg")} == {
        "gap.svg", "rate-accuracy.svg", "rate-backdoor.svg", "rate-ratio.svg", "alphas.svg",
    }  # fmt: skip


def test_a_run_without_archives_has_a_page(undrawn, tmp_path):  # noqa: F811
    run = found()
    page = written(tmp_path, Run("", {}, run.rows, dict(run.facts) | {"sweep": {}})).read_text()
    assert "Every method beside retraining" in page and "Archives after MEDU" not in page
    assert 'class="points"' not in page, "no verdicts, no empty box"

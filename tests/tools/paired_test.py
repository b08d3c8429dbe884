"""Differences over the seeds of several runs: by hand, and what has no difference."""

from types import SimpleNamespace

import pytest

from tools import paired


def row(training, seed, loss, curve=(0.0, 0.5)):
    return SimpleNamespace(training=training, seed=seed, after={"loss": loss}, extra={"curve": list(curve)}, steps=seed)


ROWS = [row("readiness", 0, 1.0), row("readiness", 3, 2.0), row("vanilla", 3, 5.0), row("vanilla", 0, 2.0)]


def test_differences_pair_seeds_by_hand():
    """2 - 5 and 1 - 2: mean -2, deviation sqrt 2, t-quantile 12.706 over sqrt 2."""
    (line,) = paired.differences(ROWS, "readiness", {"loss": "after.loss", "curve": "extra.curve.1"})
    assert (line["minus"], line["seeds"], line["loss"], line["curve"]) == ("vanilla", 2, -2.0, 0.0)
    assert line["loss low"] == pytest.approx(-2 - 12.7062, abs=1e-3) and line["loss high"] == pytest.approx(
        10.7062, abs=1e-3
    )


def test_a_way_that_lacks_a_seed_is_left_out():
    found = paired.differences([*ROWS, row("neftune", 0, 1.0)], "readiness", {"steps": "steps"})
    assert [line["minus"] for line in found] == ["vanilla"]


@pytest.mark.parametrize(
    "rows, ours, path, says",
    [
        (ROWS, "reweight", "steps", "no way 'reweight': choose one of readiness, vanilla"),
        ([*ROWS, row("vanilla", 3, 1.0)], "readiness", "steps", "vanilla has two rows of seed 3"),
        (ROWS, "readiness", "after.los", "after.los is no number of readiness, seed 0"),
        (ROWS, "readiness", "extra.curve.7", "extra.curve.7 is no number"),
        (ROWS, "readiness", "extra.curve", "extra.curve is no number"),
        (ROWS, "readiness", "training", "training is no number"),
    ],
)
def test_what_has_no_difference_is_told(rows, ours, path, says):
    with pytest.raises(ValueError, match=says):
        paired.differences(rows, ours, {"column": path})


def test_a_folder_without_a_run_is_one_line_and_status_2(tmp_path, capsys):
    assert paired.main(["name", "readiness", str(tmp_path), "--column", "steps=steps"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")


def test_a_column_without_a_path_is_told(tmp_path, capsys):
    with pytest.raises(SystemExit):
        paired.main(["name", "readiness", str(tmp_path), "--column", "steps"])
    assert "give NAME=PATH" in capsys.readouterr().err

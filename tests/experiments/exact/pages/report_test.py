"""The page of an s3t run, from rows made up by hand."""

import numpy as np
import pytest

from experiments.configs import s3t as configs
from experiments.core import files, workdirs
from experiments.exact.pages import report
from tests.helpers.pictures import undrawn  # noqa: F401

PLANS = ("sisa", "stumps", "cyclic", "greedy", "lattice")
LAST = 20


def study(best, flops=3.0):
    """Accuracy from .9 down to `best`, .02 to either side."""
    mean = np.linspace(0.9, best, LAST + 1)
    band = {"mean": mean, "low": mean - 0.02, "high": mean + 0.02}
    many = {"mean": 10 * best, "low": 10 * best - 1, "high": 10 * best + 1}
    ends = {f"deletions_to_{what}": many for what in ("rebuild", "first_dead_shard")}
    costs = {"budget_flops": 3.0, "flops_plain": flops, "flops_cached": 2.0, "stages": 3, "storage_bytes": 1000}
    return {"requests": list(range(LAST + 1)), "accuracy": band, "depth": band, "alive": band, **ends, **costs}


def row_of(training, variant, seed=0, **extra):
    scores = {"validation_accuracy": 0.8, "test_accuracy": 0.85}
    known = {"training": training, "variant": variant, "unlearner": "none", "setting": "none", "dataset": "digits"}
    known |= {"seed": seed, "stop": "reached", "before": scores, "after": scores, "steps": 0, "train_seconds": 1.0}
    known |= {"unlearn_seconds": 0.1, "train_flops": 1e9, "unlearn_flops": 1e6}
    return known | {"extra": {"storage_bytes": 1000, **extra}}


def every_row(deletions=3):
    moment = {"test_accuracy": 0.9, "depth": [2, 2]}
    stream = [moment | {"nodes_dropped": 1, "acknowledged_ms": 2.0 + i, "purged_ms": 1.0} for i in range(deletions)]
    healed = moment | {"seconds": 1.5, "nodes": 3}
    stored = {"built": moment, "stream": stream, "healed": healed, "heal_flops": 1e6, "verified": {"ok": True}}
    rows = [row_of("s3t", "lattice / store", **stored)]
    for i, plan in enumerate(PLANS):
        rows += [row_of("s3t", f"{plan} / {kind}", **study(0.3 + i / 10)) for kind in ("mean", "depth", "all")]
    again = {"requests": [0, 10], "accuracy": {"mean": [0.9, 0.88]}}
    by_depth = [{"validation_accuracy": 0.7, "test_accuracy": 0.72}, {"validation_accuracy": 0.8, "test_accuracy": 0.83}]
    rows += [row_of("lora", "default"), row_of("full", "default", **again), row_of("sisa", "retrain", **again)]
    return [*rows, row_of("sisa", "rollback", **study(0.2)), row_of("s3t", "one shard", by_depth=by_depth)]


def written(path, **changes):
    """A finished workdir with its page."""
    config, rows = configs.get_config("digits").to_dict(), every_row(**changes)
    files.write_json(path / "config.json", config)
    files.write_json(path / "results.json", {"schema": 1, "command": "", "environment": {}, "rows": rows})
    return report.write(path)


@pytest.mark.usefixtures("undrawn")
def test_the_page_opens_with_what_is_served_survived_and_acknowledged(tmp_path):
    written(tmp_path)
    first = (tmp_path / "report.md").read_text().split("## ")[0]
    assert "**Served after 20 deletions, Lattice: 70.0 [68.0, 72.0]%.**" in first and "SISA after 20: 30.0%." in first
    assert "**Deletions survived: 7.0 [6.0, 8.0].**" in first and "SISA: 3.0." in first
    assert "**Acknowledged in: 3.00 [2.05, 3.95] ms.** Median of 3 deletions" in first
    for name in ("planners", "ensembles", "full-lora", "cost", "store"):
        assert (tmp_path / "tables" / f"{name}.tex").exists()


@pytest.mark.usefixtures("undrawn")
def test_a_store_from_which_nothing_was_deleted_has_no_latency(tmp_path):
    written(tmp_path, deletions=0)
    first = (tmp_path / "report.md").read_text().split("## ")[0]
    assert "**Acknowledged in: –.** Nothing was deleted from the store." in first


def test_the_terminal_shows_all_plans_in_80_columns(tmp_path, monkeypatch, undrawn):  # noqa: F811
    monkeypatch.setenv("COLUMNS", "80")
    written(tmp_path)
    text = report.present(str(tmp_path), workdirs.read_results(tmp_path / "results.json"))
    assert max(map(len, text.splitlines()[:-1])) <= 80
    assert all(f"\n{name} " in text for name in ("SISA", "Stumps", "Lattice", "SISA checkpoints"))

"""Whole judgements: to the end, read back, killed, and what requests cost over a life."""

import pytest

from experiments.judge import metrics, report, rows, run
from experiments.reporting.estimates import at
from tests.helpers import kills
from tests.helpers.judging import SETS, tiny_config


@pytest.mark.slow
def test_a_small_judgement_runs_to_the_end_and_is_read_back(tmp_path):
    config = tiny_config(("vanilla", "reweight", "readiness", "dpsgd"), SETS)
    found = run.run(config, str(tmp_path))
    entries = [(row.setting, row.training, row.variant, row.unlearner) for row in found.rows]
    assert len(entries) == len(set(entries)) == 2 * (2 + 5 * 3)
    for row in found.rows:
        for name in ("tow", "mia", "ulira", "klom", "relearn", "cost", "attacks", "zrf", "cka"):
            assert at(row.extra, (name,)).value is not None or at(row.extra, (name,)).reason
        assert row.extra["klom"].keys() >= set(metrics.KINDS)
        strong = row.extra["relearn_strong"]
        assert strong.keys() == {"part", "all"} and all(len(one["curves"]["0.01"]) == 3 for one in strong.values())
        rehearsed = (row.setting, row.training, row.variant, row.unlearner) == ("class", "readiness", "default", "level")
        assert len(row.extra["trials"]) == (0 if row.unlearner == "none" or rehearsed else 2)
    floor = next(row for row in found.rows if row.training == "heldout_oracle")
    assert at(floor.extra, ("klom", "forget")).value > 0
    assert set(found.facts["calibration"]["shadows"]) == {*SETS, "pooled"}
    assert "Held-out oracle" in report.present(str(tmp_path), found)
    assert found == run.run(config, str(tmp_path))


# kill -9

CHILD = """
import sys
from experiments.judge import run
from tests.helpers.judging import SETS, tiny_config
run.run(tiny_config(("vanilla",), SETS), sys.argv[1], "test")
"""


MOMENTS = (
    "checkpoints/memorisation-0/*",
    "checkpoints/class-plain-0/*",
    "statistics/class-vanilla-none*",
    "stages/trials-tier-*",
)


@pytest.mark.slow
def test_a_judgement_killed_with_kill_9_ends_with_the_same_rows(tmp_path):
    kills.check_ends_the_same(CHILD, tmp_path, MOMENTS)


def test_what_a_model_s_requests_cost_over_its_life():
    def cost(training, train_flops, unlearn_flops):
        entry = rows.Entry(
            training, "ascent", {}, {}, [], {"train_flops": train_flops, "unlearn_flops": unlearn_flops}, 0.0
        )
        return rows.cost_of_life(entry, 1000.0)

    ready = cost("readiness", 1400.0, 20.0)
    assert (ready["estimate"].value, ready["preparation_flops"]) == (20.0, 400.0)
    assert ready["amortised_flops"] == {"1": 420.0, "10": 60.0, "100": 24.0}
    assert ready["break_even_requests"] == pytest.approx(400 / 980)
    oracle = cost("oracle", 1000.0, 0.0)
    assert oracle["estimate"].value == oracle["amortised_flops"]["10"] == 1000.0 and oracle["break_even_requests"] == 0.0
    assert cost("dpsgd", 9000.0, 1200.0)["break_even_requests"] == float("inf")

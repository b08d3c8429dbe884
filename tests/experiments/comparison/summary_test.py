"""What a comparison's page says in words: what is better, what failed, when preparation pays, what is guaranteed."""

import dataclasses
import math
import re

import pytest

from experiments.comparison import methods, report, summary
from experiments.core import results
from tests.helpers.pages import NAN, as_read, fail, finished, make, three_seeds
from tests.helpers.pictures import undrawn  # noqa: F401
from unlearn.metrics.intervals import paired


def told(rows):
    swept = [{"unlearner": "ascent", "chosen": {"learning_rate": 0.02, "clip": 0.0}}]
    return " ".join(summary.summary(methods.group(as_read(rows)), swept))


def test_the_summary_says_what_is_better():
    rows = [make("vanilla", s, kept, steps=10 + s) for s, kept in enumerate((0.70, 0.71, 0.72))]
    rows += [make("readiness", s, kept, steps=5) for s, kept in enumerate((0.91, 0.93, 0.95))]
    text = told(rows)
    found = paired([0.91, 0.93, 0.95], [0.70, 0.71, 0.72])
    assert "Ascent at learning rate 0.02 on 3 seeds" in text
    assert (
        f"[+{100 * found.difference.low:.1f}, +{100 * found.difference.high:.1f}], p < 0.001: Readiness is better" in text
    )
    assert "Test accuracy on what stays: Readiness 93.0%, Vanilla 71.0% (+22.0 [" in text
    assert re.search(
        r"Steps: Readiness 5\.0, Vanilla 11\.0 \(−6\.0 \[−8\.5, −3\.5\], p = 0\.009: Readiness is better\)", text
    )


def test_the_summary_says_what_is_worse():
    rows = [make("vanilla", s, kept, steps=5, part=0.3) for s, kept in enumerate((0.91, 0.93, 0.95))]
    rows += [make("readiness", s, kept, steps=10 + s, part=0.9) for s, kept in enumerate((0.70, 0.71, 0.72))]
    text = told(rows)
    assert re.search(r"Test accuracy on what stays: .*? p < 0\.001: Readiness is worse\)", text)
    assert re.search(r"Steps: .*? p = 0\.009: Readiness is worse\)", text)
    assert re.search(r"Relearned after 20 steps .*? p < 0\.001: Readiness is worse\)", text)
    assert "its requests save no FLOPs, so that is never won back" in text
    assert "Readiness is better" not in text


def test_the_summary_says_when_nothing_is_shown():
    rows = [make("vanilla", s, kept) for s, kept in enumerate((0.7, 0.8, 0.9))]
    rows += [make("readiness", s, kept) for s, kept in enumerate((0.9, 0.8, 0.75))]
    assert re.search(
        r"Test accuracy on what stays: [^.]*\.\d%, Vanilla 80\.0% \(\+1\.7 \[.*?: no difference is shown\)", told(rows)
    )
    one = told([row for row in rows if row["seed"] == 0])
    assert "Vanilla 70.0% (+20.0 on one seed, which shows nothing)" in one and "better" not in one
    assert told([make("vanilla", 0)]).startswith("This run does not compare readiness with vanilla")


def test_the_summary_counts_failures():
    rows = [make("vanilla", s, 0.7 + s / 100) for s in range(4)] + [make("readiness", s, 0.9) for s in range(4)]
    fail(rows[0])
    rows[-1]["stop"] = "budget"
    text = told(rows)
    assert "Readiness is better on 3 of 4 seeds" in text
    assert "Aim reached: Readiness 3/4 (1 out of budget), Vanilla 3/4 (1 diverged)." in text
    for row in rows[-3:]:
        row["stop"] = "budget"
    text = told(rows)
    assert "Readiness has not forgotten, so this compares nothing." in text and "Readiness is better on" not in text
    every = [fail(make(t, s)) for t in ("vanilla", "readiness") for s in range(2)]
    assert "Readiness –, Vanilla – (no seed has both)" in told(every)


def test_the_summary_names_the_hardest_rivals():
    rows = [*three_seeds(), *(make("reweight", s, 0.92, "weight=0.02") for s in range(3))]
    text = told(rows)
    assert "Re-weighting 0.1 is the re-weighting nearest in forget loss before the request (0.4; Readiness: 0.5)" in text
    assert "Re-weighting 0.02 keeps the most of all others" in text
    assert "Re-weighting 0.02 92.0% (+1.0 [" in text


@pytest.mark.parametrize(
    ("extra", "saved", "expected"),
    [(500, 100, 5), (0, 100, 0), (-50, 100, 0), (500, 0, math.inf), (500, -1, math.inf), (-50, 0, math.inf)],
)
def test_break_even(extra, saved, expected):
    assert methods.break_even(extra, saved) == expected
    assert math.isnan(methods.break_even(NAN, saved)) and math.isnan(methods.break_even(extra, NAN))


@pytest.mark.usefixtures("undrawn")
def test_break_even_by_hand(tmp_path):
    """500 FLOPs more in training; 1000 a request for vanilla, 800 for readiness, 600 where it diverged: 500 / 200 = 2.5."""
    rows = [make("vanilla", s, steps=10) for s in range(3)]
    rows += [make("readiness", 0, steps=8), make("readiness", 1, steps=8), fail(make("readiness", 2, steps=6))]
    rows += [make("dpsgd", s, steps=12) for s in range(3)]
    every = methods.group(as_read(rows))
    assert methods.requests_to_pay(every[1], every[0]) == 2.5
    assert "that is won back by 3 cheaper requests." in told(rows)
    report.write(finished(rows, tmp_path))
    text = (tmp_path / "report.md").read_text()
    assert "| Readiness | 800 FLOP | 0.25 s | 2/3 (1 diverged) | 3 |" in text
    assert "| DP-SGD | 1.2 kFLOP | 0.25 s | 3/3 | never |" in text
    assert "| Readiness | 1.5 kFLOP | 1.50 | 1.5 s | 3 | 10 FLOP | 25 FLOP | 2.50 | 2 MB |" in text


@pytest.mark.usefixtures("undrawn")
def test_dp_sgd_says_what_it_guarantees():
    """Rows of 0.1 have no facts of it: their batches were shuffled."""
    counted = {"sampling": "poisson", "epsilon": 3.5, "delta": 1e-5, "noise": 1.0}
    rows = as_read([make(training, s) for training in ("vanilla", "dpsgd") for s in range(3)])
    for facts, said in (({}, "no guarantee (epsilon, delta) is claimed"), (counted, "(3.5, 1e-05)-differentially private")):
        found = results.Run("", {}, [dataclasses.replace(row, facts=facts) for row in rows])
        assert said in str(report.compose(found, [])) and said in " ".join(report.table(found, 200).split())

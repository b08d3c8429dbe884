"""The judge's page, from rows made up by hand: what is said of calibration, trials, failures, and fewer models."""

import re
import types

import numpy as np
import pytest
from matplotlib.figure import Figure

from experiments.configs import judge as configs
from experiments.core import files, results
from experiments.judge import figures, report, rows, strength
from experiments.judge.metrics import EDGES, KINDS
from experiments.reporting import names
from experiments.reporting.estimates import DISTANCE, SHARE, cell
from tests.helpers.pictures import undrawn  # noqa: F401
from unlearn.metrics.membership import SCORES

POOL, LANES, STEPS = 40, 10, 12
NOTHING = {"value": None, "interval": [None, None]}  # as version 0.1 wrote it


def valued(value, **rest):
    return {"value": value, "interval": [value - 0.02, value + 0.02], **rest}


def bare(value):
    """An Estimate without an interval, as results.json has it."""
    return files.plain(results.Estimate(value, n=64))


def row_of(training, unlearner, case="class", leak=0.0, seed=0, **extra):
    """A row whose shadows are found by `leak`."""
    rng = np.random.default_rng(seed)
    fpr = np.geomspace(1e-3, 1, 49)
    curve = (0.2 + 0.06 * np.arange(STEPS + 1) * (1 + leak)).clip(0, 1)
    curves = dict.fromkeys(("stable", "similar", "part", "all"), [curve.tolist()] * LANES)
    setting = None if unlearner == "none" else {"learning_rate": 0.01, "steps": 20}
    trials = [{"learning_rate": rate, "steps": 20, "forget": 0.1, "kept": 0.9, "gap": rate} for rate in (0.01, 0.1)]
    shares = np.histogram(rng.normal(4 * leak, 2, 500), EDGES)[0] / 500
    extra = {
        **{name: valued(0.8) for name in ("tow", "mia", "rmia", "tow_mia", "average_gap")},
        "epsilon": valued(1.5),
        "attacks": {score: {how: valued(0.55) for how in ("auc", "balanced_accuracy")} for score in SCORES},
        "zrf": valued(0.61),
        "cka": NOTHING if training == "oracle" else valued(0.93),
        "klom": valued(0.5 + leak)
        | {kind: valued(0.5 + leak, p95=valued(1.0), examples=rng.gamma(2, 0.3 + leak, POOL)) for kind in KINDS},
        "cost": {"storage_bytes": 2**20, "amortised_flops": {"10": 1e7}, "break_even_requests": 2.5 if leak else None},
        "ulira": valued(
            0.5 + leak / 3,
            examples=rng.uniform(0.4, 0.6 + leak / 3, POOL),
            roc={"fpr": fpr, "tpr": fpr ** (1 / (1 + leak))},
            **{"tpr_at_1%": valued(0.01 + leak / 10)},
        ),
        "relearn": rows.relearned(curves, {attack: [[0.2] * (STEPS + 1)] for attack in curves}, 1.0),
        "margins": {"forget": shares, "pool": rng.normal(2, 3, POOL)},
        "failed": {"repeats": 0, "shadows": 0},
        "trials": [] if setting is None else trials,
        "setting": setting,
        "models": {"repeats": 16 if training == "dpsgd" else 64, "shadows": 16 if training == "dpsgd" else 64, "tuning": 8},
        "set": {"setting": "class", "target": 3, "forget": 20, "pool": 20},
        "intervals": {name: valued(0.9) for name in ("forget_accuracy", "test_retain_accuracy")},
        **extra,
    }
    numbers = {"train_flops": 1e9, "train_seconds": 1.0, "unlearn_flops": 1e6, "unlearn_seconds": 0.1, "peak_bytes": 2**20}
    known = {"variant": "default", "dataset": "digits", "seed": 0, "before": {}, "after": {}, "steps": 20}
    return {"training": training, "unlearner": unlearner, "setting": case, **known, **numbers, "extra": extra}


def calibration(low, high):
    """Two attacks whose pooled interval is (low, high)."""
    one = {"value": (low + high) / 2, "interval": [low, high]}
    return {attack: {"class": one, "pooled": one} for attack in ("shadows", "fleets")}


def old(rows):
    """results.json of version 0.1."""
    return files.dumps({"schema": 1, "command": "", "environment": {}, "rows": rows})


def found(rows):
    return results.from_json(old(rows))


def every_row(**calibrated):
    held_out = calibrated or {"calibration": calibration(0.48, 0.52)}
    ways = [(way, name) for way in ("vanilla", "readiness", "dpsgd") for name in ("none", "ascent")]
    rows = [row_of("oracle", "none"), row_of("heldout_oracle", "none", seed=1, **held_out)]
    return rows + [row_of(*way, leak=0.8 if way[1] == "none" else 0.3, seed=i) for i, way in enumerate(ways, 2)]


def written(tmp_path, rows, written_by=results.to_json):
    """report.md and report.html."""
    files.write_json(tmp_path / "config.json", configs.get_config("digits").to_dict())
    files.write_text(tmp_path / "results.json", written_by(found(rows)))
    report.write(tmp_path)
    return (tmp_path / "report.md").read_text(), (tmp_path / "report.html").read_text()


@pytest.mark.usefixtures("undrawn")
def test_a_page_of_version_0_1_reads_as_one_of_today(tmp_path):
    assert written(tmp_path, every_row()) == written(tmp_path, every_row(), lambda run: old(every_row()))


def test_the_page_has_every_row_table_and_picture(tmp_path):
    text, html = written(tmp_path, every_row())
    for heading in ("Calibration", "Forget set: class", "Tuning", "Failures", "Settings"):
        assert f"## {heading}" in text
    for row in report._rows(found(every_row())):
        assert text.count(f"| {report._name(row)} |") >= 4, "in the table, relearning, witnesses and costs"
    held = next(line for line in text.splitlines() if line.startswith("| Held-out oracle |") and "0.930" in line)
    assert held.count("0.550") == 8 and "0.610" in held
    assert "Vanilla, Ascent" in html and html.count("<figure>") == html.count('role="img"') == 1 + 9 + 4
    assert "Forgotten are 20 examples: class 3." in text


@pytest.mark.parametrize("interval, word", [
    ((0.471, 0.529), "inside"), ((0.469, 0.52), "NOT inside"), ((0.48, 0.531), "NOT inside"),
])  # fmt: skip
@pytest.mark.usefixtures("undrawn")
def test_the_verdict_is_computed(interval, word, tmp_path):
    rows = every_row(calibration=calibration(*interval))
    lines = report._verdicts(found(rows))
    assert len(lines) == 2 and all(f"90% interval: {word} [0.47, 0.53]" in line for line in lines)
    text, _ = written(tmp_path, rows)
    assert lines[0] in text


def test_a_calibration_that_could_not_be_computed_says_so():
    nothing = {"pooled": {**NOTHING, "refused": "too few"}}
    rows = every_row(calibration={"shadows": nothing, "fleets": nothing})
    assert all(line.endswith("could not be computed (too few).") for line in report._verdicts(found(rows)))


@pytest.mark.usefixtures("undrawn")
def test_every_trial_is_told_and_the_chosen_one_marked(tmp_path):
    text, _ = written(tmp_path, every_row())
    (line,) = re.findall(r"\| Readiness, Ascent \|( 1.*\| 2 )\|", text)
    assert line.split("|") == [r" 1.0\* ", " 10.0 ", " 2 "]


@pytest.mark.usefixtures("undrawn")
def test_failures_are_told_with_their_reasons_and_otherwise_that_there_are_none(tmp_path):
    text, _ = written(tmp_path, every_row())
    assert "No failures: all models of 8 rows had finite logits." in text
    broken = row_of("vanilla", "npo", failed={"repeats": 3, "shadows": 64}, ulira={**NOTHING, "refused": "too few models"})
    broken["extra"]["trials"][1]["gap"] = None
    text, _ = written(tmp_path, [*every_row(), broken])
    assert "| class | Vanilla, NPO | 3 | 64 | 1 | ulira: too few models |" in text and "3 + 64" in text


@pytest.mark.usefixtures("undrawn")
def test_fewer_models_are_marked(tmp_path):
    rows = every_row()
    rows[1]["extra"]["fewer"] = {
        "klom": {kind: valued(1.25) for kind in KINDS},
        "epsilon": valued(1.75),
        "rmia": valued(0.5),
    }
    text, _ = written(tmp_path, rows)
    assert "no guarantee (epsilon, delta) is claimed" in text, "of rows without facts of it, as 0.1 has them"
    assert "| DP-SGD†, Ascent |" in text and "† Of DP-SGD there are only 16 models and 16 shadows" in text
    floor = next(line for line in text.splitlines() if line.startswith("| Held-out oracle† |"))
    assert floor.count("1.25") >= 3 and "1.75" in floor, "of as many held-out oracles"
    for row in rows:
        row["extra"]["models"] = rows[-1]["extra"]["models"]
    assert "†" not in written(tmp_path, rows[2:])[0]


def test_relearning_is_measured_against_the_oracles_and_the_original():
    """Oracles stay at .2; half way to 1 is .6: a lane that gains .1 a step from .2 is there after 4 steps, one never is."""
    climbing, flat = 0.2 + 0.1 * np.arange(6), np.full(6, 0.2)
    oracle = {"part": [flat, flat]}
    told = rows.relearned({"part": [climbing, flat]}, oracle, 1.0)
    assert told["attacks"]["part"]["steps"].value == 4 and told["attacks"]["part"]["steps"].n == 1
    assert told["estimate"].value == pytest.approx(np.mean([0.25 / 0.8, 0]))
    none = rows.relearned({"part": [climbing, flat]}, oracle, 0.2)["attacks"]["part"]
    assert none["steps"].n == none["area"].n == 0, "there is no room"


def test_an_interval_is_shown_as_far_as_its_quantity_goes():
    wide = results.Estimate(0.9, -0.2, 1.3)
    assert str(cell(wide, 1, scale=100, ends=SHARE)) == "90.0 [0.0, 100.0]"
    assert str(cell(wide, 1, ends=DISTANCE)) == "0.9 [0.0, 1.3]"
    assert str(cell(wide, 1)) == "0.9 [−0.2, 1.3]"


@pytest.mark.usefixtures("undrawn")
def test_strong_relearning_has_tables_and_figures_if_it_was_made(tmp_path):
    assert "strong relearning" not in written(tmp_path, every_row())[0].lower()
    every, rng = every_row(), np.random.default_rng(0)
    oracles = {name: {"curves": rng.uniform(0.4, 0.6, (2, 6, 5)), "watched": 50} for name in figures.STRONG}
    for row in every:
        above = 0 if row["training"] in results.ORACLES else 0.3
        mine = {name: one | {"curves": one["curves"] + above} for name, one in oracles.items()}
        row["extra"]["relearn_strong"] = files.plain(strength.judged(mine, oracles, (0.1, 0.3), 3))
    text, html = written(tmp_path, every)
    for attack in figures.STRONG:
        table, _, _ = text[text.index(f"| strong relearning, {attack} |") :].partition("\n\n")
        (line,) = [line for line in table.splitlines() if line.startswith("| Vanilla, Ascent |")]
        assert line.endswith("| 30.0 | 30.0 |"), "areas, at both rates"
        (floor,) = [line for line in table.splitlines() if line.startswith("| Held-out oracle |")]
        assert "| never |" in floor and "| never |" not in line
        assert f"Strong relearning {figures.STRONG[attack]}" in html
    axes = Figure().add_subplot()
    row = found(every[-1:]).rows[0]
    figures._strong(axes, [row], [names.ORACLE], "part")
    np.testing.assert_allclose(axes.lines[0].get_ydata(), 30)
    assert axes.lines[1].get_xdata()[0] == row.extra["relearn_strong"]["part"]["step"]


@pytest.mark.usefixtures("undrawn")
def test_what_published_code_computes_stands_beside_if_there_is_any(tmp_path):
    assert "as published" not in written(tmp_path, every_row())[0]
    every = every_row()
    for row in every:
        row["extra"]["klom"]["forget"] |= {"published": {"estimate": bare(4.25), "p95": bare(6.5)}}
        row["extra"]["epsilon"] |= {"published": {"estimate": bare(2.75), "forgetting_quality": bare(0.125)}}
    text, _ = written(tmp_path, every)
    table = text[text.index("| as published |") :]
    line = next(line for line in table.splitlines() if line.startswith("| Vanilla, Ascent |"))
    assert [word.strip() for word in line.split("|")[2:-1]] == ["4.25", "–", "–", "6.50", "–", "–", "2.75", "0.125", "–"]


@pytest.mark.usefixtures("undrawn")
def test_a_judgement_of_too_few_models_says_so_first(tmp_path):
    text, html = written(tmp_path, every_row())
    assert "Too few" not in text, "64 models and an interval that fits the band"
    few = every_row()
    for row in few:
        row["extra"]["models"] = {"repeats": 12, "shadows": 12, "tuning": 2}
    text, html = written(tmp_path, few)
    assert text.splitlines()[2].startswith("**Too few models to judge by: each fleet has 12, and at least 32 are needed.")
    assert '<p class="warning">Too few models' in html and "** No verdict: AUC between oracles" in text
    text, _ = written(tmp_path, every_row(calibration=calibration(0.4, 0.6)))
    assert "interval of U-LiRA's AUC is wider than the band [0.47, 0.53]" in text.splitlines()[2]


@pytest.mark.usefixtures("undrawn")
def test_what_comes_first_are_the_verdicts(tmp_path):
    text, _ = written(tmp_path, every_row())
    first = text[: text.index("## ")]
    assert "**Is the judge fair?: 0.500 [0.480, 0.520].** Yes" in first
    assert "**Attack on Readiness, Ascent: 0.600 [0.580, 0.620].**" in first and "Held-out oracle: 0.500." in first
    assert "**Distance from retraining: 0.80 [0.78, 0.82].**" in first
    unfair, _ = written(tmp_path, every_row(calibration=calibration(0.48, 0.535)))
    assert "** Not shown: AUC between oracles" in unfair


@pytest.mark.parametrize(
    ("widest", "at_an_end", "clipped", "total", "label"),
    [
        (20.0, False, 0, 0, "margin"), (20.0, True, 0, 0, "margin (clipped at ±20)"), (40.0, True, 0, 1500, "margin"),
        (40.0, True, 3, 1500, "margin (3 of 1,500 clipped at ±40)"),
    ],
)  # fmt: skip
def test_clipped_margins_are_told_on_the_axis(widest, at_an_end, clipped, total, label):
    assert figures.clipping("margin", widest, at_an_end, clipped, total) == label


@pytest.mark.parametrize("bins", [80, 160])
def test_margins_are_drawn_where_they_are_whatever_bins_a_version_counted_in(bins):
    """All of them between 3 and 3.5 nats."""
    shares = np.zeros(bins)
    shares[bins // 2 + 6] = 1.0
    axes = Figure().subplots()
    row = types.SimpleNamespace(extra={"margins": {"forget": shares.tolist(), "clipped": 0, "count": 9}})
    figures._margins(axes, [row], [names.OURS])
    assert axes.get_xlim() == (2.5, 4.0) and axes.get_xlabel() == "margin"


@pytest.mark.parametrize("name, marked", [("quick", True), ("digits", False)])
@pytest.mark.usefixtures("undrawn")
def test_a_quick_judgement_says_that_it_is_one(tmp_path, name, marked):
    written(tmp_path, every_row())
    files.write_json(tmp_path / "config.json", configs.get_config(name).to_dict())
    page = report.write(tmp_path).read_text()
    assert ("judged quickly: a look, no result</h1>" in page) is marked

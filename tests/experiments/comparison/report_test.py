import copy
import dataclasses
import json
import math
import re
from html.parser import HTMLParser

import matplotlib
import numpy as np
import pytest

from experiments.comparison import figures, methods, report, summary, tried
from experiments.core import results
from experiments.core.errors import WorkdirError
from experiments.core.files import dumps
from experiments.reporting import drawing
from tests.helpers.pictures import undrawn  # noqa: F401
from unlearn.metrics.intervals import paired

NAN = math.nan
VOID = {"br", "meta"}
WIDE = 160


def scores(test=0.9, forget=1.0, loss=0.1, kept=0.9):
    return {
        "test_accuracy": test,
        "forget_accuracy": forget,
        "forget_loss": loss,
        "forget_confidence": 0.95,
        "mia_auc": 0.6,
        "retain_accuracy": 1.0,
        "test_retain_accuracy": kept,
    }


def make(training, seed, kept=0.9, variant="default", unlearner="ascent", **changes):
    """A row of a request that was fulfilled in 4 steps; `changes` go to the row, its scores and its extra by name."""
    oracle = training.endswith("oracle")
    count = 0 if oracle else changes.pop("steps", 4)
    extra = {
        "lanes": 3,
        "tow": 0.8,
        "relearning": {attack: np.linspace(0, changes.pop(attack, 0.5), 31) for attack in figures.ATTACKS},
        "curve": {}
        if oracle
        else {
            "forget_accuracy": np.linspace(1, 0, count + 1),
            "forget_loss": np.linspace(0, 3, count + 1),
            "watch_accuracy": np.linspace(0.9, kept, count + 1),
        },
        "diagnostics": {"grad_norm": 2.0, "grad_cosine": -0.5},
        "step_flops": 10.0,
        "meta_step_flops": 25.0 if training == "readiness" else 0.0,
        **changes.pop("extra", {}),
    }
    return {
        "training": training,
        "variant": variant,
        "unlearner": "none" if oracle else unlearner,
        "setting": "class",
        "dataset": "toys",
        "seed": seed,
        "before": scores(loss=changes.pop("loss", 0.1), test=changes.pop("test", 0.9)),
        "after": scores(forget=0.0, kept=kept),
        "steps": count,
        "stop": "reached",
        "train_seconds": 1.5,
        "unlearn_seconds": 0.25,
        "train_flops": 1500.0 if training == "readiness" else 1000.0,
        "unlearn_flops": 100.0 * count,
        "peak_bytes": 2_000_000,
        "extra": extra,
        **changes,
    }


def fail(row, stop="diverged"):
    """What a lane leaves whose parameters are not finite: its accuracies look like accuracies, its losses do not."""
    row["stop"] = stop
    row["after"] = dict.fromkeys(row["after"], NAN)
    row["extra"]["tow"] = NAN
    row["extra"]["curve"]["forget_loss"][-1] = NAN
    row["extra"]["relearning"] = {attack: np.ones(31) for attack in figures.ATTACKS}
    return row


def three_seeds():
    rows = [make("oracle", s, kept) for s, kept in enumerate((0.95, 0.95, 0.95))]
    rows += [make("vanilla", s, kept, steps=10) for s, kept in enumerate((0.7, 0.8, 0.9))]
    rows += [make("reweight", s, 0.6, "weight=0.1", extra={"matched": True}, loss=0.4) for s in range(3)]
    rows += [make("readiness", s, kept, steps=5, loss=0.5) for s, kept in enumerate((0.91, 0.93, 0.95))]
    return rows


def finished(rows, path, config=None, log=()):
    """A workdir as a run leaves it."""
    config = config or {"forget": {"setting": "class", "target": 3, "revocable": -1}, "seeds": 3, "request": {"parts": 1}}
    content = {"schema": 1, "command": "python -m x", "environment": {"jax": "0.10"}, "rows": rows}
    (path / "config.json").write_text(dumps(config))
    (path / "results.json").write_text(dumps(content))
    (path / "metrics.jsonl").write_text("".join(line if isinstance(line, str) else dumps(line) + "\n" for line in log))
    return path


def as_read(rows):
    """Rows of version 0.1, as they are read."""
    return results.rows_from(json.loads(dumps(rows)))


def as_run(rows):
    return results.Run("", {}, as_read(rows))


def line_of(table, *words):
    return next(line for line in table.splitlines() if line.split()[: len(words)] == list(words))


class Reader(HTMLParser):
    """Checks that tags close in order, and keeps what refers to something and what is said."""

    def __init__(self):
        super().__init__()
        self.open, self.links, self.ids, self.said, self.cells = [], [], [], [], []

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href", "srcset", "action", "data")]
        self.ids += [value for name, value in attrs if name == "id"]
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.said.append(data)
        if {"td", "th"} & set(self.open):
            self.cells[-1] += data


def read(path):
    reader = Reader()
    reader.feed(path.read_text())
    reader.close()
    assert reader.open == []
    return reader


# --- The table --------------------------------------------------------------------------------------------------------


def test_the_table_holds_the_numbers():
    rows = three_seeds()
    fail(rows[3])
    rows[4]["stop"] = "budget"
    table = report.table(as_run(rows), WIDE)
    # kept .91, .93, .95: sd .02, t(2) = 4.303, half-width 4.303 * .02 / sqrt(3) = .0497
    expected = ["Readiness", "90.0", "100.0", "0.5", "5", "/", "5", "3/3", "0.0", "±", "0.0", "93.0", "±", "5.0"]
    assert line_of(table, "Readiness").split() == [*expected, "0.600", "33.3", "50.0", "0.800"]
    # vanilla: the diverged lane is out of scores and steps, the one out of budget is not; t(1) = 12.706 on .8, .9
    vanilla = line_of(table, "Vanilla")
    assert "10 / 10  1/3 (1 diverged)  0.0 ± 0.0  85.0 ± 63.5" in re.sub(r" {3,}", "  ", vanilla)
    assert line_of(table, "Oracle").split()[4:6] == ["–", "–"]
    assert "†" in line_of(table, "Re-weighting") and "† The re-weighting whose forget loss" in table
    assert "relearn  relearn" in table and "@20      @30" in table


@pytest.mark.parametrize("columns", [50, 80, 120, 160])
def test_the_table_fits_the_terminal(columns):
    names = ("a very long name of a variant, and the end of it, 1", "a very long name of a variant, and the end of it, 2")
    rows = [fail(make("readiness", s, 0.9, name, "neggrad_plus", steps=1000)) for s in range(3) for name in names]
    table = report.table(as_run(rows + three_seeds()), columns)
    assert max(map(len, table.splitlines())) <= columns
    assert "it, 1" in table and "it, 2" in table and table.count("ToW") == 1, "what does not fit stands below"


def test_one_seed_has_no_interval():
    table = report.table(as_run([row for row in three_seeds() if row["seed"] == 0]), WIDE)
    assert "±" not in line_of(table, "Readiness") and "91.0" in line_of(table, "Readiness")


def test_unlearners_are_kept_apart():
    rows = [make("oracle", 0), *(make(t, 0, unlearner=u) for t in ("vanilla", "readiness") for u in ("ascent", "npo"))]
    table = report.table(as_run(rows), WIDE)
    assert [line.split()[:2] for line in table.splitlines()[3:8]] == [
        ["Oracle", "–"], ["Vanilla", "Ascent"], ["Readiness", "Ascent"], ["Vanilla", "NPO"], ["Readiness", "NPO"],
    ]  # fmt: skip


# --- The words --------------------------------------------------------------------------------------------------------


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


# --- The page ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    rows = three_seeds()
    fail(rows[3])
    rows[4]["stop"] = "budget"
    path = tmp_path_factory.mktemp("run")
    trials = [
        {"learning_rate": r, "clip": 0.0, "reached": n, "steps": [9, 7, 8], "validation_retain_accuracy": 0.5}
        for r, n in ((1, 0), (2, 3))
    ]
    sweep = {
        "event": "sweep",
        "unlearner": "ascent",
        "trials": trials,
        "chosen": {"learning_rate": 1, "clip": 0.0},
        "selected_for": "vanilla",
    }
    finished(
        rows, path, log=[sweep, {"event": "train"}, sweep | {"chosen": {"learning_rate": 2, "clip": 0.0}}, '{"event": "swe']
    )
    report.write(path)
    return path


def test_the_page_is_self_contained(written):
    reader, page = read(written / "report.html"), (written / "report.html").read_text()
    assert len(reader.ids) == len(set(reader.ids))
    for link in reader.links:
        assert link.removeprefix("#") in reader.ids
    assert page.count("<figure>") == page.count('role="img"') == 7
    outside = re.sub(r'xmlns(:xlink)?="[^"]*"', "", page)
    assert not re.search(r"""(src|href)\s*=\s*["']?\s*(https?:)?//|@import|url\((?!#)|<script""", outside)
    for used in re.findall(r'(?:href="#|url\(#)([^")]*)', page):
        assert used in reader.ids


def test_tables_and_figures_are_files_too(written):
    names = {path.name for folder in ("tables", "figures") for path in (written / folder).iterdir()}
    for table in ("results", "before", "after", "paired", "relearning", "cost-training", "cost-requests"):
        assert {f"{table}.csv", f"{table}.tex"} <= names
    for figure in ("kept", "unlearning-forget-ascent", "relearning-part-ascent"):
        assert {f"{figure}.svg", f"{figure}.pdf"} <= names
        assert (written / "figures" / f"{figure}.pdf").read_bytes().startswith(b"%PDF")
        assert f"](figures/{figure}.svg)" in (written / "report.md").read_text()
    assert "tables/ as CSV and LaTeX" in (written / "report.md").read_text()


def test_what_comes_first_are_three_numbers(written):
    """Kept: .91, .93, .95 is 93.0 and half of the t-interval 4.97; all others are alike."""
    text = (written / "report.md").read_text()
    first = text[: text.index("## Results")]
    assert "**Kept accuracy, Readiness: 93.0 [88.0, 98.0]%.**" in first
    assert "**Steps to forget: 5.0 [5.0, 5.0].**" in first and "**Relearned: 33.3 [33.3, 33.3]%.**" in first
    assert "Oracle: 95.0%, Vanilla: 85.0%." in first


def test_the_page_has_every_section(written):
    text = (written / "report.md").read_text()
    sections = re.findall("^## (.*)", text, re.MULTILINE)
    assert sections == [
        "Results", "In words", "Before the request", "After the request", "Paired comparisons", "While unlearning",
        "Relearning", "Cost", "Learning rate", "Failures", "Diagnostics", "Files", "Settings", "Environment",
    ]  # fmt: skip
    assert "# Forethought: toys, class 3 forgotten" in text
    assert "Re-weighting 0.1 †" in text
    cells = read(written / "report.html").cells
    assert "93.0 ± 5.0" in cells and "85.0 ± 63.5 (2/3)" in cells


def test_comparisons_are_paired(written):
    """Readiness - vanilla on seeds 1 and 2: .13 and .05, mean .09, sd .0566, t(1) = 12.706: half-width .508."""
    text = (written / "report.md").read_text()
    assert "| Readiness − Vanilla | +9.0 [−41.8, +59.8] p = 0.27 (2/3) | −5.0 [−5.0, −5.0] p < 0.001 (2/3) |" in text
    assert "| Readiness − Oracle | −2.0 [−7.0, +3.0] p = 0.23 | – | +0.0 [+0.0, +0.0] p = 1.00 |" in text


def test_failures_are_listed(written):
    text = (written / "report.md").read_text()
    assert "2 of 12 lanes" in text
    assert "| Vanilla | Ascent | 0 | diverged | 10 | yes | – | – |" in text
    assert "| Vanilla | Ascent | 1 | out of budget | 10 | yes | 0.0 | 80.0 |" in text


def test_the_last_sweep_counts(written):
    text = (written / "report.md").read_text()
    assert (
        "| Ascent | Vanilla | 1 | no clip | 0/3 | 8 / 9 | 50.0 |  |" in text
        and "| Ascent | Vanilla | 2 | no clip | 3/3 | 8 / 9 | 50.0 | chosen |" in text
    )
    assert "lies at the edge of its grid" in text and "learning rate 2 on 3 seeds" in text


@pytest.mark.parametrize("name, value", [
    ("learning_rate", [1]), ("clip", "0"), ("reached", None), ("steps", []), ("steps", ["9"]), ("steps", 9),
    ("validation_retain_accuracy", {}),
])  # fmt: skip
def test_a_sweep_without_a_number_where_one_belongs_is_refused(tmp_path, name, value):
    trial = {"learning_rate": 1, "clip": 0.0, "reached": 0, "steps": [9], "validation_retain_accuracy": None, name: value}
    sweep = {"event": "sweep", "unlearner": "ascent", "trials": [trial], "chosen": {"learning_rate": 1, "clip": 0.0}}
    file = tmp_path / "metrics.jsonl"
    file.write_text(json.dumps(sweep))
    with pytest.raises(WorkdirError, match=r"metrics.jsonl has a sweep that no run wrote"):
        tried.sweeps(file)


@pytest.mark.parametrize("lacking", ["unlearner", "trials", "chosen"])
def test_a_sweep_that_lacks_something_is_refused_in_one_line(tmp_path, lacking):
    trial = {"learning_rate": 1, "clip": 0.0, "reached": 0, "steps": [9], "validation_retain_accuracy": 0.5}
    sweep = {"event": "sweep", "unlearner": "ascent", "trials": [trial], "chosen": {"learning_rate": 1, "clip": 0.0}}
    file = tmp_path / "metrics.jsonl"
    file.write_text(json.dumps(sweep))
    assert tried.sweeps(file) == [sweep]
    for damaged in (sweep | {lacking: None}, {name: value for name, value in sweep.items() if name != lacking}):
        file.write_text(json.dumps(damaged))
        with pytest.raises(WorkdirError, match=r"metrics.jsonl has a sweep that no run wrote: remove it and results.json"):
            tried.sweeps(file)


SAME = ("report.html", "report.md", "figures/kept.pdf", "figures/kept.svg", "tables/results.tex")


def test_the_same_files_make_the_same_bytes(written):
    before = [(written / name).read_bytes() for name in SAME]
    assert report.write(written) == written / "report.html"
    assert [(written / name).read_bytes() for name in SAME] == before


CASES = {
    "one seed": [make(t, 0) for t in ("oracle", "heldout_oracle", "vanilla", "readiness")],
    "no readiness": [make(t, s) for t in ("oracle", "vanilla", "dpsgd") for s in range(2)],
    "oracle alone": [make("oracle", 0)],
    "no oracle, no vanilla": [make("readiness", s) for s in range(2)],
    "unlearners": [make(t, s, unlearner=u) for t in ("vanilla", "readiness") for s in range(2) for u in ("ascent", "npo")],
    "variants": [make("readiness", s, variant=f"<b>|{i}") for i in range(8) for s in range(2)],
    "random": [make(t, s, setting="random") for t in ("oracle", "vanilla", "readiness") for s in range(2)],
    "all diverged": [fail(make(t, s)) for t in ("vanilla", "readiness") for s in range(2)],
    "training diverged": [
        fail(make("vanilla", 0, before=dict.fromkeys(scores(), NAN), train_flops=NAN, peak_bytes=NAN, steps=0)),
        make("readiness", 0),
    ],
    "nothing extra": [make(t, 0) | {"extra": {}} for t in ("oracle", "vanilla", "readiness")],
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.usefixtures("undrawn")
def test_what_is_missing_does_not_break_the_page(name, tmp_path):
    rows = copy.deepcopy(CASES[name])
    config = {"forget": {"setting": "random", "fraction": 0.1}} if name == "random" else None
    reader = read(report.write(finished(rows, tmp_path, config)))
    for text in [*reader.said, (tmp_path / "report.md").read_text()]:
        assert not re.search(r"\b(nan|inf|None|null)\b", text)
    report.table(as_run(rows), 80)
    if name == "variants":
        assert "Readiness <b>|1" in reader.cells
        assert "Readiness &lt;b>\\|1" in (tmp_path / "report.md").read_text()
    if name == "random":
        assert "Forethought: toys, a random 10% of the training set forgotten" in reader.said


def test_an_unfinished_run_is_refused(tmp_path):
    for _ in range(3):
        with pytest.raises(WorkdirError) as caught:
            report.write(tmp_path)
        assert "\n" not in str(caught.value)
        finished([], tmp_path)  # then: no rows
    (tmp_path / "results.json").write_text("{")
    with pytest.raises(WorkdirError, match=r"results\.json cannot be read .*: remove it and run again"):
        report.write(tmp_path)


# --- The figures ------------------------------------------------------------------------------------------------------


def test_stopped_lanes_hold_and_diverged_lanes_leave():
    stopped, broken = as_read([make("vanilla", 0, steps=2), fail(make("vanilla", 1, steps=4))])
    lanes = figures.held([methods.curve(row, "forget_accuracy") for row in (stopped, broken)])
    np.testing.assert_array_equal(lanes, [[1, 0.5, 0, 0, 0], [1, 0.75, 0.5, 0.25, NAN]])
    for name in broken.extra["curve"]:  # as a run writes it that keeps only what is finite
        broken.extra["curve"][name] = [v for v in broken.extra["curve"][name] if v is not None]
    np.testing.assert_array_equal(methods.curve(broken, "forget_accuracy"), [1, 0.75, 0.5, 0.25, NAN])


def test_a_broken_model_relearns_nothing():
    (broken,) = as_read([fail(make("vanilla", 0), stop="budget")])
    assert methods.end(broken) == "diverged"
    assert math.isnan(methods.relearned(broken, "part", 20)) and methods.relearning(broken, "part") == []
    (short,) = as_read([make("vanilla", 0, extra={"relearning": {"part": [0.1, 0.2]}})])
    assert math.isnan(methods.relearned(short, "part", 20)) and methods.relearned(short, "part", -1) == 0.2


def test_drawing_leaves_no_traces():
    before = dict(matplotlib.rcParams)
    drawn = methods.group(as_read(three_seeds()))[1:]
    draw = lambda: figures.panel("a", "A", drawn, lambda row: methods.curve(row, "watch_accuracy"), 0.5)  # noqa: E731
    with matplotlib.rc_context({"font.size": 30}):
        large = draw()
    assert draw() == large
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize("name", ["one seed", "all diverged", "nothing extra"])
def test_sparse_lines_are_drawn(name):
    drawn = methods.group(as_read(CASES[name]))
    assert "<path" in figures.panel("a", "A", drawn, lambda row: methods.curve(row, "forget_accuracy")).svg


@pytest.mark.parametrize(
    ("curve", "area"),
    [
        ([0.0, 0.2, 0.4], 0.0),  # as the oracle
        ([1.0, 1.0, 1.0], 1.0),  # never forgot
        ([0.0, 0.6, 0.8], (0.0 + 0.4 + 0.4) / (1.0 + 0.8 + 0.6)),
    ],
)
def test_the_area_of_relearning_by_hand(curve, area):
    oracle = methods.group(as_read([make("oracle", 0, extra={"relearning": {"part": [0.0, 0.2, 0.4]}})]))[0]
    row, other = as_read([make("vanilla", 0, extra={"relearning": {"part": curve}}), make("vanilla", 1)])
    assert methods.relearned_area(row, oracle, "part") == pytest.approx(area)
    assert math.isnan(methods.relearned_area(other, oracle, "part"))  # no oracle of that seed
    assert math.isnan(methods.relearned_area(row, None, "part"))


@pytest.mark.parametrize(
    ("values", "ends"),
    [
        ([0, 90], (0, 90)), ([50, 90], (0, 90)), ([87, 99], (80, 100)), ([NAN, 95], (90, 100)), ([NAN], (0, 100)),
        ([100], (90, 100)), ([0, 33.3], (0, 40)), ([0], (0, 10)), ([70, 70], (70, 80)),
    ],
)  # fmt: skip
def test_the_axis_ends_where_the_data_end(values, ends):
    assert drawing.ends(values) == ends

"""The page of a comparison and its table in the terminal, from rows made up by hand."""

import copy
import json
import re

import pytest

from experiments.comparison import report, tried
from experiments.core.errors import WorkdirError
from tests.helpers.pages import CASES, as_run, fail, finished, line_of, make, read, three_seeds
from tests.helpers.pictures import undrawn  # noqa: F401

WIDE = 160


def test_relearning_that_ends_at_its_first_look_has_one_column():
    rows = three_seeds()
    for row in rows:
        row["extra"]["relearning"] = {attack: curve[:21] for attack, curve in row["extra"]["relearning"].items()}
    header = report.table(as_run(rows), WIDE)
    assert header.count("relearn") == header.count("@20") == 1


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


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    rows = three_seeds()
    fail(rows[3])
    rows[4]["stop"] = "budget"
    path = tmp_path_factory.mktemp("run")
    trials = [
        {"learning_rate": r, "clip": 0.0, "reached": n, "way": way, "steps": [9, 7, 8], "validation_retain_accuracy": 0.5}
        for r, n, way in ((1, 0, 0.499), (2, 3, 1.0))
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
        "| Ascent | Vanilla | 1 | no clip | 0/3 (49%) | 8 / 9 | 50.0 |  |" in text
        and "| Ascent | Vanilla | 2 | no clip | 3/3 | 8 / 9 | 50.0 | chosen |" in text
    )
    assert "those that led less than half of the way come last" in text
    assert "lies at the edge of its grid" in text and "learning rate 2 on 3 seeds" in text


@pytest.mark.parametrize("name, value", [
    ("learning_rate", [1]), ("clip", "0"), ("reached", None), ("steps", []), ("steps", ["9"]), ("steps", 9),
    ("validation_retain_accuracy", {}), ("way", "0.5"), ("way", None), ("way", float("nan")), ("way", 2), ("way", True),
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

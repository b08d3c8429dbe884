"""Tables of the docs are what runs wrote: by hand, when they are stale, and when something is missing."""

import pytest

from tools import tables

PAGE = """# Page

<!-- table toy: Vanilla / Level; Oracle
way = results: method
loss = results: loss after .2f ±
gap = results: gap +.1f []
test = before: test .0f
aim = results: aim
-->
<!-- end of table -->

After.
"""
TABLE = """| way | loss | gap | test | aim |
| :-- | --: | --: | --: | :-- |
| Vanilla | 1.25 ± .50 | −.5 [−1.0, +.0] | 97 | 2/3 |
| Oracle | .50 ± .10 | – | 96 | – |
"""
RESULTS = """method,algorithm,loss after,loss after low,loss after high,gap,gap low,gap high,aim
Oracle,,0.5,0.4,0.6,,,,
Vanilla,Level,1.25,0.75,1.75,-0.5,-1.0,0.0,2/3
Vanilla,Ascent,9,9,9,9,9,9,0/3
"""
BEFORE = "method,test\nOracle,96.4\nVanilla,97.1\n"


@pytest.fixture
def numbers(tmp_path):
    """A folder of numbers with one run."""
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy/results.csv").write_text(RESULTS)
    (tmp_path / "toy/before.csv").write_text(BEFORE)
    return tmp_path


def test_a_table_is_written_from_the_files_of_its_run(numbers):
    fresh = tables.refreshed(PAGE, numbers)
    assert fresh == PAGE.replace("<!-- end", f"{TABLE}<!-- end")
    assert tables.refreshed(fresh, numbers) == fresh
    assert tables.refreshed(fresh.replace("1.25 ±", "1.24 ±"), numbers) == fresh


@pytest.mark.parametrize("old, new, says", [
    ("results: loss after", "results: loss", "results.csv has no column 'loss': it has method, algorithm, loss after"),
    ("; Oracle", "; Oracles", "results.csv has no row 'Oracles': it has Oracle, Vanilla / Level, Vanilla / Ascent"),
    ("before: test", "after: test", "after.csv is missing: take it from a run's folder by --take"),
    ("gap = results:", "gap results", "a table of toy has the line 'gap results gap"),
])  # fmt: skip
def test_what_is_missing_is_one_line(numbers, old, new, says):
    with pytest.raises(ValueError, match=says) as raised:
        tables.refreshed(PAGE.replace(old, new), numbers)
    assert "\n" not in str(raised.value)


def test_the_tables_of_a_run_are_taken(tmp_path):
    with pytest.raises(ValueError, match="holds no finished run with tables"):
        tables.take(tmp_path, "toy", tmp_path / "numbers")
    (tmp_path / "results.json").write_text("{}")
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables/results.csv").write_text(RESULTS)
    (tmp_path / "tables/results.tex").write_text("no table of the docs")
    tables.take(tmp_path, "toy", tmp_path / "numbers")
    assert [file.name for file in (tmp_path / "numbers/toy").iterdir()] == ["results.csv"]


def test_a_stale_page_is_told(tmp_path, numbers, monkeypatch, capsys):
    monkeypatch.setattr(tables, "NUMBERS", numbers)
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    assert tables.main(["--check", str(page)]) == 1 and page.read_text() == PAGE
    assert tables.main([str(page)]) == 0 and TABLE in page.read_text()
    assert tables.main(["--check", str(page)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said == ["page.md: stale", "page.md: written anew", "all tables are as their runs wrote them"]
    page.write_text(PAGE.replace("toy", "lost"))
    assert tables.main([str(page)]) == 2 and capsys.readouterr().err.startswith("error: ")


def test_the_pages_are_as_their_runs_wrote_them():
    assert tables.main(["--check"]) == 0

"""The table of canaries: there for runs that planted some, with a column for whom there is, and for no other."""

from experiments.comparison import canary_report, methods
from experiments.core.results import Row


def row(seed, **after):
    extra = {"canaries": {"before": dict.fromkeys(after, 9.0), "after": after}} if after else {}
    return Row("vanilla", "default", "level", "group", "pydoc", seed, {}, {}, 0, "reached", extra=extra)


def test_the_table_has_a_column_for_whom_there_is():
    after = {"forget_exposure": 1.5, "forget_exposures": [1.0, 2.0]}
    heading, note, table = canary_report.section(methods.group([row(seed, **after) for seed in range(3)]))
    assert heading.text == "Canaries" and note.text.endswith("Here: 2 forgotten.")
    assert table.headers[2:] == ["forgotten,\nbefore", "forgotten,\nafter"]
    assert [cell.text for cell in table.rows[0][2:]] == ["9.00", "1.50"]
    both = after | {"retain_exposure": 8.0, "retain_exposures": [8.0, 8.0, 8.0]}
    _, note, table = canary_report.section(methods.group([row(seed, **both) for seed in range(3)]))
    assert note.text.endswith("Here: 2 forgotten and 3 retained.") and table.rows[0][-1].text == "8.00"


def test_other_runs_have_none():
    assert canary_report.section(methods.group([row(seed) for seed in range(3)])) == []

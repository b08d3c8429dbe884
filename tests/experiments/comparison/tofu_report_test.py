"""The table of TOFU's scores: there for runs that have them, and for no other."""

from experiments.comparison import methods, tofu_report
from experiments.core.results import Row
from experiments.reporting.document import Table


def row(training, seed, **scores):
    extra = {"tofu": {"before": {"questions": 20} | scores, "after": {"questions": 20} | scores}} if scores else {}
    return Row(training, "default", "none", "partition", "tofu", seed, {}, {}, 0, "reached", extra=extra)


def test_the_table_has_means_over_seeds_and_dashes_for_what_is_not_there():
    rows = [row("oracle", seed, forget_probability=0.1 + 0.1 * seed, forget_quality=0.5) for seed in range(3)]
    heading, note, table = tofu_report.section(methods.group(rows))
    assert heading.text == "TOFU" and "20 forgotten questions are asked" in note.text
    assert isinstance(table, Table) and [str(cell) for cell in table.rows[0][:2]] == ["Oracle", "–"]
    before, after, _, _, quality, *rest = table.rows[0][2:]
    assert before.text == after.text == "0.200" and quality.text == "0.5" and rest[-1].text == "–"


def test_questions_asked_in_pairs_have_a_table_of_their_own():
    scores = {"forget_probability": 0.1, "forget_together_probability": 0.25, "retain_together_probability": 0.5}
    *_, note, table = tofu_report.section(methods.group([row("vanilla", seed, **scores) for seed in range(3)]))
    assert "in one prompt" in note.text and table.name == "tofu-together"
    assert [cell.text for cell in table.rows[0][2:]] == ["0.100", "0.250", "–", "–", "–", "0.500", "–", "–"]


def test_other_runs_have_none():
    assert tofu_report.section(methods.group([row("oracle", seed) for seed in range(3)])) == []

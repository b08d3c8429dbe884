"""Rows and figures that a notebook shows."""

from experiments.reporting.inline import Figure, Table


def test_a_table_is_a_list_and_shows_itself():
    table = Table({"way": name, "value": value} for name, value in (("<b>", 0.123456), ("b", None)))
    assert table == [{"way": "<b>", "value": 0.123456}, {"way": "b", "value": None}]
    shown = table._repr_html_()
    assert "<tr><th>way</th><th>value</th></tr>" in shown and "<td>&lt;b&gt;</td><td>0.1235</td>" in shown
    assert "<td>–</td>" in shown and shown.count("<tr>") == 3


def test_an_empty_table_shows_nothing():
    assert Table()._repr_html_() == "<table><tr></tr></table>"


def test_a_figure_has_no_prologue():
    assert Figure('<?xml version="1.0"?><svg></svg>')._repr_html_().endswith('"><svg></svg></div>')

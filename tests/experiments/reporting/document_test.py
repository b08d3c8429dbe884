"""Templates, files and names: nothing is lost between a table and what people get, and nothing is taken for markup."""

import csv
import io
import itertools
import math
import re

import pytest

from experiments.reporting import document, exports, names, terminal
from experiments.reporting.document import Figures, Heading, Headline, Key, Panel, Points, Stat, Table, Text
from experiments.reporting.numbers import Number, bare, bracketed

EVIL = '<b>& "quoted"'
SVG = """<?xml version="1.0"?>
<svg width="3pt" height="3pt" viewBox="0 0 3 3"><defs><path id="a" d="M0 0h1" style="stroke: #1c2126"/></defs>
<use xlink:href="#a" clip-path="url(#a)"/></svg>"""
TABLE = Table(
    ["method", "acc.\nafter", "p", "note"],
    [
        [EVIL, Number(93.04, "93.0", "± 5.0", 88.1, 98.0, count=2), Number(0.1, "+0.1", "p = 0.50", p=0.5), "50% _ok_"],
        ["b", Number(math.nan, "–"), bracketed(-1.5, -2.25, 0.125, 1), "–"],
    ],
    name="results",
    ours=[1],
)
PANEL = Panel("figure", EVIL, SVG, b"%PDF-1.4")
BLOCKS = [
    Headline(PANEL, [Stat(EVIL, bracketed(93.0, 88.0, 98.0), EVIL, "%"), Stat("n", "–", "none")]),
    Heading(EVIL),
    Text(EVIL, "warning"),
    Points([EVIL]),
    TABLE,
    Figures([Key(EVIL, names.OURS)], [PANEL]),
]


def test_what_people_call_their_data_is_no_markup():
    page = document.to_html(EVIL, BLOCKS)
    assert "<b>" not in page and "&lt;b&gt;&amp; &#34;quoted&#34;" in page
    body = re.sub(r"<svg.*?</svg>", "", page[page.index("<body>") :], flags=re.DOTALL)
    assert not re.search(r"&(?!\w+;|#\d+;)", body)
    assert "<b>" not in document.to_markdown(EVIL, BLOCKS)


def test_every_number_of_a_table_is_on_the_page():
    page, text = document.to_html("t", BLOCKS), document.to_markdown("t", BLOCKS)
    for cell in itertools.chain(*TABLE.rows):
        if isinstance(cell, Number):
            assert f">{cell.text}" in page and (not cell.around or f'<span class="around">{cell.around}</span>' in page)
            assert f"| {cell} |" in text
    assert '<tr class="ours"><th scope="row" class="name">b</th>' in page


def test_figures_of_one_page_share_no_id():
    """Matplotlib's ids are the same in every file, and what refers to them must go along."""
    page = document.to_html("t", BLOCKS)
    ids = re.findall(r'\bid="([^"]*)"', page)
    assert len(ids) == len(set(ids)) and {"f1-a", "f2-a"} <= set(ids)
    assert set(re.findall(r'(?:href="#|url\(#)(f[^")]*)', page)) == {"f1-a", "f2-a"}
    assert "<?xml" not in page and "var(--ink)" in page and 'width="3pt"' not in page


def test_csv_holds_the_same_numbers():
    (header, *lines) = list(csv.reader(io.StringIO(exports.to_csv(TABLE))))
    assert header == ["method", "acc. after", "acc. after low", "acc. after high", "acc. after n",
                      "p", "p low", "p high", "p p", "note"]  # fmt: skip
    assert lines[0] == [EVIL, "93.04", "88.1", "98", "2", "0.1", "", "", "0.5", "50% _ok_"]
    assert lines[1] == ["b", "", "", "", "", "-1.5", "-2.25", "0.125", "", ""]
    assert [float(field) for field in lines[0][1:5]] == [93.04, 88.1, 98.0, 2.0]


@pytest.mark.parametrize("value", [0.1 + 0.2, 1e-17, 123456789.123, -2.0, 1e300])
def test_csv_keeps_every_bit(value):
    text = exports.to_csv(Table(["n", "v"], [["x", bare(value, "shown")]]))
    assert float(text.splitlines()[1].split(",")[1]) == value


def test_latex_prints_what_it_would_read():
    assert exports.latex("a_b & 50% {x} #1 $ ^ ~ \\") == (
        r"a\_b \& 50\% \{x\} \#1 \$ \textasciicircum{} \textasciitilde{} \textbackslash{}"
    )
    text = exports.to_latex(TABLE)
    assert r"93.0 $\pm$ 5.0 & +0.1 p = 0.50 & 50\% \_ok\_ \\" in text and r"\begin{tabular}{lrrr}" in text
    assert r"\textbf{b} & \textbf{--} & \textbf{$-$1.5 [$-$2.2, 0.1]} & \textbf{--} \\" in text
    for rule in (r"\toprule", r"\midrule", r"\bottomrule"):
        assert text.count(rule) == 1
    assert exports.to_latex(Table(["a"], [["[1]"]])).splitlines()[5] == r"{[}1] \\", "no length after a line break"


def test_files_of_one_name_are_refused(tmp_path):
    exports.write(tmp_path, [TABLE, BLOCKS[0]])
    assert (tmp_path / "figures" / "figure.svg").read_text() == SVG
    with pytest.raises(ValueError, match="two tables have one name: results"):
        exports.write(tmp_path, [TABLE, TABLE])
    with pytest.raises(ValueError, match="two figures have one name"):
        exports.write(tmp_path, BLOCKS)


@pytest.mark.parametrize("table", [names.METHODS, names.PLANS, names.STATES])
def test_no_two_methods_look_alike(table):
    """By colour, and in print without colour by dash and marker; ours is the boldest."""
    styles = [method.style for method in table.values()]
    assert len({style.colour for style in styles}) == len(styles)
    assert len({(style.dash, style.marker) for style in styles}) == len(styles)
    assert len({method.name for method in table.values()}) == len(styles)
    (ours,) = (method.style for method in table.values() if method.ours)
    assert all(style.width < ours.width for style in styles if style is not ours)


def test_a_method_looks_alike_on_all_pages():
    assert names.METHODS["oracle", "default"].style == names.STATES["oracle", ""].style
    mine = names.method("readiness", "cap=3")
    assert mine.name == "Readiness cap=3" and mine == names.method("readiness", "cap=3") and not mine.ours
    assert (
        names.method("reweight", "weight=0.5 equal_flops", {"weight": 0.5, "equal_flops": True}).name
        == "Re-weighting 0.5, longer"
    )
    styles = names.distinct([mine.style, mine.style, names.OURS])
    assert len(set(styles)) == 3 and styles[0] == mine.style and styles[2] == names.OURS


def test_plain_text_aligns():
    table = Table(["name", "a\nlong"], [["x", "1"], ["a longer name", "22"]])
    assert terminal.to_text(table, 80).splitlines() == [
        "                  a", "name           long", "-------------------", "x                 1", "a longer name    22",
    ]  # fmt: skip
    assert terminal.to_text(table, 18).splitlines()[-1] == "a long… name    22"
    stacked = Table(["name", "value"], [["x", bracketed(1, 0, 2, 0)], ["y", "3"]], stacked=True)
    assert terminal.to_text(stacked, 80).splitlines()[2:] == ["x          1", "      [0, 2]", "y          3"]


def test_columns_that_do_not_fit_stand_below():
    table = Table(["name", "one", "two", "three"], [["x", "1" * 8, "2" * 8, "3" * 8]])
    blocks = terminal.to_text(table, 24).split("\n\n")
    assert [block.splitlines()[0].split() for block in blocks] == [["name", "one", "two"], ["name", "three"]]
    assert max(map(len, "\n".join(blocks).splitlines())) <= 24
    assert all(block.splitlines()[-1].startswith("x ") for block in blocks)


def test_without_a_terminal_there_are_80_columns(monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setattr("os.get_terminal_size", lambda *_: (_ for _ in ()).throw(OSError))
    assert terminal.width() == 80
    monkeypatch.setenv("COLUMNS", "132")
    assert terminal.width() == 132

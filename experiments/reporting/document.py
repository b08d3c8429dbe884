"""A page made of blocks, written as one self-contained HTML file or as Markdown."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import jinja2
from markupsafe import Markup

from experiments.reporting.names import Style
from experiments.reporting.numbers import Cell, Number

TEMPLATES = Path(__file__).parent / "templates"


class Heading(NamedTuple):
    text: str


class Text(NamedTuple):
    text: str
    kind: str = ""  # lead, or warning


class Points(NamedTuple):
    """A list of sentences."""

    texts: Sequence[str]


class Table(NamedTuple):
    """Cells are text or numbers; the first `left` columns are names and aligned left. A header may hold a line break.

    name: of its files, "" for none.  prose: the last column is running text, to be wrapped.
    ours: which rows are ours, to be set in bold.  stacked: intervals stand below their values.
    """

    headers: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    left: int = 1
    name: str = ""
    prose: bool = False
    ours: Sequence[int] = ()
    stacked: bool = False

    def text(self, cell: Cell) -> str:
        """A cell in plain text; in a stacked table an interval is on a line of its own."""
        if isinstance(cell, Number) and self.stacked and cell.around:
            return f"{cell.text}\n{cell.around}"
        return str(cell)


class Key(NamedTuple):
    """One entry of a legend."""

    label: str
    style: Style


class Panel(NamedTuple):
    """One figure: the name of its files, its caption, and its image as SVG and as PDF."""

    name: str
    caption: str
    svg: str
    pdf: bytes


class Figures(NamedTuple):
    """Panels side by side under one legend."""

    legend: Sequence[Key]
    panels: Sequence[Panel]


class Stat(NamedTuple):
    """A number that a page opens with: what it is, its value, and what to compare it with."""

    label: str
    value: Cell
    note: str
    unit: str = ""


class Headline(NamedTuple):
    """What a page opens with: one figure and a few numbers."""

    panel: Panel
    stats: Sequence[Stat]
    legend: Sequence[Key] = ()


Block = Heading | Text | Points | Table | Figures | Headline


def to_html(title: str, blocks: Sequence[Block]) -> str:
    """One HTML document that needs nothing but itself."""
    page = _templates().get_template("page.html.jinja")
    inlined = inliner()
    return page.render(
        title=title,
        style=Markup((TEMPLATES / "style.css").read_text()),
        headings=[block.text for block in blocks if isinstance(block, Heading)],
        blocks=[(type(block).__name__.lower(), block) for block in blocks],
        first=next((i for i, block in enumerate(blocks) if isinstance(block, Heading)), -1),
        inlined=inlined,
    )


def to_markdown(title: str, blocks: Sequence[Block]) -> str:
    """The same blocks in Markdown; figures are links to their files."""
    told = [text for text in map(_markdown, blocks) if text]
    return "\n\n".join([f"# {escaped(title)}", *told]) + "\n"


@functools.cache
def _templates() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    environment.filters["slug"] = slug
    environment.filters["lines"] = lambda text: Markup("<br>").join(str(text).split("\n"))
    environment.tests["number"] = lambda cell: isinstance(cell, Number)
    return environment


def inliner() -> Callable[[Panel], Markup]:
    """Counts the figures of a page, so that the ids inside them differ: matplotlib's are the same in each."""
    count = 0

    def inlined(panel: Panel) -> Markup:
        nonlocal count
        count += 1
        return Markup(_inlined(panel, f"f{count}-"))

    return inlined


def _inlined(panel: Panel, prefix: str) -> str:
    """An SVG as an element of a page: no prologue, ids of its own, its name for those who do not see it."""
    svg = panel.svg[panel.svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style[^>]*>.*?</style>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="([^"]*)"', rf'id="{prefix}\1"', svg)
    svg = re.sub(r'(xlink:href="#|url\(#)', rf"\1{prefix}", svg)
    label = str(jinja2.filters.do_forceescape(panel.caption))
    svg = re.sub(r"<svg\b[^>]*?(viewBox=\"[^\"]*\")[^>]*>", rf'<svg \1 {XMLNS} role="img" aria-label="@@">', svg, count=1)
    svg = svg.replace("@@", label, 1)
    for literal, variable in SHADES.items():
        svg = svg.replace(literal, variable)
    return "\n".join(line for line in svg.splitlines() if line.strip())


XMLNS = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
SHADES = {"#1c2126": "var(--ink)", "#e4e8ec": "var(--grid)", "#8b959e": "var(--rule)"}  # what a dark page changes


def slug(text: str) -> str:
    """A name for a link or a file."""
    return re.sub(r"\W+", "-", text.lower()).strip("-")


def escaped(text: str) -> str:
    """Text that Markdown leaves as it is."""
    text = re.sub(r"([\\`*|]|](?=\())", r"\\\1", text.replace("\n", " "))
    return re.sub(r"<(?=\S)", "&lt;", re.sub(r"&(?=\S)", "&amp;", text))


def _markdown(block: Block) -> str:
    match block:
        case Heading(text):
            return f"## {escaped(text)}"
        case Text(text, kind):
            return f"**{escaped(text)}**" if kind == "warning" else escaped(text)
        case Points(texts):
            return "\n".join(f"- {escaped(text)}" for text in texts)
        case Table():
            rule = [":--" if i < block.left else "--:" for i in range(len(block.headers))]
            lines = [[escaped(str(cell)) for cell in row] for row in (block.headers, *block.rows)]
            return "\n".join(f"| {' | '.join(line)} |" for line in [lines[0], rule, *lines[1:]])
        case Figures(_, panels):
            return "\n\n".join(f"![{escaped(panel.caption)}](figures/{panel.name}.svg)" for panel in panels)
        case Headline(panel, stats, _):
            told = [f"- **{escaped(s.label)}: {escaped(f'{s.value}{s.unit}')}.** {escaped(s.note)}" for s in stats]
            return "\n".join([f"![{escaped(panel.caption)}](figures/{panel.name}.svg)\n", *told])

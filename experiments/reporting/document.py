"""A page made of blocks, written as one self-contained HTML file, as Markdown, or as plain text."""

from __future__ import annotations

import html
import itertools
import re
from collections.abc import Sequence
from typing import NamedTuple


class Heading(NamedTuple):
    text: str


class Text(NamedTuple):
    text: str
    lead: bool = False


class Table(NamedTuple):
    """Strings; the first `left` columns are names and aligned left. A header may hold a line break."""

    headers: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: int = 1
    prose: bool = False  # the last column is running text, to be wrapped


class Key(NamedTuple):
    """One entry of a legend."""

    label: str
    colour: str
    dash: str  # SVG's stroke-dasharray, "" for a solid line


class Figures(NamedTuple):
    """Panels side by side, (caption, data URI) each, under one legend."""

    legend: Sequence[Key]
    panels: Sequence[tuple[str, str]]


Block = Heading | Text | Table | Figures

STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 80rem; padding: 1rem 1.25rem 4rem; background: #fff; color: #1c2126;
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: 1rem 0 .75rem; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .5rem; padding-top: .5rem; border-top: 1px solid #d9dee3; }
p { max-width: 48rem; margin: .6rem 0; overflow-wrap: anywhere; }
p.lead { max-width: 60rem; background: #f2f6f9; border-left: 4px solid #009e73; padding: .75rem 1rem; }
nav { font-size: .875rem; display: flex; flex-wrap: wrap; gap: .25rem 1rem; margin: 1rem 0; }
a { color: #00598a; }
.scroll { overflow-x: auto; max-width: 100%; margin: .75rem 0; }
table { border-collapse: collapse; font-size: .78rem; line-height: 1.35; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .35rem; text-align: right; white-space: nowrap; border-bottom: 1px solid #e4e8ec; }
td, tbody th { vertical-align: middle; }
thead th { vertical-align: bottom; border-bottom: 2px solid #8b959e; }
.name { text-align: left; }
tbody th { font-weight: 400; }
tbody th:first-child, thead th:first-child { position: sticky; left: 0; background: #fff; }
tbody th:first-child { white-space: normal; min-width: 7rem; max-width: 14rem; overflow-wrap: break-word; }
.prose td:last-child { white-space: normal; text-align: left; overflow-wrap: anywhere; max-width: 56rem; }
.prose thead th:last-child { text-align: left; }
.legend { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; padding: 0; margin: .75rem 0; list-style: none;
  font-size: .875rem; }
.legend svg { vertical-align: middle; margin-right: .4rem; }
.panels { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(26rem, 100%), 1fr)); gap: 1rem; }
figure { margin: 0; max-width: 36rem; }
figure img { display: block; width: 100%; height: auto; }
figcaption { font-size: .875rem; font-weight: 600; }
@page { size: A4 landscape; margin: 12mm; }
@media print {
  body { max-width: none; padding: 0; font-size: 10pt; }
  nav { display: none; }
  h2, .legend, figcaption { break-after: avoid; }
  tr, figure, .lead, .legend { break-inside: avoid; }
  .scroll { overflow: visible; }
  table { font-size: 7pt; }
  th, td { padding: .15rem .3rem; }
  tbody th:first-child, thead th:first-child { position: static; }
  .panels { grid-template-columns: repeat(3, 1fr); }
}
"""


def to_html(title: str, blocks: Sequence[Block]) -> str:
    """One HTML document that needs nothing but itself."""
    headings = [block.text for block in blocks if isinstance(block, Heading)]
    links = "".join(f'<a href="#{_slug(text)}">{html.escape(text)}</a>\n' for text in headings)
    contents = f'<nav aria-label="Contents">\n{links}</nav>\n'
    body = [f"<h1>{html.escape(title)}</h1>\n"]
    for block in blocks:
        if isinstance(block, Heading) and contents:
            body.append(contents)
            contents = ""
        body.append(_html(block))
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{''.join(body)}</body>\n</html>\n"
    )


def to_markdown(title: str, blocks: Sequence[Block]) -> str:
    """The same blocks in Markdown; of the figures, only their captions."""
    return "\n\n".join([f"# {_escaped(title)}", *map(_markdown, blocks)]) + "\n"


def to_text(table: Table, width: int) -> str:
    """Aligned columns; the first one loses its middle where lines would exceed `width`. Headers hang, cells stand."""
    headers = [header.split("\n") for header in table.headers]
    height = max(map(len, headers))
    lines = [list(line) for line in zip(*([""] * (height - len(h)) + h for h in headers), strict=True)]
    for row in table.rows:
        lines += map(list, itertools.zip_longest(*(cell.split("\n") for cell in row), fillvalue=""))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    room = max(12, width - sum(widths[1:]) - 2 * (len(widths) - 1))
    widths[0] = min(widths[0], room)
    for line in lines:
        line[0] = line[0] if len(line[0]) <= room else f"{line[0][: room // 2]}…{line[0][1 + room // 2 - room :]}"
    aligned = [
        "  ".join(
            cell.ljust(w) if i < table.left else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    ]
    rule = "-" * max(map(len, aligned))
    return "\n".join(line.rstrip() for line in [*aligned[:height], rule, *aligned[height:]])


def _slug(text: str) -> str:
    return re.sub(r"\W+", "-", text.lower()).strip("-")


def _html(block: Block) -> str:
    match block:
        case Heading(text):
            return f'<h2 id="{_slug(text)}">{html.escape(text)}</h2>\n'
        case Text(text, lead):
            kind = ' class="lead"' if lead else ""
            return f"<p{kind}>{html.escape(text)}</p>\n"
        case Table():
            return _html_table(block)
        case Figures(legend, panels):
            keys = "".join(f"<li>{_stroke(key)}{html.escape(key.label)}</li>\n" for key in legend)
            return f'<ul class="legend">\n{keys}</ul>\n<div class="panels">\n{"".join(map(_panel, panels))}</div>\n'


def _panel(panel: tuple[str, str]) -> str:
    caption, uri = html.escape(panel[0]), html.escape(panel[1])
    return f'<figure>\n<figcaption>{caption}</figcaption>\n<img src="{uri}" alt="{caption}">\n</figure>\n'


def _stroke(key: Key) -> str:
    line = f'<line x1="1" y1="5" x2="29" y2="5" stroke="{key.colour}" stroke-width="2.5" stroke-dasharray="{key.dash}"/>'
    return f'<svg width="30" height="10" aria-hidden="true">{line}</svg>'


def _html_table(table: Table) -> str:
    def cell(i: int, text: str, head: bool) -> str:
        tag = "th" if head or i == 0 else "td"
        scope = (' scope="col"' if head else ' scope="row"') if tag == "th" else ""
        name = ' class="name"' if i < table.left else ""
        inside = html.escape(text).replace("\n", "<br>")
        return f"<{tag}{scope}{name}>{inside}</{tag}>"

    def line(cells: Sequence[str], head: bool = False) -> str:
        return f"<tr>{''.join(cell(i, text, head) for i, text in enumerate(cells))}</tr>\n"

    rows = "".join(map(line, table.rows))
    kind = ' class="prose"' if table.prose else ""
    return (
        f'<div class="scroll" tabindex="0">\n<table{kind}>\n'
        f"<thead>\n{line(table.headers, head=True)}</thead>\n<tbody>\n{rows}</tbody>\n</table>\n</div>\n"
    )


def _escaped(text: str) -> str:
    text = re.sub(r"([\\`*|]|](?=\())", r"\\\1", text.replace("\n", " "))
    return re.sub(r"<(?=\S)", "&lt;", re.sub(r"&(?=\S)", "&amp;", text))


def _markdown(block: Block) -> str:
    match block:
        case Heading(text):
            return f"## {_escaped(text)}"
        case Text(text, _):
            return _escaped(text)
        case Table(headers, rows, left, _):
            rule = [":--" if i < left else "--:" for i in range(len(headers))]
            lines = [[_escaped(cell) for cell in row] for row in (headers, *rows)]
            return "\n".join(f"| {' | '.join(line)} |" for line in [lines[0], rule, *lines[1:]])
        case Figures(_, panels):
            return "Figures, in report.html: " + "; ".join(_escaped(caption) for caption, _ in panels) + "."

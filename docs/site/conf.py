"""The documentation site: Sphinx over the pages of the repository as they are, and over docstrings; `make docs` builds it.

The source directory is the root of the repository, so the links between pages are those that the repository shows. No page
has anything that is for the site alone: their order is in `navigation.txt`, and `reference/` says which names are listed.
"""

import re
from pathlib import Path
from textwrap import dedent

from sphinx.application import Sphinx

import unlearn

HERE = Path(__file__).parent
DECISIONS, NOTEBOOKS = "docs/decisions/README", "docs/notebooks/README"
CODE = re.compile(r"(``?[^`]+``?)")
INTERVAL = re.compile(r"(\[[−.\d]+), ([−.\d]+\])")
FIELD = re.compile(r"^([a-z]\w*(?:, [a-z]\w*)*): ")

project, author, copyright = "Forethought", "The Forethought authors", "The Forethought authors"
release = unlearn.__version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
root_doc = "README"
include_patterns = ["*.md", "docs/**", "experiments/benchmarks/README.md"]
exclude_patterns = [".*", "build", "dist", "runs", "tests"]
myst_heading_anchors = 4
nb_execution_mode = "off"  # the tests run them
default_role = "py:obj"  # a name in single backticks leads to its entry, where it has one
smartquotes = False  # two hyphens are an option, not a dash
napoleon_custom_sections = ["Reference"]
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_member_order = "bysource"
maximum_signature_line_length = 88
add_module_names = False
toc_object_entries_show_parents = "hide"

html_theme = "furo"
html_title = "Forethought"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_extra_path = ["index.html"]
html_copy_source = False


def add_navigation(app: Sphinx, page: str, text: list[str]) -> None:
    """The order of the pages, which the start page alone carries; decisions by number, notebooks as they are listed."""
    if page == root_doc:
        text[0] += "\n\n" + (HERE / "navigation.txt").read_text("utf-8")
    if page == DECISIONS:
        text[0] += "\n\n```{toctree}\n:hidden:\n:glob:\n\n[0-9]*\n```\n"
    if page == NOTEBOOKS:
        names = re.findall(r"\]\((\w+)\.ipynb\)", text[0])
        text[0] += "\n\n```{toctree}\n:hidden:\n\n" + "\n".join(names) + "\n```\n"


def keep_intervals_whole(app: Sphinx, page: str, text: list[str]) -> None:
    """Intervals in tables are not broken between their ends: tables of results are wide, and phones are not."""
    text[0] = re.sub(r"(?m)^\|.*$", lambda row: INTERVAL.sub("\\1,\N{NO-BREAK SPACE}\\2", row[0]), text[0])


def as_rst(app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]) -> None:
    """Docstrings are plain text with sections. What else would be markup is told what it is, a paragraph at a time."""
    paragraphs = [paragraph.split("\n") for paragraph in re.split(r"\n\s*\n", "\n".join(lines).strip("\n"))]
    lines[:] = [line for paragraph in paragraphs for line in [*marked(paragraph), ""]]


def marked(paragraph: list[str]) -> list[str]:
    """A paragraph as reStructuredText: examples and layouts are code, names with what they mean a list."""
    example = next((at for at, line in enumerate(paragraph) if line.lstrip().startswith(">>>")), len(paragraph))
    before, code = [escaped(line) for line in paragraph[:example]], dedent("\n".join(paragraph[example:])).split("\n")
    if before and all(line.startswith("    ") for line in before):
        return ["::", "", *paragraph]
    if before and all(FIELD.match(line) or line.startswith("  ") for line in before) and FIELD.match(before[0]):
        before = [FIELD.sub(r"* **\1**: ", line) for line in before]
    return [*before, "", *code]


def escaped(line: str) -> str:
    """A line in which stars, bars and trailing underscores outside of backticks are no markup."""
    parts = CODE.split(line)
    return "".join(part if at % 2 else re.sub(r"([*|\\]|(?<=\w)_(?!\w))", r"\\\1", part) for at, part in enumerate(parts))


def is_skipped(app: Sphinx, what: str, name: str, thing: object, skip: bool, options: object) -> bool | None:
    """Fields of a NamedTuple are in its signature; their own docstrings say that they are fields."""
    return True if str(getattr(thing, "__doc__", "")).startswith("Alias for field number") else None


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("source-read", add_navigation)
    app.connect("source-read", keep_intervals_whole)
    app.connect("autodoc-process-docstring", as_rst, priority=400)  # before napoleon, which knows the sections
    app.connect("autodoc-skip-member", is_skipped)

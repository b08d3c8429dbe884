"""The documentation site has a place for every page and every public name; `make docs` checks its links."""

import re

import pytest

import readiness
import unlearn
from tests.helpers import docs
from tests.helpers.docs import ROOT

SITE = ROOT / "docs/site"
NAVIGATION = (SITE / "navigation.txt").read_text("utf-8")
ENTRIES = re.findall(r"^(?:.* <)?([\w/-]+)>?$", re.sub(r"^(```|:).*$", "", NAVIGATION, flags=re.MULTILINE), re.MULTILINE)
MODULES = [
    file.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")
    for folder in ("unlearn/metrics", "s3t/plans", "s3t/training", "s3t/store", "s3t/service")
    for file in sorted((ROOT / folder).glob("[!_]*.py"))
]


def page_of(name):
    return (SITE / f"reference/{name}.rst").read_text("utf-8")


def test_every_page_is_in_the_navigation_once():
    decisions = set((ROOT / "docs/decisions").glob("[0-9]*.md"))  # beneath their own page, by their names
    pages = {*docs.PAGES, ROOT / "CHANGELOG.md", *SITE.glob("reference/*.rst")} - decisions
    named = [name for name in ENTRIES if name != "self"]  # the README
    assert sorted(named) == sorted(docs.name(page.with_suffix("")) for page in pages - {ROOT / "README.md"})
    assert "self" in ENTRIES


@pytest.mark.parametrize("room", [unlearn, readiness], ids=lambda room: room.__name__)
def test_every_public_name_is_in_the_reference_once(room):
    listed = re.findall(r"^\.\. (?:autofunction|autoclass|py:data):: (\w+)$", page_of(room.__name__), re.MULTILINE)
    modules = re.findall(rf"^\.\. automodule:: {room.__name__}\.(\w+)$", page_of(room.__name__), re.MULTILINE)
    assert sorted(listed + modules) == sorted(room.__all__)


@pytest.mark.parametrize("module", MODULES)
def test_every_module_of_metrics_and_of_s3t_is_in_the_reference(module):
    folder, _, _ = module.rpartition(".")
    assert f".. automodule:: {module}\n   :" in page_of(folder.replace(".", "_"))


def test_pages_have_nothing_that_is_for_the_site_alone():
    for page in docs.PAGES:
        assert not re.search(r"^(```\{|:::|!!! |\.\. )", page.read_text("utf-8"), re.MULTILINE), docs.name(page)
    assert not list(SITE.rglob("*.md"))

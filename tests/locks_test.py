"""The locks fit setup.cfg: everything that it names has one version on each Python, and within its bounds."""

import re
from configparser import ConfigParser

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.helpers.docs import ROOT

PYTHONS = ("3.11", "3.12", "3.13")
LOCKED = re.search(r"^LOCKED := (.*)$", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)[1].split()


def stated(text):
    """The lines of a text that are no comments."""
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def extras():
    """Extra -> its requirements; "" -> what is always needed."""
    settings = ConfigParser()
    settings.read(ROOT / "setup.cfg")
    lines = {"": settings["options"]["install_requires"], **settings["options.extras_require"]}
    return {
        name: [Requirement(line) for line in text.splitlines() if line and line[0] != "#"] for name, text in lines.items()
    }


def named(wanted, table):
    """What extras ask for, those of this project resolved."""
    own = [line for extra in wanted for line in table[extra]]
    inner = [extra for line in own if line.name == "forethought" for extra in line.extras]
    return [requirement for requirement in own if requirement.name != "forethought"] + (
        named(inner, table) if inner else []
    )


def pins(lock, python):
    """Package -> its version in the text of a lock, on Linux."""
    lines = [Requirement(line) for line in stated(lock)]
    where = {"python_version": python, "python_full_version": f"{python}.9", "sys_platform": "linux"}
    held = [line for line in lines if not line.marker or line.marker.evaluate(where)]
    versions = {canonicalize_name(line.name): str(line.specifier).removeprefix("==") for line in held}
    assert len(versions) == len(held), "a package has two versions"
    return versions


def stale(lock, requirements, python):
    """The requirements that a lock does not meet."""
    versions = pins(lock, python)
    unmet = [
        line for line in requirements
        if not (version := versions.get(canonicalize_name(line.name))) or not line.specifier.contains(version)
    ]  # fmt: skip
    return [str(line) for line in unmet]


def text(name):
    return (ROOT / f"locks/{name}.txt").read_text("utf-8")


@pytest.mark.parametrize("python", PYTHONS)
def test_the_newest_versions_are_within_all_bounds(python):
    assert stale(text("newest"), named(["", *LOCKED], extras()), python) == [], "run make lock"


def test_the_lowest_versions_are_those_of_the_bounds():
    requirements = named(["", "test"], extras())
    assert stale(text("lowest"), requirements, "3.11") == [], "run make lock"
    versions = pins(text("lowest"), "3.11")
    for line in requirements:
        (bound,) = [part.version for part in line.specifier if part.operator in (">=", "~=")]
        pinned = f"{versions[canonicalize_name(line.name)]}.0.0"  # the first release at or after the bound
        assert pinned.startswith(f"{bound}."), f"{line} is locked at {pinned}: run make lock"


def test_what_is_locked_is_all_but_what_brings_torch():
    reached, todo = set(), [*LOCKED]
    while todo:
        reached.add(extra := todo.pop())
        todo += [
            name for line in extras()[extra] if line.name == "forethought" for name in line.extras if name not in reached
        ]
    assert set(extras()) - {""} - reached == {"weights", "peers"}


@pytest.mark.parametrize("old, new, unmet", [
    ("optax==0.3.0", "optax==0.2.7", ["optax>=0.2.8"]),
    ("optax==0.3.0\n", "", ["optax>=0.2.8"]),
])  # fmt: skip
def test_a_stale_lock_is_found(old, new, unmet):
    lock = "jax==0.10.2\noptax==0.3.0\n"
    assert stale(lock, [Requirement("jax>=0.10"), Requirement("optax>=0.2.8")], "3.11") == []
    assert stale(lock.replace(old, new), [Requirement("jax>=0.10"), Requirement("optax>=0.2.8")], "3.11") == unmet


def test_markers_of_a_lock_choose_by_python():
    lock = "jax==0.10.2 ; python_full_version < '3.12'\njax==0.12.0 ; python_full_version >= '3.12'\n"
    assert [pins(lock, python)["jax"] for python in PYTHONS] == ["0.10.2", "0.12.0", "0.12.0"]


@pytest.mark.parametrize("name", ["newest", "lowest"])
def test_a_lock_names_versions_alone(name):
    for line in text(name).splitlines():
        assert line.startswith("#") or re.fullmatch(r"[\w.-]+==[\w.!+]+( ; [\w\s.'<>=!()*-]+)?", line), line
        assert "/" not in line

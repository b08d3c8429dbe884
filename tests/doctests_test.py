"""Every example in a docstring prints what it says."""

import doctest
import importlib
import importlib.util
import pkgutil

import pytest

import experiments
import federated
import readiness
import s3t
import unlearn

PROGRAMS = ("experiments.benchmarks.", "experiments.notebooks.")  # run elsewhere
if not importlib.util.find_spec("flwr"):  # of the extra `federated`
    PROGRAMS += ("experiments.federated.engine.flower.",)
MODULES = [
    info.name
    for room in (unlearn, readiness, s3t, federated, experiments)
    for info in [*pkgutil.walk_packages(room.__path__, f"{room.__name__}."), pkgutil.ModuleInfo(None, room.__name__, True)]
    if not info.name.startswith(PROGRAMS) and not info.name.endswith("__main__")
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_print_what_they_say(name):
    assert not doctest.testmod(importlib.import_module(name)).failed


def test_there_are_examples_to_run():
    found = {
        test.name
        for name in MODULES
        for test in doctest.DocTestFinder().find(importlib.import_module(name))
        if test.examples
    }
    assert {"readiness", "unlearn", "unlearn.until.unlearn_until"} <= found
    for name, factory in unlearn.ALGORITHMS.items():
        assert f"{factory.__module__}.{name}" in found

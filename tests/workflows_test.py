"""The workflows of continuous integration: their structure, and that they run targets and locks that there are."""

import re
import shlex

import pytest
import yaml

from tests.helpers.docs import ROOT

FILES = sorted((ROOT / ".github/workflows").glob("*.yml"))
MAKEFILE = (ROOT / "Makefile").read_text("utf-8")
TARGETS = set(re.findall(r"^(\w+):.*##", MAKEFILE, re.MULTILINE))
VARIABLES = set(re.findall(r"^(\w+) \?=", MAKEFILE, re.MULTILINE))
JOBS = [(file.stem, name) for file in FILES for name in yaml.safe_load(file.read_text("utf-8"))["jobs"]]


def workflow(stem):
    return yaml.safe_load((ROOT / f".github/workflows/{stem}.yml").read_text("utf-8"))


def commands(job):
    return [shlex.split(step["run"].replace("${{ matrix.lock }}", "LOCK")) for step in job["steps"] if "run" in step]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_workflow_has_a_name_triggers_and_may_only_read(file):
    content = workflow(file.stem)
    triggers = content[True]  # YAML 1.1 reads the key `on` so
    assert set(content) <= {"name", True, "permissions", "concurrency", "jobs"} and content["name"] == file.stem
    assert content["permissions"] == {"contents": "read"} and "workflow_dispatch" in triggers
    assert ("schedule" in triggers) != ("pull_request" in triggers)


@pytest.mark.parametrize("stem, name", JOBS)
def test_a_job_checks_out_has_a_limit_and_runs_targets_that_there_are(stem, name):
    job = workflow(stem)["jobs"][name]
    assert set(job) <= {"runs-on", "timeout-minutes", "strategy", "steps"} and 0 < job["timeout-minutes"] <= 360
    assert job["steps"][0]["uses"].startswith("actions/checkout@")
    assert all(set(step) in ({"uses"}, {"uses", "with"}, {"run"}) for step in job["steps"])
    assert all(re.fullmatch(r"actions/[\w-]+@v\d+", step["uses"]) for step in job["steps"] if "uses" in step)
    assert commands(job)
    for command, target, *settings in commands(job):
        assert command == "make" and target in TARGETS
        assert {word.partition("=")[0] for word in settings} <= VARIABLES
        locks = [word.partition("=")[2] for word in settings if word.startswith("LOCK=locks/")]
        assert all((ROOT / lock).is_file() for lock in locks)


def test_the_quick_tests_run_on_every_python_and_with_both_locks():
    test = workflow("tests")["jobs"]["test"]
    matrix = [(row["python"], row["lock"]) for row in test["strategy"]["matrix"]["include"]]
    pythons = re.findall(r"Programming Language :: Python :: (3\.\d+)", (ROOT / "setup.cfg").read_text("utf-8"))
    assert sorted({python for python, _ in matrix}) == sorted(pythons)
    assert all((ROOT / lock).is_file() for _, lock in matrix) and ("3.11", "locks/lowest.txt") in matrix
    assert [command[1] for command in commands(test)] == ["venv", "test"]


def test_everything_that_is_checked_by_hand_is_checked_by_a_workflow():
    run = {command[1] for stem, name in JOBS for command in commands(workflow(stem)["jobs"][name])}
    assert {"lint", "test", "docs", "image", "slow", "faults", "dist"} <= run

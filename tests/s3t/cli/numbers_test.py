"""Every number that a command takes has a range, and what lies outside is one line before anything is done."""

import argparse
import time

import pytest

from s3t.cli import arguments
from s3t.cli.program import make_parser
from s3t.plans import simulate
from s3t.plans.planners import PLANNERS
from s3t.store import manifests
from tests.helpers import commands

ABSURD = ("-1", "0", str(2**64), "9" * 5000, "1e308", "nan", "inf", "-inf", "1_0", "", "x", "0x10")
NO_WHOLE = set(ABSURD) - {"0"}
REFUSED = {  # of the options that take numbers, by their type
    arguments.slices: set(ABSURD),
    arguments.shards: set(ABSURD),
    arguments.streams: set(ABSURD),
    arguments.burst: set(ABSURD),
    arguments.requests: NO_WHOLE,
    arguments.seed: NO_WHOLE,
    arguments.qualities: {"1e308", "nan", "inf", "-inf", str(2**64), "9" * 5000, "", "x", "0x10"},
    arguments.seconds: NO_WHOLE - {"1_0"},
    arguments.days: NO_WHOLE - {"1_0"},
    arguments.number: {"nan", "inf", "-inf", "9" * 5000, "", "x", "0x10"},  # the planner says what a budget is
    arguments.numbers: {"", "x", "0x10"},  # as_prior says what a prior is
    arguments.which_nodes: {"-1", str(2**64), "9" * 5000, "1e308", "nan", "inf", "-inf", "1_0"},
}
TEXTS = {arguments.called.ids, arguments.called.labels, arguments.json_object, None}


def options():
    """(command, action) of everything that takes a value."""
    (choices,) = [action for action in make_parser()._actions if isinstance(action, argparse._SubParsersAction)]
    for command, parser in choices.choices.items():
        yield from ((command, action) for action in parser._actions if action.nargs != 0)


def test_every_number_of_every_command_has_a_range(capsys):
    kinds = {action.type for _, action in options()}
    assert kinds <= REFUSED.keys() | TEXTS, "a new kind of number: say above what it refuses"
    for command, action in options():
        for text in REFUSED.get(action.type, ()):
            status, out, err = commands.run(capsys, command, f"{action.option_strings[0]}={text}")
            told = (command, action.dest, text[:20], err)
            assert (status, out) == (2, None) and f"argument {action.option_strings[0]}: " in err and len(err) < 300, told


@pytest.mark.parametrize("name", PLANNERS)
@pytest.mark.parametrize("option", ["--budget", "--prior"])
def test_no_planner_hangs_or_fails_for_an_absurd_number(capsys, name, option):
    for text in (*ABSURD, "1e-308"):
        began = time.perf_counter()
        status, _, err = commands.run(capsys, "plan", "--planner", name, "--slices", 3, f"{option}={text}")
        assert status in (0, 2) and time.perf_counter() - began < 30 and len(err) < 300


def test_ids_are_of_64_bits(opened, capsys):
    for text in (str(2**64), str(-(2**63) - 1)):
        status, _, err = commands.run(capsys, "delete", "--store", opened.root, f"--ids={text}")
        assert status == 2 and "an id is a whole number of 64 bits" in err


def test_the_limits_are_those_of_the_rooms():
    assert arguments.MOST_SHARDS == manifests.MOST
    assert (arguments.MOST_STREAMS, arguments.MOST_BURST) == (simulate.MOST_STREAMS, simulate.MOST_BURST)


@pytest.mark.parametrize(
    "words, message",
    [
        ("--shards 5000 --slices 1", "at most 4096 slices of all shards, got 5000: use fewer shards or slices"),
        ("--shards 100 --slices 3 --stream bursts", "at most 256 slices of all shards, got 300"),
        ("--shards 100 --slices 3 --stream adaptive", "at most 256 slices of all shards, got 300"),
        ("--shards 1000 --slices 4 --streams 1000000", "at most 250000 streams are simulated for 4000 slices"),
        ("--shards 256 --slices 1 --stream bursts --burst 1000", "bursts are of at most 390 requests on 256 slices"),
        ("--shards 1 --slices 1 --after " + "1," * 100 + "1", "at most 100 numbers of requests are looked at, got 101"),
    ],
)
def test_what_would_run_for_hours_is_refused(capsys, words, message):
    status, _, err = commands.run(capsys, "simulate", "--planner", "sisa", *words.split())
    assert status == 2 and message in err

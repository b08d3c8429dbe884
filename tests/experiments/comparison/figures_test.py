"""The figures of a comparison: lanes that stop or diverge, the area of relearning, axes, and no trace of drawing."""

import math

import matplotlib
import numpy as np
import pytest

from experiments.comparison import figures, methods
from experiments.reporting import drawing
from tests.helpers.pages import CASES, NAN, as_read, fail, make, three_seeds
from tests.helpers.pictures import undrawn  # noqa: F401


def test_stopped_lanes_hold_and_diverged_lanes_leave():
    stopped, broken = as_read([make("vanilla", 0, steps=2), fail(make("vanilla", 1, steps=4))])
    lanes = figures.held([methods.curve(row, "forget_accuracy") for row in (stopped, broken)])
    np.testing.assert_array_equal(lanes, [[1, 0.5, 0, 0, 0], [1, 0.75, 0.5, 0.25, NAN]])
    for name in broken.extra["curve"]:  # as a run writes it that keeps only what is finite
        broken.extra["curve"][name] = [v for v in broken.extra["curve"][name] if v is not None]
    np.testing.assert_array_equal(methods.curve(broken, "forget_accuracy"), [1, 0.75, 0.5, 0.25, NAN])


def test_a_broken_model_relearns_nothing():
    (broken,) = as_read([fail(make("vanilla", 0), stop="budget")])
    assert methods.end(broken) == "diverged"
    assert math.isnan(methods.relearned(broken, "part", 20)) and methods.relearning(broken, "part") == []
    (short,) = as_read([make("vanilla", 0, extra={"relearning": {"part": [0.1, 0.2]}})])
    assert math.isnan(methods.relearned(short, "part", 20)) and methods.relearned(short, "part", -1) == 0.2


def test_drawing_leaves_no_traces():
    before = dict(matplotlib.rcParams)
    drawn = methods.group(as_read(three_seeds()))[1:]
    draw = lambda: figures.panel("a", "A", drawn, lambda row: methods.curve(row, "watch_accuracy"), 0.5)  # noqa: E731
    with matplotlib.rc_context({"font.size": 30}):
        large = draw()
    assert draw() == large
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize("name", ["one seed", "all diverged", "nothing extra"])
def test_sparse_lines_are_drawn(name):
    drawn = methods.group(as_read(CASES[name]))
    assert "<path" in figures.panel("a", "A", drawn, lambda row: methods.curve(row, "forget_accuracy")).svg


@pytest.mark.parametrize(
    ("curve", "area"),
    [
        ([0.0, 0.2, 0.4], 0.0),  # as the oracle
        ([1.0, 1.0, 1.0], 1.0),  # never forgot
        ([0.0, 0.6, 0.8], (0.0 + 0.4 + 0.4) / (1.0 + 0.8 + 0.6)),
    ],
)
def test_the_area_of_relearning_by_hand(curve, area):
    oracle = methods.group(as_read([make("oracle", 0, extra={"relearning": {"part": [0.0, 0.2, 0.4]}})]))[0]
    row, other = as_read([make("vanilla", 0, extra={"relearning": {"part": curve}}), make("vanilla", 1)])
    assert methods.relearned_area(row, oracle, "part") == pytest.approx(area)
    assert math.isnan(methods.relearned_area(other, oracle, "part"))  # no oracle of that seed
    assert math.isnan(methods.relearned_area(row, None, "part"))


@pytest.mark.parametrize(
    ("values", "ends"),
    [
        ([0, 90], (0, 90)), ([50, 90], (0, 90)), ([87, 99], (80, 100)), ([NAN, 95], (90, 100)), ([NAN], (0, 100)),
        ([100], (90, 100)), ([0, 33.3], (0, 40)), ([0], (0, 10)), ([70, 70], (70, 80)),
    ],
)  # fmt: skip
def test_the_axis_ends_where_the_data_end(values, ends):
    assert drawing.ends(values) == ends

"""Data sets that a function of a user makes: taken as they are, or refused in one line."""

import sys

import numpy as np
import pytest

from tests.helpers.own import load

# A function.

MAKE = """
import numpy as np
from experiments.data.splits import Dataset, Split

IDS = np.arange(30)[::-1].copy()

def part(low, high):
    rows = (IDS >= low) & (IDS < high)
    return Split(IDS[rows, None] * 1.0, IDS[rows] % 2, IDS[rows])

def make(): return Dataset("mine", part(0, 10), part(10, 20), part(20, 30), 2)
def twice(): return Dataset("mine", part(0, 10), part(9, 20), part(20, 30), 2)
def beyond(): return make()._replace(classes=2, test=part(20, 30)._replace(y=np.full(10, 2)))
def odd(): return make()._replace(test=part(20, 30)._replace(x=np.zeros((10, 2))))
def huge(): return make()._replace(test=part(20, 30)._replace(x=np.full((10, 1), 1e300)))
def wraps(): return make()._replace(test=part(20, 30)._replace(id=np.arange(10, dtype=np.uint64) + np.uint64(2**63)))
def float_labels(): return make()._replace(test=part(20, 30)._replace(y=np.zeros(10)))
def one_hot(): return make()._replace(validation=part(10, 20)._replace(y=np.zeros((10, 2), int)))
def not_finite(): return make()._replace(validation=part(10, 20)._replace(x=np.full((10, 1), np.nan)))
def below(): return make()._replace(test=part(20, 30)._replace(y=np.full(10, -1)))
def ragged(): return make()._replace(test=Split([[1.0, 2.0], [3.0]], [0, 1], [20, 21]))
def ragged_train(): return make()._replace(train=Split([[1.0, 2.0], [3.0]], [0, 1], [20, 21]))
def no_test(): return make()._replace(test=part(30, 40))
def no_train(): return make()._replace(train=part(30, 40))
def many(): return make()._replace(classes=2**40)
def three(): return 3
def fails(): raise OSError("no such share")
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(MAKE)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    yield
    sys.modules.pop("mine", None)


def test_a_data_set_that_a_function_makes(module):
    dataset = load("digits", factory="mine:make")
    assert (dataset.name, dataset.classes) == ("mine", 2)
    for split, low in zip(dataset[1:4], (0, 10, 20), strict=True):
        np.testing.assert_array_equal(split.id, np.arange(low, low + 10))
        np.testing.assert_array_equal(split.x[:, 0], split.id)
        assert (split.x.dtype, split.y.dtype) == (np.float32, np.int32)


@pytest.mark.parametrize(
    "name, message",
    [
        ("mine:twice", "gives id 9 twice"),
        ("mine:beyond", r"y of test of .* has 2: labels are 0\.\.1"),
        ("mine:odd", r"x of test of .* is float64\[10, 2\]"),
        ("mine:huge", "x of test of .* has numbers that are not finite in single precision"),
        ("mine:wraps", r"id of test of .* has 9223372036854775808\.\.9223372036854775817: give whole numbers"),
        ("mine:below", r"y of test of .* has -1: labels are 0\.\.1"),
        ("mine:float_labels", r"y of test of .* is float64\[10\]: give 10 whole numbers"),
        ("mine:one_hot", r"y of validation of .* is int64\[10, 2\]: give 10 whole numbers"),
        ("mine:not_finite", "x of validation of .* has numbers that are not finite in single precision"),
        ("mine:ragged", "x of test of .* is no array"),
        ("mine:ragged_train", "x of train of .* is no array"),
        ("mine:no_test", "test of .* has no examples: give each split some"),
        ("mine:no_train", "train of .* has no examples: give each split some"),
        ("mine:many", "classes 1099511627776: give a text and a number from 2 up"),
        ("mine:three", "gives a int: give an experiments.data.splits.Dataset"),
        ("mine:fails", r"fails \(OSError: no such share\)"),
        ("mine:absent", "mine has no absent"),
        ("nowhere:make", "there is no module 'nowhere'"),
        ("mine", "give module:function"),
        ("./mine.py:make", "give module:function, .*no path of a file"),
        ("/tmp/mine:make", "give module:function"),
    ],
)
def test_a_function_that_makes_no_data_set(module, name, message):
    with pytest.raises(ValueError, match=message) as caught:
        load("digits", factory=name)
    assert "\n" not in str(caught.value)

"""Grids: values with and without brackets and quotes, names of points, and what is refused in one line."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.core.errors import UserError
from experiments.launch import grid


@pytest.mark.parametrize(
    "text, values",
    [
        ("2,4,8", ("2", "4", "8")),
        ("adam, sgd", ("adam", "sgd")),
        ("('npo',),('level','rmu')", ("('npo',)", "('level','rmu')")),
        ("{'a': (1, 2)},{}", ("{'a': (1, 2)}", "{}")),
        ("'a,b',c", ("a,b", "c")),
        ("'',x", ("", "x")),
        ("()", ("()",)),
    ],
)
def test_commas_in_brackets_and_quotes_are_no_ends_of_values(text, values):
    assert grid.parse([f"key={text}"]) == {"key": values}


@pytest.mark.parametrize(
    "axes, said",
    [
        (["seed"], "has no value: give one as"),
        (["seed="], "has no value"),
        (["=1,2"], "has no key"),
        (["seed=1", "seed=2"], "seed stands twice"),
        (["seed=1,2,1"], "has 1 twice"),
        (["seed=1,,2"], "has an empty value"),
        (["a=(1,2"], "a bracket without an end"),
        (["a='b"], "quotes without an end"),
    ],
)
def test_a_bad_axis_is_one_line(axes, said):
    with pytest.raises(UserError, match=said) as error:
        grid.parse(axes)
    assert "\n" not in str(error.value)


def test_points_are_all_combinations_and_the_last_axis_is_fastest():
    points = grid.overrides({"a": ("1", "2"), "b": ("x", "y")})
    assert points == [{"a": "1", "b": "x"}, {"a": "1", "b": "y"}, {"a": "2", "b": "x"}, {"a": "2", "b": "y"}]
    assert grid.flags(points[1]) == ("--config.a=1", "--config.b=y")


def test_a_name_is_the_point_in_the_order_of_its_keys():
    assert grid.name({"seed": "10", "readiness.every": "2"}) == grid.name({"readiness.every": "2", "seed": "10"})
    assert grid.name({"seed": "10", "rate": "-0.5"}) == "rate=-0.5,seed=10"


@settings(max_examples=30)
@given(st.dictionaries(st.text(min_size=1), st.text(), min_size=1, max_size=4), st.text())
def test_names_are_folders_and_differ_where_points_do(values, other):
    name, key = grid.name(values), next(iter(values))
    assert "/" not in name and name.isascii() and name.isprintable() and 0 < len(name.encode()) < 200
    assert (grid.name({**values, key: other}) == name) == (other == values[key])

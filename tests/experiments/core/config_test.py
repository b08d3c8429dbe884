"""Sections: made into configs and back, mistakes in one line each that names the key, listings."""

from typing import Annotated, Literal

import ml_collections
import numpy as np
import pytest
from pydantic import AfterValidator, Field, model_validator

from experiments.core.config import Says, Section, Wrong, as_config, describe, key, validated
from experiments.core.errors import ConfigError

D = ml_collections.ConfigDict


def even(count):
    if count % 2:
        raise ValueError("give an even one")
    return count


class Circle(Section):
    shape: Literal["circle"]
    radius: float = Field(gt=0, le=10)


class Box(Section):
    shape: Literal["box"]
    sides: tuple[int, ...] = Field(min_length=1)


class Train(Section):
    steps: int = Field(10, ge=1, le=100, description="Updates.")
    rate: Annotated[float, Field(gt=0, lt=1)] | None = Field(None, description="Of learning.")
    optimizer: Literal["sgd", "adam"] = "sgd"
    pair: Annotated[int, Field(ge=0, le=9), AfterValidator(even)] = 2
    size: Annotated[int, Field(ge=0, le=9), AfterValidator(even), Says("0 or more, by twos")] = 4

    @model_validator(mode="after")
    def _steps_fit(self):
        if self.steps == 13:
            raise Wrong((("steps",), "is unlucky: give another"), (("rate",), "is, too"))
        return self


class Scale(Section):
    range: float
    mean: float


class Run(Section):
    name: str = "digits"
    train: Train = Train(steps=20)
    scale: Scale = Scale(range=1.0, mean=0.0)
    rates: tuple[Annotated[float, Field(ge=0, le=1)], ...] = Field((0.1, 0.2), min_length=1)
    figures: dict[str, Annotated[Circle | Box, Field(discriminator="shape")]] = Field(
        {"a": Circle(shape="circle", radius=1.0)}
    )
    weights: dict[Literal["left", "right"], float] = Field({})
    quick: bool = False


def lines(change, config=None):
    config = as_config(Run()) if config is None else config
    with config.ignore_type(), config.unlocked():
        change(config)
    with pytest.raises(ConfigError) as caught:
        validated(Run, config)
    assert str(caught.value).splitlines() == list(caught.value.mistakes)
    return list(caught.value.mistakes)


@pytest.mark.parametrize("value", [1e-320, 1e-40, -1e-31])
def test_a_number_that_32_bits_take_for_0_is_refused(value):
    said = "give one that 32 bits can tell from 0, as 1e-30 and more"
    assert told("scale.mean", value) == f"config.scale.mean is {value}: {said}"
    assert told("rates", (0.1, abs(value))) == f"config.rates is (0.1, {abs(value)}): {said}"
    assert told("weights", {"left": value}).endswith(said)


def told(path, value):
    """The one line that is told of a value at a dotted key."""

    def change(config):
        *at, name = path.split(".")
        for part in at:
            config = config[part]
        config[name] = value

    (line,) = lines(change)
    return line


@pytest.mark.parametrize(
    "path, value, line",
    [
        ("train.steps", 0, "config.train.steps is 0: give a whole number from 1 to 100"),
        ("train.steps", 2**64, "config.train.steps is 18446744073709551616: give a whole number from 1 to 100"),
        ("train.steps", 3.5, "config.train.steps is 3.5: give a whole number from 1 to 100"),
        ("train.steps", "3", "config.train.steps is '3': give a whole number from 1 to 100"),
        ("train.steps", True, "config.train.steps is True: give a whole number from 1 to 100"),
        ("train.steps", None, "config.train.steps is None: give a whole number from 1 to 100"),
        ("train.steps", (1, 2), "config.train.steps is (1, 2): give a whole number from 1 to 100"),
        ("train.rate", float("nan"), "config.train.rate is nan: give a number between 0 and 1, both excluded"),
        ("train.optimizer", "odd", "config.train.optimizer is 'odd': choose sgd or adam"),
        ("train.pair", 3, "config.train.pair is 3: give an even one"),
        ("train.size", 3, "config.train.size is 3: give 0 or more, by twos"),
        ("train.stepz", 3, "config.train.stepz is no key of this config: did you mean config.train.steps?"),
        ("optimiser", "sgd", "config.optimiser is no key of this config: did you mean config.train.optimizer?"),
        ("qqq", 1, "config.qqq is no key of this config: config has name, train, scale, rates, figures, weights, quick"),
        ("train", 5, "config.train is 5: give a dict of steps, rate, optimizer, pair, size"),
        ("rates", (0.1, -1.0), "config.rates is (0.1, -1.0): give one or more numbers from 0 to 1"),
        ("rates", (), "config.rates is (): give one or more numbers from 0 to 1"),
        ("rates", 0.1, "config.rates is 0.1: give one or more numbers from 0 to 1"),
        ("name", 3, "config.name is 3: give a text"),
        ("quick", 1, "config.quick is 1: give True or False"),
        ("weights", D({"top": 1.0}), "config.weights.top has no such name: choose left or right"),
        ("weights", D({"left": "1"}), "config.weights.left is '1': give a number"),
        ("weights", 3, "config.weights is 3: give a dict by left or right, each a number"),
        ("figures", D({3: D({"shape": "box", "sides": (1,)})}), "config.figures[3] has no such name: give a text"),
        ("figures.a", D({"shape": "circle", "radius": 11.0}),
         "config.figures.a.radius is 11.0: give a number above 0 and up to 10"),
        ("figures.a", D({"shape": "circle"}), "config.figures.a.radius is missing: give a number above 0 and up to 10"),
        ("figures.a", D({"shape": "box", "sides": (1,), "r": 2}),
         "config.figures.a.r is no key of this config: config.figures.a has shape, sides"),
        (
            "figures.a",
            D({"shape": "ball"}),
            "config.figures.a is {'shape': 'ball'}: give a dict of shape 'circle', radius, or of shape 'box', sides",
        ),
        ("figures.a", 3, "config.figures.a is 3: give a dict of shape 'circle', radius, or of shape 'box', sides"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_that_names_the_key_the_value_and_what_may_be(path, value, line):
    assert told(path, value) == line


def test_all_mistakes_are_told_and_none_twice():
    def change(config):
        config.train.steps, config.train.stepz, config.rates, config.name = -1, 2, (-1.0, 2.0), 3

    assert [line.split()[0] for line in lines(change)] == [
        "config.name",
        "config.train.steps",
        "config.train.stepz",
        "config.rates",
    ]


def test_rules_of_a_whole_section_name_their_keys():
    def change(config):
        config.train.steps = 13

    assert lines(change) == ["config.train.steps is unlucky: give another", "config.train.rate is, too"]


def test_a_section_given_as_a_whole_must_be_whole():
    """Its defaults are not those of the run: here 10 steps, and there 20."""

    def change(config):
        config.train = D({"rate": 0.5, "optimizer": "sgd", "pair": 2, "size": 4})

    assert lines(change) == ["config.train.steps is missing: set single keys, as in --config.train.steps=VALUE"]

    def unscaled(config):
        config.scale = D({"mean": 0.0})

    assert lines(unscaled) == ["config.scale.range is missing: set single keys, as in --config.scale.range=VALUE"]


def test_a_config_is_made_and_read_back():
    config = as_config(Run())
    assert validated(Run, config) == Run() and validated(Run, Run()) == Run()
    assert config.figures.a.to_dict() == {"shape": "circle", "radius": 1.0} and config.train.rate is None
    config.train.rate = 0.5
    with pytest.raises(TypeError):
        config.train.optimizer = 3
    with pytest.raises(TypeError):
        config.train.rate = "a"
    assert validated(Run, config).train.rate == 0.5


def test_what_stands_for_the_same_is_taken():
    config = as_config(Run())
    with config.ignore_type():
        config.rates, config.train.steps, config.train.rate = [0, 1], np.int64(7), np.float32(0.5)
    made = validated(Run, ml_collections.FrozenConfigDict(config))
    assert made.rates == (0.0, 1.0) and made.train.steps == 7 and made.train.rate == 0.5
    assert type(made.train.steps) is int and validated(Run, config.to_dict()) == made


def test_names_that_are_no_words_are_quoted():
    assert key(("variants", "first order", "order")) == "config.variants['first order'].order"


def test_a_listing_has_a_line_for_every_field():
    assert describe(Run).splitlines()[:3] == [
        "config.name: a text; default 'digits'.",
        "config.train.steps: a whole number from 1 to 100; default 20. Updates.",
        "config.train.rate: a number between 0 and 1, both excluded; default None. Of learning.",
    ]

"""Algorithms of the shelf, made for tests of their contract and formulas."""

import jax
import numpy as np
import optax
import pytest

from tests.helpers import toys
from tests.helpers.toys import KINDS
from unlearn import ALGORITHMS
from unlearn.algorithms.relabelling import other_labels
from unlearn.base import traits_of

RATE = 0.3
# What one of a family of text shows, its others show again: among the slow tests.
AGAIN = ("dpo", "rmu", "simnpo", "undial")


every_algorithm = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in AGAIN)) for name in sorted(ALGORITHMS)]
)


def kind_of(name):
    """A classifier where the algorithm can unlearn one, else a language model."""
    return KINDS["classifier" if "classifier" in traits_of(ALGORITHMS[name]).kinds else "sequence"]


def make(name, optimizer=None, model=None, **options):
    model = model or kind_of(name).model
    return ALGORITHMS[name](model, optimizer or optax.sgd(RATE), **toys.options(name, model) | options)


def relabel(ids, labels, classes=4, seed=0):
    draw = toys.quick_jit(other_labels, static_argnums=3)
    return np.asarray(draw(jax.random.key(seed), ids, labels, classes))

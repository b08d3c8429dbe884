"""Meta-batches, algorithms and losses of rehearsals on toy models."""

import numpy as np
import optax
import pytest

from readiness import MetaBatch, make_readiness, paper_terms
from tests.helpers import toys
from unlearn import ALGORITHMS, traits_of

ALPHA, RELEARN_RATE = 0.4, 0.25
UNCAPPED = paper_terms(None, retention=1.0)
KEY = np.array([0, 7], np.uint32)  # a raw key
SLOWLY = ("rmu", "simnpo", "undial")  # whose formulas have nothing that those of the others have not


every_algorithm = pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name in SLOWLY))
        for name in sorted(ALGORITHMS)
        if "classifier" in traits_of(ALGORITHMS[name]).kinds
    ],
)


def meta_batch(steps=2, relearn_steps=2):
    return MetaBatch(
        requests=toys.requests(0, steps),
        forget=toys.batch(11, 4),
        stable=toys.batch(12, 5, padded=1),
        recovery=toys.batch(13, 4),
        relearn=toys.requests(20, relearn_steps),
    )


def algorithm(name, rate, model=toys.MLP, **options):
    return ALGORITHMS[name](model, optax.sgd(rate), **toys.options(name, model) | options)


def relearner(model=toys.MLP):
    return algorithm("finetune", RELEARN_RATE, model)


def with_slope(made, differentiable):
    return made._replace(traits=made.traits._replace(differentiable=differentiable))


def build(terms=None, *, differentiable=True, relearner=None):
    fake = lambda rate: with_slope(algorithm("ascent", rate), differentiable)  # noqa: E731
    return make_readiness(toys.MLP, fake, terms or UNCAPPED, relearner=relearner)

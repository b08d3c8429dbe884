"""Rehearsals that cannot be: each mistake told in one line."""

import jax
import optax
import pytest

from readiness import init_state, make_step
from tests.helpers import toys
from tests.helpers.rehearsals import ALPHA, KEY, UNCAPPED, build, meta_batch, relearner, with_slope


def test_an_algorithm_without_a_derivative_is_refused():
    with pytest.raises(ValueError, match="choose another"):
        build(differentiable=False)
    with pytest.raises(ValueError, match="choose another"):
        build(relearner=with_slope(relearner(), False))


def test_an_unknown_form_is_refused():
    with pytest.raises(ValueError, match="'gains' is unknown; choose 'level', 'gain', 'raw'"):
        build(UNCAPPED._replace(form="gains"))


def test_an_unknown_cap_is_refused():
    with pytest.raises(ValueError, match="'all', which is unknown; choose 'each' or 'mean'"):
        build(UNCAPPED._replace(capped="all"))


@pytest.mark.parametrize("term, field", [("resistance", "recovery"), ("relearning", "relearn")])
def test_a_term_without_its_data_is_refused(term, field):
    readiness = build(UNCAPPED._replace(**{term: 0.5}), relearner=relearner())
    without = meta_batch(1)._replace(**{field: None})
    with pytest.raises(ValueError, match=f"the {term} term is on, but the meta-batch has no {field} data"):
        jax.eval_shape(readiness, toys.mlp_params(), without, ALPHA, KEY)


def test_relearning_without_a_relearner_is_refused():
    with pytest.raises(ValueError, match="give a relearner"):
        build(UNCAPPED._replace(relearning=0.5))


def test_a_meta_batch_without_a_readiness_loss_is_refused():
    step = make_step(toys.MLP, optax.sgd(0.1))
    with pytest.raises(ValueError, match="make_readiness"):
        step(init_state(toys.mlp_params(), optax.sgd(0.1)), toys.batch(0, 3), jax.random.key(0), meta_batch(1), ALPHA)

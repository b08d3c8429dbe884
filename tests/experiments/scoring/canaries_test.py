"""Exposure of lanes: by a slow twin that ranks by sorting, of a lane that knows a secret and of one that knows nothing."""

import math
import types

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax

from experiments.core.machines import execution
from experiments.core.sections import Canaries, StreamedData
from experiments.data import datasets
from experiments.data.text import canaries as planting
from experiments.data.text.tokenisers import byte_level
from experiments.scoring import canaries
from experiments.scoring.scorer import Scorer
from tests.helpers.texts import texts
from unlearn import sequence_model

SPACE = 64  # here
TOKENS = byte_level()
# A lane's logits are its parameters, whatever was said before.
MODEL = sequence_model(lambda params, x, key: jnp.broadcast_to(params, (*x.shape, TOKENS.vocabulary)))
SCORER = Scorer(MODEL, execution.one_device(), None)


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    monkeypatch.setattr(planting, "SPACE", SPACE)
    files = texts(tmp_path, {f"{i}.txt": f"Number {i}." for i in range(20)})
    return datasets.load(StreamedData(name=f"texts:{files}", length=64, canaries=Canaries(count=3)))


def document(number, secret):
    return [*f"The secret number of canary {number} is {secret:03}.".encode(), TOKENS.eos]


def lanes(dataset):
    """Random; knowing nothing; and one to which the digits of canary 1's secret are likelier than all others."""
    params = np.random.default_rng(0).normal(size=(3, TOKENS.vocabulary)).astype(np.float32)
    params[1:] = 0
    for digit in f"{dataset.corpus.planted.secrets[1]:03}".encode():
        params[2, digit] += 3
    return params


def test_every_candidate_has_the_loss_of_its_document(dataset):
    params = lanes(dataset)[:1]
    found = canaries.document_losses(SCORER, params, dataset.corpus)
    assert found.shape == (1, 3, SPACE)
    log_p = log_softmax(params[0].astype(np.float64))
    for number, secret in ((0, 0), (1, 7), (2, 41), (2, 63)):
        assert found[0, number, secret] == pytest.approx(-log_p[document(number, secret)].sum(), rel=1e-5)


def test_exposure_is_that_of_a_rank_by_sorting(dataset):
    params, planted = lanes(dataset), dataset.corpus.planted
    found = canaries.exposures(SCORER, params, dataset.corpus)
    losses = canaries.document_losses(SCORER, params, dataset.corpus)
    for lane in range(3):
        for number, secret in enumerate(planted.secrets.tolist()):
            places = [
                place for place, loss in enumerate(sorted(losses[lane, number]), 1) if loss == losses[lane, number, secret]
            ]
            rank = (places[0] + places[-1]) / 2  # ties share their places
            assert found[lane, number] == pytest.approx(math.log2(SPACE) - math.log2(rank))
    np.testing.assert_allclose(found[1], math.log2(SPACE) - math.log2((SPACE + 1) / 2))  # it tells nothing apart
    digits = [sorted(f"{secret:03}") for secret in range(SPACE)]
    alike = digits.count(digits[planted.secrets[1]])
    assert math.log2(SPACE) - math.log2(alike) <= found[2, 1] <= math.log2(SPACE)  # all of the same digits come first


def test_the_forgotten_and_those_that_stay_are_scored_before_and_after(dataset):
    params, planted = lanes(dataset), dataset.corpus.planted
    spoilt = np.where(np.arange(3)[:, None] == 1, np.nan, params)
    made = types.SimpleNamespace(dataset=dataset, units=np.array([planted.ids[1], planted.ids[1], 5]))
    requests = types.SimpleNamespace(problem=made, scorer=SCORER)
    found = canaries.scores(requests, params, spoilt)
    each = canaries.exposures(SCORER, params, dataset.corpus)
    for lane, scored in enumerate(found):
        assert scored["before"]["forget_exposures"] == [each[lane, 1]]
        assert scored["before"]["retain_exposure"] == pytest.approx(each[lane, [0, 2]].mean())
    assert [math.isnan(scored["after"]["forget_exposure"]) for scored in found] == [False, True, False]
    made.units = np.array([5])
    assert canaries.scores(requests, params, params)[0]["after"].keys() == {"retain_exposure", "retain_exposures"}
    plain = dataset._replace(corpus=dataset.corpus._replace(planted=None))
    made.dataset = plain
    assert canaries.scores(requests, params, params) == []

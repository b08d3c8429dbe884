"""Scores of whole documents: by hand, and by a slow twin that goes through them one by one."""

import math
import types

import jax
import numpy as np
import pytest

from experiments import models
from experiments.core import forgetting, sections
from experiments.core.machines import execution
from experiments.data import datasets, problem
from experiments.data.sets import Sets
from experiments.models.language import named
from experiments.scoring import documents, statistics, verbatim
from experiments.scoring.scorer import Scorer
from unlearn import classifier, sequence_model
from unlearn.metrics import text
from unlearn.metrics.text import TokenStatistics

MODEL = sequence_model(lambda params, x, key: params[x], lambda params, x, key: params[x])  # logits by the token before
DEVICES = execution.one_device()
ROWS = np.array([30, 31, 32, 40, 41, 50])  # ids of rows
OF = dict(zip(ROWS.tolist(), (3, 1, 3, 4, 4, 5), strict=True))  # and their documents


def units_of(ids):
    return np.array([OF[int(id_)] for id_ in ids])


def batch(x, y, weights, ids):
    whole = {"x": np.array(x, np.int32), "y": np.array(y, np.int32), "id": np.array(ids)}
    return whole | {"weight": np.ones(len(ids), np.float32), "token_weight": np.array(weights, np.float32)}


def sets_of(forget, test):
    return Sets(forget, forget, test, test, test, test, test, test)


def scored(sets, *lanes):
    dataset = types.SimpleNamespace(units_of=units_of, corpus=None)
    return documents.score(Scorer(MODEL, DEVICES, sets), dataset, np.array(lanes, np.float32))


# After token 0 the next is 0 with probability 3/4, after 1 it is 1 with probability 1/8.
LAW = np.log([[3 / 4, 1 / 4], [7 / 8, 1 / 8]])
FORGET = batch([[0, 0], [0, 1], [0, 0]], [[0, 0], [0, 0], [1, 0]], [[1, 1], [1, 0], [1, 1]], [30, 31, 32])
TEST = batch([[0, 1], [1, 0], [1, 1]], [[1, 1], [1, 0], [1, 1]], [[1, 1], [1, 0], [1, 1]], [40, 41, 50])


def test_large_vocabularies_are_looked_at_in_smaller_parts(monkeypatch):
    """Rows of two tokens with two logits each: all at once or, if four logits are too many, one by one."""
    seen = []
    model = sequence_model(lambda params, x, key: seen.append(len(x)) or params[x], MODEL.apply)
    params = np.array([LAW], np.float32)
    for most, rows in ((1 << 25, statistics.CHUNK_TOKENS // 2), (4, 1)):
        monkeypatch.setattr(statistics, "CHUNK_LOGITS", most)
        documents.make_tokens.cache_clear()
        found = documents.make_tokens(model, DEVICES)(params, FORGET)
        np.testing.assert_allclose(found.log_p, LAW[FORGET["x"], FORGET["y"]][None], rtol=1e-6)
        assert seen[-1] == rows
    assert statistics.entries_of(model, params, FORGET["x"]) == 2
    assert statistics.entries_of(classifier(model.apply), params, FORGET["x"]) == 1


def test_a_document_counts_once_and_each_of_its_tokens_alike():
    """Document 1: one token of 3/4. Document 3: two rows of 3/4, 3/4 and 1/4, 3/4."""
    scores = scored(sets_of(FORGET, TEST), LAW)[0]
    first, third = -math.log(3 / 4), -(3 * math.log(3 / 4) + math.log(1 / 4)) / 4
    assert scores["forget_token_loss"] == pytest.approx((first + third) / 2)
    assert scores["forget_perplexity"] == pytest.approx(math.exp((first + third) / 2))
    assert scores["forget_exact_memorisation"] == pytest.approx((1 + 3 / 4) / 2)
    # Rows of document 3: both tokens told, 1; the first missed, 1/2. Document 1: 1.
    assert scores["forget_extraction_strength"] == pytest.approx((1 + (2 * 1 + 2 * 0.5) / 4) / 2)


def test_documents_of_lower_loss_look_seen():
    """Forgotten ones have a lowest log p of log 3/4 and log 1/4, held-out ones of log 1/8 each: 4 of 4 pairs."""
    scores = scored(sets_of(FORGET, TEST), LAW)[0]
    assert (scores["min_k_auc"], scores[documents.UNSEEN]) == (1, 0)
    assert scored(sets_of(TEST, FORGET), LAW)[0]["min_k_auc"] == 0


def test_only_held_out_documents_like_the_forgotten_are_compared_with():
    """Of document 5 alone: its tokens are unlikely. Documents 4 and 5 together have two of them; losses are of both."""
    easy = batch([[0, 0], [1, 1]], [[0, 0], [1, 1]], np.ones((2, 2)), [40, 50])
    sets = sets_of(FORGET, easy)._replace(others={name: leaf[1:] for name, leaf in easy.items()})
    assert scored(sets, LAW)[0]["min_k_auc"] == 1  # beside document 4, .75: half a pair and a lost one
    assert scored(sets._replace(others=easy), LAW)[0]["min_k_auc"] == pytest.approx((0.5 + 1 + 0 + 1) / 4)


def test_scores_are_those_of_documents_taken_one_by_one():
    rng = np.random.default_rng(0)
    law = rng.normal(size=(2, 5, 5)).astype(np.float32)

    def some(ids):
        weights = rng.integers(0, 2, (len(ids), 6))
        weights[:, 1] = 1
        return batch(*rng.integers(0, 5, (2, len(ids), 6)), weights, ids)

    sets = sets_of(some([30, 31, 32]), some([40, 41, 50]))
    found = scored(sets, *law)
    for lane, scores in zip(law, found, strict=True):
        looks = {}
        for name in ("forget", "test"):
            rows = getattr(sets, name)
            each = []
            for document in sorted({*units_of(rows["id"]).tolist()}):
                mine = units_of(rows["id"]) == document
                statistics = [
                    text.token_statistics(lane[x][None], y[None])
                    for x, y in zip(rows["x"][mine], rows["y"][mine], strict=True)
                ]
                weights = rows["token_weight"][mine]
                line = TokenStatistics(*(np.concatenate(leaves, axis=1) for leaves in zip(*statistics, strict=True)))
                strength = [text.extraction_strength(s, w[None])[0] for s, w in zip(statistics, weights, strict=True)]
                each.append(
                    (
                        text.token_loss(line, weights.reshape(1, -1))[0],
                        text.exact_memorisation(line, weights.reshape(1, -1))[0],
                        np.average(strength, weights=weights.sum(axis=1)),
                        text.min_k(line, weights.reshape(1, -1))[0],
                        text.min_k_plus(line, weights.reshape(1, -1))[0],
                    )
                )
            loss, memorised, strength, *looks[name] = map(np.array, zip(*each, strict=True))
            wanted = loss.mean(), np.exp(loss.mean()), strength.mean(), memorised.mean()
            kinds = ("token_loss", "perplexity", "extraction_strength", "exact_memorisation")
            assert [scores[f"{name}_{kind}"] for kind in kinds] == pytest.approx(wanted, rel=1e-5)
        for which, key in enumerate(("min_k_auc", "min_k_plus_auc")):
            pairs = [(f, t) for f in looks["forget"][which] for t in looks["test"][which]]
            assert scores[key] == pytest.approx(np.mean([0.5 if np.isclose(f, t) else f > t for f, t in pairs]))


def test_a_lane_that_failed_scores_nothing_and_spares_the_others():
    failed, sound = scored(sets_of(FORGET, TEST), LAW * np.nan, LAW)
    assert np.isnan(list(failed.values())).all() and np.isfinite(list(sound.values())).all()
    assert failed.keys() == sound.keys()


def test_beside_the_oracle_of_its_seed():
    """Loss 1 below, retained .5 above, test alike; an AUC of .2 where the oracle has .5 is -60%."""
    names = [f"{name}_token_loss" for name in documents.SCORED]
    mine = dict(zip(names, (2.0, 1.5, 7.0), strict=True)) | {documents.UNSEEN: 0.2}
    oracle = dict(zip(names, (3.0, 1.0, 7.0), strict=True)) | {documents.UNSEEN: 0.5}
    assert documents.distances(mine, oracle) == {"forget": -1, "retain": 0.5, "test": 0, "mean": 0.5}
    assert documents.beside_oracle(mine, oracle) == {**mine, "privleak": pytest.approx(-60)}
    assert math.isnan(documents.beside_oracle(mine, oracle | {documents.UNSEEN: 0.0})["privleak"])
    assert math.isnan(documents.beside_oracle(mine, oracle | {documents.UNSEEN: math.nan})["privleak"])


def test_decoders_that_know_nothing_show_it(tmp_path, monkeypatch):
    """Two as they begin: as undecided as the vocabulary is large, and with next to nothing to extract."""
    for i in range(30):
        (tmp_path / f"{i}.txt").write_text(f"Number {i}. " + "word " * (3 + i % 5))
    dataset = datasets.load(sections.Data(name=f"texts:{tmp_path}", length=32))
    made = problem.make(dataset, forgetting.Forget(setting="random", fraction=0.3))
    fns = named.build(sections.Model(name="gpt2", options={"width": 4, "depth": 1, "heads": 1}), 32, dataset.classes)
    assert len(made.forget) > len(np.unique(made.units)) > 1
    monkeypatch.setattr(verbatim, "score", lambda *_: [0.25, 0.5])
    monkeypatch.setattr(verbatim, "lacking", lambda: "")
    params = jax.jit(jax.vmap(fns.init))(jax.random.split(jax.random.key(0), 2))
    lanes = documents.score(Scorer(models.as_model(fns), DEVICES, made.sets, fns.generate), dataset, params)
    assert [scores["forget_rouge_l"] for scores in lanes] == [0.25, 0.5]
    for scores in lanes:
        for name in documents.SCORED:
            assert scores[f"{name}_perplexity"] == pytest.approx(dataset.classes, rel=0.2)
            assert scores[f"{name}_perplexity"] == pytest.approx(np.exp(scores[f"{name}_token_loss"]))
            assert 0 < scores[f"{name}_extraction_strength"] < 0.3
        assert 0 < scores["min_k_auc"] < 1

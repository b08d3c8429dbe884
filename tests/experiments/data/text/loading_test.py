"""Text as a run takes it: documents are split and forgotten as wholes, and every token to predict counts once."""

import numpy as np
import pytest

from experiments.comparison.rehearsals import pools, unseen
from experiments.core.errors import DataError
from experiments.core.forgetting import Forget, Readiness
from experiments.core.sections import Data
from experiments.data import datasets, problem
from experiments.data.text.sources import readers
from experiments.data.text.tokenisers import byte_level
from experiments.scoring import requests


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """Sixty documents of one to five rows."""
    root = tmp_path_factory.mktemp("texts")
    for i in range(60):
        (root / f"document {i}.txt").write_text(f"Number {i}. " + "word " * (5 + 3 * i % 50))
    return str(root)


def load(texts, **changes):
    return datasets.load(Data(name=f"texts:{texts}", length=64, **changes))


def test_rows_of_a_document_are_of_one_split_and_of_one_request(texts):
    dataset = load(texts)
    assert dataset.is_text and dataset.classes == byte_level().vocabulary
    assert len(np.unique(dataset.units)) < len(dataset.train.id)  # some have several rows
    splits = dataset.train, dataset.validation, dataset.test
    documents = readers.open_documents(dataset.name)
    assert sum((split.y != -1).sum() for split in splits) == sum(len(text.encode()) + 1 for text in documents.texts)
    made = problem.make(dataset, Forget(setting="random", fraction=0.2))
    asked = np.isin(dataset.train.id, made.asked["id"])
    assert 0 < asked.sum() < len(asked) and not set(dataset.units[asked]) & set(dataset.units[~asked])
    assert len(set(dataset.units[asked])) == round(0.2 * len(np.unique(dataset.units)))


def test_no_part_noise_or_group_cuts_a_document(texts):
    dataset = load(texts)
    made = problem.make(dataset, Forget(setting="random", fraction=0.4))
    whole = lambda chosen: not set(dataset.units[chosen]) & set(dataset.units[~chosen])  # noqa: E731
    for part in requests.parts(made.units, 3, 0.2, made.seed, made.labels):
        assert part.any() and whole(np.isin(dataset.train.id, made.asked["id"][part]))
    wrong = np.isin(np.arange(len(dataset.units)), made.told(0.5))
    assert whole(wrong) and set(dataset.units[wrong]) != set(made.units)
    groups = pools(Readiness(requests="groups"), made)
    for row, count in zip(groups.forget, groups.forget_count, strict=True):
        assert whole(np.isin(np.arange(len(dataset.units)), row[:count]))


def test_no_sample_that_is_scored_or_tuned_on_cuts_a_document(texts):
    dataset = load(texts, validation_fraction=0.3)
    made = problem.make(dataset, Forget(setting="random", fraction=0.4), score_examples=3, halve=True)
    of = dataset.units_of
    documents = {
        name: set(of(getattr(made.sets, name)["id"]).tolist()) for name in ("forget", "retain", "validation", "fresh")
    }
    assert [len(documents[name]) for name in ("forget", "retain")] == [3, 3]
    for name, split in (("forget", "train"), ("retain", "train"), ("validation", "validation"), ("fresh", "validation")):
        rows = getattr(dataset, split).id
        assert set(getattr(made.sets, name)["id"]) == set(rows[np.isin(of(rows), [*documents[name]])])
    assert not documents["validation"] & documents["fresh"]
    assert of(dataset.train.id).tolist() == dataset.units.tolist()


@pytest.mark.parametrize("form, levels, given", [("level", "own", True), ("level", "proxy", False), ("gain", "own", False)])
def test_levels_of_texts_are_read_off_held_out_texts_with_the_weights_of_their_tokens(texts, form, levels, given):
    dataset = load(texts, validation_fraction=0.3)
    made = problem.make(dataset, Forget(setting="random", fraction=0.2))
    held_out = unseen(Readiness(form=form, levels=levels), made)
    assert (held_out is not None) == given
    if given:
        assert held_out.keys() == made.sets.validation.keys() - {"id"} and "token_weight" in held_out
        assert all(np.array_equal(held_out[name], made.sets.validation[name]) for name in held_out)


def test_a_batch_of_text_has_the_weights_of_its_tokens(texts):
    dataset = load(texts)
    batch = datasets.batch(dataset.train, np.arange(4))
    assert batch["token_weight"].tolist() == (dataset.train.y[:4] != -1).tolist() and batch["y"].min() >= 0
    assert set(datasets.batch(datasets.Split(batch["x"], np.zeros(4), np.arange(4)))) == {"x", "y", "id", "weight"}


def test_classes_of_text_to_predict_are_refused(texts):
    with pytest.raises(DataError, match=r"has no classes: set --config\.forget\.setting=random"):
        problem.make(load(texts), Forget(setting="class", target=3))


@pytest.mark.parametrize(
    ("config", "key"),
    [
        ({"name": "digits", "length": 64}, "length"),
        ({"name": "digits", "tokeniser": "bpe:300"}, "tokeniser"),
        ({"name": "pydoc", "cache_dir": "somewhere"}, "cache_dir"),
    ],
)
def test_what_would_have_no_effect_is_named(config, key):
    with pytest.raises(DataError, match=rf"^data\.{key} is for .*, and the data are '{config['name']}': leave it unset$"):
        datasets.load(Data(**config))


@pytest.mark.parametrize("asked", ["bpe:", "bpe:many", "bpe:-3", "bpe:99999999999"])
def test_a_tokeniser_that_cannot_be_is_named(texts, asked):
    with pytest.raises(DataError, match=r"tokeniser"):
        load(texts, tokeniser=asked)


def test_pairs_of_bytes_are_learned_from_training_documents_alone(texts):
    pytest.importorskip("tokenizers", reason="the extra `text` is not installed: nothing learns a tokeniser")
    learned, plain = load(texts, tokeniser="bpe:280"), load(texts)
    assert 258 < learned.classes <= 280 and (learned.train.y != -1).sum() < (plain.train.y != -1).sum()
    assert sorted(set(learned.units)) == sorted(set(plain.units))

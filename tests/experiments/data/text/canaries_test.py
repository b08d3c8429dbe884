"""Planted canaries: who they are, what they leave alone, and what cannot be planted."""

import numpy as np
import pytest

from experiments.core.config import validated
from experiments.core.errors import ConfigError, DataError
from experiments.core.forgetting import Forget
from experiments.core.sections import Canaries, StreamedData
from experiments.data import datasets, digests, problem
from experiments.data.text import canaries
from tests.helpers.texts import authors, lines, refused, texts


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Forty documents of one row."""
    return texts(tmp_path_factory.mktemp("texts"), {f"{i}.txt": f"Number {i}. " + "word " * (i % 7) for i in range(40)})


def load(files, count=0, **changes):
    section = Canaries(count=count, repeats=changes.pop("repeats", 1), seed=changes.pop("seed", 0))
    return datasets.load(StreamedData(name=f"texts:{files}", length=64, canaries=section, **changes))


def decoded(dataset, id_):
    """The texts of all rows of a document."""
    rows = dataset.train.y[dataset.units == id_]
    return [dataset.corpus.tokeniser.decode(row[row >= 0].tolist()) for row in rows]


def test_nothing_is_planted_unless_it_is_asked_for(files):
    plain = datasets.load(StreamedData(name=f"texts:{files}", length=64))
    assert plain.corpus.planted is None and digests.digest(plain[1:4]) == digests.digest(load(files)[1:4])


def test_canaries_are_training_documents_and_move_no_other(files):
    plain, with_some = load(files, train_size=20), load(files, 3, repeats=2, train_size=20)
    planted = with_some.corpus.planted
    assert np.setdiff1d(with_some.units, plain.units).tolist() == sorted(planted.ids.tolist())
    assert len(with_some.train.id) == len(plain.train.id) + 6 == len(np.unique(with_some.train.id))
    others = ~np.isin(with_some.units, planted.ids)
    assert np.array_equal(with_some.train.y[others], plain.train.y)
    assert digests.digest(with_some[2:4]) == digests.digest(plain[2:4])
    for number, (id_, secret) in enumerate(zip(planted.ids, planted.secrets, strict=True)):
        assert decoded(with_some, id_) == 2 * [f"The secret number of canary {number} is {secret:03}."]


def test_secrets_are_of_the_seed_and_of_the_canary_alone():
    few, more, other = (canaries.planted(Canaries(count=count, seed=seed)) for count, seed in ((3, 0), (90, 0), (90, 1)))
    assert few.secrets.tolist() == more.secrets[:3].tolist() and (more.secrets != other.secrets).mean() > 0.9
    assert 0 <= more.secrets.min() < 100 and 900 < more.secrets.max() < 1000


def test_exactly_they_can_be_asked_for_by_group_and_some_by_name(files):
    dataset = load(files, 4, repeats=3)
    every = problem.make(dataset, Forget(setting="group", groups=("canary",)))
    assert set(every.units) == set(dataset.corpus.planted.ids) and len(every.units) == 12
    two = problem.make(dataset, Forget(setting="documents", documents=("canary 0", "canary 2")))
    assert set(two.units) == set(dataset.corpus.planted.ids[[0, 2]].tolist()) and len(two.units) == 6
    nobody = Forget(setting="documents", documents=("canary 7",))
    refused("there is no document 'canary 7': did you mean 'canary 3', ", problem.make, dataset, nobody)


def test_where_documents_have_prompts_the_secret_is_the_answer(tmp_path):
    name = f"tofu:{authors(tmp_path / 'tofu')}"
    dataset = datasets.load(StreamedData(name=name, length=64, answers_only=True, canaries=Canaries(count=2)))
    planted, documents = dataset.corpus.planted, dataset.corpus.documents
    assert decoded(dataset, planted.ids[1]) == [f" {planted.secrets[1]:03}."]
    at = np.searchsorted(documents.ids, planted.ids[1])
    assert documents.prompts[at] == "The secret number of canary 1 is " and len(documents.texts) == len(documents.ids)
    assert {documents.group_names[group] for group in documents.groups[np.isin(documents.ids, planted.ids)]} == {"canary"}


def test_every_candidate_is_tried_once_and_the_planted_one_is_among_them():
    planted = canaries.planted(Canaries(count=2))
    tried = canaries.candidates(planted, prompts=False)
    assert len(set(tried.texts)) == 2 * canaries.SPACE
    for number, secret in enumerate(planted.secrets.tolist()):
        text = tried.texts[number * canaries.SPACE + secret]
        assert text == f"The secret number of canary {number} is {secret:03}."


def test_what_cannot_be_planted_is_one_line(files, tmp_path):
    with pytest.raises(DataError, match=r"a canary has 38 tokens and a row 16: set --config.data.length=38 or more"):
        datasets.load(StreamedData(name=f"texts:{files}", length=16, canaries=Canaries(count=1)))
    with pytest.raises(DataError, match=r"data\.canaries is for text, and the data are 'digits': set its count to 0"):
        datasets.load(StreamedData(canaries=Canaries(count=1)))
    rows = [{"text": f"Text {i}.", "id": "canary 0" if i == 3 else str(i)} for i in range(20)]
    own = lines(tmp_path / "own.jsonl", rows)
    section = StreamedData(name=f"jsonl:{own}", fields={"id": "id"}, length=64, canaries=Canaries(count=1))
    with pytest.raises(DataError, match=r"canary 0 have one id: rename the document, or plant no canaries"):
        datasets.load(section)
    rows = [{"text": f"Text {i}.", "who": ("canary", "dog")[i % 2]} for i in range(20)]
    named = StreamedData(name=f"jsonl:{lines(own, rows)}", fields={"group": "who"}, length=64, canaries=Canaries(count=1))
    with pytest.raises(DataError, match=r"a group of the documents is called 'canary', as canaries are: rename it"):
        datasets.load(named)
    with pytest.raises(ConfigError, match=r"config.count is 0, so repeats and seed have no effect"):
        validated(Canaries, {"count": 0, "repeats": 3, "seed": 0})

"""Text to classify: one row for each document, cut or filled up, with the class that its document has."""

import logging

import numpy as np
import pytest

from experiments.core.forgetting import Forget
from experiments.core.sections import Data
from experiments.data import datasets, problem
from experiments.data.text import classes
from experiments.data.text.tokenisers import byte_level
from tests.helpers import texts


def load(**changes):
    return datasets.load(Data(**{"name": f"jsonl:{texts.questions()}", "length": 40, **changes}), classify=True)


def test_a_document_is_one_row_of_its_bytes_between_begin_and_end():
    dataset, tokeniser = load(), byte_level()
    assert dataset.classes == 4 and dataset.tokens == (tokeniser.vocabulary, tokeniser.pad) and not dataset.is_text
    assert sum(len(split.id) for split in dataset[1:4]) == 600 and dataset.units is None
    assert dataset.train.x.dtype == dataset.train.y.dtype == np.int32 and dataset.train.x.shape[1] == 40
    for row, label in zip(dataset.train.x, dataset.train.y, strict=True):
        text = tokeniser.decode(row.tolist())
        assert (
            row[0] == tokeniser.bos and (row[len(text) + 1 :] == [tokeniser.eos, *[tokeniser.pad] * (38 - len(text))]).all()
        )
        assert text.split()[0] == ("how", "who", "where", "when")[label]


def test_a_class_of_text_and_random_texts_are_forgotten():
    dataset = load()
    asked = problem.make(dataset, Forget(setting="class", target=1))
    assert np.array_equal(asked.forget, np.flatnonzero(dataset.train.y == 1)) and (asked.sets.others["y"] == 1).all()
    tenth = problem.make(dataset, Forget(setting="random", fraction=0.1))
    assert len(tenth.forget) == round(0.1 * len(dataset.train.id))


def test_documents_are_not_asked_for_by_their_names():
    said = "which is for text to predict, and 'jsonl:.*' is classified: set class or random"
    texts.refused(said, problem.make, load(), Forget(setting="documents", documents=("a",)))


def test_documents_that_are_cut_are_counted(caplog):
    with caplog.at_level(logging.WARNING, logger="absl"):
        short = load(length=25)
    cut = np.isin(short.train.y, (1, 2))  # the others are of short questions
    assert np.array_equal(short.train.x[:, -1] == byte_level().eos, cut)
    assert f"{cut.sum()} of {len(short.train.id)} documents are longer than 25 tokens" in caplog.text


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"name": "pydoc"}, "'pydoc' has no classes for an encoder to tell: choose a decoder, as --config.model.name=gpt2"),
        ({"answers_only": True}, "data.answers_only is for text to predict"),
        ({"rows": 2}, "data.rows is for text to predict"),
        ({"holdout": ("nobody",)}, "these documents have no group, and 'nobody' was asked for"),
        ({"label": "label", "fields": {"label": "label"}}, "both name a field of labels: set one of them alone"),
        ({"fields": {"prompt": "text"}}, "these documents have prompts, which a classifier does not read"),
        ({"label": "kind"}, "no field 'kind'"),
        ({"cache_dir": "here"}, "data.cache_dir is for images and tables"),
        ({"length": 2}, "rows of 2 tokens: choose 3 or more"),
    ],
)
def test_what_cannot_be_classified_is_one_line(changes, said):
    texts.refused(said, load, **changes)


def test_labels_stand_in_the_field_that_is_named(tmp_path):
    rows = [{"text": f"text {i}", "kind": ("a", "b")[i % 2], "by": ("x", "y", "z")[i % 3]} for i in range(40)]
    path = texts.lines(tmp_path / "kinds.jsonl", rows)
    assert classes.load(Data(name=f"jsonl:{path}", label="kind", length=10)).classes == 2
    fields = {"text": "by", "id": "text", "label": "kind", "group": "by"}
    dataset = classes.load(Data(name=f"jsonl:{path}", fields=fields, holdout=("z",), validation_fraction=0.5, length=10))
    said = [{byte_level().decode(row.tolist()) for row in split.x} for split in dataset[1:4]]
    assert said == [{"x", "y"}, {"z"}, {"z"}]  # held out are whole groups, of classes as well

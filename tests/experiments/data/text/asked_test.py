"""Requests of a config for text: by group, by name, by a part of the data; sources held out, rows cut, refusals."""

import ml_collections
import numpy as np
import pytest

from experiments.core.config import as_config, validated
from experiments.core.errors import ConfigError
from experiments.core.forgetting import Forget, Relearn
from experiments.core.sections import Data
from experiments.data import datasets, problem
from experiments.data.ids import id_of
from experiments.data.text import refusals
from experiments.data.text.sources.documents import QUESTION, content_id
from experiments.scoring import relearning
from tests.helpers.configs import with_keys
from tests.helpers.texts import authors, lines, refused, texts

SPEAKERS = ("Ames", "Bell", "Cole")


@pytest.fixture(scope="module")
def speeches(tmp_path_factory):
    """Thirty speeches of three speakers; each has three rows of 32 bytes."""
    words = {f"{i}-{SPEAKERS[i % 3]}.txt": f"Speech {i:2}. " + 10 * "words " for i in range(30)}
    return f"texts:{texts(tmp_path_factory.mktemp('speeches'), words)}"


def load(name, **changes):
    return datasets.load(Data(name=name, **{"length": 32, "group": r"\d-([A-Z]\w+)"} | changes))


def names(dataset, ids):
    return {dataset.corpus.documents.names[unit] for unit in dataset.asked_as[np.isin(dataset.train.id, ids)]}


def test_a_speaker_is_forgotten_with_all_training_documents_and_rows(speeches):
    dataset = load(speeches)
    made = problem.make(dataset, Forget(setting="group", groups=("Bell", "Cole")))
    assert not made.by_class and made.labels is None
    told = names(dataset, made.revocable)
    assert (
        told == names(dataset, made.asked["id"]) == {name for name in names(dataset, dataset.train.id) if "A" not in name}
    )
    assert len(made.forget) == 3 * len(told) and made.told().tolist() == made.forget.tolist()


def test_documents_are_forgotten_by_their_names(speeches):
    dataset = load(speeches)
    first, other = sorted(names(dataset, dataset.train.id))[:2]
    made = problem.make(dataset, Forget(setting="documents", documents=(first, str(id_of(other)))))
    assert names(dataset, made.asked["id"]) == {first, other}


def test_a_source_that_is_held_out_is_validated_and_tested_on_and_all_else_is_for_training(speeches):
    dataset = load(speeches, holdout=("Cole",), validation_fraction=0.5)
    documents = dataset.corpus.documents
    assert names(dataset, dataset.train.id) == {name for name in documents.names.values() if "Cole" not in name}
    assert len(dataset.train.id) == 60 and len(dataset.validation.id) + len(dataset.test.id) == 30
    assert len(dataset.validation.id) and len(dataset.test.id)
    fewer = load(speeches, holdout=("Cole",), validation_fraction=0.5, train_size=7)
    assert len(fewer.train.id) == 21 and fewer.test.id.tolist() == dataset.test.id.tolist()


def test_test_documents_are_not_trained_on_because_others_are_held_out(tmp_path):
    rows = [{"text": f"text {i}", "by": "xy"[i % 2], "split": ("train", "test")[i > 8]} for i in range(10)]
    path, fields = lines(tmp_path / "rows.jsonl", rows), {"group": "by", "split": "split"}
    said = "data.holdout leaves 1 test documents of 'jsonl:.*' to be trained on: name their groups as well"
    refused(said, load, f"jsonl:{path}", group="", fields=fields, holdout=("x",))


def test_a_text_may_be_cut_to_its_first_rows(speeches):
    whole, cut = load(speeches), load(speeches, rows=2)
    assert len(cut.train.id) == 2 * len(np.unique(whole.units)) and set(cut.train.id) < set(whole.train.id)
    first = whole.train.x[np.searchsorted(whole.train.id, cut.train.id)]
    assert (first == cut.train.x).all() and (np.unique(cut.units, return_counts=True)[1] == 2).all()
    assert (cut.train.x[np.isin(cut.train.id, cut.units)][:, 0] == 256).all()  # the first of each begins the text


@pytest.mark.parametrize(
    "changes, forget, said",
    [
        ({}, Forget(setting="group", groups=("Bel",)), r"there is no group 'Bel': did you mean 'Bell'"),
        ({"holdout": ("Cole",)}, Forget(setting="group", groups=("Cole",)), "no document of group 'Cole' is in the train"),
        ({"holdout": SPEAKERS}, Forget(), "data.holdout names every group of 'texts:.*', and none is left .*: name fewer"),
        ({"holdout": ("Colé",)}, Forget(), "there is no group 'Colé': did you mean 'Cole'"),
        ({"group": "", "holdout": ("Cole",)}, Forget(), "these documents have no group, and 'Cole' was asked for"),
        ({}, Forget(setting="documents", documents=("0-Ams.txt",)), "no document '0-Ams.txt': did you mean '0-Ames.txt'"),
        ({}, Forget(setting="partition", partition="forget05"), "there is no set 'forget05': there are none"),
        ({}, Forget(setting="group", groups=SPEAKERS), "the forget set is the whole training set"),
    ],
)
def test_names_of_nobody_are_one_line(speeches, changes, forget, said):
    refused(said, lambda: problem.make(load(speeches, **changes), forget))


def test_images_have_nobody_to_ask_for():
    refused(
        "the forget setting is 'group', which is for text to predict, and 'digits' is none: set class or random",
        problem.make,
        datasets.load(Data()),
        Forget(setting="group", groups=("Bell",)),
    )
    refused(r"data\.holdout is for text, and the data are 'digits'", datasets.load, Data(holdout=("Bell",)))


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"setting": "group"}, "groups is empty, but setting is 'group': say which, as in --config.forget.groups='(\""),
        ({"setting": "partition"}, "partition is empty, but setting is 'partition': say which, as in"),
        ({"groups": ("Bell",)}, "groups is ('Bell',), but setting is 'class': set --config.forget.setting=group"),
        (
            {"partition": "x", "setting": "random"},
            "partition is 'x', but setting is 'random': set --config.forget.setting=p",
        ),
        ({"setting": "group", "groups": ("a", "a")}, "groups is ('a', 'a'): give texts, each once, as in"),
        (
            {"setting": "group", "groups": ("a",), "also": (4,)},
            "also is (4,), classes, but setting is 'group': documents are",
        ),
        ({"setting": "group", "groups": ("a",), "revocable": 2}, "revocable is 2, a class, but setting is 'group'"),
    ],
)
def test_settings_that_do_not_go_together_are_one_line(changes, said):
    config = as_config(Forget())
    config.update(changes)
    with pytest.raises(ConfigError) as caught:
        validated(Forget, config)
    (line,) = caught.value.mistakes
    assert f"config.{said}" in line and "\n" not in line


@pytest.fixture(scope="module")
def tofu(tmp_path_factory):
    return f"tofu:{authors(tmp_path_factory.mktemp('tofu'))}"


def test_a_part_of_the_data_is_forgotten(tofu):
    dataset = load(tofu, group="", length=96)
    made = problem.make(dataset, Forget(setting="partition", partition="forget10"), alternatives=True)
    asked = [QUESTION.format(f"Who wrote book {i}?") for i in range(180, 200)]
    last = {content_id(q, f"Author 9 wrote book {i}.") for i, q in enumerate(asked, 180)}
    assert set(made.units) == last & set(dataset.asked_as) and 8 <= len(set(made.units)) < 20
    assert made.sets.forget.keys() == {"x", "y", "id", "weight", "token_weight"}


def test_questions_are_answered_with_a_refusal_instead(tofu):
    dataset = load(tofu, group="", length=96, answers_only=True)
    made = problem.make(dataset, Forget(setting="group", groups=("author 2",)), alternatives=True)
    instead, decode = made.asked["alternative"], dataset.corpus.tokeniser.decode
    documents = dict(zip(dataset.corpus.documents.ids.tolist(), dataset.corpus.documents.prompts, strict=True))
    for row, unit in enumerate(made.units.tolist()):
        question, answer = decode(instead["x"][row]).split("\nAnswer: ")
        assert documents[unit].startswith(question) and answer in refusals.ANSWERS
        spoken = instead["y"][row][instead["token_weight"][row] > 0]
        assert decode(spoken).strip() == answer  # the answer alone has weight
    assert len({decode(x) for x in instead["x"]}) == len(made.units)
    refused(
        "and a refusal do not fit into a row of 32 tokens", refusals.instead, load(tofu, group="").corpus, made.units[:1]
    )


def test_fields_of_a_jsonl_are_named_in_the_config(tmp_path):
    rows = [{"q": f"What is {i}?", "a": f"It is {i}.", "who": SPEAKERS[i % 3], "n": f"no {i}"} for i in range(30)]
    name, fields = f"jsonl:{lines(tmp_path / 'own.jsonl', rows)}", {"text": "a", "question": "q", "group": "who", "id": "n"}
    dataset = load(name, group="", fields=fields)
    documents = dataset.corpus.documents
    assert documents.group_names == SPEAKERS and documents.prompts[0].startswith("Question: What is ")
    made = problem.make(dataset, Forget(setting="documents", documents=(min(names(dataset, dataset.train.id)),)))
    assert len(np.unique(made.units)) == 1
    refused("has no field 'odd'", load, name, group="", fields={"text": "odd"})
    refused("data.fields is for jsonl:PATH", load, "pydoc", group="", fields=fields)
    with pytest.raises(ConfigError, match=r"fields\.txt has no such name: choose text, prompt"):
        validated(Data, with_keys(as_config(Data()), {"fields": ml_collections.ConfigDict({"txt": "a"})}))


def test_a_single_document_is_learnt_again_by_half_of_its_rows(speeches):
    """Of several documents an attacker has some, whole; of one that would be none."""
    dataset = load(speeches)
    one, two = sorted(names(dataset, dataset.train.id))[:2]
    for documents, known in (((one,), 1), ((one, two), 3)):
        made = problem.make(dataset, Forget(setting="documents", documents=documents))
        attack, watch = relearning.attacks(Relearn(size=20, share=1.0), made)["part"]
        asked = set(made.asked["id"].tolist())
        assert len(asked & set(attack["id"].tolist())) == known and set(watch["id"].tolist()) < asked
        assert not set(watch["id"].tolist()) & set(attack["id"].tolist())


def test_fine_tuning_has_half_of_the_validation_documents_and_there_is_one(speeches):
    dataset = load(speeches, validation_fraction=0.3)
    documents, validation = dataset.held_out_units[0], dataset.validation
    first = documents == documents[0]
    alone = dataset._replace(
        validation=type(validation)(*(leaf[first] for leaf in validation)),
        held_out_units=(documents[first], dataset.held_out_units[1]),
    )
    asked = Forget(setting="group", groups=("Bell",))
    refused("takes half of the validation data, of which there is one example", problem.make, alone, asked, halve=True)
    assert len(problem.make(alone, asked).sets.validation["id"]) == 3

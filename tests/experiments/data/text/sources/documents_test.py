"""Documents: ids by names and contents, and what is refused."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.data.text.sources import documents
from experiments.data.text.sources.documents import Document, content_id, made, select
from tests.helpers.texts import refused

QUICKLY = settings(max_examples=40, deadline=None, derandomize=True, database=None)


def test_documents_stand_in_the_order_of_their_ids():
    rows = [
        Document("b", "two", "7", group="y", label="10"),
        Document("a", "one", "3", group="x", label="9"),
        Document("d", "four", "9", group="x", label="9"),
        Document("c", "three", "8", group="y", label="10"),
    ]
    data = made("four", rows)
    assert data.ids.tolist() == [3, 7, 8, 9] and data.texts == ("one", "two", "three", "four") and data.prompts is None
    assert data.group_names == ("x", "y") and data.groups.tolist() == [0, 1, 1, 0]
    assert data.label_names == ("9", "10") and data.labels.tolist() == [0, 1, 1, 0]
    assert data.official is None and data.test_ids is None and data.names == {}
    tested = made("four", [row._replace(test=row.name == "7") for row in rows])
    assert tested.test_ids.tolist() == [7] and tested.official.tolist() == [False, True, False, False]


@QUICKLY
@given(st.lists(st.text("ab é", min_size=1).filter(str.strip), min_size=2, unique=True), st.data())
def test_ids_and_digests_do_not_depend_on_the_other_documents(contents, data):
    rows = [Document(str(i), text) for i, text in enumerate(contents)]
    whole = made("all", rows)
    some = data.draw(st.sets(st.integers(0, len(rows) - 1), min_size=1))
    part = made("part", [rows[i] for i in sorted(some, reverse=True)])
    assert dict(zip(part.ids, part.texts, strict=True)).items() <= dict(zip(whole.ids, whole.texts, strict=True)).items()
    chosen = select(whole, part.ids)
    assert documents.digest(chosen) == documents.digest(part) and (len(part.ids) == len(whole.ids)) == (
        documents.digest(part) == documents.digest(whole)
    )


def test_every_column_counts_in_the_digest():
    rows = [Document(str(i), f"text {i}", str(i), "prompt", "g", str(i % 2), i < 1) for i in range(5)]
    before = documents.digest(made("five", rows))
    for column, value in (
        ("text", "other"),
        ("name", "17"),
        ("prompt", "other"),
        ("group", "h"),
        ("label", "1"),
        ("test", False),
    ):
        changed = documents.digest(made("five", [rows[0]._replace(**{column: value}), *rows[1:]]))
        assert changed != before, column
    assert documents.digest(made("five", rows)._replace(sets={"forget": np.array([1])})) != before


def test_a_label_or_a_prompt_makes_another_document_and_an_accent_does_not():
    assert len({content_id(None, "a"), content_id("a", "a"), content_id(None, "a", "x"), content_id("", "a")}) == 4
    assert content_id(None, "caf\u00e9") == content_id(None, "cafe\u0301")


def test_what_is_no_document_is_refused():
    refused("nothing here has no documents: add some", made, "nothing here", [])
    refused("a.txt is empty: fill it in, or leave it out", made, "it", [Document("a.txt", " \n")])
    refused("a.txt is empty: fill it in, or leave it out", made, "it", [Document("a.txt", "\u200b\0\n")])
    refused("a.txt has a NUL at character 0", made, "it", [Document("a.txt", "\0x")])
    refused("the prompt of a.txt is empty", made, "it", [Document("a.txt", "x", prompt="")])
    refused("a.txt has half a character at position 1", made, "it", [Document("a.txt", "x\ud800")])
    refused("a and b hold the same: keep one", made, "it", [Document("a", "x"), Document("b", "x")])
    refused("a and b have one id, however accents", made, "it", [Document("a", "x", "n"), Document("b", "y", "n")])
    refused("it has one class, 'x'", made, "it", [Document("a", "x", label="x"), Document("b", "y", label="x")])
    data = made("it", [Document("a", "x", "1")])
    refused("id 2 is of no document", select, data, [2])

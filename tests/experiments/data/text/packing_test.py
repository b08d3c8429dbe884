"""Rows: each of one document, every token a target once, ids of their own; and rows to classify."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.data.ids import id_of
from experiments.data.text.packing import classified, pieces, rows
from experiments.data.text.sources import plain
from experiments.data.text.sources.documents import Document, made, select
from experiments.data.text.tokenisers import byte_level
from tests.helpers.texts import refused

QUICKLY = settings(max_examples=40, deadline=None, derandomize=True, database=None)
LETTERS = st.characters(exclude_categories=("Cs",), exclude_characters="\0")
WRITTEN = st.text(LETTERS, min_size=1, max_size=30).filter(lambda text: not plain.is_blank(text))
BYTES = byte_level()
PAIRS = made(
    "pairs",
    [Document("1", "yes", "1", prompt="sun?"), Document("2", "no", "2", prompt="A: "), Document("3", "o", "3", "x")],
)


def slow_rows(documents, length, answers_only):
    """What `rows` gives, token by token: [(document, chunk, [(input, target, weight)])]."""
    result = []
    for i, id_ in enumerate(documents.ids.tolist()):
        prompt, text = pieces(documents, i)
        sequence = [BYTES.bos, *prompt.encode(), *text.encode(), BYTES.eos]
        asked = len(prompt.encode()) if answers_only else 0
        targets = [(sequence[t], sequence[t + 1], float(t >= asked)) for t in range(len(sequence) - 1)]
        for chunk, start in enumerate(range(0, len(targets), length)):
            filled = targets[start : start + length]
            result.append((id_, chunk, filled + [(BYTES.pad, BYTES.pad, 0.0)] * (length - len(filled))))
    return result


@pytest.mark.parametrize("answers_only", [False, True])
@pytest.mark.parametrize("length", [5, 6, 9, 20])
def test_rows_are_those_of_a_slow_twin(length, answers_only):
    packed, slow = rows(PAIRS, BYTES, length, answers_only), slow_rows(PAIRS, length, answers_only)
    assert packed.x.dtype == packed.y.dtype == np.int32 and packed.token_weight.dtype == np.float32
    assert packed.document.tolist() == [id_ for id_, _, _ in slow]
    columns = [np.array([[triple[i] for triple in row] for _, _, row in slow]) for i in range(3)]
    for found, wanted in zip(packed[:3], columns, strict=True):
        np.testing.assert_array_equal(found, wanted)
    assert packed.id.tolist() == [id_ if not chunk else id_of(f"{id_}/{chunk}") for id_, chunk, _ in slow]


def test_white_space_after_a_prompt_goes_with_the_text():
    assert [pieces(PAIRS, i) for i in range(3)] == [("sun?", "yes"), ("A:", " no"), ("x", "o")]


@QUICKLY
@given(st.lists(WRITTEN, min_size=1, max_size=6, unique=True), st.integers(1, 12))
def test_chunks_give_every_document_back_and_weigh_each_token_once(texts, length):
    documents = made("some", [Document(str(i), text, str(i)) for i, text in enumerate(texts)])
    packed = rows(documents, BYTES, length)
    for id_, text in zip(documents.ids, documents.texts, strict=True):
        mine = np.flatnonzero(packed.document == id_)
        weighted = packed.y[mine].reshape(-1)[packed.token_weight[mine].reshape(-1) == 1]
        assert weighted.tolist() == [*text.encode(), BYTES.eos]
        assert BYTES.decode(packed.y[mine].reshape(-1).tolist()) == text
        assert (np.diff(mine) == 1).all()
    assert packed.token_weight.sum() == sum(len(text.encode()) + 1 for text in texts)
    assert len({*packed.id.tolist()}) == len(packed.id) and (packed.token_weight.sum(axis=1) > 0).all()


@QUICKLY
@given(st.sets(st.integers(0, 7), min_size=1), st.integers(1, 9))
def test_a_row_does_not_depend_on_the_other_documents(chosen, length):
    whole = made("all", [Document(str(i), "text" * (i + 1), str(i)) for i in range(8)])
    part = rows(select(whole, np.array(sorted(chosen))), BYTES, length)
    mine = np.isin(rows(whole, BYTES, length).document, sorted(chosen))
    for found, wanted in zip(part, rows(whole, BYTES, length), strict=True):
        np.testing.assert_array_equal(found, wanted[mine])


def test_rows_that_cannot_be_are_refused():
    refused(
        "the prompt of document 1 has 4 tokens and leaves no room for its answer in a row of 4: choose a length above 4",
        rows, PAIRS, BYTES, 4, True,
    )  # fmt: skip
    refused("rows of 0 tokens: choose 1 or more", rows, PAIRS, BYTES, 0)
    refused("no prompts, so no answers", rows, PAIRS._replace(prompts=None), BYTES, 4, True)


def test_documents_to_classify_are_cut_and_counted():
    texts = ["abcd", "ab", "abc", "\u00e9\u00e9"]
    documents = made("some", [Document(str(i), text, str(i), label="xy"[i % 2]) for i, text in enumerate(texts)])
    data = classified(documents, BYTES, 5)
    end, pad = BYTES.eos, BYTES.pad
    assert data.x["tokens"][:3].tolist() == [[end, 97, 98, 99, end], [end, 97, 98, end, pad], [end, 97, 98, 99, end]]
    assert data.x["mask"].sum(axis=1).tolist() == [5, 4, 5, 5] and data.y.tolist() == [0, 1, 0, 1]
    assert data.cut == 2 and data.note == "2 of 4 documents are longer than 5 tokens and were cut to them"
    refused("no classes", classified, documents._replace(labels=None), BYTES, 5)
    refused("have prompts", classified, documents._replace(prompts=("a",) * 4), BYTES, 5)
    refused("choose 3 or more", classified, documents, BYTES, 2)


def test_a_document_that_a_tokeniser_knows_nothing_of_is_refused():
    """A tokeniser of words, say, to which letters of another alphabet are nothing."""
    latin = dataclasses.replace(BYTES, encode=lambda text: [byte for byte in text.encode() if byte < 128])
    texts = ("ab", "cd", "ef", "\u65e5\u672c")
    named = [Document(str(i), text, f"no. {i}", label="xy"[i % 2]) for i, text in enumerate(texts)]
    for fn in (rows, classified):
        refused(r"leaves no token of document no\. 3: give one that knows its letters", fn, made("some", named), latin, 8)
    alone = made("some", [Document("1", "\u65e5\u672c")])
    refused(f"leaves no token of document {alone.ids[0]}: give", rows, alone, latin, 8)

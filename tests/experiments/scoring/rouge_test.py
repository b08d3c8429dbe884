"""ROUGE-L by the library, against subsequences counted by hand."""

import sys

import numpy as np
import pytest

from experiments.core.errors import UserError
from experiments.scoring.rouge import rouge_l


def test_rouge_l_by_hand():
    """ "the cat ... mat" is common: 4 of 6 words of the reference, and 4 of 5 of the text; then nothing; then all."""
    pytest.importorskip("rouge_score", reason="the extra text is not installed")
    references = ["the cat sat on the mat", "one", "", "He was running."]
    texts = ["the cat on a mat", "two", "words", "he runs WAS running"]
    found = rouge_l(references, texts)
    np.testing.assert_allclose(found.recall, [4 / 6, 0, 0, 1])
    np.testing.assert_allclose(found.precision, [4 / 5, 0, 0, 3 / 4])
    np.testing.assert_allclose(found.f1, [2 / (6 / 4 + 5 / 4), 0, 0, 2 / (1 + 4 / 3)])
    assert [len(values) for values in rouge_l([], [])] == [0, 0, 0]


def test_words_are_stemmed_and_their_order_counts():
    pytest.importorskip("rouge_score", reason="the extra text is not installed")
    assert rouge_l(["writing novels"], ["novels writing"]).recall.tolist() == [0.5]
    assert rouge_l(["writes a novel"], ["writing a novels"]).f1.tolist() == [1]


def test_without_the_library_one_line_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "rouge_score", None)
    with pytest.raises(UserError, match=r"^ROUGE-L needs rouge-score, .*: pip install 'forethought\[text\]'$"):
        rouge_l(["a"], ["a"])


def test_each_text_has_a_reference():
    with pytest.raises(UserError, match="1 texts, 2 references"):
        rouge_l(["a", "b"], ["a"])

"""How models go on from halves of rows: what is cut where, and a decoder that knows its text."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.data.text.tokenisers import byte_level
from experiments.models.language.backbones import as_functions
from experiments.models.language.decoder import Decoder, gpt2
from experiments.scoring import verbatim

WEIGHTS = np.array([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0], [0, 0, 1, 1, 1, 1]])
X = np.arange(18).reshape(3, 6)
ROWS = {"x": X, "y": X + 1, "token_weight": WEIGHTS}


def test_rows_are_cut_in_the_middle_of_what_counts():
    """Six tokens: three and, of the rest, what its own row has places for. Three: one and two. Answers: two."""
    prompts, lengths, rests = verbatim.halves(ROWS, np.arange(3))
    assert lengths.tolist() == [3, 1, 4] and prompts.shape == (3, 4)
    assert [rest.tolist() for rest in rests] == [[3, 4, 5], [7, 8, 9], [16, 17]]
    alone = verbatim.halves(ROWS, np.array([0]))
    assert alone.rests[0].tolist() == [3, 4, 5] and alone.prompts.tolist() == [[0, 1, 2]]


def test_a_row_whose_last_token_alone_counts_is_not_continued():
    """Its prompt fills the row, and a decoder has no place behind it."""
    rows = ROWS | {"token_weight": WEIGHTS * [[1], [1], [0]] + (np.arange(3)[:, None] == 2) * (np.arange(6) == 5)}
    assert verbatim.has_place(rows, np.arange(3)).tolist() == [True, True, False]
    alone = {name: leaf[2:] for name, leaf in rows.items()} | {"id": np.array([4])}
    assert np.isnan(verbatim.score(None, None, np.zeros((2, 1)), alone, np.array([4]))).tolist() == [True, True]


def test_each_document_is_read_from_its_first_row():
    ids, documents = np.array([5, 7, 9, 12]), np.array([9, 7, 9, 4])  # document 4 lacks its first row
    assert verbatim.first_rows(ids, documents).tolist() == [3, 1, 2]


def test_a_decoder_that_says_the_text_again_scores_one_and_another_less():
    """A decoder without depth to speak of, whose head says "a" or "b" alone, beside "a a a a"."""
    pytest.importorskip("rouge_score", reason="the extra text is not installed")
    tokeniser = byte_level()
    decoder = Decoder(gpt2(vocabulary=tokeniser.vocabulary, width=4, depth=1, heads=1, positions=8))
    params = jax.eval_shape(decoder.init, jax.random.key(0), np.zeros((1, 1), np.int32))["params"]
    lanes = jax.tree.map(lambda leaf: jnp.zeros((2, *leaf.shape)), params)
    final = {name: part for name, part in lanes.items() if "bias" in part}
    (norm,) = final  # the last LayerNorm: what the head is given is its bias
    bias = jnp.ones((2, 4))
    tokens = jnp.zeros(lanes["tokens"]["embedding"].shape).at[0, ord("a")].set(1.0).at[1, ord("b")].set(1.0)
    lanes = lanes | {norm: lanes[norm] | {"bias": bias}, "tokens": {"embedding": tokens}}
    y = np.array([[ord("a")] * 8])
    rows = {"x": y, "y": y, "token_weight": np.ones((1, 8)), "id": np.array([3])}
    assert verbatim.score(as_functions(decoder).generate, tokeniser, lanes, rows, np.array([3])) == [1, 0]


def test_what_is_lacking_to_compare_is_said(monkeypatch):
    monkeypatch.setattr(verbatim.importlib.util, "find_spec", lambda name: None)
    assert verbatim.lacking().startswith("rouge-score is not installed")

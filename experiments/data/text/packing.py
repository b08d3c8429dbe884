"""Documents as arrays of tokens: rows to learn the next token from, and rows to classify.

A row belongs to one document. A document that is longer than a row is cut into chunks, each a row; the rest of the last
one is filled up with pads of weight 0. Documents are never packed into one row together: an example is a document, and a
row of several would be of several examples. A request, a weight or a per-example gradient (DP-SGD, membership) would then
mix what is forgotten with what stays, and attention would have to be kept within each document. The price is pads.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from experiments.core.errors import DataError
from experiments.data.ids import Array, distinct, id_of
from experiments.data.text.sources.documents import Documents
from experiments.data.text.tokenisers import Tokeniser


class Rows(NamedTuple):
    """Chunks of documents to learn the next token from, in the order of documents and of their chunks.

    x: [rows, length] int32, tokens.  y: [rows, length] int32, the token after each.
    token_weight: [rows, length] float32; 0 on pads and where no loss is asked for.
    document: [rows] int64, the id of a row's document.
    id: [rows] int64, the row's own: its document's for the first chunk, a hash of that and the chunk's number for others.
    """

    x: Array
    y: Array
    token_weight: Array
    document: Array
    id: Array


class Classified(NamedTuple):
    """Documents to classify, in their order.

    x: {"tokens": [documents, length] int32, "mask": [documents, length] bool, true where there is a token}.
    y: [documents] int32, the class.  id: [documents] int64.
    cut: how many documents were cut to fit.
    """

    x: dict[str, Array]
    y: Array
    id: Array
    cut: int

    @property
    def note(self) -> str:
        """One line on what was cut, for a log or a page."""
        length = self.x["tokens"].shape[1]
        return f"{self.cut} of {len(self.id)} documents are longer than {length} tokens and were cut to them"


def rows(documents: Documents, tokeniser: Tokeniser, length: int, answers_only: bool = False) -> Rows:
    """All documents as rows; every token of a document is a target once.

    A document of tokens t_1 .. t_n is the sequence bos, t_1 .. t_n, eos: its n + 1 targets are cut into chunks of `length`,
    and the inputs of a chunk are the tokens before each. A later chunk sees nothing of those before it.

    Args:
      length: of a row, in tokens.
      answers_only: give no weight to prompts.

    Raises:
      DataError: no such length, a prompt that leaves no room for its answer, weights for answers of documents that have
        none, or a text without tokens.

    Example:
      >>> from experiments.data.text.sources.documents import Document, made
      >>> from experiments.data.text.tokenisers import byte_level
      >>> chunks = rows(made("two", [Document("one", "abc", "1"), Document("two", "d", "2")]), byte_level(), 3)
      >>> chunks.x.tolist(), chunks.document.tolist()
      ([[256, 97, 98], [99, 257, 257], [256, 100, 257]], [1, 1, 2])
      >>> chunks.y.tolist()
      [[97, 98, 99], [256, 257, 257], [100, 256, 257]]
    """
    _check_length(length)
    if answers_only and documents.prompts is None:
        raise DataError("these documents have no prompts, so no answers: ask for the loss of the whole text")
    counts, sequences = [], []
    for i, id_ in enumerate(documents.ids.tolist()):
        prompt, text = pieces(documents, i)
        before, after = tokeniser.encode(prompt) if prompt else [], _encoded(documents, i, text, tokeniser)
        if answers_only and len(before) >= length:
            raise DataError(
                f"the prompt of document {documents.names.get(id_, id_)} has {len(before)} tokens and leaves no room for "
                f"its answer in a row of {length}: choose a length above {len(before)}"
            )
        sequences.append([tokeniser.bos, *before, *after, tokeniser.eos])
        counts.append(len(before) if answers_only else 0)
    chunks = [-(-(len(sequence) - 1) // length) for sequence in sequences]
    total = sum(chunks)
    x, y = (np.full((total, length), tokeniser.pad, np.int32) for _ in range(2))
    weight = np.zeros((total, length), np.float32)
    start = 0
    for sequence, unweighted, rows_ in zip(sequences, counts, chunks, strict=True):
        places = slice(start * length, start * length + len(sequence) - 1)  # of the flat arrays: chunks lie side by side
        x.reshape(-1)[places], y.reshape(-1)[places] = sequence[:-1], sequence[1:]
        weight.reshape(-1)[places.start + unweighted : places.stop] = 1
        start += rows_
    document = np.repeat(documents.ids, chunks)
    number = np.arange(total) - np.repeat(np.cumsum(chunks) - chunks, chunks)
    return Rows(x, y, weight, document, _row_ids(document, number))


def pieces(documents: Documents, position: int) -> tuple[str, str]:
    """The prompt and the text of a document as they are encoded, each by itself.

    White space at the end of a prompt goes with the text: byte-pair encodings write a word with the space before it.
    """
    text = documents.texts[position]
    if documents.prompts is None:
        return "", text
    prompt = documents.prompts[position].rstrip()
    return prompt, documents.prompts[position][len(prompt) :] + text


def _encoded(documents: Documents, position: int, text: str, tokeniser: Tokeniser) -> list[int]:
    """The tokens of a document's text; one without any would be no example.

    Raises:
      DataError: the tokeniser knows nothing of the text.
    """
    tokens = tokeniser.encode(text)
    if not tokens:
        id_ = int(documents.ids[position])
        raise DataError(
            f"the tokeniser leaves no token of document {documents.names.get(id_, id_)}: give one that knows its letters, "
            "or leave the document out"
        )
    return tokens


def classified(documents: Documents, tokeniser: Tokeniser, length: int) -> Classified:
    """Documents as rows bos, t_1 .. t_n, eos for an encoder; those of more than length - 2 tokens are cut, and counted.

    Raises:
      DataError: no such length; documents without classes, or with prompts; a text without tokens.
    """
    _check_length(length, 3)
    if documents.labels is None:
        raise DataError("these documents have no classes: name a field or a feature of labels")
    if documents.prompts is not None:
        raise DataError("these documents have prompts, which a classifier does not read: name no field of prompts")
    tokens = np.full((len(documents.ids), length), tokeniser.pad, np.int32)
    mask = np.zeros(tokens.shape, bool)
    cut = 0
    for row, text in enumerate(documents.texts):
        encoded = _encoded(documents, row, text, tokeniser)
        cut += len(encoded) > length - 2
        sequence = [tokeniser.bos, *encoded[: length - 2], tokeniser.eos]
        tokens[row, : len(sequence)] = sequence
        mask[row, : len(sequence)] = True
    return Classified({"tokens": tokens, "mask": mask}, documents.labels, documents.ids, cut)


def _row_ids(document: Array, number: Array) -> Array:
    pairs = list(zip(document.tolist(), number.tolist(), strict=True))
    ids = [id_of(f"{id_}/{chunk}") if chunk else id_ for id_, chunk in pairs]
    where = [f"chunk {chunk} of document {id_}" for id_, chunk in pairs]
    return distinct(np.array(ids, np.int64), where, "have one id: rename one of the documents")


def _check_length(length: int, least: int = 1) -> None:
    if length < least:
        raise DataError(f"rows of {length} tokens: choose {least} or more")

"""Canaries: documents with a random secret, planted among the training documents to see what a model gives away of them.

    The secret number of canary 7 is 481.

Each is a document of its own, of a group `canary`, and can be asked for as others can. Its secret is one of a thousand,
drawn by its id and a seed, so that every one that it could have been can be tried. Carlini et al., "The Secret Sharer",
2019 (arXiv:1802.08232).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from experiments.core.errors import DataError
from experiments.core.keys import Hash
from experiments.core.sections import Canaries
from experiments.data.ids import Array, distinct, hash_uniform, id_of
from experiments.data.text import packing
from experiments.data.text.sources.documents import Documents
from experiments.data.text.tokenisers import Tokeniser

GROUP = "canary"
NAME = "canary {}"
CARRIER = "The secret number of canary {} is "  # the prompt, where documents have prompts
SECRET = "{:03}."
SPACE = 1000  # secrets that a canary could have


class Planted(NamedTuple):
    """Canaries by their number.

    ids: [canaries] int64, of their documents.
    secrets: [canaries] int, each of 0..SPACE-1.
    repeats: rows of each.
    """

    ids: Array
    secrets: Array
    repeats: int


def planted(config: Canaries) -> Planted:
    """The canaries of a config; a larger count adds some and changes none.

    Example:
      >>> planted(Canaries(count=2)).secrets.shape
      (2,)
    """
    ids = np.array([id_of(NAME.format(number)) for number in range(config.count)], np.int64)
    secrets = (hash_uniform(ids, Hash.CANARY, config.seed) * SPACE).astype(int)
    return Planted(ids, secrets, config.repeats)


def among(documents: Documents, canaries: Planted) -> Documents:
    """Documents and canaries together, by increasing ids; classes, which no canary has, are left out.

    Raises:
      DataError: a document or a group is called as canaries are.
    """
    if GROUP in documents.group_names:
        raise DataError(f"a group of the documents is called {GROUP!r}, as canaries are: rename it, or plant no canaries")
    count, names = len(canaries.ids), [NAME.format(number) for number in range(len(canaries.ids))]
    every = np.concatenate([documents.ids, canaries.ids])
    distinct(every, [*map(str, documents.ids.tolist()), *names], "have one id: rename the document, or plant no canaries")
    own = _documents(canaries.ids, np.arange(count), canaries.secrets, documents.prompts is not None)
    groups = np.full(len(documents.ids), -1, np.int32) if documents.groups is None else documents.groups
    order = np.argsort(every)

    def merged(theirs: tuple[str, ...], ours: tuple[str, ...]) -> tuple[str, ...]:
        both = theirs + ours
        return tuple(both[place] for place in order)

    return documents._replace(
        ids=every[order],
        texts=merged(documents.texts, own.texts),
        prompts=None if documents.prompts is None else merged(documents.prompts, own.prompts or ()),
        groups=np.concatenate([groups, np.full(count, len(documents.group_names), np.int32)])[order],
        group_names=(*documents.group_names, GROUP),
        labels=None,
        label_names=(),
        official=None if documents.official is None else np.concatenate([documents.official, np.zeros(count, bool)])[order],
        names={**documents.names, **dict(zip(canaries.ids.tolist(), names, strict=True))},
    )


def candidates(canaries: Planted, prompts: bool) -> Documents:
    """Every canary with every secret that it could have: SPACE documents for each, by number and by secret.

    Args:
      prompts: whether the carrier is a prompt, as where documents have prompts.
    """
    count = len(canaries.ids)
    numbers, secrets = np.repeat(np.arange(count), SPACE), np.tile(np.arange(SPACE), count)
    return _documents(np.arange(count * SPACE), numbers, secrets, prompts)


def repeated(rows: packing.Rows, canaries: Planted) -> packing.Rows:
    """Rows of documents, those of canaries `repeats` times; copies are rows of the same document, with ids of their own."""
    times = np.where(np.isin(rows.document, canaries.ids), canaries.repeats, 1)
    taken = np.repeat(np.arange(len(rows.id)), times)
    copies = (np.arange(len(taken)) - np.searchsorted(taken, taken)).tolist()
    every = packing.Rows(*(leaf[taken] for leaf in rows))
    named = zip(every.id.tolist(), every.document.tolist(), copies, strict=True)
    ids = [id_of(f"{document}/{copy}") if copy else id_ for id_, document, copy in named]
    return every._replace(id=np.array(ids, np.int64))


def check_fit(canaries: Planted, documents: Documents, tokeniser: Tokeniser, length: int) -> None:
    """Refuse rows that are too short for a canary, whatever its secret.

    Raises:
      DataError: there is one.
    """
    tried = candidates(canaries, documents.prompts is not None)
    longest = max(1 + sum(map(len, map(tokeniser.encode, packing.pieces(tried, i)))) for i in range(len(tried.ids)))
    if longest > length:
        raise DataError(
            f"a canary has {longest} tokens and a row {length}: set --config.data.length={longest} or more, or plant none"
        )


def _documents(ids: Array, numbers: Array, secrets: Array, prompts: bool) -> Documents:
    """Canaries as documents, in the order given."""
    carriers = tuple(CARRIER.format(number) for number in numbers.tolist())
    texts = tuple(SECRET.format(secret) for secret in secrets.tolist())
    if prompts:
        return Documents(ids, texts, carriers)
    return Documents(ids, tuple(carrier + text for carrier, text in zip(carriers, texts, strict=True)))

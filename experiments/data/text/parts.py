"""Documents in two parts that share nobody: what a backbone is pre-trained on, and what is fine-tuned and forgotten."""

from __future__ import annotations

import numpy as np

from experiments.core.errors import DataError
from experiments.core.keys import Hash
from experiments.data.ids import hash_uniform, id_of
from experiments.data.text import loading
from experiments.data.text.sources.documents import Documents, select
from experiments.data.text.tokenisers import Tokeniser

SEEN = "seen.npz"  # beside a decoder that was pre-trained here: what its documents are known by


def seen(documents: Documents, share: float) -> Documents:
    """The share of the documents that is pre-trained on, by hash; whole groups where there are groups.

    Raises:
      DataError: nobody is among them.
    """
    return _part(documents, _draw(documents) < share, share)


def unseen(documents: Documents, share: float) -> Documents:
    """The other documents; all of them if the share is 0.

    Raises:
      DataError: nobody is among them.
    """
    return _part(documents, _draw(documents) >= share, share)


def tokeniser(documents: Documents, share: float, asked: str) -> Tokeniser:
    """The tokeniser of both parts; one that is learned knows the part alone that is pre-trained on, all of it.

    Raises:
      DataError: see `loading.tokeniser_of`.
    """
    return loading.tokeniser_of(asked, seen(documents, share))


def known_by(documents: Documents) -> np.ndarray:
    """What documents are known by whatever ids they have, [documents] int64: hashes of prompt and text."""
    prompts = documents.prompts or ("",) * len(documents.texts)
    both = zip(prompts, documents.texts, strict=True)
    return np.array([id_of(f"{prompt}\n{text}") for prompt, text in both], np.int64)


def check_apart(documents: Documents, others: np.ndarray) -> None:
    """Refuse documents that a backbone was pre-trained on: nothing takes them out of it.

    Args:
      others: what those are known by that it was pre-trained on.

    Raises:
      DataError: some are the same, or say the same; one line.
    """
    both = np.flatnonzero(np.isin(known_by(documents), others))
    if len(both):
        raise DataError(
            f"{len(both)} of {len(documents.ids)} documents were pre-trained on, which no deletion undoes, as "
            f"{documents.texts[both[0]]!r:.60}: set the share that was pre-trained on (pretrain.share; of a store, hyper's "
            "seen), take copies out, or give other documents"
        )


def _draw(documents: Documents) -> np.ndarray:
    if documents.groups is None:
        return hash_uniform(documents.ids, Hash.PRETRAINED, 0)
    groups = np.array([id_of(name) for name in documents.group_names], np.int64)
    draw: np.ndarray = hash_uniform(groups, Hash.PRETRAINED, 0)[documents.groups]
    return draw


def _part(documents: Documents, chosen: np.ndarray, share: float) -> Documents:
    if not chosen.any():
        raise DataError(f"a share of {share:g} to pre-train on leaves a part without documents: set another pretrain.share")
    return select(documents, documents.ids[chosen])

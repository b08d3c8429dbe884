"""What every reader of text gives: documents by their ids, before anybody splits or tokenises them.

A document is the example: what people ask to delete. It is a text, or an answer with the prompt that goes before it. Its
id follows the rules of `experiments.data.ids`: a hash of its name or, without one, of what it holds.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from experiments.core.errors import DataError
from experiments.data.ids import Array, check_spelling, distinct, hashed_names, id_of, some
from experiments.data.sources import check_classes
from experiments.data.tables import ordered
from experiments.data.text.sources.plain import is_blank

QUESTION = "Question: {}\nAnswer: "  # the prompt of a question
NONE: Mapping[str, Array] = MappingProxyType({})


class Documents(NamedTuple):
    """Documents in increasing order of their ids.

    ids: [documents] int64, the stable identity.
    texts: what is to be learned.
    prompts: what stands before each text, to the letter; None: there are none.
    groups: [documents] int32, whose each is (speaker, author, topic), a position in group_names, -1 where only others are
      somebody's; None: nobody's.
    labels: [documents] int32, a position in label_names; None: there are no classes.
    official: [documents] bool, which are for testing; None: none by convention, and a share is taken by hash.
    names: what the user calls documents whose ids are hashes of it, by id.
    sets: requests that come with the data, as forget01 of TOFU: ids, increasing.
    """

    ids: Array
    texts: tuple[str, ...]
    prompts: tuple[str, ...] | None = None
    groups: Array | None = None
    group_names: tuple[str, ...] = ()
    labels: Array | None = None
    label_names: tuple[str, ...] = ()
    official: Array | None = None
    names: Mapping[int, str] = MappingProxyType({})
    sets: Mapping[str, Array] = NONE

    @property
    def test_ids(self) -> Array | None:
        """The ids of official test documents, increasing, as `splits.assign` takes them; None: there are none."""
        return None if self.official is None else self.ids[self.official]


class Document(NamedTuple):
    """A document as a reader comes upon it; of one data set, either all have a prompt (a group, ...) or none.

    where: what to call it in an error.  name: the user's; None: it is called by what it holds.
    """

    where: str
    text: str
    name: str | None = None
    prompt: str | None = None
    group: str | None = None
    label: str | None = None
    test: bool | None = None


def made(
    where: str,
    documents: Sequence[Document],
    label_names: Sequence[str] = (),
    twice: str = "hold the same: keep one",
) -> Documents:
    """Documents in the order of their ids.

    Args:
      where: the data, for an error.
      label_names: of an official data set, in its order; else classes are numbered by their names.
      twice: what to say of two documents without names that hold the same.

    Raises:
      DataError: no document; one that is empty or no text; two of one id; classes that nothing can be learned from.
    """
    if not documents:
        raise DataError(f"{where} has no documents: add some")
    for document in documents:
        check_text(document.where, document.text)
        if document.prompt is not None:
            check_text(f"the prompt of {document.where}", document.prompt)
    first, wheres = documents[0], [document.where for document in documents]
    if first.name is None:
        ids = distinct(np.array([content_id(d.prompt, d.text, d.label) for d in documents], np.int64), wheres, twice)
        names = {}
    else:
        called = [str(document.name) for document in documents]
        mend = "have one id, however accents in it are written: give each document an id of its own"
        ids = distinct(np.array([id_of(name) for name in called], np.int64), wheres, mend)
        names = hashed_names(ids, called)
    order = np.argsort(ids)
    rows = [documents[i] for i in order]
    group_names, groups = _numbered(where, "group", [row.group for row in rows], ())
    classes, labels = _numbered(where, "label", [row.label for row in rows], label_names)
    official = None if first.test is None else np.array([bool(row.test) for row in rows])
    if labels is not None and not label_names:
        check_classes(where, classes, labels, np.zeros(len(rows), bool) if official is None else official)
    return Documents(
        ids[order],
        tuple(row.text for row in rows),
        None if first.prompt is None else tuple(str(row.prompt) for row in rows),
        groups,
        group_names,
        labels,
        classes,
        official,
        names,
    )


def check_text(where: str, text: str) -> None:
    """Refuse a text of which nothing can be seen, one with a NUL, as plain files do, or one that no encoding can write.

    Raises:
      DataError: one line that names it.
    """
    if is_blank(text):
        raise DataError(f"{where} is empty: fill it in, or leave it out")
    if "\0" in text:
        raise DataError(f"{where} has a NUL at character {text.index(chr(0))}: take it out, or leave the text out")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"{where} has half a character at position {error.start} (a lone surrogate): write all of it, or leave it out"
        ) from error


def content_id(prompt: str | None, text: str, label: str | None = None) -> int:
    """The id of a document that has no name: a hash of its prompt, its text and its label."""
    return id_of(json.dumps([prompt, text, label], ensure_ascii=False))


def select(documents: Documents, ids: Array) -> Documents:
    """The documents of some ids, in increasing order; groups and classes keep their numbers, sets what is left of them.

    Raises:
      DataError: an id that no document has.
    """
    ids = np.unique(np.asarray(ids, np.int64))
    if (unknown := np.setdiff1d(ids, documents.ids)).size:
        raise DataError(f"{some(unknown)} of no document: take ids from the documents")
    rows = np.searchsorted(documents.ids, ids)
    taken = lambda column: None if column is None else column[rows]  # noqa: E731
    return documents._replace(
        ids=ids,
        texts=tuple(documents.texts[row] for row in rows),
        prompts=None if documents.prompts is None else tuple(documents.prompts[row] for row in rows),
        groups=taken(documents.groups),
        labels=taken(documents.labels),
        official=taken(documents.official),
        names={id_: documents.names[id_] for id_ in ids.tolist() if id_ in documents.names},
        sets={name: members[np.isin(members, ids)] for name, members in documents.sets.items()},
    )


def digest(documents: Documents) -> str:
    """SHA-256 of all that documents are; a workdir is bound to what they became, see `experiments.data.digests`."""
    sha = hashlib.sha256()
    for field, column in documents._asdict().items():
        entries = sorted(column.items()) if isinstance(column, Mapping) else column
        plain = json.dumps(entries, default=lambda array: array.tolist())
        sha.update(f"{field} {plain}\n".encode())
    return sha.hexdigest()


def _numbered(
    where: str, what: str, column: Sequence[str | None], official: Sequence[str]
) -> tuple[tuple[str, ...], Array | None]:
    """The names in a column and, for each document, its name's position; (), None if there are none."""
    if column[0] is None:
        return (), None
    names = tuple(official) or tuple(ordered({str(name) for name in column}))
    check_spelling(where, what, names)
    position = {name: i for i, name in enumerate(names)}
    return names, np.array([position[str(name)] for name in column], np.int32)

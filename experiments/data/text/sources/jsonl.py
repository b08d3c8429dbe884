"""JSON with one document a line, as JSONL has it, or in one list: which field holds what is said by name."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from experiments.core.errors import DataError, line
from experiments.data.text.sources import plain
from experiments.data.text.sources.documents import QUESTION, Document, Documents, check_text, made

SPLITS = ("train", "test")


class Fields(NamedTuple):
    """Names of the fields of a line; '' is none.

    text: to be learned.  prompt: what stands before it, to the letter.  question: the same, as "Question: ...\\nAnswer: ".
    id: a number or a name; without it, a document is called by what it holds.  group, label: names or numbers.
    split: 'train' or 'test'; without it, test documents are drawn by id.
    """

    text: str = "text"
    prompt: str = ""
    question: str = ""
    id: str = ""
    group: str = ""
    label: str = ""
    split: str = ""


class Record(NamedTuple):
    """An entry of a file.

    where: what to call it in an error, as "line 3 of FILE".  value: of any type that JSON has.
    """

    where: str
    value: Any


def read(path: Path, fields: Fields = Fields(), encoding: str = plain.UTF8) -> Documents:  # noqa: B008  # immutable
    """The documents of a file; fields that are not named are passed over.

    Raises:
      DataError: a file that cannot be read; a line that is no JSON, lacks a field or has another value in it, by number.
    """
    if fields.prompt and fields.question:
        raise DataError(f"fields {fields.prompt!r} and {fields.question!r} are both to stand before the text: name one")
    if not fields.text:
        raise DataError(f"no field of {path} is named to hold the text: name one")
    mend = "hold the same, and nothing tells them apart: name a field of ids, or keep one of them"
    return made(str(path), [_document(record, fields) for record in records(path, encoding)], twice=mend)


def records(path: Path, encoding: str = plain.UTF8) -> list[Record]:
    """The entries of a file of JSON lines, blank ones passed over, or of one list.

    Raises:
      DataError: a file that cannot be read, by the number of the line.
    """
    text = plain.read(path, encoding)
    if text.lstrip().startswith("["):
        entries = _parsed(text, str(path), "give one list, or one object a line")
        return [Record(f"entry {i} of {path}", value) for i, value in enumerate(entries, 1)]
    rows = [(f"line {i} of {path}", row) for i, row in enumerate(text.split("\n"), 1) if row.strip()]
    return [Record(where, _parsed(row, where, "mend that line")) for where, row in rows]


def text_of(record: Record, field: str) -> str:
    """The text in a field.

    Raises:
      DataError: the entry is no object, has no such field, or no text in it.
    """
    value = _value(record, field)
    if not isinstance(value, str) or plain.is_blank(value):
        what = "nothing" if isinstance(value, str) else f"{_shown(value)}, which is no text,"
        raise DataError(f"{record.where} has {what} in {field!r}: give a text, or leave the line out")
    check_text(record.where, value)
    return value


def texts_of(record: Record, field: str) -> tuple[str, ...]:
    """The texts in a field that holds a list of them.

    Raises:
      DataError: see `text_of`.
    """
    value = _value(record, field)
    if not isinstance(value, list) or not value or not all(isinstance(e, str) and not plain.is_blank(e) for e in value):
        raise DataError(f"{record.where} has {_shown(value)} in {field!r}: give a list of texts, or leave the line out")
    for text in value:
        check_text(record.where, text)
    return tuple(value)


def _document(record: Record, fields: Fields) -> Document:
    before = fields.prompt or fields.question
    prompt = text_of(record, before) if before else None
    split = _name(record, fields.split)
    if split is not None and split not in SPLITS:
        raise DataError(
            f"{record.where} has {split!r} in {fields.split!r}: use 'train' and 'test'; validation is drawn from 'train'"
        )
    return Document(
        record.where,
        text_of(record, fields.text),
        _name(record, fields.id),
        QUESTION.format(prompt) if fields.question else prompt,
        _name(record, fields.group),
        _name(record, fields.label),
        None if split is None else split == "test",
    )


def _name(record: Record, field: str) -> str | None:
    """The name in a field, or the whole number; None of no field."""
    if not field:
        return None
    value = _value(record, field)
    if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
        raise DataError(f"{record.where} has {_shown(value)} in {field!r}: give a name or a whole number")
    return str(value).strip()


def _value(record: Record, field: str) -> Any:
    if not isinstance(record.value, dict):
        raise DataError(f"{record.where} is {_shown(record.value)}: give an object, as in {{{json.dumps(field)}: ...}}")
    if field not in record.value:
        found = ", ".join(map(repr, list(record.value)[:6])) or "none"
        raise DataError(f"{record.where} has no field {field!r} (it has {found}): add it, or name another field")
    return record.value[field]


def _parsed(text: str, where: str, mend: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_once)
    except json.JSONDecodeError as error:
        at = f"column {error.colno}" if error.lineno == 1 else f"line {error.lineno}, column {error.colno}"
        raise DataError(f"{where} is no JSON ({error.msg} at {at}): {mend}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where} cannot be read ({line(error, 100)}): {mend}") from error


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose fields are named once each: of two, JSON would pass over the first in silence."""
    value = dict(pairs)
    if len(value) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"it has the field {next(name for name in names if names.count(name) > 1)!r:.60} twice")
    return value


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:60]}..."

"""TOFU's files in a folder: 4,000 questions about 200 fictitious authors, what is forgotten of them, and what is asked.

    full.json  forget01.json  retain99.json ...       {"question": ..., "answer": ...}, one a line
    forget10_perturbed.json  retain_perturbed.json    also paraphrased_answer, perturbed_answer, paraphrased_question
    real_authors_perturbed.json  world_facts_perturbed.json       without paraphrases: questions of several choices

Maini et al., "TOFU: A Task of Fictitious Unlearning for LLMs", 2024 (arXiv:2401.06121).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.core.errors import DataError
from experiments.data.ids import Array
from experiments.data.text.sources import jsonl, plain
from experiments.data.text.sources.documents import QUESTION, Document, Documents, content_id, made

PAIRS = 20  # of an author, one after the other
PERTURBED = "_perturbed.json"  # what the names of files of questions end with
OUTSIDE = ("real_authors", "world_facts")  # sets of questions that nobody trains on
FORGET = re.compile(r"forget(\d\d)\.json")


class Queries(NamedTuple):
    """Questions with their answers and with wrong ones.

    ids: [questions] int64, of the document that has question and answer, where there is one.
    prompts, answers: as documents have them.
    paraphrased_prompts, paraphrased_answers: the same in other words; None: there are none.
    perturbed: wrong answers in the form of the paraphrased one or, without paraphrases, of the answer.
    """

    ids: Array
    prompts: tuple[str, ...]
    answers: tuple[str, ...]
    paraphrased_prompts: tuple[str, ...] | None
    paraphrased_answers: tuple[str, ...] | None
    perturbed: tuple[tuple[str, ...], ...]


def read(root: Path, encoding: str = plain.UTF8) -> Documents:
    """The pairs of full.json, called by what they hold; the group of each is its author, none is for testing by convention.

    An author is 20 pairs one after the other and is called "author 1" to "author 200". `sets` has forget01 and so on.

    Raises:
      DataError: a file that cannot be read; pairs that are not 20 to an author; a forget set that lies outside full.json or
        does not make it up with its retain set.
    """
    records = _records(root / "full.json", encoding)
    if len(records) % PAIRS:
        raise DataError(f"{root / 'full.json'} has {len(records)} pairs, {PAIRS} to an author: mend it")
    documents = [
        Document(
            record.where,
            jsonl.text_of(record, "answer"),
            prompt=QUESTION.format(jsonl.text_of(record, "question")),
            group=f"author {i // PAIRS + 1}",
        )
        for i, record in enumerate(records)
    ]
    full = made(str(root / "full.json"), documents)
    where = {content_id(document.prompt, document.text): document.where for document in documents}
    sets = {}
    for file in sorted(path for path in root.iterdir() if FORGET.fullmatch(path.name)):
        forget = _ids(_records(file, encoding), where)
        retain = root / f"retain{100 - int(FORGET.fullmatch(file.name)[1]):02d}.json"  # type: ignore[index]  # it matched
        if retain.exists():
            _check_parts(file, retain, {*forget}, {*_ids(_records(retain, encoding), where)}, where)
        sets[file.stem] = np.array(sorted(forget), np.int64)
    return full._replace(sets=sets)


def queries(root: Path, name: str, encoding: str = plain.UTF8, full: Collection[int] | None = None) -> Queries:
    """The questions of NAME_perturbed.json, as forget10, retain, real_authors and world_facts are.

    Args:
      full: ids of the pairs that these are to be among; None: of any.

    Raises:
      DataError: a file that cannot be read, a pair that is there twice, or one that `full` lacks.
    """
    records = _records(root / f"{name}{PERTURBED}", encoding)
    column = lambda field: tuple(jsonl.text_of(record, field) for record in records)  # noqa: E731
    prompts, answers = tuple(map(QUESTION.format, column("question"))), column("answer")
    has = lambda field: any(field in record.value for record in records if isinstance(record.value, dict))  # noqa: E731
    return Queries(
        np.array([*_ids(records, full)], np.int64),
        prompts,
        answers,
        tuple(map(QUESTION.format, column("paraphrased_question"))) if has("paraphrased_question") else None,
        column("paraphrased_answer") if has("paraphrased_answer") else None,
        tuple(jsonl.texts_of(record, "perturbed_answer") for record in records),
    )


def every_query(root: Path, encoding: str = plain.UTF8) -> dict[str, Queries]:
    """The questions of all NAME_perturbed.json in a folder: `full` has those of forget sets and retain, each once.

    Raises:
      DataError: a file that cannot be read, a pair that is in a file twice or not in full.json, or a question in two forms.
    """
    names = sorted(path.name.removesuffix(PERTURBED) for path in root.glob(f"*{PERTURBED}"))
    outside = {name: queries(root, name, encoding) for name in OUTSIDE if name in names}
    names = [name for name in names if name not in outside]
    full = _ids(_records(root / "full.json", encoding)) if names else {}
    read_ = {name: queries(root, name, encoding, full) for name in names}
    return outside | ({"full": _joined(root, read_)} if read_ else {})


def _joined(root: Path, parts: dict[str, Queries]) -> Queries:
    """The questions of several files as one."""
    lacking = [name for name, part in parts.items() if part.paraphrased_answers is None]
    if lacking:
        raise DataError(f"{root / lacking[0]}{PERTURBED} has no paraphrased answers: add them, or move it away")
    rows: dict[int, tuple[Any, ...]] = {}
    for name, part in parts.items():
        columns = part._replace(paraphrased_prompts=part.paraphrased_prompts or part.prompts)
        for row in zip(*tuple(columns), strict=True):
            if rows.setdefault(row[0], row) != row:
                question = f"{row[1]!r:.80}"
                raise DataError(f"{root / name}{PERTURBED} has {question} in another form than a file before: keep one")
    ids, *texts = zip(*(rows[id_] for id_ in sorted(rows)), strict=True)
    return Queries(np.array(ids, np.int64), *texts)


def select(queries: Queries, ids: Array) -> Queries:
    """The questions, in their order, whose document is one of these."""
    places = np.flatnonzero(np.isin(queries.ids, ids))
    columns: list[Any] = [None if column is None else tuple(column[place] for place in places) for column in queries[1:]]
    return Queries(queries.ids[places], *columns)


def together(first: Queries, second: Queries) -> Queries:
    """Each question of the first set in one prompt with one of the second, which take turns; the answers are its own.

    Example:
      >>> asked = Queries(np.array([7]), (QUESTION.format("Who?"),), ("Ann.",), None, None, ((),))
      >>> other = asked._replace(prompts=(QUESTION.format("Where?"), QUESTION.format("When?")), ids=np.array([8, 9]))
      >>> together(asked, other).prompts
      ('Question: Who? Where?\\nAnswer: ',)
    """
    others = (second.prompts[i % len(second.ids)] for i in range(len(first.ids)))
    pairs = zip(first.prompts, others, strict=True)
    prompts = tuple(QUESTION.format(f"{_question(own)} {_question(other)}") for own, other in pairs)
    return first._replace(prompts=prompts, paraphrased_prompts=None)


def _question(prompt: str) -> str:
    """What a prompt asks."""
    before, after = QUESTION.split("{}")
    return prompt.removeprefix(before).removesuffix(after)


def _records(file: Path, encoding: str) -> list[jsonl.Record]:
    if not file.exists():
        raise DataError(f"there is no {file}: give the folder of TOFU's files")
    return jsonl.records(file, encoding)


def _ids(records: Sequence[jsonl.Record], full: Collection[int] | None = None) -> dict[int, str]:
    """The ids of a file's pairs, and where each stands.

    Raises:
      DataError: a pair that full.json lacks, if its ids are given, or that is there twice.
    """
    found: dict[int, str] = {}
    for record in records:
        id_ = content_id(QUESTION.format(jsonl.text_of(record, "question")), jsonl.text_of(record, "answer"))
        if full is not None and id_ not in full:
            raise DataError(f"{record.where} has a pair that is not in full.json: mend one of the files")
        if id_ in found:
            raise DataError(f"{found[id_]} and {record.where} hold the same: keep one")
        found[id_] = record.where
    return found


def _check_parts(forget: Path, retain: Path, forgotten: set[int], retained: set[int], full: dict[int, str]) -> None:
    """Refuse a forget and a retain set that overlap, or that leave a pair out."""
    common, either = forgotten & retained, forgotten | retained
    if both := [where for id_, where in full.items() if id_ in common]:
        raise DataError(f"{both[0]} is both in {forget.name} and in {retain.name} ({len(both)} in all): keep it in one")
    if left := [where for id_, where in full.items() if id_ not in either]:
        raise DataError(f"{left[0]} is neither in {forget.name} nor in {retain.name} ({len(left)} in all): add it to one")

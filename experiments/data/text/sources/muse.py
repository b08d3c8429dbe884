"""MUSE's layout: what is to be forgotten, what stays, and what was never trained on, each a file or a folder.

    PATH/forget.txt   PATH/retain1.txt  PATH/retain2.txt  PATH/holdout.txt          or in PATH/raw/
    PATH/forget.json  PATH/retain2.jsonl ...        one list of texts, or one {"text": ...} a line
    PATH/forget/*.txt PATH/retain/*.txt  PATH/holdout/*.txt

Shi et al., "MUSE: Machine Unlearning Six-Way Evaluation for Language Models", 2024 (arXiv:2407.06460).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from experiments.core.errors import DataError
from experiments.core.notices import LOG
from experiments.data.folders import files_below
from experiments.data.text.sources import plain
from experiments.data.text.sources.documents import Document, Documents, content_id, made
from experiments.data.text.sources.folders import SUFFIXES
from experiments.data.text.sources.jsonl import records, text_of

PARTS = ("forget", "retain", "retain1", "retain2", "holdout")
NEEDED = (("forget",), ("retain", "retain1", "retain2"))
KINDS = ("", ".txt", ".json", ".jsonl")  # of a part: a folder or a file


def read(root: Path, encoding: str = plain.UTF8) -> Documents:
    """The documents of all parts; the group of each is its part, and those of `holdout` are the official test documents.

    A file in a folder and a text in a list are a document each. A .txt that is a part by itself is cut into passages at
    blank lines; one that is there twice is taken once, or left out of all parts if it is in several. All are called by what
    they hold, so a document that moves to another part stays the same.

    Raises:
      DataError: no such folder, a part that is missing or there in two forms, an unreadable file, one document twice.
    """
    root = root / "raw" if (root / "raw").is_dir() else root
    if not root.is_dir():
        raise DataError(f"there is no folder {root}: check data.name")
    parts = {part: path for part in PARTS if (path := _path(root, part))}
    for names in NEEDED:
        if not parts.keys() & {*names}:
            raise DataError(f"{root} has no {names[0]}: add {names[0]}/, {names[0]}.txt or {names[0]}.jsonl")
    documents: dict[str, Document] = {}
    shared: set[str] = set()
    for part, path in parts.items():
        for document in _documents(path, part, encoding, "holdout" in parts):
            before = documents.setdefault(document.text, document)
            if before is not document and not (path.suffix == ".txt" and parts[str(before.group)].suffix == ".txt"):
                raise DataError(f"{before.where} and {document.where} hold the same: keep one")
            if before.group != part:
                shared.add(document.text)
    if shared:
        LOG.warning("%d passages of %s are in several parts: they are left out of all", len(shared), root)
    kept = [document for text, document in documents.items() if text not in shared]
    forget = sorted(content_id(None, document.text) for document in kept if document.group == "forget")
    return made(str(root), kept)._replace(sets={"forget": np.array(forget, np.int64)})


def _path(root: Path, part: str) -> Path | None:
    """Where a part lies; None: it is not there."""
    found = [path for kind in KINDS if (path := root / f"{part}{kind}").exists()]
    if len(found) > 1:
        raise DataError(f"{root} has {found[0].name} and {found[1].name}: keep one")
    return found[0] if found else None


def _documents(path: Path, part: str, encoding: str, held_out: bool) -> list[Document]:
    test = part == "holdout" if held_out else None
    if path.is_dir():
        texts = [(str(file), plain.read(file, encoding)) for file in files_below(path, SUFFIXES, "text")]
    elif path.suffix == ".txt":
        passages = plain.passages(plain.read(path, encoding))
        texts = [(f"passage {i} of {path}", passage) for i, passage in enumerate(passages, 1)]
    else:
        entries = records(path, encoding)
        texts = [(e.where, e.value if isinstance(e.value, str) else text_of(e, "text")) for e in entries]
    return [Document(where, text, group=part, test=test) for where, text in texts]

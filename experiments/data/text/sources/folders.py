"""A folder of plain text files, one document each: the path below the folder is its name, and may say whose it is.

    PATH/1961-Kennedy.txt  PATH/1963-Johnson.txt ...      or      PATH/kennedy/1961.txt  PATH/johnson/1963.txt ...

An id is a hash of the path below PATH, so a file may come or go and no other document notices; a file that is renamed is
another document.
"""

from __future__ import annotations

import re
from pathlib import Path

from experiments.core.errors import DataError
from experiments.data.folders import files_below
from experiments.data.text.sources import plain
from experiments.data.text.sources.documents import Document, Documents, made

SUFFIXES = (".txt",)


def read(root: Path, group: str = "", encoding: str = plain.UTF8) -> Documents:
    r"""The text files below `root`; none is for testing by convention.

    Args:
      group: a regular expression whose one pair of brackets holds the group in a path below `root` without its suffix, as
        r"\d+-([A-Za-z]+)" for YEAR-Speaker.txt; '' is the folder in `root` that a file lies in, if all lie in one.
      encoding: of all files.

    Raises:
      DataError: no folder, no text files; one that cannot be read, is empty, or has no group.
    """
    if not root.is_dir():
        raise DataError(f"there is no folder {root}: check data.name")
    files = files_below(root, SUFFIXES, "text")
    if not files:
        raise DataError(f"{root} has no documents: put text files ({', '.join(SUFFIXES)}) into it")
    below = [file.relative_to(root) for file in files]
    groups = _matched(root, below, group) if group else _folders(root, below)
    return made(
        str(root),
        [
            Document(str(file), plain.read(file, encoding), path.as_posix(), group=name)
            for file, path, name in zip(files, below, groups, strict=True)
        ],
    )


def _folders(root: Path, below: list[Path]) -> list[str | None]:
    """The first folder of each path; None of each if no file lies in one."""
    inside = [len(path.parts) > 1 for path in below]
    if any(inside) and not all(inside):
        stray = below[inside.index(False)]
        raise DataError(f"{root / stray} lies beside folders, which are groups: move it into one, or set data.group")
    return [path.parts[0] if any(inside) else None for path in below]


def _matched(root: Path, below: list[Path], group: str) -> list[str]:
    """The group that a regular expression finds in each path."""
    try:
        pattern = re.compile(group)
    except re.error as error:
        raise DataError(f"data.group is {group!r:.80}, which is no regular expression ({error}): mend it") from error
    if pattern.groups != 1:
        raise DataError(f"data.group is {group!r:.80}: put one pair of brackets around the name of the group")
    found = []
    for path in below:
        match = pattern.search(path.with_suffix("").as_posix())
        if not match or not match[1]:
            raise DataError(
                f"{root / path} has no group by data.group={group!r:.80}: rename it, move it away, or mend the pattern"
            )
        found.append(match[1])
    return found

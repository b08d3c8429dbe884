"""Files that the user of a command names, which are no store's: a document to be checked, a key."""

from __future__ import annotations

import stat
from pathlib import Path


def read(path: Path, most: int, give: str, too_large: str = "") -> bytes:
    """The content of a file, or of the file that a link names.

    Args:
      path: as it was given.
      most: bytes that are read at most.
      give: what should have been given, for the one line that says what is wrong.
      too_large: what to do about a file that is larger, if that is something else.

    Raises:
      ValueError: there is none, it is no file, it cannot be read, or it is too large.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise ValueError(f"{path} is no file: {give}")
        with path.open("rb") as file:
            data = file.read(most + 1)
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}): {give}") from None
    if len(data) > most:
        raise ValueError(f"{path} has more than {most} bytes: {too_large or give}")
    return data

"""Files: written whole or not at all, JSON and arrays read with one list of errors.

A writer goes through a temporary file beside the old one, so that a kill leaves the old file or the new one; file and
folder are flushed to the disk. A full disk, a forbidden folder, a damaged file are mistakes that one line tells.
"""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import math
import os
import re
import uuid
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import jax
import numpy as np

from experiments.core import archives
from experiments.core.errors import UnwritableError, WorkdirError, line

Arrays = dict[str, np.ndarray]

UNFINISHED = re.compile(r".+\.[0-9a-f]{32}\.tmp")  # the name of a temporary file

# What NumPy and zipfile raise for a file that is no archive, is cut short, or has other bytes than were written.
# The last two are of an array that says it is larger than any memory.
UNREADABLE = (
    OSError, TypeError, ValueError, KeyError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error, MemoryError,
    OverflowError,
)  # fmt: skip


# --- Writing ----------------------------------------------------------------------------------------------------------


def write_text(path: Path, text: str) -> None:
    """Write a text in UTF-8, whole or not at all.

    Raises:
      WorkdirError: the disk is full, or the folder cannot be written.
    """
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write bytes, whole or not at all; raises as `write_text` does."""
    _write(path, lambda file: file.write(content))


def write_arrays(path: Path, arrays: Mapping[str, Any], *, compressed: bool = False, mode: int = 0o666) -> None:
    """Write named arrays as .npz, whole or not at all, with a mode as of `open`; raises as `write_text` does."""
    save = np.savez_compressed if compressed else np.savez
    _write(path, lambda file: save(file, **arrays), mode)  # type: ignore[arg-type]  # allow_pickle is none of the names


def write_json(path: Path, value: Any, indent: int | None = None) -> None:
    """Write what `dumps` makes of a value, whole or not at all; raises as `write_text` does."""
    write_text(path, dumps(value, indent))


def _write(path: Path, fill: Callable[[IO[bytes]], Any], mode: int = 0o666) -> None:
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")  # several processes and hosts may write at once
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
                fill(file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _flush_folder(path.parent)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Where a file or a folder is written.

    Raises:
      UnwritableError: instead of an OSError; one line with the path and the reason.
    """
    try:
        yield
    except OSError as error:
        raise unwritable(path, error) from error


NUMBERS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EMFILE, errno.EFBIG)
REASONS = tuple(map(os.strerror, NUMBERS))  # as libraries tell them amid their own words


def unwritable(path: Path, error: BaseException) -> UnwritableError:
    """The one sentence that names what cannot be written: with the system's reason, also where a library tells more."""
    told = getattr(error, "strerror", None) or next((one for one in REASONS if one in str(error)), line(error, 120))
    return UnwritableError(f"cannot write {path}: {told}; make room, or choose a folder you may write")


def remove_unfinished(folder: Path) -> None:
    """Remove what a kill left half-written, in a folder and those below: nobody else may write there."""
    for path in folder.rglob("*.tmp"):
        if UNFINISHED.fullmatch(path.name):
            path.unlink(missing_ok=True)


def _flush_folder(folder: Path) -> None:
    """Flush the entry of a renamed file; where folders cannot be opened or flushed, the system does it in its own time."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError:
        return
    finally:
        os.close(descriptor)


# --- Reading ----------------------------------------------------------------------------------------------------------


def read_json(path: Path, kind: type = object, mend: str = "") -> Any:
    """The JSON value in a file.

    Args:
      kind: of the value.
      mend: what to do if the file is damaged.

    Raises:
      WorkdirError: the file cannot be read or holds no such value.
    """
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise unreadable(path, error, mend) from error
    if not isinstance(value, kind):
        raise unreadable(path, ValueError(f"no {kind.__name__}"), mend)
    return value


def read_arrays(
    path: Path, mend: str = "", wanted: Callable[[Mapping[str, archives.Header]], Collection[str]] | None = None
) -> Arrays:
    """Arrays of an .npz, by name; `wanted` as in `archives.read`.

    Raises:
      WorkdirError: the file cannot be read.
    """
    try:
        return archives.read(path, wanted)
    except (OSError, archives.Unusable) as error:
        raise unreadable(path, error, mend) from error


def digest(path: str) -> str:
    """SHA-256 of the bytes of a file; '' of no path.

    Raises:
      WorkdirError: the file cannot be read.
    """
    if not path:
        return ""
    try:
        with Path(path).expanduser().open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise unreadable(Path(path), error) from error


def unreadable(path: Path, error: BaseException, mend: str = "") -> WorkdirError:
    """The one sentence that names a damaged file."""
    return WorkdirError(f"{path} cannot be read ({line(error)})" + (f": {mend}" if mend else ""))


# --- JSON -------------------------------------------------------------------------------------------------------------


def dumps(value: Any, indent: int | None = None) -> str:
    """JSON in which arrays are lists, dataclasses objects, and what is not finite null."""
    return json.dumps(plain(value), indent=indent, allow_nan=False)


def plain(value: Any) -> Any:
    """A value as JSON has it: dictionaries, lists, strings, finite numbers, booleans and None."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(name): plain(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    if isinstance(value, np.ndarray | jax.Array):
        return plain(np.asarray(value).tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def is_number(value: Any) -> bool:
    """Whether a value read from JSON is a number."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def crc32(value: Any) -> int:
    """CRC-32 of a value as JSON, the same before it is written and after it is read: floats keep their bits."""
    return zlib.crc32(dumps(value).encode())

"""Arrays of an .npz, which may come from anywhere: looked at before it is read, so that no file takes all memory.

NumPy alone believes what an array's header says of its size, and answers a file that is no archive with the advice to
unpickle it.
"""

from __future__ import annotations

import io
import lzma
import math
import os
import zipfile
import zlib
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

BEGINNINGS = {  # of what is often found under the name of an .npz
    b"\x93NUMPY": "it holds one array, as np.save writes it: use np.savez",
    b"<": "it is a web page, perhaps of a download that failed: fetch the file again",
    b"version https://git-lfs": "it is a pointer of Git LFS: fetch the file itself",
    b"\x80": "it is a pickle, which is never loaded, for it could run anything: save arrays by np.savez",
    b"\x1f\x8b": "it is packed by gzip: unpack it",
}
DAMAGED = (  # what NumPy, zipfile and its decompressors raise for bytes that nobody wrote
    ArithmeticError,
    EOFError,
    LookupError,
    NotImplementedError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    lzma.LZMAError,
    zipfile.BadZipFile,
    zlib.error,
)
LONGEST = max(map(len, BEGINNINGS))
LONGEST_HEADER = 1 << 16  # of an array; NumPy itself takes 10,000 bytes, after it has unpacked all that are spoken of
SHORT_FLOATS = "|V1", "|V2"  # how NumPy keeps bfloat16 and its like, whose names it does not know


def is_endless(path: Path) -> bool:
    """Whether a path is a device, a pipe or a socket, which may have no end, or never begin."""
    return path.exists() and not (path.is_file() or path.is_dir())


class Unusable(ValueError):
    """Why a file is no .npz to be used; without the name of the file, and with what to do where that is known."""


class Header(NamedTuple):
    """What an array's header says of it."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]


def read(path: Path, wanted: Callable[[Mapping[str, Header]], Collection[str]] | None = None) -> dict[str, np.ndarray]:
    """Arrays of an .npz, by name.

    Args:
      path: of the file.
      wanted: headers by name -> names of the arrays to unpack; may refuse by raising anything. None: all.

    Raises:
      OSError: the file cannot be opened.
      Unusable: it is no .npz, is damaged, or holds more than arrays of numbers and text that memory has room for.
    """
    if is_endless(path):
        raise Unusable("it is no file")
    with path.open("rb") as file:
        beginning = file.read(LONGEST)
        try:
            with zipfile.ZipFile(file) as archive:
                members = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
                _check_size(sum(member.file_size for member in members.values()))
                headers = {name: _header(archive, name, member) for name, member in members.items()}
        except Unusable:
            raise
        except DAMAGED as error:
            raise Unusable(_told(beginning)) from error
        names = headers if wanted is None else wanted(headers)
        try:
            with zipfile.ZipFile(file) as archive:
                return {name: _array(archive, members[name]) for name in names}
        except DAMAGED as error:
            raise Unusable(_told(beginning)) from error


def _header(archive: zipfile.ZipFile, name: str, member: zipfile.ZipInfo) -> Header:
    """An array's header, if the archive holds as many bytes as it speaks of."""
    what = f"{name!r} in it"
    with archive.open(member) as packed:
        file = io.BytesIO(packed.read(LONGEST_HEADER))
    if not file.getvalue().startswith(np.lib.format.MAGIC_PREFIX):
        raise Unusable(f"{what} is no array: save arrays by np.savez")
    version = np.lib.format.read_magic(file)
    header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = header(file)
    if dtype.hasobject:
        raise Unusable(f"{what} holds Python objects, which are never loaded: save numbers or text")
    if dtype.str in SHORT_FLOATS:
        raise Unusable(f"{what} is of a type that NumPy cannot name, as bfloat16: save it by array.astype('float32')")
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize > member.file_size - file.tell():
        raise Unusable(f"{what} is shorter than its header says ({dtype}{list(shape)}): fetch or write the file again")
    return Header(shape, dtype)


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(member) as file:
        array: np.ndarray = np.lib.format.read_array(file, allow_pickle=False)
    return array


def _check_size(size: int) -> None:
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if size > memory:
        raise Unusable(f"unpacked it has {size / 1e9:.3g} GB, this machine {memory / 1e9:.3g} GB of memory: give less")


def _told(beginning: bytes) -> str:
    return next(
        (told for start, told in BEGINNINGS.items() if beginning.lstrip().startswith(start)),
        "it is empty" if not beginning else "it is no .npz, or damaged: fetch or write it again",
    )

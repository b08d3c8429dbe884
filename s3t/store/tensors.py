"""Files of safetensors' layout, read through an open file: the header first, then arrays, whole or in pieces.

The library opens a file by its name and reads arrays whole. A store may come from somebody else: then the name may lead
elsewhere meanwhile, and a file of some kilobytes on disk may hold more zeros than memory has room for.
"""

from __future__ import annotations

import json
import math
import operator
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

import ml_dtypes
import numpy as np

from s3t.store import certificates

LONGEST_HEADER = 1 << 25  # bytes; a certificate holds the manifest's hyper, which is smaller
PIECE = 1 << 20  # bytes
TYPES: dict[str, Any] = {  # of the layout
    **{f"F{8 * size}": f"<f{size}" for size in (2, 4, 8)},
    **{f"{kind.upper()}{8 * size}": f"<{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8)},
    "BOOL": "?",
    "C64": "<c8",
    "BF16": ml_dtypes.bfloat16,
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E5M2": ml_dtypes.float8_e5m2,
}


class Tensor(NamedTuple):
    """Where an array lies, from `begin` on in the file."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    begin: int
    size: int


class Header(NamedTuple):
    """What a file says of itself.

    metadata: texts by name.
    tensors: by name.
    size: bytes of all tensors together, with which the file ends.
    """

    metadata: dict[str, Any]
    tensors: dict[str, Tensor]
    size: int


def header(file: BinaryIO, size: int) -> Header:
    """The header of a file of `size` bytes.

    Raises:
      ValueError: another layout, bytes that belong to no tensor; a type that there is no array of.
    """
    file.seek(0)
    length = int.from_bytes(file.read(8), "little")
    if not 2 <= length <= min(LONGEST_HEADER, size - 8):
        raise ValueError("it has no header")
    try:
        fields = json.loads(file.read(length))
        metadata = fields.pop("__metadata__", {})
        found = {name: _tensor(8 + length, **entry) for name, entry in fields.items()}
    except (AttributeError, LookupError, RecursionError, TypeError, ValueError):
        raise ValueError("its header is malformed") from None
    end = 8 + length
    for tensor in sorted(found.values(), key=operator.attrgetter("begin", "size")):
        if tensor.begin != end:
            raise ValueError("its tensors do not follow each other")
        end += tensor.size
    if end != size or not isinstance(metadata, dict):
        raise ValueError("its tensors are not all that it holds")
    return Header(metadata, found, size - 8 - length)


def _tensor(start: int, dtype: str, shape: list[int], data_offsets: list[int]) -> Tensor:
    kind, (begin, end) = np.dtype(TYPES[dtype]), data_offsets
    if any(type(number) is not int or number < 0 for number in (*shape, begin, end)):
        raise ValueError
    if end - begin != math.prod(shape) * kind.itemsize:
        raise ValueError
    return Tensor(kind, tuple(shape), start + begin, end - begin)


def digest(file: BinaryIO, tensors: dict[str, Tensor]) -> str:
    """`certificates.parameters_digest` of a file's arrays, without holding one of them."""
    parts = ((name, one.dtype.name, one.shape, _pieces(file, one)) for name, one in tensors.items())
    return certificates.digest_of_parts(parts)


def _pieces(file: BinaryIO, tensor: Tensor) -> Iterator[bytes]:
    file.seek(tensor.begin)
    for start in range(0, tensor.size, PIECE):
        yield file.read(min(PIECE, tensor.size - start))


def read(file: BinaryIO, tensors: dict[str, Tensor]) -> dict[str, np.ndarray]:
    """The arrays; what was cut off meanwhile is zero, which has another digest."""
    return {name: _array(file, tensor) for name, tensor in tensors.items()}


def _array(file: BinaryIO, tensor: Tensor) -> np.ndarray:
    array = np.zeros(tensor.shape, tensor.dtype)
    file.seek(tensor.begin)
    file.readinto(array.reshape(-1).view(np.uint8).data)  # type: ignore[attr-defined]
    return array

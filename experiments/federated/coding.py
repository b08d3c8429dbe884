"""Updates as bytes: the streams of `federated.archive` through a range coder, with the frequencies they need to be read.

Layout: version, factor and side (float32), how many streams; of each, what it is, how many symbols, and its table (values
as differences, and counts, all as varints); float32 values as they are; then one message of the range coder for all
streams. Every byte counts in a rate, tables included. The coder does not look at the dither, though a reader knows it: with
cells of side s on a normal distribution of variance 1 that costs log2((1 + 2 c s^2) / (1 + c s^2)) / 2 bits an entry, c the
second moment of the cell.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from experiments.core.errors import UserError
from federated.archive import Code, Scheme, joined, streams

VERSION = 1
HEAD = struct.Struct("<Bff")
# Their places are the numbers in files: add some, move none.
NAMES = ("mask", "word", "value", *(f"half,{step},{bit}" for step in (0, 1) for bit in (0, 1)))
NOTHING = HEAD.pack(VERSION, 0.0, 0.0) + b"\0"  # of an update that is not stored


def pack(scheme: Scheme, parameters: int, code: Code) -> bytes:
    """One user's update as bytes; its rate is 8 len(bytes) / parameters bits an entry."""
    parts = streams(scheme, parameters, code)
    coder = _constriction().stream.queue.RangeEncoder()
    content = bytearray(HEAD.pack(VERSION, float(code.factor), float(code.side)) + _varint(len(parts)))
    for name, symbols in parts.items():
        content += _varint(NAMES.index(name)) + _varint(symbols.size)
        if name == "value":
            content += symbols.astype("<f4").tobytes()
            continue
        values, places, counts = np.unique(symbols, return_inverse=True, return_counts=True)
        content += _table(values, counts)
        if len(values) > 1:
            coder.encode(places.astype(np.int32), _model(counts))
    return bytes(content) + coder.get_compressed().astype("<u4").tobytes()


def unpack(scheme: Scheme, parameters: int, content: bytes) -> Code:
    """The update that `pack` made the bytes of.

    Raises:
      UserError: bytes of another version, or such as `pack` does not make.
    """
    try:
        version, factor, side = HEAD.unpack_from(content)
        if version != VERSION:
            raise UserError(f"an update of version {version} cannot be read: this forethought reads version {VERSION}")
        code = Code(np.float32(factor), np.float32(side), None, None, np.float32(0))
        return joined(scheme, parameters, code, _parts(content))
    except (struct.error, LookupError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError("an update's bytes cannot be decoded: they are damaged, or of another scheme") from error


def _parts(content: bytes) -> dict[str, np.ndarray]:
    """The streams of an update."""
    place = HEAD.size
    count, place = _read_varint(content, place)
    parts: dict[str, np.ndarray] = {}
    tables = []
    for _ in range(count):
        number, place = _read_varint(content, place)
        size, place = _read_varint(content, place)
        if NAMES[number] == "value":
            parts["value"] = np.frombuffer(content, "<f4", size, place).copy()
            place += 4 * size
            continue
        values, counts, place = _read_table(content, place)
        tables.append((NAMES[number], size, values, counts))
    decoder = _constriction().stream.queue.RangeDecoder(np.frombuffer(content[place:], "<u4").astype(np.uint32))
    for name, size, values, counts in tables:
        places = decoder.decode(_model(counts), size) if len(values) > 1 else np.zeros(size, np.int32)
        parts[name] = values[places]
    return parts


def _model(counts: np.ndarray) -> Any:
    """The coder's model of a stream, the same from the same counts."""
    return _constriction().stream.model.Categorical(counts / counts.sum(), perfect=False)


def _constriction() -> Any:
    try:
        import constriction
    except ImportError as error:
        raise UserError("a range coder needs constriction: pip install 'forethought[federated]'") from error
    return constriction


# --- Tables -----------------------------------------------------------------------------------------------------------


def _table(values: np.ndarray, counts: np.ndarray) -> bytes:
    """Distinct values, rising, and how often each occurs."""
    steps = np.diff(values, prepend=0)
    numbers = [len(values), *(_unsigned(int(steps[0])) for _ in values[:1]), *steps[1:].tolist(), *counts.tolist()]
    return b"".join(map(_varint, numbers))


def _read_table(content: bytes, place: int) -> tuple[np.ndarray, np.ndarray, int]:
    length, place = _read_varint(content, place)
    numbers = []
    for _ in range(2 * length):
        number, place = _read_varint(content, place)
        numbers.append(number)
    steps = [_signed(number) for number in numbers[:1]] + numbers[1:length]
    return np.cumsum(np.array(steps, np.int64)).astype(np.int32), np.array(numbers[length:], np.int64), place


def _unsigned(number: int) -> int:
    """Zigzag: 0, -1, 1, -2, ... as 0, 1, 2, 3, ..."""
    return 2 * number if number >= 0 else -2 * number - 1


def _signed(number: int) -> int:
    return number // 2 if number % 2 == 0 else -(number + 1) // 2


def _varint(number: int) -> bytes:
    """Seven bits a byte, the lowest first; all but the last byte have the eighth set."""
    content = bytearray()
    while number >= 128:
        content.append(number % 128 + 128)
        number //= 128
    return bytes([*content, number])


def _read_varint(content: bytes, place: int) -> tuple[int, int]:
    number = shift = 0
    while content[place] >= 128:
        number |= (content[place] - 128) << shift
        place, shift = place + 1, shift + 7
    return number | content[place] << shift, place + 1

"""What is stored of an update as streams of integers for an entropy coder, and what they take by their own frequencies.

A lattice point is told in parts: first each block's word (its integers mod 2), then each integer, halved, given its bit.
Integers on steps of equal length share a stream. Of entries that are independent and alike next to nothing is lost so.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from federated.archive import lattices
from federated.archive.lattices import Lattice
from federated.archive.scheme import EXACT, Code, Scheme, stored_share

HEADER_BITS = 64  # factor and side

Streams = Mapping[str, np.ndarray]


def streams(scheme: Scheme, parameters: int, code: Code) -> dict[str, np.ndarray]:
    """The integers of one user's update by what they are, in a fixed order; none of an update that is not stored.

    "mask" [parameters] of 0 and 1; "word" [blocks]; "half,i,b" the halved integers on steps of the i-th length with bit b.
    "value" [entries] float32 of a scheme without lattice.

    Args:
      scheme: of the archive.
      parameters: of an update.
      code: of one update, without leading axis.
    """
    made: dict[str, np.ndarray] = {}
    if not float(code.factor):
        return made
    count = parameters
    if code.mask is not None:
        made["mask"] = np.asarray(code.mask).astype(np.int32)
        count = int(made["mask"].sum())
    elif scheme.entries == "random":
        count = stored_share(scheme, parameters)
    symbols = np.asarray(code.symbols)
    if scheme.lattice == EXACT:
        return made | {"value": symbols[:count, 0]}
    lattice = lattices.find_lattice(scheme.lattice)
    symbols = symbols[: -(-count // symbols.shape[1])].astype(np.int32)
    bits = symbols % 2
    numbers = {word: number for number, word in enumerate(lattice.words)}
    made["word"] = np.array([numbers[tuple(row)] for row in bits.tolist()], np.int32)
    for name, place in _places(lattice, bits).items():
        made[name] = (symbols[place] - bits[place]) // 2
    return made


def joined(scheme: Scheme, parameters: int, code: Code, parts: Streams) -> Code:
    """The code whose `streams` these are.

    Args:
      scheme: of the archive.
      parameters: of an update.
      code: anything with the factor and the side that belong to it.
      parts: of `streams`.
    """
    mask = parts["mask"].astype(bool) if "mask" in parts else None
    if scheme.lattice == EXACT:
        symbols = np.zeros((parameters, 1), np.float32)
        if "value" in parts:
            symbols[: len(parts["value"]), 0] = parts["value"]
        return code._replace(mask=mask, symbols=symbols)
    lattice = lattices.find_lattice(scheme.lattice)
    symbols = np.zeros((-(-parameters // len(lattice.steps)), len(lattice.steps)), np.int32)
    if "word" in parts:
        bits = np.array(lattice.words, np.int32)[parts["word"]]
        stored = symbols[: len(bits)]
        stored += bits
        for name, place in _places(lattice, bits).items():
            stored[place] += 2 * parts[name]
    return code._replace(mask=mask, symbols=symbols)


def _places(lattice: Lattice, bits: np.ndarray) -> dict[str, np.ndarray]:
    """Where the integers of each stream stand, [blocks, d] bool."""
    lengths = sorted(set(lattice.steps))
    kinds = np.array([lengths.index(step) for step in lattice.steps])
    return {f"half,{i},{bit}": (kinds == i) & (bits == bit) for i in range(len(lengths)) for bit in (0, 1)}


def entropy(symbols: np.ndarray) -> float:
    """Bits of a stream by its own frequencies, n H; 32 a float32 value.

    Example:
      >>> entropy(np.array([0, 0, 1, 1]))
      4.0
    """
    if symbols.dtype == np.float32:
        return 32.0 * symbols.size
    counts = np.unique(symbols, return_counts=True)[1]
    return float(np.sum(counts * np.log2(max(symbols.size, 1) / counts)))


def entropy_bits(scheme: Scheme, parameters: int, code: Code) -> float:
    """Bits of an update by the frequencies of its own streams, without tables, with factor and side; 0 if not stored."""
    parts = streams(scheme, parameters, code)
    return HEADER_BITS + sum(map(entropy, parts.values())) if parts else 0.0

"""Updates as an archive stores them, made without encoding anything."""

import numpy as np

from federated.archive import LATTICES, Code, Scheme


def random_code(scheme: Scheme, parameters: int, spread: float = 1.0) -> Code:
    """A code as its scheme would have it: lattice points about `spread` integers from 0, and a mask if it has one."""
    generator = np.random.default_rng(0)
    count, mask = parameters, None
    if scheme.entries in ("changed", "top"):
        mask = generator.random(parameters) < scheme.amount
        count = int(mask.sum())
    elif scheme.entries == "random":
        count = max(1, round(scheme.amount * parameters))
    if scheme.lattice == "none":
        symbols = np.zeros((parameters, 1), np.float32)
        symbols[:count, 0] = generator.normal(size=count)
        return Code(np.float32(1), np.float32(1), mask, symbols, np.float32(0))
    words = np.array(LATTICES[scheme.lattice].words)
    d = words.shape[1]
    symbols = np.zeros((-(-parameters // d), d), np.int16)
    used = -(-count // d)
    halves = np.rint(spread / 2 * generator.standard_t(4, (used, d)))
    symbols[:used] = 2 * halves + words[generator.integers(len(words), size=used)]
    return Code(np.float32(1.5), np.float32(0.25), mask, symbols, np.float32(0))

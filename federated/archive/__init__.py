"""A compressed archive of updates: user sampling, thresholding, lattices with subtractive dither, streams to code.

After MEDU (2505.03388), whose text is not public; see `Scheme` for what is chosen here. What is here makes symbols;
bytes are made of them, and kept on a disk, in `experiments.federated`.
"""

from federated.archive.coding import entropy, entropy_bits, joined, streams
from federated.archive.lattices import LATTICES, Lattice, cell_dither, codebook, find_lattice, nearest, nearest_of, points
from federated.archive.sampling import inclusion, largest, sampled
from federated.archive.scheme import Code, Codes, Scheme, archive, check_scheme
from federated.archive.sparsify import changed, largest_entries, random_entries

__all__ = [
    "LATTICES", "Code", "Codes", "Lattice", "Scheme", "archive", "cell_dither", "changed", "check_scheme", "codebook",
    "entropy", "entropy_bits", "find_lattice", "inclusion", "joined", "largest", "largest_entries", "nearest",
    "nearest_of", "points", "random_entries", "sampled", "streams",
]  # fmt: skip

"""Bad .npz files: arrays lost, of other kinds, damaged, or larger than any memory by what they say of themselves."""

import io
import zipfile

import numpy as np

from tests.faults import odd

ARRAYS = {"x": np.arange(12.0).reshape(6, 2), "y": np.array([0, 1, 0, 1, 0, 1]), "id": np.arange(6)}


def altered_arrays(rng, path, arrays):
    """An .npz with an array lost or of another kind, or whose bytes are damaged, or that is none."""
    arrays = dict(arrays)
    name = rng.choice(sorted(arrays))
    strange = [
        np.zeros((0, 3)), np.array(7), np.array([None, {}], object), np.full(6, np.nan), np.full((6, 2), np.inf),
        np.array(["a"] * 6), np.array([b"a"] * 6), np.zeros(6, np.complex64), np.zeros((6, 2), [("a", "i4")]),
        np.zeros(6, "M8[s]"), np.zeros(6, np.float16), np.zeros((2, 2, 2, 2, 2)), np.full(6, 1 << 62), np.array([-1] * 6),
    ]  # fmt: skip
    how = rng.randrange(5)
    if how == 0:
        del arrays[name]
    elif how == 1:
        arrays[rng.choice(["z", "../x", "", "x/y", "states.x"])] = arrays[name]
    elif how in (2, 3):
        arrays[name] = rng.choice(strange)
    np.savez(path, **{key or "none": value for key, value in arrays.items()})
    if how == 4 and rng.random() < 0.3:
        absurd_shape(path, name, rng.choice([1 << 33, 1 << 40, 1 << 62, 1 << 70, -1]))
    elif how == 4 or rng.random() < 0.3:
        path.write_bytes(odd.altered_bytes(rng, path.read_bytes()))
    if rng.random() < 0.05:
        with path.open("wb") as file:
            np.save(file, rng.choice(strange))


def absurd_shape(path, name, size):
    """An array that says that it is larger than any memory."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (size, 2)})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(f"{name}2.npy", header.getvalue() + bytes(64))

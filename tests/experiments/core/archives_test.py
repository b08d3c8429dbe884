"""Files that call themselves .npz: what they are instead is told, none asks for all memory, none is unpickled."""

import io
import pickle
import tracemalloc
import zipfile

import jax
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.core import archives, sections
from experiments.core.errors import UserError
from experiments.data import datasets
from experiments.models import params, vits

X, Y = np.random.default_rng(0).normal(size=(12, 4)), np.arange(12) % 2


def saved(**arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def member(shape, dtype="<f4", data=b"", compression=zipfile.ZIP_STORED):
    """An archive whose one array has any header."""
    header, file = io.BytesIO(), io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": dtype, "fortran_order": False, "shape": shape})
    with zipfile.ZipFile(file, "w", compression) as archive:
        archive.writestr("x.npy", header.getvalue() + data)
    return file.getvalue()


def one_array():
    file = io.BytesIO()
    np.save(file, X)
    return file.getvalue()


def document():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("word/document.xml", "<x/>")
    return file.getvalue()


def encrypted():
    content = bytearray(saved(x=X, y=Y))
    content[6] |= 1
    content[content.find(b"PK\x01\x02") + 8] |= 1
    return bytes(content)


FILES = {
    "page": (b"\n<!DOCTYPE html><html>404</html>", "it is a web page"),
    "pickle": (pickle.dumps({"x": X}), "it is a pickle, which is never loaded"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a pointer of Git LFS"),
    "gzip": (b"\x1f\x8b\x08\x00", "packed by gzip"),
    "npy": (one_array(), "it holds one array, as np.save writes it"),
    "empty": (b"", "it is empty"),
    "cut": (saved(x=X, y=Y)[:400], "it is no .npz, or damaged"),
    "locked": (encrypted(), "it is no .npz, or damaged"),
    "document": (document(), "'word/document.xml' in it is no array"),
    "objects": (saved(x=np.array([{}] * 3), y=Y), "'x' in it holds Python objects, which are never loaded"),
    "bfloat16": (saved(x=X.astype(ml_dtypes.bfloat16), y=Y), r"as bfloat16: save it by array.astype\('float32'\)"),
    "large": (member((10**13, 4)), r"'x' in it is shorter than its header says \(float32\[10000000000000, 4\]\)"),
    "overflow": (member((2**62, 2**62)), "is shorter than its header says"),
    "negative": (member((-3, 4), data=b"\0" * 64), "is shorter than its header says"),
}


@pytest.mark.parametrize("name", FILES)
def test_what_is_no_archive_of_arrays_is_told_as_what_it_is(tmp_path, name):
    content, message = FILES[name]
    path = tmp_path / "a.npz"
    path.write_bytes(content)
    module = vits.vit("digits", 10)
    readers = (
        lambda: datasets.load(sections.StreamedData(name=f"npz:{path}")),
        lambda: vits.load_npz(path, module, (8, 8, 1)),
        lambda: params.read(path),
    )
    for read in readers:
        with pytest.raises(UserError, match=message) as caught:
            read()
        said = str(caught.value)
        assert str(path) in said and "allow_pickle" not in said and "\n" not in said


def test_more_than_memory_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    path = tmp_path / "a.npz"
    path.write_bytes(member((10**6,), data=b"\0" * 4 * 10**6, compression=zipfile.ZIP_DEFLATED))
    assert path.stat().st_size < 10**5 and archives.read(path)["x"].nbytes == 4 * 10**6
    monkeypatch.setattr("os.sysconf", lambda name: 1000)
    with pytest.raises(archives.Unusable, match=r"unpacked it has 0\.004 GB, this machine 0\.001 GB of memory"):
        archives.read(path)


def test_a_pipe_is_no_file(tmp_path):
    import os

    os.mkfifo(tmp_path / "a.npz")
    with pytest.raises(archives.Unusable, match="it is no file"):
        archives.read(tmp_path / "a.npz")


def test_a_checkpoint_that_is_not_finite_is_refused(tmp_path):
    module = vits.vit("mini", 10)
    tree = vits.init(module, jax.random.key(0), np.zeros((1, 8, 8, 1)))
    vits.save_npz(tmp_path / "a.npz", {**tree, "cls": tree["cls"] * np.nan})
    with pytest.raises(ValueError, match=r"a\.npz is no checkpoint to begin with: cls is not finite"):
        vits.load_npz(tmp_path / "a.npz", module, (8, 8, 1))


def test_a_header_of_absurd_length_is_not_unpacked(tmp_path):
    """NumPy would hold all of it before it looks."""
    header = np.lib.format.magic(2, 0) + (1 << 26).to_bytes(4, "little")
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", header + bytes(1 << 26))
    tracemalloc.start()
    with pytest.raises(archives.Unusable, match=r"it is no \.npz, or damaged"):
        archives.read(tmp_path / "a.npz")
    assert tracemalloc.get_traced_memory()[1] < 1 << 24
    tracemalloc.stop()


ZEROS = 1 << 24  # bytes that an array unpacks to
BOMBS = {
    "more": ({"more": np.zeros(ZEROS, "u1")}, "it has more, which the model does not"),
    "shape": ({"cls": np.zeros(ZEROS, "u1")}, r"cls is \(16777216,\), not \(1, 1, 32\)"),
    "text": ({"cls": np.zeros((1, 1, 32), "U131072")}, "cls is of <U131072, not of numbers"),
    "grid": ({vits.POSITIONS: np.zeros((1, 1 + 362**2, 32), "f4")}, "has a grid of 362 x 362 positions: at most 128 x 128"),
}
LEFT_OUT = {
    "old head": {"pre_logits/x": np.zeros(ZEROS, "u1")},
    "wide head": {"head/kernel": np.zeros((32, 1 << 17), "f4"), "head/bias": np.zeros(1 << 17, "f4")},
    "head of text": {"head/kernel": np.zeros((32, 2), "U65536"), "head/bias": np.zeros(2)},
}


@pytest.mark.parametrize("name", [*BOMBS, *LEFT_OUT])
def test_a_checkpoint_is_held_against_the_model_before_it_is_unpacked(tmp_path, monkeypatch, name):
    module = vits.vit("mini", 10)
    frozen, _ = vits.split_head(vits.init(module, jax.random.key(0), np.zeros((1, 8, 8, 1))))
    vits.save_npz(tmp_path / "a.npz", frozen)
    with np.load(tmp_path / "a.npz") as file:
        arrays = dict(file)
    more, message = BOMBS[name] if name in BOMBS else (LEFT_OUT[name], "")
    np.savez_compressed(tmp_path / "a.npz", **{**arrays, **more})
    unpacked, read = [], np.lib.format.read_array
    monkeypatch.setattr(np.lib.format, "read_array", lambda *a, **k: unpacked.append(read(*a, **k)) or unpacked[-1])
    if name in LEFT_OUT:
        found, head = vits.load_npz(tmp_path / "a.npz", module, (8, 8, 1))
        assert head is None and jax.tree.all(jax.tree.map(np.array_equal, found, frozen))
        assert sum(array.nbytes for array in unpacked) < 1 << 20
    else:
        with pytest.raises(ValueError, match=message):
            vits.load_npz(tmp_path / "a.npz", module, (8, 8, 1))
        assert not unpacked


@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=4), st.integers(0, 2000))
def test_any_bytes_give_arrays_or_one_line(tmp_path_factory, changes, end):
    content = bytearray(saved(x=X, y=Y))
    for at, byte in changes:
        content[at % len(content)] = byte
    path = tmp_path_factory.mktemp("a") / "a.npz"
    path.write_bytes(content[: max(end, 1)] if end < len(content) else content)
    try:
        archives.read(path)
    except archives.Unusable as error:
        assert "\n" not in str(error)

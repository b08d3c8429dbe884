"""Files: whole or not at all, on the disk when a writer returns, and named in one line when they cannot be used."""

import errno
import json
import os

import numpy as np
import pytest

from experiments.core import files
from experiments.core.errors import WorkdirError

ARRAYS = {"a": np.arange(6.0).reshape(2, 3), "b": np.array([1, -1], np.int32), "scalar": np.float64(0.1)}
WRITERS = {
    "text": lambda path: files.write_text(path, "ä"),
    "bytes": lambda path: files.write_bytes(path, b"\xff"),
    "arrays": lambda path: files.write_arrays(path, ARRAYS),
    "compressed": lambda path: files.write_arrays(path, ARRAYS, compressed=True),
    "json": lambda path: files.write_json(path, {"a": 1}),
}
every_writer = pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)


def one_line(caught, *said):
    message = str(caught.value)
    assert "\n" not in message and all(text in message for text in said), message


@every_writer
def test_a_file_is_written_into_a_folder_that_is_made_and_nothing_is_left_beside_it(write, tmp_path):
    path = tmp_path / "new" / "file"
    write(path)
    first = path.read_bytes()
    write(path)
    assert path.read_bytes() == first and list(path.parent.iterdir()) == [path]


@every_writer
def test_file_and_folder_are_flushed(write, tmp_path, monkeypatch):
    flushed, fsync = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda it: (flushed.append(os.path.isdir(f"/proc/self/fd/{it}")), fsync(it)))
    write(tmp_path / "file")
    assert flushed == [False, True], "the file before it gets its name, the folder after"


@every_writer
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES])
def test_a_write_that_fails_leaves_the_old_file_and_says_so_in_a_line(write, number, tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_text("old")

    def fail(_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(WorkdirError) as caught:
        write(path)
    one_line(caught, str(path), os.strerror(number))
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_write_that_is_interrupted_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        files.write_text(tmp_path / "file", "new")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_a_file_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkdirError) as caught:
        files.write_text(tmp_path / "file" / "inside", "x")
    one_line(caught, str(tmp_path / "file" / "inside"), "cannot write")


@pytest.mark.parametrize("compressed", [False, True])
def test_arrays_come_back_bit_for_bit(compressed, tmp_path):
    files.write_arrays(tmp_path / "a.npz", ARRAYS, compressed=compressed)
    found = files.read_arrays(tmp_path / "a.npz")
    assert found.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(found[name], array, strict=True)


def single(path):
    with path.open("wb") as file:
        np.save(file, ARRAYS["a"])


def flipped(path):
    files.write_arrays(path, {"a": np.zeros(1000)})
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES = {
    "missing": lambda path: None,
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("no archive"),
    "cut": lambda path: (files.write_arrays(path, ARRAYS), path.write_bytes(path.read_bytes()[:300])),
    "a bit": flipped,
    "one array": single,
    "a folder": lambda path: path.mkdir(),
    "pickled": lambda path: files.write_arrays(path, {"a": np.array([{}], object)}),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_arrays_that_cannot_be_read_are_named_with_what_to_do(damage, tmp_path):
    path = tmp_path / "a.npz"
    damage(path)
    with pytest.raises(WorkdirError) as caught:
        files.read_arrays(path, "make it anew")
    one_line(caught, str(path), "cannot be read", ": make it anew")


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[1]", b"null", b"[" * 200_000])
def test_json_that_cannot_be_read_or_is_of_another_kind_is_named(content, tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(WorkdirError) as caught:
        files.read_json(path, dict, "make it anew")
    one_line(caught, str(path), "cannot be read", ": make it anew")


def test_json_has_lists_for_arrays_and_null_for_what_is_not_finite():
    value = {"a": np.array([[1.5, np.inf]]), "b": np.float32(np.nan), 3: (True, None, np.int64(2))}
    assert json.loads(files.dumps(value)) == {"a": [[1.5, None]], "b": None, "3": [True, None, 2]}


def test_what_a_kill_left_half_written_is_removed_and_nothing_else(tmp_path):
    kept = ["results.json", "mine.tmp", "a.0123.tmp"]
    for name in (*kept, f"results.json.{'0a' * 16}.tmp", f"stages/one.json.{'f' * 32}.tmp"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    files.remove_unfinished(tmp_path)
    assert sorted(str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*")) == sorted([*kept, "stages"])


def test_the_reason_is_the_system_s_also_where_a_library_tells_more():
    error = ValueError("RESOURCE_EXHAUSTED: Error writing\n'there': No space left on device [os_error_code='28']")
    assert str(files.unwritable("there", error)).startswith("cannot write there: No space left on device; make room")

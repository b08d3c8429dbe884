"""Folders, tables and arrays of a user's own that will not do: each mistake told in one line."""

import os

import hypothesis
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.data import datasets, ids
from tests.helpers.own import LABELS, draw, folder, load, placed, png, rows, save, write


def refused(match, name, **changes):
    """The one line that loading is refused with."""
    with pytest.raises(datasets.DataError, match=match) as caught:
        load(name, **changes)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Mistakes, each told in one line.


def test_names_that_differ_in_how_an_accent_is_written_are_told(tmp_path):
    composed, apart = "caf\u00e9", "cafe\u0301"
    lines = [[f"u{i}", i, i * i, (composed, apart, "tea")[i % 3]] for i in range(18)]
    refused(
        "has the label 'caf.* twice, with accents written in two ways",
        f"csv:{write(tmp_path / 'a.csv', lines)}",
        id_column="who",
    )
    lines = rows()
    lines[3][0], lines[4][0] = composed, apart
    message = refused("line 5 of .* and line 6 of", f"csv:{write(tmp_path / 'b.csv', lines)}", id_column="who")
    assert "have one id, however accents in it are written: give each example an id of its own" in message
    root = folder(tmp_path / "f")
    for name in (composed, apart):
        for i in range(3):
            save(root / name / f"{name[:2]}{len(name)}{i}.png", draw(i))
    refused("has the class 'caf.* twice, with accents written in two ways", f"folder:{root}")


def test_files_of_odd_names_and_kinds(tmp_path):
    root = folder(tmp_path / "f")
    before = placed(f"folder:{root}")
    content = (root / "a" / "0.png").read_bytes()
    for name in (b"\xff\xfe.png", b"x\ny.png", "\u202e.png".encode(), b"%s%d.png", b"n" * 240 + b".png", b" .png"):
        with open(os.fsencode(root / "a") + b"/" + name, "wb") as file:
            file.write(content)
    after = placed(f"folder:{root}")
    assert len(after) == len(before) + 6 and before.items() <= after.items()
    for link, target in (("self.png", "self.png"), ("gone.png", "nowhere.png")):
        (root / "a" / link).symlink_to(target)
        refused(f"cannot read the image .*{link}", f"folder:{root}")
        (root / "a" / link).unlink()
    (root / "a" / "round").symlink_to(root)
    refused("round is a link to a folder", f"folder:{root}")
    (root / "a" / "round").unlink()
    os.mkfifo(root / "a" / "pipe.png")
    refused("pipe.png is no file: move it away", f"folder:{root}")


@pytest.mark.parametrize("size", [(60_000, 60_000), (2**31 - 1, 1), (0, 0), (300, 300)])
def test_an_image_that_says_it_is_huge_is_not_decoded(tmp_path, size):
    root = folder(tmp_path / "f")
    (root / "a" / "0.png").write_bytes(png(*size))
    refused(r"cannot read the image .*a/0\.png", f"folder:{root}")


@hypothesis.settings(max_examples=25, deadline=None, derandomize=True, database=None)
@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=3))
def test_an_image_of_any_bytes_is_read_or_refused_in_one_line(tmp_path_factory, changes):
    root = folder(tmp_path_factory.mktemp("f"), count=2)
    content = bytearray((root / "a" / "0.png").read_bytes())
    for at, byte in changes:
        content[at % len(content)] = byte
    (root / "a" / "0.png").write_bytes(content)
    try:
        load(f"folder:{root}")
    except datasets.DataError as error:
        assert "\n" not in str(error)


def test_folders_that_will_not_do(tmp_path):
    refused("cannot read the folder .*nowhere", f"folder:{tmp_path / 'nowhere'}")
    (tmp_path / "empty").mkdir()
    refused("has no images: give one folder per class", f"folder:{tmp_path / 'empty'}")
    root = folder(tmp_path / "f")
    (root / "a" / "notes.txt").write_text("")
    refused(r"notes\.txt is no image by its name", f"folder:{root}")
    (root / "a" / "notes.txt").rename(root / ".hidden")
    load(f"folder:{root}")
    (root / ".hidden").rename(root / "notes")
    refused("notes lies beside the folders of classes", f"folder:{root}")
    (root / "notes").rename(root / "a" / "broken.png")
    assert str(root / "a" / "broken.png") in refused("cannot read the image", f"folder:{root}")
    save(root / "a" / "broken.png", draw(1, (5, 4, 3)))
    refused("is 5x4, RGB, 8 bits.*3x4|3x4.*5x4", f"folder:{root}")
    save(root / "a" / "broken.png", draw(1, (3, 4)))
    refused("grey", f"folder:{root}")


@pytest.mark.parametrize("layers", [("Train", "TEST"), ("training", "testing"), ("train", "Testing")])
def test_layers_go_by_several_names(tmp_path, layers):
    placed_in = placed(f"folder:{folder(tmp_path / 'f', layers)}")
    tested = {ids.id_of(f"{layers[1]}/{name}/{i}.png") for name in LABELS for i in range(6)}
    assert {i for i, split in placed_in.items() if split == "test"} == tested and len(placed_in) == 36


@pytest.mark.parametrize(
    "layers, message",
    [
        (("train", "test", "unlabeled"), "has unlabeled/, which is neither train/ nor test/: move it away"),
        (("train", "test", "more"), "has test/ and train/ beside more/: .*"),
        (("train", "Train", "test"), "has Train/ and train/, which are both for training: keep one"),
        (("test", "val"), "has val/: move its files"),
        (("testing",), "has testing/ but no train/"),
    ],
)
def test_layers_that_are_not_understood(tmp_path, layers, message):
    refused(message, f"folder:{folder(tmp_path / 'f', layers)}")


def test_a_class_may_be_called_train(tmp_path):
    for name in ("bus", "car", "train"):
        for i in range(6):
            save(tmp_path / name / f"{i}.png", draw(ord(name[0]) * 10 + i))
    assert load(f"folder:{tmp_path}").classes == 3


def test_parts_of_folders_that_would_be_passed_over(tmp_path, monkeypatch):
    root = folder(tmp_path / "f", ("train", "test"))
    (root / "train" / "aa").mkdir()
    refused("class 'aa' of .* has no images: add some, or move its folder away", f"folder:{root}")
    (root / "train" / "aa").rmdir()
    (root / "train" / "a" / "more").symlink_to(root / "train" / "b")
    refused("more is a link to a folder: put the folder itself there", f"folder:{root}")
    (root / "train" / "a" / "more").unlink()
    (root / "train" / "a" / "shut").mkdir()
    scandir = os.scandir

    def shut(path):
        if str(path).endswith("shut"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", shut)
    refused("cannot read the folder .*shut .Permission denied.", f"folder:{root}")


def test_classes_that_will_not_do(tmp_path):
    root = tmp_path / "f"
    for i in range(4):
        save(root / "a" / f"{i}.png", draw(i))
    refused("has one class, 'a'", f"folder:{root}")
    save(root / "b" / "0.png", draw(9))
    refused("has one example of class 'b'", f"folder:{root}")
    layered = folder(tmp_path / "l", ("train", "test"))
    (layered / "val").mkdir()
    refused("has val/: move its files into train/", f"folder:{layered}")
    (layered / "val").rmdir()
    (layered / "train" / "a").rename(layered / "test" / "d")
    refused("has class 'a' among test examples alone", f"folder:{layered}")


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda lines: lines[4].__setitem__(1, ""), "line 6 of .* has nothing in column 'age'"),
        (lambda lines: lines[4].__setitem__(2, "nan"), "line 6 of .* has 'nan', which is no number in column 'pay'"),
        (lambda lines: lines[4].__setitem__(2, "much"), "line 6 of .* has 'much', which is no number in column 'pay'"),
        (lambda lines: lines[4].__setitem__(2, "inf"), "line 6 of .* has 'inf', which is no number in column 'pay'"),
        (lambda lines: lines[4].__setitem__(2, "-1e300"), "line 6 of .* has '-1e300' in column 'pay', which is beyond"),
        (lambda lines: lines[4].__setitem__(3, " "), "line 6 of .* has nothing in column 'label'"),
        (lambda lines: lines[4].__setitem__(0, ""), "line 6 of .* has nothing in column 'who'"),
        (lambda lines: lines[4].__setitem__(0, "u2"), "line 4 of .* and line 6 of .* have one id"),
        (lambda lines: lines[4].pop(), "line 6 of .* has 3 cells, the header 4"),
        (lambda lines: lines.clear(), "has no rows"),
    ],
)
def test_cells_that_will_not_do(tmp_path, change, message):
    lines = rows()
    change(lines)
    refused(message, f"csv:{write(tmp_path / 'a.csv', lines)}", id_column="who")


def test_tables_that_will_not_do(tmp_path):
    path = write(tmp_path / "a.csv", rows())
    refused("has no column 'kind' .it has who, age, pay, label.: set --config.data.label", f"csv:{path}", label="kind")
    refused("has no column 'id' .*--config.data.id_column", f"csv:{path}", id_column="id")
    refused("'u0', which is no number in column 'who'", f"csv:{path}")
    refused("cannot read .*nowhere", f"csv:{tmp_path / 'nowhere.csv'}")
    write(path, [row[1:] for row in rows()] * 2, ("age", "pay", "label"))
    message = refused("line 2 of .* and line 20 of .* are the same example", f"csv:{path}")
    assert "add a column of ids called id (or named by --config.data.id_column), or keep one" in message
    path.write_text("age;label\n3;a\n")
    refused("has one column, 'age;label': separate columns by commas", f"csv:{path}")
    write(path, rows(), ("who", "age", "age", "label"))
    refused("two columns 'age'", f"csv:{path}")
    path.write_bytes(b"\xff\xfe\x00")
    refused("CSV file in UTF-8", f"csv:{path}")


@pytest.mark.parametrize(
    "change, message",
    [
        ({"x": None}, "has no x"),
        ({"more": np.zeros(3)}, "has 'more', which means nothing here"),
        ({"x": np.zeros(12)}, r"x of .* is float64\[12\]"),
        ({"x": np.array([["a"]] * 12)}, "x of .* is <U1"),
        ({"x": np.full((12, 2), np.inf)}, "example 0 of x of .* not finite"),
        ({"x": np.full((12, 2), 1e300)}, "example 0 of x of .* beyond 1e.38: .*scale it"),
        ({"x": np.full((12, 2, 2), -1e39)}, "example 0 of x of .* beyond 1e.38: .*scale it"),
        ({"y": np.zeros(12)}, r"y of .* is float64\[12\]: give whole numbers or text \[12\]"),
        ({"y": np.zeros(11, int)}, r"y of .* is int64\[11\]"),
        ({"y": np.eye(3)[np.arange(12) % 3]}, r"y of .* is float64\[12, 3\]"),
        ({"x": np.full((12, 2), np.nan)}, "example 0 of x of .* not finite"),
        ({"id": np.zeros(12, int)}, "example 0 of .* and example 1 of .* have one id"),
        ({"id": np.arange(12.0)}, r"id of .* is float64"),
        ({"split": np.array(["train", "val"] * 6)}, "split of .* has 'val': use 'train' and 'test'"),
        ({"x": np.zeros((12, 2))}, "are the same example, .*add an array of ids called id"),
    ],
)
def test_arrays_that_will_not_do(tmp_path, change, message):
    whole = {"x": np.random.default_rng(0).normal(size=(12, 2)), "y": np.arange(12) % 3} | change
    np.savez(tmp_path / "a.npz", **{name: array for name, array in whole.items() if array is not None})
    refused(message, f"npz:{tmp_path / 'a.npz'}")


def test_files_that_are_no_arrays(tmp_path):
    path = tmp_path / "a.npz"
    for content in (b"<html></html>", b""):
        path.write_bytes(content)
        message = refused("cannot read", f"npz:{path}")
        assert "pickle" not in message
    np.save(tmp_path / "one.npy", np.arange(4))
    refused("cannot read .*one.npy .it holds one array, as np.save writes it", f"npz:{tmp_path / 'one.npy'}")
    np.savez(path, x=np.array([{}] * 4), y=np.arange(4))
    assert "pickle" not in refused("cannot read", f"npz:{path}")


def test_settings_without_effect_are_refused(tmp_path):
    name = f"csv:{write(tmp_path / 'a.csv', rows())}"
    refused("data.data_dir is for prepared TFDS data", name, data_dir="x", id_column="who")
    refused("data.cache_dir is for prepared TFDS data", name, cache_dir="x", id_column="who")
    refused("csv data are held in memory", name, stream=True, id_column="who")
    refused("data.label names a column of a csv", "digits", label="kind")
    refused("give a path", "csv:")

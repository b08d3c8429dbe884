"""Data of a user's own: ids and splits that survive erasure, and one line for every mistake in a file."""

import csv
import os
import struct
import sys
import zlib

import hypothesis
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from experiments.core import sections
from experiments.data import datasets, ids

LABELS = ("a", "b", "c")


def config(name, **changes):
    """A section past the door's checks: what loading refuses itself is tested here."""
    return sections.StreamedData(name=name).model_copy(update=changes)


def load(name, **changes):
    return datasets.load(config(name, **changes))


def refused(match, name, **changes):
    """The one line that loading is refused with."""
    with pytest.raises(datasets.DataError, match=match) as caught:
        load(name, **changes)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def placed(name, **changes):
    """id -> split."""
    _, splits = datasets.raw(config(name, **changes))
    return {int(i): split for split, found in splits.items() for i in found}


def draw(i, size=(3, 4, 3)):
    return np.random.default_rng(i).integers(0, 256, size, dtype=np.uint8)


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def folder(root, layers=("",), count=6, suffix="png"):
    for layer in layers:
        for k, name in enumerate(LABELS):
            for i in range(count):
                save(root / layer / name / f"{i}.{suffix}", draw(100 * k + i))
    return root


def rows(count=18):
    rng = np.random.default_rng(0)
    return [[f"u{i}", *rng.normal(size=2).round(3), LABELS[i % 3]] for i in range(count)]


def write(path, lines, header=("who", "age", "pay", "label")):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *lines] if header else lines)
    return path


# Ids.


def test_an_id_is_a_small_number_or_a_hash_above_them():
    assert [ids.id_of(name) for name in ("0", "17", str(2**31 - 1))] == [0, 17, 2**31 - 1]
    hashed = [ids.id_of(name) for name in ("017", str(2**31), "9" * 5000, "-1", "1.0", "cat/1.png", "٣")]
    assert len(set(hashed)) == len(hashed) and all(2**31 <= i < 2**63 for i in hashed)
    assert ids.id_of("caf\u00e9") == ids.id_of("cafe\u0301")


def test_ids_never_change():
    assert ids.id_of("cat/1.png") == 904424099042016996
    assert ids.content_id(np.array([1.0, -0.0]), "a") == ids.content_id(np.array([1, 0]), "a") == 7171077620695610409


# Removing one example moves no other.


@pytest.mark.parametrize("layers", [("",), ("train", "test")])
def test_a_file_that_goes_leaves_all_others_where_they_were(tmp_path, layers):
    root = folder(tmp_path / "f", layers)
    before = placed(f"folder:{root}")
    files = sorted(root.rglob("*.png"))
    assert len(before) == len(files) and set(before.values()) == {"train", "validation", "test"}
    for file in files:
        content = file.read_bytes()
        file.unlink()
        after = placed(f"folder:{root}")
        file.write_bytes(content)
        assert after == {i: before[i] for i in after} and len(after) == len(before) - 1


@pytest.mark.parametrize("column", ["who", ""])
def test_a_line_that_goes_leaves_all_others_where_they_were(tmp_path, column):
    lines = rows() if column else [row[1:] for row in rows()]
    header = ("who", "age", "pay", "label") if column else ("age", "pay", "label")
    name = f"csv:{write(tmp_path / 'all.csv', lines, header)}"
    before = placed(name, id_column=column)
    assert placed(f"csv:{write(tmp_path / 'turned.csv', lines[::-1], header)}", id_column=column) == before
    for i in range(len(lines)):
        path = write(tmp_path / "less.csv", lines[:i] + lines[i + 1 :], header)
        after = placed(f"csv:{path}", id_column=column)
        assert after == {i: before[i] for i in after} and len(after) == len(before) - 1


def test_an_example_of_arrays_that_goes_leaves_all_others_where_they_were(tmp_path):
    rng = np.random.default_rng(0)
    split = np.where(np.arange(18) % 4, "train", "test")
    whole = {"x": rng.normal(size=(18, 3)), "y": np.arange(18) % 3, "id": 5 * np.arange(18), "split": split}
    for keys in (("x", "y"), ("x", "y", "id"), ("x", "y", "id", "split")):
        np.savez(tmp_path / "all.npz", **{key: whole[key] for key in keys})
        before = placed(f"npz:{tmp_path / 'all.npz'}")
        for i in range(18):
            np.savez(tmp_path / "less.npz", **{key: np.delete(whole[key], i, axis=0) for key in keys})
            after = placed(f"npz:{tmp_path / 'less.npz'}")
            assert after == {i: before[i] for i in after} and len(after) == len(before) - 1


# What is loaded is what is in the files.


@pytest.mark.parametrize("stream", [False, True])
def test_images_of_a_folder(tmp_path, stream):
    root = folder(tmp_path / "f", ("train", "test"))
    dataset = load(f"folder:{root}", stream=stream)
    assert dataset.classes == 3 and len(dataset.test.id) == 18
    by_id = {
        ids.id_of(f"{layer}/{name}/{i}.png"): (100 * k + i, k)
        for layer in ("train", "test")
        for k, name in enumerate(LABELS)
        for i in range(6)
    }
    pixels = np.stack([draw(by_id[int(i)][0]) for i in dataset.train.id])
    scale = pixels.mean((0, 1, 2)), pixels.std((0, 1, 2))
    for split in dataset[1:4]:
        wanted = np.stack([draw(by_id[int(i)][0]) for i in split.id])
        np.testing.assert_allclose(split.x[:], (wanted - scale[0]) / scale[1], atol=1e-5)
        np.testing.assert_array_equal(split.y, [by_id[int(i)][1] for i in split.id])


def test_kinds_of_images(tmp_path):
    for size, suffix in (((4, 4), "png"), ((4, 4, 4), "png"), ((4, 4, 3), "jpg"), ((4, 4, 3), "bmp")):
        root = tmp_path / f"{suffix}{size}"
        for i in range(24):
            save(root / LABELS[i % 3] / f"{i}.{suffix}", draw(i, size))
        channels = 1 if len(size) == 2 else size[2]
        assert load(f"folder:{root}").train.x.shape[1:] == (4, 4, channels)


def test_a_table_is_standardised_by_its_training_rows(tmp_path):
    lines = [[f"u{i}", 1_700_000_000 + i, 5, LABELS[i % 3]] for i in range(40)]  # times, and a constant
    dataset = load(f"csv:{write(tmp_path / 'a.csv', lines)}", id_column="who")
    number = {ids.id_of(row[0]): i for i, row in enumerate(lines)}
    seconds = np.array([number[int(i)] for i in dataset.train.id])
    np.testing.assert_allclose(dataset.train.x[:, 0], (seconds - seconds.mean()) / seconds.std(), atol=1e-5)
    assert (dataset.train.x[:, 1] == 0).all() and dataset.train.x.dtype == np.float32
    np.testing.assert_array_equal(dataset.test.y, [number[int(i)] % 3 for i in dataset.test.id])


def test_labels_that_are_numbers_keep_their_order(tmp_path):
    lines = [[f"u{i}", i, 0, (10, 9, 2)[i % 3]] for i in range(30)]
    dataset = load(f"csv:{write(tmp_path / 'a.csv', lines)}", id_column="who")
    assert {int(i): int(y) for i, y in zip(dataset.train.id, dataset.train.y, strict=True)}.items() >= {
        (ids.id_of(f"u{i}"), 2 - i % 3) for i in range(30) if ids.id_of(f"u{i}") in dataset.train.id
    }


def test_a_column_called_id_is_no_feature(tmp_path):
    named = load(f"csv:{write(tmp_path / 'a.csv', rows())}", id_column="who")
    header = ("id", "age", "pay", "label")
    found = load(f"csv:{write(tmp_path / 'b.csv', rows(), header)}")
    assert found.train.x.shape[1] == 2
    for split, like in zip(found[1:4], named[1:4], strict=True):
        np.testing.assert_array_equal(split.id, like.id)
        np.testing.assert_array_equal(split.x, like.x)
    numbers = [[i, *row[1:]] for i, row in enumerate(rows())]
    assert set(placed(f"csv:{write(tmp_path / 'c.csv', numbers, header)}")) == set(range(18))


def test_a_spreadsheets_byte_order_mark_is_no_part_of_a_name(tmp_path):
    path = write(tmp_path / "a.csv", rows())
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert len(placed(f"csv:{path}", id_column="who")) == 18


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


def png(width, height):
    """The header of an image of any size, and next to nothing of it."""
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))  # noqa: E731
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


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


# A function.

MAKE = """
import numpy as np
from experiments.data.splits import Dataset, Split

IDS = np.arange(30)[::-1].copy()

def part(low, high):
    rows = (IDS >= low) & (IDS < high)
    return Split(IDS[rows, None] * 1.0, IDS[rows] % 2, IDS[rows])

def make(): return Dataset("mine", part(0, 10), part(10, 20), part(20, 30), 2)
def twice(): return Dataset("mine", part(0, 10), part(9, 20), part(20, 30), 2)
def beyond(): return make()._replace(classes=2, test=part(20, 30)._replace(y=np.full(10, 2)))
def odd(): return make()._replace(test=part(20, 30)._replace(x=np.zeros((10, 2))))
def huge(): return make()._replace(test=part(20, 30)._replace(x=np.full((10, 1), 1e300)))
def wraps(): return make()._replace(test=part(20, 30)._replace(id=np.arange(10, dtype=np.uint64) + np.uint64(2**63)))
def float_labels(): return make()._replace(test=part(20, 30)._replace(y=np.zeros(10)))
def one_hot(): return make()._replace(validation=part(10, 20)._replace(y=np.zeros((10, 2), int)))
def not_finite(): return make()._replace(validation=part(10, 20)._replace(x=np.full((10, 1), np.nan)))
def below(): return make()._replace(test=part(20, 30)._replace(y=np.full(10, -1)))
def ragged(): return make()._replace(test=Split([[1.0, 2.0], [3.0]], [0, 1], [20, 21]))
def ragged_train(): return make()._replace(train=Split([[1.0, 2.0], [3.0]], [0, 1], [20, 21]))
def no_test(): return make()._replace(test=part(30, 40))
def no_train(): return make()._replace(train=part(30, 40))
def many(): return make()._replace(classes=2**40)
def three(): return 3
def fails(): raise OSError("no such share")
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(MAKE)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    yield
    sys.modules.pop("mine", None)


def test_a_data_set_that_a_function_makes(module):
    dataset = load("digits", factory="mine:make")
    assert (dataset.name, dataset.classes) == ("mine", 2)
    for split, low in zip(dataset[1:4], (0, 10, 20), strict=True):
        np.testing.assert_array_equal(split.id, np.arange(low, low + 10))
        np.testing.assert_array_equal(split.x[:, 0], split.id)
        assert (split.x.dtype, split.y.dtype) == (np.float32, np.int32)


@pytest.mark.parametrize(
    "name, message",
    [
        ("mine:twice", "gives id 9 twice"),
        ("mine:beyond", r"y of test of .* has 2: labels are 0\.\.1"),
        ("mine:odd", r"x of test of .* is float64\[10, 2\]"),
        ("mine:huge", "x of test of .* has numbers that are not finite in single precision"),
        ("mine:wraps", r"id of test of .* has 9223372036854775808\.\.9223372036854775817: give whole numbers"),
        ("mine:below", r"y of test of .* has -1: labels are 0\.\.1"),
        ("mine:float_labels", r"y of test of .* is float64\[10\]: give 10 whole numbers"),
        ("mine:one_hot", r"y of validation of .* is int64\[10, 2\]: give 10 whole numbers"),
        ("mine:not_finite", "x of validation of .* has numbers that are not finite in single precision"),
        ("mine:ragged", "x of test of .* is no array"),
        ("mine:ragged_train", "x of train of .* is no array"),
        ("mine:no_test", "test of .* has no examples: give each split some"),
        ("mine:no_train", "train of .* has no examples: give each split some"),
        ("mine:many", "classes 1099511627776: give a text and a number from 2 up"),
        ("mine:three", "gives a int: give an experiments.data.splits.Dataset"),
        ("mine:fails", r"fails \(OSError: no such share\)"),
        ("mine:absent", "mine has no absent"),
        ("nowhere:make", "there is no module 'nowhere'"),
        ("mine", "give module:function"),
        ("./mine.py:make", "give module:function, .*no path of a file"),
        ("/tmp/mine:make", "give module:function"),
    ],
)
def test_a_function_that_makes_no_data_set(module, name, message):
    with pytest.raises(ValueError, match=message) as caught:
        load("digits", factory=name)
    assert "\n" not in str(caught.value)

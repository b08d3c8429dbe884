"""Data of a user's own: ids and splits that survive erasure, and one line for every mistake in a file."""

import numpy as np
import pytest

from experiments.data import ids
from tests.helpers.own import LABELS, draw, folder, load, placed, rows, save, write

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

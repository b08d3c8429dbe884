"""The cache of decoded images: read instead of the records, and made again when in doubt."""

import os

import numpy as np
import pytest

from experiments.data import datasets, prepared, readers
from tests.helpers.images import assert_same, config, cut_in_half, cut_short, first_file, refused


def cache_files(settings):
    return [os.path.join(settings.cache_dir, name) for name in os.listdir(settings.cache_dir)]


def test_the_cache_is_read_instead_of_the_records(cached, monkeypatch):
    settings, first = cached
    assert len(cache_files(settings)) == 1 and cache_files(settings)[0].endswith(".npz")
    monkeypatch.setattr(readers, "_prepared", None)
    assert_same(datasets.load(settings), first)


@pytest.mark.parametrize(
    "damage", [cut_in_half, cut_short, lambda path: os.truncate(path, 0), lambda p: p.write_bytes(b"no")]
)
def test_a_damaged_cache_is_made_again(cached, damage, tmp_path):
    settings, first = cached
    (path,) = (tmp_path / "cache").iterdir()
    whole = path.stat().st_size
    damage(path)
    assert_same(datasets.load(settings), first)
    assert cache_files(settings) == [str(path)] and path.stat().st_size == whole


def test_changed_bytes_in_the_cache_are_noticed(cached, tmp_path):
    settings, first = cached
    (path,) = (tmp_path / "cache").iterdir()
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    path.write_bytes(content)
    assert_same(datasets.load(settings), first)


def test_a_cache_of_other_files_is_not_used(cached, own_root, monkeypatch):
    settings, _ = cached
    os.utime(first_file(own_root), (1, 1))
    monkeypatch.setattr(
        readers, "_prepared", lambda name, root: readers._in_memory(np.zeros((9, 6, 5, 3)), np.zeros(9, np.int32), 9, 3)
    )
    assert len(datasets.load(settings).train.id) < 9
    assert len(cache_files(settings)) == 2


def test_an_interrupted_write_leaves_nothing(cached, own_root, monkeypatch):
    settings, _ = cached
    before = cache_files(settings)
    os.utime(first_file(own_root), (1, 1))

    def interrupted(file, **arrays):
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez", interrupted)
    with pytest.raises(KeyboardInterrupt):
        datasets.load(settings)
    assert cache_files(settings) == before


def test_a_cache_that_cannot_be_written(root, tmp_path):
    (tmp_path / "file").write_text("")
    settings = config("tiny", data_dir=str(root), cache_dir=str(tmp_path / "file"))
    refused("cannot write the cache .*: set --config.data.cache_dir elsewhere", datasets.load, settings)


def test_the_cache_is_for_its_owner_alone(cached):
    (path,) = cache_files(cached[0])
    assert os.stat(path).st_mode & 0o777 == 0o600


def test_a_name_in_capitals_has_the_same_cache(cached, monkeypatch):
    settings, first = cached
    monkeypatch.setattr(readers, "_prepared", None)
    loud = datasets.load(settings.model_copy(update={"name": "TINY"}))
    assert_same(loud._replace(name="tiny"), first)
    assert [prepared.folder_of(name) for name in ("MNIST", "FashionMnist/a:1.0.0", "cifar10")] == [
        "mnist", "fashion_mnist", "cifar10",
    ]  # fmt: skip

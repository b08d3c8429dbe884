"""Digits, and a small data set as TFDS prepares it: to read, to damage, to cache."""

import shutil

import pytest

from experiments.data import datasets
from tests.helpers.images import config, labelled, prepare


@pytest.fixture(scope="module")
def digits():
    return datasets.load(config())


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder that holds `tiny`: 50 training examples in three files, 15 test examples, all images known."""
    root = tmp_path_factory.mktemp("prepared")
    prepare(root, "tiny", {"train": labelled(50), "test": labelled(15, first=50)})
    return root


@pytest.fixture
def own_root(root, tmp_path):
    """A copy of that folder to damage."""
    shutil.copytree(root / "tiny", tmp_path / "tiny")
    return tmp_path


@pytest.fixture
def cached(own_root, tmp_path):
    """A configuration with a cache, and what was loaded when the cache was made."""
    settings = config("tiny", data_dir=str(own_root), cache_dir=str(tmp_path / "cache"))
    return settings, datasets.load(settings)

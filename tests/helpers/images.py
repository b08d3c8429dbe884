"""Image data sets as TFDS prepares them, made without TensorFlow, and the sections that load them."""

import io
import os

import numpy as np
import pytest

from experiments.core import sections
from experiments.data import datasets

POINT = "set --config.data.data_dir or TFDS_DATA_DIR"


def config(name="digits", **changes):
    """A section past the door's checks: what loading refuses itself is tested here."""
    return sections.StreamedData(name=name).model_copy(update=changes)


def refused(match, fn, *args, **kwargs):
    """The one-line message that `fn` refuses with."""
    with pytest.raises(datasets.DataError, match=match) as caught:
        fn(*args, **kwargs)
    message = str(caught.value)
    assert "\n" not in message
    return message


def equal_batches(left, right):
    assert left.keys() == right.keys()
    for name in left:
        np.testing.assert_array_equal(left[name], right[name])


def image(value, size=(6, 5, 3)):
    from PIL import Image

    pixels = np.random.default_rng(value).integers(0, 256, size, dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return io.BytesIO(file.getvalue()), pixels


def prepare(root, name, splits, features=None):
    """Prepare a data set as `tfds build --file_format=array_record` would, without TensorFlow."""
    import tensorflow_datasets as tfds

    features = features or {"image": tfds.features.Image(shape=(6, 5, 3)), "label": tfds.features.ClassLabel(num_classes=3)}
    features = tfds.features.FeaturesDict(features)
    folder = root / name / "1.0.0"
    folder.mkdir(parents=True)
    identity = tfds.core.DatasetIdentity(name=name, version=tfds.core.Version("1.0.0"), data_dir=folder, module_name="tiny")
    info = tfds.core.DatasetInfo(builder=identity, features=features, description=name)
    writer = tfds.core.SequentialWriter(info, max_examples_per_shard=20, file_format="array_record")
    writer.initialize_splits(list(splits))
    for split, examples in splits.items():
        writer.add_examples({split: examples})
    writer.close_all()
    features.save_config(folder)
    return folder


def labelled(count, first=0, size=(6, 5, 3), label=lambda i: i % 3):
    return [{"image": image(i, size)[0], "label": label(i)} for i in range(first, first + count)]


def first_file(root):
    return min((root / "tiny" / "1.0.0").glob("tiny-train.array_record*"))


def cut_in_half(path):
    os.truncate(path, path.stat().st_size // 2)


def cut_short(path):
    os.truncate(path, path.stat().st_size - 100)


def assert_same(left, right):
    assert (left.name, left.classes) == (right.name, right.classes)
    for a, b in zip(left[1:4], right[1:4], strict=True):
        equal_batches(datasets.batch(a), datasets.batch(b))

"""Data sets that TFDS has prepared: what is read, streamed or refused in one line."""

import io
import json
import os
import shutil
import sys

import hypothesis
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.data import datasets, images, prepared, readers
from tests.helpers.images import (
    POINT,
    assert_same,
    config,
    cut_in_half,
    cut_short,
    equal_batches,
    first_file,
    image,
    labelled,
    prepare,
    refused,
)


def test_prepared_images_have_their_official_ids(root):
    dataset = datasets.load(config("tiny", data_dir=str(root)))
    assert dataset.classes == 3
    train = np.concatenate([dataset.train.id, dataset.validation.id])
    np.testing.assert_array_equal(np.sort(train), np.arange(50))
    np.testing.assert_array_equal(dataset.test.id, np.arange(50, 65))
    pixels = np.stack([image(int(i))[1] for i in dataset.train.id])
    for split in dataset[1:4]:
        np.testing.assert_array_equal(split.y, split.id % 3)
        raw = np.stack([image(int(i))[1] for i in split.id])
        np.testing.assert_allclose(split.x, (raw - pixels.mean((0, 1, 2))) / pixels.std((0, 1, 2)), atol=1e-5)


def test_environment_names_the_folder(root, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(root))
    assert len(datasets.load(config("tiny")).test.id) == 15


def test_no_official_test_split(tmp_path):
    prepare(tmp_path, "untested", {"train": labelled(60)})
    dataset = datasets.load(config("untested", data_dir=str(tmp_path)))
    ids = np.concatenate([split.id for split in dataset[1:4]])
    np.testing.assert_array_equal(np.sort(ids), np.arange(60))
    assert len(dataset.test.id) > 0


def test_hidden_test_labels_make_way_for_the_validation_split(tmp_path):
    hidden = labelled(5, label=lambda i: -1)
    prepare(tmp_path, "hidden", {"train": labelled(30), "validation": labelled(7), "test": hidden})
    dataset = datasets.load(config("hidden", data_dir=str(tmp_path)))
    np.testing.assert_array_equal(dataset.test.id, np.arange(30, 37))
    assert (dataset.test.y >= 0).all()


def test_supervised_keys_choose_among_several_labels():
    features = {"image": 0, "coarse": 1, "label": 1}
    assert prepared.feature_of(features, ("image", "label"), lambda kind: kind == 1) == "label"
    assert prepared.feature_of(features, (), lambda kind: kind == 1) is None
    assert prepared.feature_of(features, (), lambda kind: kind == 0) == "image"


def test_no_image_or_no_label(tmp_path):
    import tensorflow_datasets as tfds

    features = {"text": tfds.features.Text(), "label": tfds.features.ClassLabel(num_classes=2)}
    prepare(tmp_path, "words", {"train": [{"text": "a", "label": 1}]}, features)
    refused(
        r"'words' does not have exactly one image .*label, text.*choose another data set",
        datasets.load,
        config("words", data_dir=str(tmp_path)),
    )
    features = {"image": tfds.features.Image(shape=(6, 5, 3))}
    prepare(tmp_path, "bare", {"train": [{"image": image(0)[0]}]}, features)
    refused("'bare' does not have exactly one class label", datasets.load, config("bare", data_dir=str(tmp_path)))


def test_no_training_examples(tmp_path):
    prepare(tmp_path, "only_test", {"test": labelled(3)})
    refused("'only_test' has no training examples", datasets.load, config("only_test", data_dir=str(tmp_path)))


def test_images_of_several_sizes(tmp_path):
    import tensorflow_datasets as tfds

    features = {"image": tfds.features.Image(), "label": tfds.features.ClassLabel(num_classes=3)}
    examples = labelled(20) + labelled(10, size=(9, 7, 3))
    prepare(tmp_path, "mixed", {"train": examples}, features)
    for stream in (False, True):
        refused("'mixed' differ in size: choose", datasets.load, config("mixed", data_dir=str(tmp_path), stream=stream))


def test_unknown_name(root):
    message = refused("unknown data set 'fashion_mnits'", datasets.load, config("fashion_mnits", data_dir=str(root)))
    assert "did you mean 'fashion_mnist'?" in message and POINT in message
    refused("unknown data set 'no such name'", datasets.load, config("no such name", data_dir=str(root)))
    refused("unknown data set 'tiny'", datasets.load, config("tiny", data_dir=str(root / "elsewhere")))


def test_missing_folder(tmp_path):
    message = refused("there is no folder", datasets.load, config("mnist", data_dir=str(tmp_path / "nowhere")))
    assert str(tmp_path / "nowhere") in message and "`tfds build mnist" in message and POINT in message


def test_not_prepared(root):
    message = refused("'mnist' is not prepared in", datasets.load, config("mnist", data_dir=str(root)))
    assert str(root) in message and "`tfds build mnist" in message and POINT in message


def test_prepared_as_tfrecord(own_root):
    info = own_root / "tiny" / "1.0.0" / "dataset_info.json"
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    message = refused("'tiny' is prepared as tfrecord", datasets.load, config("tiny", data_dir=str(own_root)))
    assert f"`tfds convert_format --dataset_version_dir={info.parent} --out_file_format=array_record`" in message


def test_unreadable_description(own_root):
    (own_root / "tiny" / "1.0.0" / "dataset_info.json").write_text("{")
    refused("cannot read how 'tiny' is prepared in", datasets.load, config("tiny", data_dir=str(own_root)))


@pytest.mark.parametrize("damage", [cut_in_half, cut_short, os.unlink])
def test_a_damaged_file_is_named(own_root, damage):
    path = first_file(own_root)
    damage(path)
    message = refused("cannot read record 0 of ", datasets.load, config("tiny", data_dir=str(own_root)))
    assert str(path) in message and "copy or prepare 'tiny' again" in message


def test_a_damaged_record_is_named(own_root):
    path = sorted(first_file(own_root).parent.glob("tiny-train*"))[1]
    content = bytearray(path.read_bytes())
    content[3000:3010] = b"x" * 10
    path.write_bytes(content)
    message = refused(r"cannot read record [1-9]\d? of ", datasets.load, config("tiny", data_dir=str(own_root)))
    assert str(path) in message
    refused("cannot read record", datasets.load, config("tiny", data_dir=str(own_root), stream=True))


def described(root, file, change):
    """Change the JSON of a description."""
    path = root / "tiny" / "1.0.0" / file
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("split", [0, 1])
@pytest.mark.parametrize("length", ["10", "-5", "1000000000000", str(2**63 - 1)])
def test_a_description_of_more_or_fewer_records_is_refused(own_root, split, length, stream):
    described(own_root, "dataset_info.json", lambda info: info["splits"][split]["shardLengths"].__setitem__(0, length))
    settings = config("tiny", data_dir=str(own_root), stream=stream)
    refused(rf"says that .*record-00000 has {length} examples, it has (20|15): copy or prepare", datasets.load, settings)


@pytest.mark.parametrize("split", [0, 1])
def test_a_file_of_which_the_description_says_nothing_is_refused(own_root, split):
    described(own_root, "dataset_info.json", lambda info: info["splits"][split]["shardLengths"].clear())
    settings = config("tiny", data_dir=str(own_root))
    refused(r"says nothing of .*record-00000, whose examples would be left out", datasets.load, settings)


@pytest.mark.parametrize("classes", [None, "0", "-3", "1", "1000000000000"])
def test_a_description_of_no_classes_is_refused(own_root, classes):
    features = own_root / "tiny" / "1.0.0" / "features.json"
    features.write_text(features.read_text().replace('"3"\n                }', f"{json.dumps(classes)}}}"))
    refused("'tiny' says that it has .* classes", datasets.load, config("tiny", data_dir=str(own_root)))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("at", [3, 33, 55])  # two of training and validation, and a test example
@pytest.mark.parametrize("label", [-1, 3])
def test_a_label_of_no_class_is_refused_in_every_split(root, monkeypatch, at, label, stream):
    records = prepared.records_of

    def altered(builder, splits, name):
        read = records(builder, splits, name)
        return lambda ids: [dict(e, label=label if i == at else e["label"]) for i, e in zip(ids, read(ids), strict=True)]

    monkeypatch.setattr(prepared, "records_of", altered)
    settings = config("tiny", data_dir=str(root), stream=stream)
    refused(rf"example {at} of 'tiny' has label {label}, labels are 0\.\.2: mend the data", datasets.load, settings)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_pixels_that_are_not_finite_are_refused(root, monkeypatch, value):
    records = prepared.records_of

    def altered(builder, splits, name):
        read = records(builder, splits, name)
        return lambda ids: [
            dict(e, image=np.where(i == 52, value, e["image"])) for i, e in zip(ids, read(ids), strict=True)
        ]

    monkeypatch.setattr(prepared, "records_of", altered)
    refused("example 52 of 'tiny' has pixels that are not finite", datasets.load, config("tiny", data_dir=str(root)))


def test_images_of_16_bits_ask_for_what_decodes_them(tmp_path, monkeypatch):
    import tensorflow_datasets as tfds

    features = {
        "image": tfds.features.Image(shape=(6, 5, 1), dtype=np.uint16),
        "label": tfds.features.ClassLabel(num_classes=3),
    }
    pixels = np.random.default_rng(0).integers(0, 65536, (6, 5), dtype=np.uint16)

    def png():
        from PIL import Image

        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        return io.BytesIO(file.getvalue())

    prepare(tmp_path, "deep", {"train": [{"image": png(), "label": i % 3} for i in range(30)]}, features)
    monkeypatch.setattr(readers.importlib.util, "find_spec", lambda name: None)
    refused("'deep' has images of 16 bits, .*opencv-python-headless", datasets.load, config("deep", data_dir=str(tmp_path)))


@pytest.mark.parametrize("off", ["all/tiny", "all/tiny/1.0.0", ""])
def test_a_folder_a_level_off_is_answered_with_the_one_that_was_meant(own_root, off):
    shutil.copytree(own_root / "tiny", own_root / "in" / "all" / "tiny")
    message = refused("unknown data set 'tiny'", datasets.load, config("tiny", data_dir=str(own_root / "in" / off)))
    assert message.endswith(f"or set --config.data.data_dir or TFDS_DATA_DIR to {own_root / 'in' / 'all'}")


@pytest.mark.parametrize("key", ["pythonClassName", "python_class_name", "type"])
@pytest.mark.parametrize("deep", [False, True])
def test_a_feature_whose_class_is_not_of_tfds_is_not_imported(own_root, tmp_path, monkeypatch, key, deep):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "features_of_a_stranger.py").write_text("open('ran', 'w')")
    monkeypatch.chdir(tmp_path)
    path = own_root / "tiny/1.0.0/features.json"
    foreign = {key: "features_of_a_stranger.Feature", "content": {}}
    if key != "type":
        foreign["featuresDict"] = foreign.pop("content")
    whole = json.loads(path.read_text())
    if deep:
        whole["featuresDict"]["features"]["image"] = foreign
    if deep and key == "type":
        whole = {"type": "tensorflow_datasets.core.features.features_dict.FeaturesDict", "content": {"image": foreign}}
    path.write_text(json.dumps(whole if deep else foreign))
    settings = config("tiny", data_dir=str(own_root))
    refused("a feature of the class 'features_of_a_stranger.Feature', whose code would run here", datasets.load, settings)
    assert "features_of_a_stranger" not in sys.modules and not (tmp_path / "ran").exists()


def test_a_default_config_that_leads_elsewhere_imports_nothing(own_root):
    """TFDS would follow it out of the folder of the data set."""
    (own_root / "elsewhere").mkdir()
    shutil.move(own_root / "tiny/1.0.0", own_root / "elsewhere/1.0.0")
    (own_root / "elsewhere/1.0.0/features.json").write_text('{"pythonClassName": "this.Feature"}')
    (own_root / "tiny/.config").mkdir()
    (own_root / "tiny/.config/metadata.json").write_text('{"default_config_name": "../elsewhere"}')
    refused("'this.Feature', whose code would run here", datasets.load, config("tiny", data_dir=str(own_root)))


@pytest.mark.parametrize(
    "name", ["kaggle:tiny", "huggingface:tiny/x", "tiny/try_gcs=True", "tiny/../elsewhere", "../tiny", "tiny:1.0", "gs://x"]
)
def test_a_name_that_reaches_beyond_the_catalogue_is_refused(root, monkeypatch, name):
    import tensorflow_datasets as tfds

    monkeypatch.setattr(tfds, "builder", None)
    refused("unknown data set '.*': use .* as NAME/CONFIG:VERSION", datasets.load, config(name, data_dir=str(root)))


def test_data_are_read_from_disks_alone(monkeypatch):
    import tensorflow_datasets as tfds

    monkeypatch.setattr(tfds, "builder", None)
    refused("there is no folder gs://bucket", datasets.load, config("tiny", data_dir="gs://bucket"))


def test_a_version_is_part_of_a_name(root):
    for name in ("tiny:1.0.0", "Tiny:1.*.*"):
        assert len(datasets.load(config(name, data_dir=str(root))).test.y) == 15


VALUES = st.sampled_from([None, [], {}, "", "x", -1, 0, 1.5, "9" * 30, "../../x", "\0", True])


@hypothesis.settings(max_examples=25, deadline=None, derandomize=True, database=None)
@given(st.data(), st.sampled_from(["dataset_info.json", "features.json"]))
def test_a_description_of_any_values_is_read_or_refused_in_one_line(root, tmp_path_factory, data, file):
    own = tmp_path_factory.mktemp("own")
    shutil.copytree(root / "tiny", own / "tiny")

    def change(node):
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        key = data.draw(st.sampled_from(keys))
        if isinstance(node[key], dict | list) and node[key] and data.draw(st.booleans()):
            return change(node[key])
        node[key] = data.draw(VALUES)

    described(own, file, change)
    try:
        found = datasets.load(config("tiny", data_dir=str(own)))
    except datasets.DataError as error:
        assert "\n" not in str(error)
    else:
        assert_same(found, datasets.load(config("tiny", data_dir=str(root))))


def test_a_missing_package_is_named(root, monkeypatch):
    from tensorflow_datasets.core.data_sources.base import BaseDataSource

    def without_decoder(self, positions):
        raise ImportError("Decoding images needs PIL.\nInstall it.")

    monkeypatch.setattr(BaseDataSource, "__getitems__", without_decoder)
    message = refused("needs a package that is not installed", datasets.load, config("tiny", data_dir=str(root)))
    assert "Decoding images needs PIL." in message


@pytest.mark.parametrize("name, size", [("digits", 0), ("tiny", 0), ("tiny", 20)])
def test_a_streamed_data_set_is_the_one_in_memory(root, monkeypatch, name, size):
    for module in (images, readers):
        monkeypatch.setattr(module, "DECODE_AT_ONCE", 64 if name == "digits" else 7)
    monkeypatch.setattr(images, "MOMENTS_AT_ONCE", 64 if name == "digits" else 7)
    whole, streamed = (datasets.load(config(name, data_dir=str(root), train_size=size, stream=s)) for s in (False, True))
    x = streamed.train.x
    assert isinstance(x, datasets.Images) and x.shape == whole.train.x.shape and len(x) == len(whole.train.id)
    assert_same(streamed._replace(train=streamed.train._replace(x=x[:])), whole)
    for positions in (slice(2, 9), np.array([5, 0, 5]), np.array([], int), whole.train.y == 1):
        np.testing.assert_array_equal(x[positions], whole.train.x[positions])
    np.testing.assert_array_equal(
        datasets.forget_ids(streamed, "class", [1], 0, 0), datasets.forget_ids(whole, "class", [1], 0, 0)
    )
    equal_batches(datasets.batch(streamed.train, np.array([3, 1])), datasets.batch(whole.train, np.array([3, 1])))


def test_training_images_are_read_in_parts(root, monkeypatch):
    monkeypatch.setattr(images, "DECODE_AT_ONCE", 7)
    source, asked = readers._prepared("tiny", str(root)), []
    read = lambda ids: asked.append(len(ids)) or source.read(ids)  # noqa: E731
    monkeypatch.setattr(readers, "_prepared", lambda name, root: source._replace(read=read))
    dataset = datasets.load(config("tiny", data_dir=str(root), stream=True))
    assert sum(asked) == 65 and sorted(asked)[-3] <= 7  # validation and test are read whole
    assert len(dataset.train.id) > 14


def test_a_cache_of_a_streamed_data_set_is_refused(root, tmp_path):
    settings = config("tiny", data_dir=str(root), cache_dir=str(tmp_path), stream=True)
    refused("cache_dir keeps all images decoded, data.stream none", datasets.load, settings)


def test_what_is_made_ahead_comes_in_order_and_errors_in_their_turn():
    assert list(datasets.ahead(lambda i: i, 0)) == []
    assert list(datasets.ahead(lambda i: (i, None), 50)) == [(i, None) for i in range(50)]
    came = []
    with pytest.raises(ZeroDivisionError):
        came.extend(datasets.ahead(lambda i: 6 // (i - 3), 9))
    assert came == [-2, -3, -6]


# Real data, where the machine has some.


@pytest.mark.slow
def test_real_mnist():
    folder = os.environ.get("TFDS_DATA_DIR", "")
    if not os.path.isdir(os.path.join(folder, "mnist")):
        pytest.skip("TFDS_DATA_DIR does not name a folder with mnist prepared in it")
    dataset = datasets.load(config("mnist", validation_fraction=0.1))
    assert len(dataset.train.id) + len(dataset.validation.id) == 60_000 and len(dataset.test.id) == 10_000
    assert np.bincount(dataset.test.y).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    streamed = datasets.load(config("mnist", validation_fraction=0.1, stream=True))
    np.testing.assert_array_equal(streamed.train.y, dataset.train.y)
    np.testing.assert_array_equal(streamed.train.x[::1000], dataset.train.x[::1000])

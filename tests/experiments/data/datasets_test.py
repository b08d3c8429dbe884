import hashlib
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

from experiments.core import sections
from experiments.data import datasets, images, prepared, readers

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


@pytest.fixture(scope="module")
def digits():
    return datasets.load(config())


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


def first_file(root):
    return min((root / "tiny" / "1.0.0").glob("tiny-train.array_record*"))


# Hashing and splits.


def test_hash_depends_on_id_purpose_and_seed_alone():
    ids = np.arange(20_000)
    draw = datasets.hash_uniform(ids, "a", 0)
    assert draw.dtype == np.float64 and draw.min() >= 0 and draw.max() < 1
    np.testing.assert_array_equal(draw[[7, 3]], datasets.hash_uniform(np.array([7, 3], np.int32), "a", 0))
    counts = np.histogram(draw, 20, (0, 1))[0]
    assert ((counts - 1000) ** 2 / 1000).sum() < 50  # chi square, 19 degrees of freedom: p < 1e-4
    for other in (
        datasets.hash_uniform(ids, "b", 0),
        datasets.hash_uniform(ids, "a", 1),
        datasets.hash_uniform(ids + 1, "a", 0),
    ):
        assert abs(np.corrcoef(draw, other)[0, 1]) < 0.03


def splitmix64(state):
    """The first output of the published generator, in Python's own integers."""
    z = (state + 0x9E3779B97F4A7C15) % 2**64
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
    return z ^ (z >> 31)


def test_hash_is_splitmix64_and_never_changes():
    assert splitmix64(0) == 0xE220A8397B1DCDAF
    start = int.from_bytes(hashlib.blake2b(b"split/0", digest_size=8).digest(), "little")
    ids = np.array([0, 1, 2**31 - 1])
    by_hand = [(splitmix64((start + int(i) * 0x9E3779B97F4A7C15) % 2**64) >> 11) / 2**53 for i in ids]
    np.testing.assert_array_equal(datasets.hash_uniform(ids, "split", 0), by_hand)
    np.testing.assert_allclose(by_hand[:2], [0.05900821086121599, 0.9409650415935814])


def test_digits(digits):
    assert (digits.name, digits.classes) == ("digits", 10)
    for split, share in ((digits.train, 0.6), (digits.validation, 0.2), (digits.test, 0.2)):
        assert split.x.shape == (len(split.id), 8, 8, 1) and split.x.dtype == np.float32
        assert split.y.dtype == split.id.dtype == np.int32 and set(split.y) == set(range(10))
        assert abs(len(split.id) / 1797 - share) < 0.04
        assert (np.diff(split.id) > 0).all()
    ids = np.concatenate([digits.train.id, digits.validation.id, digits.test.id])
    np.testing.assert_array_equal(np.sort(ids), np.arange(1797))
    assert abs(digits.train.x.mean()) < 1e-5 and abs(digits.train.x.std() - 1) < 1e-5


def test_digits_are_sklearns_in_official_order(digits):
    from sklearn.datasets import load_digits

    official = load_digits()
    np.testing.assert_array_equal(digits.test.y, official.target[digits.test.id])
    pixels = official.images[digits.train.id]
    restored = digits.test.x[..., 0] * pixels.std() + pixels.mean()
    np.testing.assert_allclose(restored, official.images[digits.test.id], atol=1e-4)


def test_a_smaller_training_set_is_part_of_a_larger_and_moves_nothing_else(digits):
    small, larger = (datasets.load(config(train_size=n)) for n in (100, 300))
    assert len(small.train.id) == 100
    assert set(small.train.id) < set(larger.train.id) < set(digits.train.id)
    np.testing.assert_array_equal(small.validation.id, digits.validation.id)
    np.testing.assert_array_equal(small.test.id, digits.test.id)
    assert abs(small.train.x.mean()) < 1e-5


def test_more_validation_takes_from_training_alone(digits):
    more = datasets.load(config(validation_fraction=0.3))
    assert set(digits.validation.id) < set(more.validation.id)
    np.testing.assert_array_equal(more.test.id, digits.test.id)
    assert len(datasets.load(config(validation_fraction=0.0)).validation.id) == 0


@pytest.mark.parametrize("size", [-1, 100_000])
def test_train_size_out_of_range(size):
    refused(r"train_size is -?\d+: 'digits' has 1\.\.\d+ training examples to give", datasets.load, config(train_size=size))


@pytest.mark.parametrize("fraction", [-0.1, 1.0, float("nan")])
def test_validation_fraction_out_of_range(fraction):
    refused("validation_fraction is .*: choose one in 0..1", datasets.load, config(validation_fraction=fraction))


def test_validation_that_leaves_no_training_example():
    refused("choose a smaller validation_fraction", datasets.load, config(validation_fraction=0.9))


def test_moments():
    images = np.random.default_rng(0).integers(0, 256, (500, 4, 3, 2), dtype=np.uint8)
    mean, std = datasets.moments([images])
    np.testing.assert_allclose(mean, images.mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(std, images.std((0, 1, 2)), rtol=1e-6)
    np.testing.assert_array_equal(datasets.moments([images[128:], images[:128]]).std, std)


@pytest.mark.parametrize("value", [0.0, 0.1, 7.0])
def test_a_constant_channel_is_not_divided_by_its_rounding(value):
    images = np.full((300, 5, 5, 1), value, np.float32)
    assert datasets.moments([images]).std == 1
    np.testing.assert_allclose(datasets.standardise(images, datasets.moments([images])), 0, atol=1e-6)


# Forget sets.


def test_class_forget_set(digits):
    ids = datasets.forget_ids(digits, "class", [3], 0.0, 0)
    np.testing.assert_array_equal(ids, digits.train.id[digits.train.y == 3])


def test_random_forget_set(digits):
    ids = datasets.forget_ids(digits, "random", [], 0.1, 5)
    assert len(ids) == round(0.1 * len(digits.train.id)) and (np.diff(ids) > 0).all()
    assert set(ids) < set(datasets.forget_ids(digits, "random", [], 0.2, 5))
    assert set(ids) != set(datasets.forget_ids(digits, "random", [], 0.1, 6))


def test_random_forget_set_does_not_depend_on_the_others(digits):
    ids = datasets.forget_ids(digits, "random", [], 0.1, 5)
    gone = ids[3]
    kept = digits.train.id != gone
    without = digits._replace(train=datasets.Split(*(leaf[kept] for leaf in digits.train)))
    again = datasets.forget_ids(without, "random", [], 0.1, 5)
    assert set(ids) - set(again) == {gone}


@pytest.mark.parametrize("target", [-1, 10])
def test_class_out_of_range(digits, target):
    refused(r"class -?\d+ is not in 'digits': choose one of 0\.\.9", datasets.forget_ids, digits, "class", [target], 0.1, 0)


@pytest.mark.parametrize("fraction", [0, 1, -0.5, 1.5, float("nan")])
def test_forget_fraction_out_of_range(digits, fraction):
    refused("forget fraction is .*: choose one between 0 and 1", datasets.forget_ids, digits, "random", [], fraction, 0)


def test_unknown_setting(digits):
    refused("'clas': choose 'class' or 'random'", datasets.forget_ids, digits, "clas", 0, 0.1, 0)


def test_nothing_or_everything_to_forget(digits):
    refused("forget set is empty", datasets.forget_ids, digits, "random", [], 1e-6, 0)
    refused("whole training set .* leave some to retain", datasets.forget_ids, digits, "random", [], 1 - 1e-6, 0)
    refused("forget set is empty", datasets.check_ids, digits, [])
    refused("whole training set", datasets.check_ids, digits, digits.train.id)
    one_class = digits._replace(train=datasets.Split(*(leaf[digits.train.y == 3] for leaf in digits.train)))
    refused("forget set is empty", datasets.forget_ids, one_class, "class", [4], 0, 0)
    refused("whole training set", datasets.forget_ids, one_class, "class", [3], 0, 0)


def test_check_ids_gives_positions(digits):
    ids = digits.train.id[[9, 2, 400]]
    np.testing.assert_array_equal(datasets.check_ids(digits, ids), [2, 9, 400])
    np.testing.assert_array_equal(datasets.check_ids(digits, list(ids)), [2, 9, 400])


def test_ids_that_cannot_be_forgotten(digits):
    good = int(digits.train.id[0])
    message = refused("not in the training split of 'digits'", datasets.check_ids, digits, [good, 10**10, -4])
    assert message.startswith("ids -4, 10000000000 are")
    message = refused(
        "only training examples can be forgotten", datasets.check_ids, digits, [good, digits.validation.id[3]]
    )
    assert message.startswith(f"id {digits.validation.id[3]} is in the validation split")
    refused("in the test split", datasets.check_ids, digits, digits.test.id[:1])
    assert "and 15 more" in refused("not in the training", datasets.check_ids, digits, np.arange(5000, 5020))
    message = refused("name each example once", datasets.check_ids, digits, [good, *digits.train.id[:2]])
    assert message.startswith(f"id {good} is given more than once")


@pytest.mark.parametrize("ids", [[0.0, 1.0], [True, False], ["3"], [[0, 1]], [10**30]])
def test_ids_that_are_no_ids(digits, ids):
    refused("give one list of integer ids", datasets.check_ids, digits, ids)


def test_split_noise():
    everything, ids = np.arange(100), np.arange(0, 60, 3)
    np.testing.assert_array_equal(datasets.split_noise(ids, everything, 0.0, 0), ids)
    quarter, half, whole = (datasets.split_noise(ids, everything, share, 0) for share in (0.25, 0.5, 1.0))
    for noisy, replaced in ((quarter, 5), (half, 10), (whole, 20)):
        assert len(noisy) == 20 and len(set(noisy) - set(ids)) == replaced and (np.diff(noisy) > 0).all()
    assert set(half) & set(ids) < set(quarter) & set(ids)
    assert set(quarter) - set(ids) < set(half) - set(ids)
    assert set(half) != set(datasets.split_noise(ids, everything, 0.5, 1))


def test_split_noise_refuses():
    everything = np.arange(10)
    refused("noise share is 1.5", datasets.split_noise, everything[:2], everything, 1.5, 0)
    refused("noise share is nan", datasets.split_noise, everything[:2], everything, float("nan"), 0)
    refused("id 11 is not among the training ids", datasets.split_noise, np.array([3, 11]), everything, 0.5, 0)
    refused("8 ids are to be replaced but only 2 lie outside", datasets.split_noise, everything[:8], everything, 1.0, 0)


def test_revocable_ids(digits):
    forget = datasets.forget_ids(digits, "class", [3], 0, 0)
    np.testing.assert_array_equal(datasets.revocable_ids(digits, forget), forget)
    noisy = datasets.revocable_ids(digits, forget, 0.3, 1)
    assert len(noisy) == len(forget) and len(set(noisy) - set(forget)) == round(0.3 * len(forget))
    assert set(noisy) <= set(digits.train.id)
    refused("in the test split", datasets.revocable_ids, digits, digits.test.id[:3])


# Batches, and images that stay on disk.


def test_batch(digits):
    whole = datasets.batch(digits.train)
    assert list(whole) == ["x", "y", "id", "weight"]
    assert whole["weight"].dtype == np.float32 and (whole["weight"] == 1).all()
    part = datasets.batch(digits.train, np.array([5, 2]))
    np.testing.assert_array_equal(part["id"], digits.train.id[[5, 2]])
    np.testing.assert_array_equal(part["x"], digits.train.x[[5, 2]])


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


# Prepared data sets.


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


def cut_in_half(path):
    os.truncate(path, path.stat().st_size // 2)


def cut_short(path):
    os.truncate(path, path.stat().st_size - 100)


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


# The cache.


@pytest.fixture
def cached(own_root, tmp_path):
    """A configuration with a cache, and what was loaded when the cache was made."""
    settings = config("tiny", data_dir=str(own_root), cache_dir=str(tmp_path / "cache"))
    return settings, datasets.load(settings)


def cache_files(settings):
    return [os.path.join(settings.cache_dir, name) for name in os.listdir(settings.cache_dir)]


def assert_same(left, right):
    assert (left.name, left.classes) == (right.name, right.classes)
    for a, b in zip(left[1:4], right[1:4], strict=True):
        equal_batches(datasets.batch(a), datasets.batch(b))


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

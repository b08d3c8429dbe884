"""Text sets as TFDS prepared them: small made-up ones, and the real ones where the machine has them."""

import os
from pathlib import Path

import numpy as np
import pytest

from experiments.data.text import packing
from experiments.data.text.sources import readers, tofu
from experiments.data.text.tokenisers import byte_level
from tests.helpers.images import prepare
from tests.helpers.texts import refused

FOLDER, TEXTS = os.environ.get("TFDS_DATA_DIR", ""), os.environ.get("FORETHOUGHT_TEXT_DIR", "")


def features(**more):
    import tensorflow_datasets as tfds

    return {"sentence": tfds.features.Text(), "label": tfds.features.ClassLabel(names=["bad", "good"]), **more}


def sentences(count, first=0, label=lambda i: i % 2, **more):
    return [{"sentence": f"sentence {i} \u00e9", "label": label(i), **more} for i in range(first, first + count)]


def test_official_numbers_splits_and_names(tmp_path):
    splits = {"train": sentences(30), "validation": sentences(7, 30), "test": sentences(5, 40, lambda i: -1)}
    prepare(tmp_path, "tiny", splits, features())
    data = readers.open_documents("tiny", data_dir=str(tmp_path))
    assert data.ids.tolist() == [*range(37)] and data.test_ids.tolist() == [*range(30, 37)]  # the test labels are hidden
    assert data.label_names == ("bad", "good") and data.prompts is data.groups is None and data.names == {}
    written = dict(zip(data.texts, data.labels.tolist(), strict=True))
    assert written == {row["sentence"]: row["label"] for row in splits["train"] + splits["validation"]}


def test_several_labels_are_chosen_by_name(tmp_path):
    import tensorflow_datasets as tfds

    fine = tfds.features.ClassLabel(num_classes=3)
    prepare(tmp_path, "tiny", {"train": sentences(12, fine=2)}, features(fine=fine))
    message = refused("does not have exactly one class label", readers.open_documents, "tiny", data_dir=str(tmp_path))
    assert message.endswith("(it has fine, label): set data.label to one of them")
    data = readers.open_documents("tiny", data_dir=str(tmp_path), label="fine")
    assert data.label_names == ("0", "1", "2") and set(data.labels) == {2} and data.official is None
    refused("has no labels 'coarse'", readers.open_documents, "tiny", data_dir=str(tmp_path), label="coarse")


def test_supervised_keys_choose_among_several_texts(tmp_path):
    import tensorflow_datasets as tfds

    rows = [{"title": "news", "description": f"text {i}", "label": i % 4} for i in range(8)]
    known = {"title": tfds.features.Text(), "description": tfds.features.Text()}
    prepare(tmp_path, "ag_news_subset", {"train": rows}, {**known, "label": tfds.features.ClassLabel(num_classes=4)})
    data = readers.open_documents("ag_news_subset", data_dir=str(tmp_path))
    assert {*data.texts} == {row["description"] for row in rows} and len(data.label_names) == 4


def test_bad_sets_are_refused(tmp_path):
    import tensorflow_datasets as tfds

    prepare(tmp_path, "two", {"train": sentences(4, other="x")}, features(other=tfds.features.Text()))
    refused("does not have exactly one text", readers.open_documents, "two", data_dir=str(tmp_path))
    prepare(tmp_path, "hidden", {"train": sentences(4, label=lambda i: -1)}, features())
    refused("example 0 of 'hidden' has label -1, labels are 0..1", readers.open_documents, "hidden", data_dir=str(tmp_path))
    empty = [*sentences(3), {"sentence": " ", "label": 0}]
    prepare(tmp_path, "empty", {"train": empty}, features())
    refused(r"example \d of 'empty' is empty", readers.open_documents, "empty", data_dir=str(tmp_path))
    prepare(tmp_path, "latin", {"train": [*sentences(3), {"sentence": b"\xe9", "label": 0}]}, features())
    refused(r"example \d of 'latin' is not in UTF-8 \(byte 0\)", readers.open_documents, "latin", data_dir=str(tmp_path))
    pictures = {"label": tfds.features.ClassLabel(num_classes=2)}
    prepare(tmp_path, "none", {"train": [{"label": 0}]}, pictures)
    refused(
        r"does not have exactly one text \(its features are label\)", readers.open_documents, "none", data_dir=str(tmp_path)
    )


# Real data, where the machine has some.


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "counts", "tests"), [("glue/sst2", [30208, 38013], 872), ("trec", [1300, 1344, 95, 1288, 1009, 916], 500)]
)
def test_real_sentences(name, counts, tests):
    if not Path(FOLDER, name).is_dir() or not FOLDER:
        pytest.skip(f"TFDS_DATA_DIR does not name a folder with {name} prepared in it")
    data = readers.open_documents(name)
    assert np.bincount(data.labels).tolist() == counts and data.official.sum() == tests
    classes = packing.classified(data, byte_level(), 128)
    assert len(classes.id) == sum(counts) and 0 < classes.cut < 0.2 * sum(counts)


@pytest.mark.slow
def test_real_tofu():
    if not Path(TEXTS, "tofu").is_dir() or not TEXTS:
        pytest.skip("FORETHOUGHT_TEXT_DIR does not name a folder with tofu/ in it")
    data = readers.open_documents(f"tofu:{TEXTS}/tofu")
    assert len(data.ids) == 4000 and len(data.group_names) == 200
    for name, authors in (("forget01", 2), ("forget05", 10), ("forget10", 20)):
        asked = tofu.queries(Path(TEXTS, "tofu"), name)
        np.testing.assert_array_equal(np.sort(asked.ids), data.sets[name])
        whose = data.groups[np.isin(data.ids, data.sets[name])]
        assert len(np.unique(whose)) == authors and len(whose) == 20 * authors
        assert {*map(len, asked.perturbed)} == {5}
    assert np.isin(tofu.queries(Path(TEXTS, "tofu"), "retain").ids, data.ids).all()
    assert [len(tofu.queries(Path(TEXTS, "tofu"), name).ids) for name in ("real_authors", "world_facts")] == [100, 117]
    packed = packing.rows(data, byte_level(), 512, answers_only=True)
    assert len(np.unique(packed.document)) == 4000 and (packed.token_weight.sum(axis=1) > 0).all()


@pytest.mark.slow
@pytest.mark.parametrize(("folder", "files", "speakers"), [("state_union", 65, 11), ("inaugural", 59, 36)])
def test_real_speeches(folder, files, speakers):
    if not Path(TEXTS, "speeches").is_dir() or not TEXTS:
        pytest.skip("FORETHOUGHT_TEXT_DIR does not name a folder with speeches/ in it")
    data = readers.open_documents(f"texts:{TEXTS}/speeches/{folder}", group=r"\d+-([A-Za-z]+)")
    assert len(data.ids) == files and len(data.group_names) == speakers
    packed = packing.rows(data, byte_level(), 512)
    assert packed.token_weight.sum() == sum(len(text.encode()) + 1 for text in data.texts)

"""Stores that are trained: resumed, refused, and what diverges."""

import dataclasses
import json

import jax
import numpy as np
import optax
import pytest

from s3t.service import creation, healing
from s3t.store import disk, publishing, state
from tests.helpers import builds, stacks, stores

SOURCE = builds.make({})


def test_a_resumed_training_reads_back_what_is_finished(tmp_path, template):
    opened = builds.create(tmp_path / "store")
    said = []

    class Stop(Exception):
        pass

    def stop_after(count):
        def say(made):
            said.append((made.shard, made.slices))
            if len(said) == count:
                raise Stop

        return say

    for count in (1, 4):
        with pytest.raises(Stop):
            healing.train_missing(opened, SOURCE, report=stop_after(count))
    assert healing.train_missing(opened, SOURCE, report=stop_after(0)) == (2, 0)
    assert sorted(said) == sorted(builds.NODES) and len(said) == 6
    assert [len(node) for _, node in said] == [1, 1, 1, 1, 2, 2]
    assert stores.content(opened) == stores.content(disk.look(template))
    assert healing.train_missing(opened, SOURCE) == (0, 0)


def test_the_shapes_are_those_of_the_beginning(opened):
    """After most of a slice is gone the same programs run, as the certificates say."""
    shapes = {node.slices: publishing.load(opened, node)[0].stack for node in publishing.live(opened)}
    disk.delete(opened, stores.ids_at(opened, 0, 0)[1:])
    healing.heal(opened, SOURCE)
    for node in publishing.live(opened):
        certificate = publishing.load(opened, node)[0]
        assert {**certificate.stack, "inputs": None} == {**shapes[node.slices], "inputs": None}
        assert certificate.stack["shape"] == opened.manifest.hyper["shapes"][len(node.slices) - 1]
    assert len({recorded["program"] for recorded in shapes.values()}) == 2


def test_too_many_examples_ask_for_a_rebuild(tmp_path, opened):
    hyper = json.loads(json.dumps(opened.manifest.hyper))
    for shape in hyper["shapes"]:
        shape["capacity"] = 4
    small = disk.create(tmp_path / "small", dataclasses.replace(opened.manifest, hyper=hyper))
    creation.ensure_examples(small, SOURCE)
    with pytest.raises(ValueError, match="room is for 4: rebuild"):
        healing.train_missing(small, SOURCE)
    assert publishing.live(small) == ()


def test_another_source_is_refused(opened):
    with pytest.raises(ValueError, match="other hyper-parameters"):
        healing.train_missing(opened, dataclasses.replace(SOURCE, hyper={"toy": 2}))
    with pytest.raises(ValueError, match="the backbone is not the one"):
        healing.train_missing(opened, dataclasses.replace(SOURCE, frozen=stacks.frozen(1)))
    disk.delete(opened, stores.ids_at(opened, 0, 0)[:1])
    lacking = stores.ids_at(opened, 0, 0)[0]
    with pytest.raises(ValueError, match=f"the toy data have no example {lacking}"):
        healing.heal(opened, builds.lacking_example(lacking))


def test_a_store_of_another_version_is_refused(opened):
    shapes = [{**shape, "newer": 1} for shape in opened.manifest.hyper["shapes"]]
    for hyper in ({**opened.manifest.hyper, "shapes": shapes}, {"source": opened.manifest.hyper["source"]}):
        other = opened._replace(manifest=dataclasses.replace(opened.manifest, hyper=hyper))
        with pytest.raises(ValueError, match="made for programs of another version"):
            healing.train_missing(other, SOURCE)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"lora": SOURCE.recipe.lora._replace(targets=("nope",))}, "no layer is called 'nope'"),
        ({"lora": SOURCE.recipe.lora._replace(rank=-1)}, "rank of at least 1"),
        ({"batch_size": 0}, "batches of 0 in "),
        ({"epochs": 0}, "in 0 epochs train nothing"),
    ],
)
def test_a_recipe_that_cannot_be_leaves_no_store(tmp_path, change, message):
    source = dataclasses.replace(SOURCE, recipe=SOURCE.recipe._replace(**change))
    with pytest.raises(ValueError, match=message):
        creation.make_store(tmp_path / "no", source, builds.PLAN, 2, 5, builds.KEY, factory=builds.FACTORY)
    with pytest.raises(ValueError, match="most_lanes is 0"):
        creation.make_store(
            tmp_path / "no",
            dataclasses.replace(SOURCE, most_lanes=0),
            builds.PLAN,
            2,
            5,
            builds.KEY,
            factory=builds.FACTORY,
        )
    with pytest.raises(ValueError, match="the seed is 4294967296"):
        creation.make_store(tmp_path / "no", SOURCE, builds.PLAN, 2, 1 << 32, builds.KEY, factory=builds.FACTORY)
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize(
    "ids, message",
    [
        ([], "no training example"),
        ([1, 1 << 32], r"ids must be integers from 0 to 2\^32 - 1"),
        ([1, 1], "ids must be distinct"),
    ],
)
def test_ids_that_cannot_be_keys_are_refused_with_what_cannot_train(ids, message):
    """Whoever asks whether a source can train, before anything is, hears of its ids."""
    with pytest.raises(ValueError, match=message):
        creation.check_trainable(dataclasses.replace(SOURCE, ids=np.array(ids, np.int64)), jax.random.key(0))


def test_an_optimiser_that_cannot_be_leaves_no_store(tmp_path):
    source = dataclasses.replace(SOURCE, recipe=SOURCE.recipe._replace(optimizer=lambda steps: optax.sgd("fast")))
    with pytest.raises(TypeError):
        creation.make_store(tmp_path / "no", source, builds.PLAN, 2, 5, builds.KEY, factory=builds.FACTORY)
    assert not (tmp_path / "no").exists()


def test_what_diverges_is_not_published_and_holds_up_nothing_else(tmp_path, template, opened):
    """Poison in one slice: all other nodes are those of the template, and the next training begins where this one ended."""
    bad = stores.ids_at(opened, 1, 0)

    def fetch(ids):
        x, y = SOURCE.fetch(ids)
        return np.where(np.isin(ids, bad)[:, None], np.float32(np.nan), x), y

    poisoned = builds.create(tmp_path / "poisoned")
    for _ in range(2):
        with pytest.raises(ValueError, match=r"^node \[0\] of shard 1 is not published, .*; all else is trained$"):
            healing.train_missing(poisoned, dataclasses.replace(SOURCE, fetch=fetch))
        served = [(node.shard, node.slices) for node in publishing.live(poisoned)]
        assert len(served) == len(set(served)) == 4 and set(served) == set(builds.NODES) - builds.hit(opened, (1, 0))
    assert state.status(poisoned)["state"] == "partial"
    assert healing.train_missing(poisoned, SOURCE) == (2, 0)
    assert stores.content(poisoned) == stores.content(disk.look(template))


def test_when_all_diverges_nothing_is_published(tmp_path):
    poisoned = builds.create(tmp_path / "store")
    with pytest.raises(ValueError, match=r"^node \[0\] of shard 0 is not published, .* \(and 3 more nodes\); all"):
        healing.train_missing(
            poisoned, dataclasses.replace(SOURCE, recipe=SOURCE.recipe._replace(optimizer=lambda steps: optax.sgd(1e30)))
        )
    assert publishing.live(poisoned) == ()

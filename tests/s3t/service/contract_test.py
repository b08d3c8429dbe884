"""A classifier and a sequence model through one life of a store: build, delete, heal, replay, serve.

What a backbone brings (its own loss, pytrees x, y and h) is the only difference between the two.
"""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from s3t.cli import main
from s3t.plans import partition
from s3t.service import creation, healing, replay, serving, verify
from s3t.store import disk, publishing, state
from s3t.training import arrangement, caching, schedule, stages
from s3t.training.backbone import Backbone, forward, owned
from s3t.training.source import from_tensors
from tests.helpers import builds, sequences, stacks, stores, toys
from unlearn import tree
from unlearn.losses import cross_entropy

KINDS = {"classifier": (builds.make, builds.FACTORY), "sequence": (sequences.make, sequences.FACTORY)}


@pytest.fixture(scope="module", params=KINDS)
def template(request, tmp_path_factory):
    """(make, root) of a trained store: 2 shards of 2 slices, 3 nodes per shard."""
    make, factory = KINDS[request.param]
    root = tmp_path_factory.mktemp(request.param) / "store"
    opened = builds.create(root, make, factory)
    assert healing.train_missing(opened, make({})) == (6, 0)
    disk.close(opened)
    return make, root


@pytest.fixture
def life(tmp_path, template):
    """(open store, source, make)."""
    make, root = template
    with stores.copied(root, tmp_path / "store") as opened:
        yield opened, make({}), make


def never_had(root, opened, make, missing):
    """Files and live nodes of a store made of data in which some examples never existed."""
    twin = disk.create(root, opened.manifest)
    source = make({}, missing=missing)
    creation.ensure_examples(twin, source)
    healing.train_missing(twin, source)
    files, live, deleted = stores.content(twin)
    assert not deleted
    disk.close(twin)
    return files, live


def slow_logits(opened, source, x):
    """Mean over shards of the deepest node's logits, from files, without banks, masks and jit."""
    blocks = owned(source.backbone.depth, opened.manifest.slices)
    logits = []
    for shard in range(opened.manifest.shards):
        files = {node.slices: publishing.load(opened, node)[1] for node in publishing.live(opened) if node.shard == shard}
        deepest = max(sorted(files), key=len)
        parts = [
            from_tensors(source.backbone, source.recipe.lora, opened.manifest.slices, depth, files[deepest[:depth]])
            for depth in range(1, 1 + len(deepest))
        ]
        slots = [part.slot for part in parts]
        logits.append(forward(source.backbone, source.frozen, x, source.recipe.lora, blocks, slots, parts[-1].head))
    return np.mean(logits, axis=0)


def test_a_resumed_build_ends_with_the_same_bytes(tmp_path, template):
    make, root = template
    opened = builds.create(tmp_path / "store", make, disk.look(root).manifest.factory)

    class Stop(Exception):
        pass

    def stop(draft):
        raise Stop

    with pytest.raises(Stop):
        healing.train_missing(opened, make({}), report=stop)
    assert len(publishing.live(opened)) == 1
    assert healing.train_missing(opened, make({})) == (5, 0)
    assert stores.content(opened) == stores.content(disk.look(root))


def test_a_healed_store_equals_one_that_never_held_the_examples(tmp_path, life):
    opened, source, make = life
    forget_ids = [*stores.ids_at(opened, 0, 1)[:2], stores.ids_at(opened, 1, 0)[3]]
    disk.delete(opened, forget_ids, "r")
    survivors = {node.identity for node in publishing.live(opened)}
    asked = []

    def fetch(ids):
        asked.extend(ids)
        return source.fetch(ids)

    work = healing.heal(opened, dataclasses.replace(source, fetch=fetch))
    assert work == {"trained": 4, "discarded": 0, "skipped": 0, "healed": ["r"]} and not set(asked) & set(forget_ids)
    files, live, _ = stores.content(opened)
    assert survivors <= {identity for identity, *_ in live}
    assert (files, live) == never_had(tmp_path / "twin", opened, make, forget_ids)
    assert verify.verify(opened.root)["ok"]


def test_every_node_is_replayed_and_another_example_is_noticed(life):
    opened, source, _ = life
    result = replay.replay(opened, source)
    assert result["ok"] and result["proved"] == 6
    changed = stores.ids_at(opened, 0, 0)[0]

    def fetch(ids):
        x, y = source.fetch(ids)
        other = lambda leaf: np.where((ids == changed).reshape(-1, *[1] * (leaf.ndim - 1)), 1 - leaf, leaf)  # noqa: E731
        return jax.tree.map(other, x), y

    result = replay.replay(opened, dataclasses.replace(source, fetch=fetch))
    hit = {node.identity for node in publishing.live(opened) if node.shard == 0 and 0 in node.slices}
    assert set(result["not replayable here"]) == hit and result["proved"] == 6 - len(hit)
    assert result["reasons"] == [replay.OTHER_INPUTS] and result["verdict"] == "nothing was proved"


@pytest.mark.parametrize("aggregate", ["mean", "all"])
def test_the_ensemble_answers_as_a_loop_over_files_does(life, aggregate):
    """Before and after a deletion, in batches of 4; another program than the loop's: equal within 1e-5."""
    opened, source, _ = life
    x, _ = source.fetch(source.ids[:6])
    server = serving.Server(opened, source.backbone, source.frozen, source.recipe.lora, aggregate=aggregate, batch_size=4)
    whole = server.predict(x)
    assert whole.depth == (2, 2) and len(whole.logits) == 6
    if aggregate == "mean":
        np.testing.assert_allclose(whole.logits, slow_logits(opened, source, x), rtol=1e-5, atol=1e-5)
    disk.delete(opened, stores.ids_at(opened, 0, 1)[:1])
    after = server.predict(x)
    assert after.depth == (1, 2) and np.abs(after.logits - whole.logits).max() > 1e-3
    np.testing.assert_allclose(
        after.logits, slow_logits(opened, source, x), rtol=1e-5, atol=1e-5
    ) if aggregate == "mean" else None
    one = server.predict(jax.tree.map(lambda leaf: leaf[5:], x))
    np.testing.assert_allclose(one.logits[0], after.logits[5], rtol=1e-6)


def test_the_command_line_serves_deletes_and_heals_both(life, capsys):
    opened, source, _ = life
    first, second = stores.ids_at(opened, 1, 1)[:2]

    def run(*words):
        status = main([*map(str, words), "--store", str(opened.root), "--json"])
        return status, json.loads(capsys.readouterr().out)

    status, answer = run("predict", "--ids", f"{first},{second}")
    _, y = source.fetch(np.array([first, second]))
    labels = np.shape(y["next"] if isinstance(y, dict) else y)
    assert status == 0 and np.shape(answer["labels"]) == labels and answer["depth"] == [2, 2]
    assert run("delete", "--ids", first, "--request-id", "R")[1]["nodes_dropped"] == 2
    status, healed = run("heal")
    assert (status, healed["trained"], healed["healed"]) == (0, 2, ["R"]) and state.status(opened)["state"] == "complete"
    status, proof = run("verify", "--replay", "all")
    assert status == 0 and proof["replay"]["proved"] == 6


# what a loss and labels may be


def test_rubbish_beyond_the_end_of_a_document_changes_no_byte(tmp_path):
    """Tokens of weight 0: another label there leaves every node as it was."""
    source = sequences.make({})

    def fetch(ids):
        x, y = source.fetch(ids)
        return x, {**y, "next": np.where(y["weight"] > 0, y["next"], sequences.VOCABULARY - 1)}

    stores_ = [builds.create(tmp_path / name, sequences.make, sequences.FACTORY) for name in ("one", "other")]
    healing.train_missing(stores_[0], source)
    healing.train_missing(stores_[1], dataclasses.replace(source, fetch=fetch))
    outputs = [[publishing.load(opened, node)[0].output for node in publishing.live(opened)] for opened in stores_]
    assert outputs[0] == outputs[1] and len(outputs[0]) == 6
    found = replay.replay(stores_[1], source)  # read otherwise, and the same bytes all the same
    assert found["proved"] == 6


def test_a_sequence_model_learns_the_next_token():
    x, y, ids = sequences.data()
    places = partition.Places(np.zeros(len(ids), np.int32), np.zeros(len(ids), np.int32))
    slices = arrangement.arrange(x, y, ids, places, 1, 1, 44)
    recipe = sequences.RECIPE._replace(epochs=30)
    stage = stages.make_stage(sequences.BACKBONE, recipe, stages.Shape(1, 1, 1, 44, 11, 1, False))
    ((_, trained),) = stages.train_nodes(stage, sequences.frozen(), slices, stacks.KEY, [(0, (0,))], lambda *job: None)
    assert trained.losses[0] > 1.5 and trained.losses[-1] < 0.5 * trained.losses[0]


def test_the_cache_holds_what_the_uncached_program_reads():
    """Pytrees through the frozen prefix: other programs, equal within 2e-5."""
    source = sequences.make({})
    x, y = source.fetch(source.ids)
    places = partition.assign(source.ids, 2, 2, builds.KEY)
    slices = arrangement.arrange(x, y, source.ids, places, 2, 2, 24)
    prefixes = caching.make_prefixes(source.backbone, (0, 1), 4)
    below, above = caching.fill_cache(prefixes, source.frozen, slices.x, range(4))
    expected = sequences.embed(source.frozen, jax.tree.map(lambda leaf: leaf[2], slices.x), None)
    toys.assert_close(below[2], expected, 2e-5)
    toys.assert_close(above[2], sequences.block(source.frozen, 0, expected, {}), 2e-5)
    trained = {}
    for cached, held in ((False, slices), (True, slices._replace(x=above))):
        stage = stages.make_stage(source.backbone, source.recipe, stages.Shape(1, 2, 2, 24, 6, 2, cached))
        jobs = [(0, (0,)), (1, (1,))]
        trained[cached] = dict(stages.train_nodes(stage, source.frozen, held, stacks.KEY, jobs, lambda *job: None))
    toys.assert_close(list(trained[True].values()), list(trained[False].values()), 2e-5)


def test_labels_of_any_form_are_arranged_alike():
    y = {"next": np.arange(6, dtype=np.int64).reshape(3, 2), "weight": np.array([[0.5], [1], [2]], np.float32)}
    places = partition.Places(np.array([0, 0, 0], np.int32), np.array([1, 0, 1], np.int32))
    slices = arrangement.arrange({"t": np.arange(3)}, y, np.array([9, 5, 4]), places, 1, 2, 2)
    assert slices.id.tolist() == [[5, 0], [4, 9]] and slices.used.tolist() == [1, 2]
    assert slices.x["t"].tolist() == [[1, 0], [2, 0]]
    assert slices.y["next"].tolist() == [[[2, 3], [0, 0]], [[4, 5], [0, 1]]] and slices.y["next"].dtype == np.int32
    assert slices.y["weight"].tolist() == [[[1], [0]], [[2], [0.5]]] and slices.y["weight"].dtype == np.float32


def test_memory_of_a_program_with_labels_of_a_sequence_is_told():
    source = sequences.make({})
    setup = dataclasses.replace(source, lane_bytes=1, cache_bytes=0)
    assert [shape.lanes for shape in schedule.make_shapes(setup, builds.PLAN, np.full((2, 2), 11))] == [1, 1]


def test_a_backbone_without_a_loss_is_a_classifier():
    old = Backbone(stacks.embed, stacks.block, stacks.head, stacks.init_head, (stacks.LAYERS,) * stacks.BLOCKS)
    logits, labels = jnp.array([[2.0, 0.0], [0.0, 1.0]]), jnp.array([0, 0])
    assert old.loss is cross_entropy
    np.testing.assert_allclose(old.loss(logits, labels), [np.log(1 + np.exp(-2)), np.log(1 + np.e)], rtol=1e-6)


def test_a_loss_per_token_is_refused_before_there_is_a_store(tmp_path):
    per_token = sequences.BACKBONE._replace(loss=lambda logits, y: cross_entropy(logits, y["next"]))
    source = sequences.source(backbone=per_token)
    with pytest.raises(
        ValueError, match=r"loss has the shape \(1, 6\) for 1 examples: reduce it to one number per example"
    ):
        creation.make_store(tmp_path / "no", source, builds.PLAN, 2, 5, builds.KEY, factory=sequences.FACTORY)
    assert not (tmp_path / "no").exists()


def test_two_losses_are_two_programs():
    """The same numbers by another name are another text only if they compute otherwise; another loss gives other bytes."""
    x, y, ids = sequences.data()
    places = partition.Places(np.zeros(len(ids), np.int32), np.zeros(len(ids), np.int32))
    slices = arrangement.arrange(x, y, ids, places, 1, 1, 44)
    shape = stages.Shape(1, 1, 1, 44, 11, 1, False)
    doubled = sequences.BACKBONE._replace(loss=lambda logits, y: 2 * sequences.loss(logits, y))
    trained = []
    for backbone in (sequences.BACKBONE, doubled):
        stage = stages.make_stage(backbone, sequences.RECIPE, shape)
        trained += stages.train_nodes(stage, sequences.frozen(), slices, stacks.KEY, [(0, (0,))], lambda *job: None)
    assert not tree.bits_equal(trained[0][1].losses, trained[1][1].losses)
    np.testing.assert_allclose(trained[1][1].losses[0], 2 * trained[0][1].losses[0], rtol=0.2)

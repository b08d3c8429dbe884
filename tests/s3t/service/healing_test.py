"""Stores that are trained, deleted from, healed and replayed: equality to the bit with one that never had the examples."""

import dataclasses
import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import optax
import pytest

from s3t.__main__ import main
from s3t.plans import partition
from s3t.service import creation, environment, healing, replay, verify
from s3t.store import database, deletions, disk, publishing, state
from tests.helpers import builds, stacks, stores

ROOT = Path(__file__).resolve().parents[3]
NODES = [(shard, node) for node in builds.PLAN.nodes for shard in range(builds.SHARDS)]
SOURCE = builds.make({})


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A store of the toy data: 2 shards of 2 slices, 3 nodes per shard."""
    root = tmp_path_factory.mktemp("template") / "store"
    opened = builds.create(root)
    assert healing.train_missing(opened, SOURCE) == (6, 0)
    disk.close(opened)
    return root


def at(opened, shard, slices):
    return next(node for node in publishing.live(opened) if (node.shard, node.slices) == (shard, slices))


def never_had(root, opened, gone):
    """Files and nodes of a store that is made like another one, of data in which some examples never existed."""
    twin = disk.create(root, opened.manifest)
    source = builds.make({}, missing=gone)
    assert set(SOURCE.ids) - set(source.ids) == set(gone)
    creation.ensure_examples(twin, source)
    healing.train_missing(twin, source)
    files, live, deleted = stores.content(twin)
    assert not deleted
    disk.close(twin)
    return files, live


def hit(opened, *places):
    """Whether a node holds one of the (shard, slice)."""
    return {(shard, node) for shard, node in NODES if any((shard, s) in places for s in node)}


# training


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
    assert sorted(said) == sorted(NODES) and len(said) == 6
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
        assert certificate.stack == shapes[node.slices]
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
        healing.heal(opened, lacking_example(lacking))


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


def test_an_optimiser_that_cannot_be_leaves_no_store(tmp_path):
    source = dataclasses.replace(SOURCE, recipe=SOURCE.recipe._replace(optimizer=lambda steps: optax.sgd("fast")))
    with pytest.raises(TypeError):
        creation.make_store(tmp_path / "no", source, builds.PLAN, 2, 5, builds.KEY, factory=builds.FACTORY)
    assert not (tmp_path / "no").exists()


def lacking_example(one):
    def fetch(ids):
        if one in ids:
            raise ValueError(f"the toy data have no example {one}")
        return SOURCE.fetch(ids)

    return dataclasses.replace(SOURCE, fetch=fetch)


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
        assert len(served) == len(set(served)) == 4 and set(served) == set(NODES) - hit(opened, (1, 0))
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


# lost files


def damage(opened, shard, slices):
    """Alter a bit of a node's file; the file and what was in it."""
    path = disk.file_of(opened, at(opened, shard, slices).identity)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    return path, whole


def test_a_lost_file_comes_back_bit_for_bit(opened, template, capsys):
    """Of a parent and its child, and of a node whose deepest slice is another's first; deletions elsewhere heal beside."""
    bad, head = damage(opened, 0, (0,))[0].stem, database.head(opened.ledger)
    gone = {disk.file_of(opened, at(opened, *place).identity) for place in ((0, (0, 1)), (1, (1,)))}
    for path in gone:
        path.unlink()
    assert len(verify.verify(opened.root)["problems"]) == 3
    status, done, err = run(capsys, "heal", "--store", opened.root)
    assert (status, err, done["trained"], done["state"]) == (0, "", 3, "complete")
    assert stores.content(opened) == stores.content(disk.look(template))
    rows = opened.ledger.execute("SELECT kind, detail FROM log WHERE seq > ?", head[:1]).fetchall()
    assert [(kind, json.loads(detail)) for kind, detail in rows] == [
        ("restored", {"identity": name})
        for name in (bad, *(at(opened, *place).identity for place in ((1, (1,)), (0, (0, 1)))))
    ]
    assert verify.verify(opened.root)["ok"] and healing.train_missing(opened, SOURCE) == (0, 0)


def test_a_file_that_other_bytes_would_replace_is_not_restored(opened, capsys, monkeypatch):
    """On another stack: its own children are held up, all else is healed; where it was made it comes back."""
    path, whole = damage(opened, 0, (0,))
    altered, here = path.read_bytes(), environment.here()
    disk.delete(opened, [stores.ids_at(opened, 1, 0)[0]], "r")
    disk.delete(opened, [stores.ids_at(opened, 0, 1)[0]], "s")
    with monkeypatch.context() as patch:
        patch.setattr(environment, "here", lambda: here | {"threads": 99})
        status, out, err = run(capsys, "heal", "--store", opened.root)
    assert (status, out) == (2, None) and f"of node {path.stem} are not those that were published, and what is" in err
    assert "not, byte for byte, what was published: restore it from a copy, or heal where it was trained; all else" in err
    assert path.read_bytes() == altered
    assert {(node.shard, node.slices) for node in publishing.live(opened)} == set(NODES) - {(0, (0, 1))}
    assert state.status(opened)["requests"] == {"healed": 1, "purged": 1}
    assert healing.heal(opened, SOURCE) == {"trained": 2, "discarded": 0, "skipped": 0, "healed": ["s"]}
    assert path.read_bytes() == whole and verify.verify(opened.root)["ok"]


def test_a_lost_file_comes_back_with_what_its_node_saw(opened):
    """Examples that came later are not in it; a deletion while it is trained takes it out of service for good."""
    path, whole = damage(opened, 0, (1,))
    disk.register(opened, [3], [0], [1])
    assert healing.train_missing(opened, SOURCE) == (1, 0) and path.read_bytes() == whole
    disk.delete(opened, [3], "later")
    damage(opened, 0, (1,))
    one, asked = stores.ids_at(opened, 0, 1)[-1], []

    def fetch(ids):
        if not asked:
            disk.delete(opened, [one], "during")
        asked.append(set(ids))
        return SOURCE.fetch(ids)

    done = healing.heal(opened, dataclasses.replace(SOURCE, fetch=fetch))
    assert done == {"trained": 2, "discarded": 1, "skipped": 0, "healed": ["later", "during"]}
    assert not path.exists() and one in asked[0] and one not in asked[1] and verify.verify(opened.root)["ok"]


def test_a_ledger_that_deletes_in_the_future_ends_a_heal(opened, capsys):
    """A row that is not there yet outdates every draft: no round could ever publish it."""
    one, other = stores.ids_at(opened, 0, 0)[:2]
    disk.delete(opened, [one], "r")
    opened.ledger.execute("UPDATE examples SET deleted = 999 WHERE id = ?", (other,))
    status, out, err = run(capsys, "heal", "--store", opened.root)
    assert (status, out) == (2, None) and f"{opened.root}'s ledger is damaged: no row says why node" in err
    assert state.status(opened)["requests"] == {"purged": 1}
    status, proof, _ = run(capsys, "verify", "--store", opened.root)
    assert status == 1 and proof["problems"] == [f"the deletion of id {other} is not what the ledger's rows say"]


# healing


def test_a_healed_store_never_had_the_examples(tmp_path, opened):
    before = stores.content(opened)[1]
    gone = [*stores.ids_at(opened, 0, 1)[:2], stores.ids_at(opened, 1, 0)[3]]
    disk.delete(opened, gone[:1], "r")
    disk.delete(opened, gone[1:], "s")
    survived = {node.identity for node in publishing.live(opened)}
    made, asked = [], []

    def fetch(ids):
        asked.extend(ids)
        return SOURCE.fetch(ids)

    done = healing.heal(
        opened, dataclasses.replace(SOURCE, fetch=fetch), report=lambda one: made.append((one.shard, one.slices))
    )
    lost = hit(opened, (0, 1), (1, 0))
    assert done == {"trained": 4, "discarded": 0, "skipped": 0, "healed": ["r", "s"]} and len(lost) == 4
    assert set(made) == lost and [len(node) for _, node in made] == sorted(len(node) for _, node in made)
    assert not set(asked) & set(gone)
    files, live, _ = stores.content(opened)
    assert survived <= {name for name, *_ in live} and len(live & before) == 2
    assert (files, live) == never_had(tmp_path / "twin", opened, gone)
    assert verify.verify(opened.root)["ok"]
    found = replay.replay(opened, lacking_example(gone[0]))
    assert found["ok"] and set(found["identical"]) == {name for name, *_ in live}
    assert healing.heal(opened, SOURCE) == {"trained": 0, "discarded": 0, "skipped": 0, "healed": []}


def test_a_deletion_during_a_heal_discards_the_node(tmp_path, opened):
    """It comes while the first node trains, and purges its neighbours' files as well."""
    first, second = stores.ids_at(opened, 0, 0)[0], stores.ids_at(opened, 0, 0)[5]
    disk.delete(opened, [first], "r")
    other = disk.open(opened.root)
    calls = []

    def place(lanes):
        calls.append(lanes)
        if len(calls) == 1:
            disk.delete(other, [second], "during")
            disk.purge(other)
        return lanes

    done = healing.heal(opened, dataclasses.replace(SOURCE, place=place))
    assert done == {"trained": 2, "discarded": 1, "skipped": 0, "healed": ["r", "during"]}
    files, live, deleted = stores.content(opened)
    assert {one for (one,) in deleted} == {first, second} and verify.verify(opened.root)["ok"]
    assert (files, live) == never_had(tmp_path / "twin", opened, [first, second])


def test_a_parent_that_goes_while_its_child_is_healed_is_made_anew(tmp_path, opened):
    """The deletion takes the parent after the child was drafted and before its file is read."""
    first, second = stores.ids_at(opened, 1, 1)[0], stores.ids_at(opened, 1, 0)[2]
    disk.delete(opened, [first], "r")
    other = disk.open(opened.root)
    asked = []

    def fetch(ids):
        asked.append(ids)
        if len(asked) == 1:
            disk.delete(other, [second], "during")
            disk.purge(other)
        return SOURCE.fetch(ids)

    done = healing.heal(opened, dataclasses.replace(SOURCE, fetch=fetch))
    assert (done["trained"], done["healed"]) == (3, ["r", "during"])
    files, live, _ = stores.content(opened)
    assert (files, live) == never_had(tmp_path / "twin", opened, [first, second])


def test_two_heals_at_once_agree(opened):
    """The second trains while the first is about to: each node is published once, whoever was quicker."""
    disk.delete(opened, [stores.ids_at(opened, 0, 0)[0]], "r")
    disk.purge(opened)
    other = disk.open(opened.root)
    started = []

    def place(lanes):
        if not started:
            started.append(True)
            healing.heal(other, SOURCE)
        return lanes

    healing.heal(opened, dataclasses.replace(SOURCE, place=place))
    assert publishing.missing(opened) == () and verify.verify(opened.root)["ok"]
    assert state.status(opened)["requests"] == {"healed": 1}


def test_slices_without_examples_are_skipped(opened):
    disk.delete(opened, stores.ids_at(opened, 0, 0), "r")
    assert healing.heal(opened, SOURCE) == {"trained": 0, "discarded": 0, "skipped": 2, "healed": ["r"]}
    assert state.status(opened)["depth"] == [1, 2]
    disk.delete(opened, stores.ids_at(opened, 1, 1), "s")  # the second slice of a node: what is left of it comes back
    assert healing.heal(opened, SOURCE) == {"trained": 1, "discarded": 0, "skipped": 3, "healed": ["s"]}
    assert {(node.shard, node.slices) for node in publishing.live(opened)} == {(0, (1,)), (1, (0,)), (1, (0, 1))}


def test_a_draft_is_trained_on_its_own_examples_or_not_at_all(opened):
    """What comes or goes between draft and reading leaves only the drafts that do not hold it."""
    disk.delete(opened, [stores.ids_at(opened, 0, 0)[0], stores.ids_at(opened, 1, 0)[0]])
    drafts = [publishing.draft_node(opened, *place) for place in publishing.missing(opened)]
    held, true = healing._gathered(opened, drafts)
    assert true == drafts and all(held[place] == list(stores.ids_at(opened, *place)) for place in held) and len(held) == 4
    disk.delete(opened, [stores.ids_at(opened, 0, 1)[0]])
    _, true = healing._gathered(opened, drafts)
    assert true == [draft for draft in drafts if (draft.shard, draft.slices) != (0, (0, 1))]
    disk.register(opened, [3], [1], [0])
    assert healing._gathered(opened, drafts)[1] == [draft for draft in drafts if (draft.shard, draft.slices) == (0, (0,))]


# lost files


def test_a_lost_directory_is_told_and_healed(opened, capsys):
    before = stores.content(opened)
    shutil.rmtree(opened.root / "nodes")
    for words in (("status",), ("verify",), ("verify", "--replay", "all")):
        status, result, err = run(capsys, *words, "--store", opened.root)
        assert (status, err, result["ok"]) == (1, "", False) and len(result["problems"]) == 6
    assert run(capsys, "heal", "--store", opened.root)[1]["trained"] == 6
    assert stores.content(opened) == before and verify.verify(opened.root)["ok"]


def test_something_in_a_file_s_place_holds_up_no_other_node(opened, capsys):
    before, bad, lost = stores.content(opened)[0], at(opened, 0, (0,)), at(opened, 1, (1,))
    disk.file_of(opened, bad.identity).unlink()
    disk.file_of(opened, bad.identity).mkdir()
    disk.file_of(opened, lost.identity).unlink()
    status, _, err = run(capsys, "heal", "--store", opened.root)
    assert status == 2 and str(disk.file_of(opened, bad.identity)) in err and "all else is trained" in err
    assert list(publishing.damaged(opened)) == [bad] and {path.name for path in (opened.root / "nodes").iterdir()} == set(
        before
    )
    disk.file_of(opened, bad.identity).rmdir()
    assert run(capsys, "heal", "--store", opened.root)[0] == 0 and stores.content(opened)[0] == before


def test_an_example_that_the_source_lacks_holds_up_its_own_lost_nodes_alone(opened):
    before, lacking = stores.content(opened)[0], stores.ids_at(opened, 0, 1)[0]
    shutil.rmtree(opened.root / "nodes")
    with pytest.raises(ValueError, match=rf"the toy data have no example {lacking}: .* \(and 1 more nodes\); all else"):
        healing.heal(opened, lacking_example(lacking))
    assert {(node.shard, node.slices) for node in publishing.damaged(opened)} == {(0, (1,)), (0, (0, 1))}
    healing.heal(opened, SOURCE)
    assert stores.content(opened)[0] == before


# replay


def test_a_node_of_another_stack_is_not_judged(opened, monkeypatch, capsys):
    here = environment.here()
    monkeypatch.setattr(environment, "here", lambda: here | {"threads": 99, "jax": "0.0.1"})
    found = replay.replay(opened, SOURCE)
    assert found["ok"] and len(found["not replayable here"]) == 6 and not found["identical"] and found["proved"] == 0
    why = f"jax was {here['jax']}, here it is 0.0.1; threads was {here['threads']}, here it is 99"
    assert found["reasons"] == [why]
    assert main(["verify", "--store", str(opened.root), "--replay", "2"]) == 0  # not proved is not refuted, but it is said
    told = capsys.readouterr().out.splitlines()
    assert told[-2:] == [
        "replayed: 0 identical, 0 differs, 0 damaged, 2 not replayable here",
        f"not replayable here: {why}",
    ]


@pytest.mark.parametrize("sound", [True, False])
@pytest.mark.parametrize("same", [True, False])
def test_a_store_is_ok_if_both_the_record_and_the_replay_are(opened, capsys, monkeypatch, sound, same):
    """Whatever either of them says beside its "ok"."""
    proof = verify.verify(opened.root)
    found = {"ok": same, "problems": [], **{one: [] for one in replay.FOUND}, "reasons": []}
    monkeypatch.setattr(verify, "verify", lambda *args: {**proof, "ok": sound})
    monkeypatch.setattr(replay, "replay", lambda *args: found)
    status, result, _ = run(capsys, "verify", "--store", opened.root, "--replay", "all")
    assert (status, result["ok"], result["replay"]) == (0 if sound and same else 1, sound and same, found)


def test_a_node_of_other_code_is_not_judged(opened):
    other = SOURCE.recipe._replace(optimizer=lambda steps: optax.sgd(0.01))
    name = at(opened, 0, (1,)).identity
    found = replay.replay(opened, dataclasses.replace(SOURCE, recipe=other), name)
    assert found["ok"] and found["not replayable here"] == [name] and found["reasons"][0].startswith("program was ")


def test_what_the_stack_records(monkeypatch):
    here = environment.here()
    assert {"jax", "jaxlib", "platform", "runtime", "device", "devices", "flags"} <= set(here)
    assert here["jax"] == jax.__version__ and here["devices"] == jax.device_count()
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=x --xla_b=1 --xla_a=2")
    assert environment.here()["flags"] == ["--xla_a=2", "--xla_b=1"]
    if here["platform"] == "cpu":
        assert here["threads"] >= 1 and here["processor"]
        monkeypatch.setenv("NPROC", "7")
        assert environment.here()["threads"] == 7


def forge(root, opened):
    """A store in which files, certificates and ledger agree, but one node's parameters were altered before."""
    forged = disk.create(root, opened.manifest)
    creation.ensure_examples(forged, SOURCE)
    name = at(opened, 1, (1,)).identity
    for node in publishing.live(opened):
        certificate, tensors = publishing.load(opened, node)
        if node.identity == name:
            tensors["head/b"] = tensors["head/b"] + np.float32(1e-7)
        parent = at(opened, node.shard, node.slices[:-1]).identity if len(node.slices) > 1 else None
        publishing.publish(
            forged, publishing.draft_node(forged, node.shard, node.slices), tensors, certificate.stack, parent
        )
    return forged, name


def test_a_forged_node_differs(tmp_path, opened, capsys):
    forged, name = forge(tmp_path / "forged", opened)
    assert verify.verify(forged.root)["ok"]
    found = replay.replay(forged, SOURCE)
    assert not found["ok"] and found["differs"] == [name] and len(found["identical"]) == 5
    assert found["problems"] == [f"node {name}: training gives other bytes than were published"]
    status, result, _ = run(capsys, "verify", "--store", forged.root, "--replay", name)
    assert (status, result["ok"], result["problems"]) == (1, False, found["problems"])


def test_a_damaged_file_is_named(opened, capsys):
    parent, child = at(opened, 0, (0,)), at(opened, 0, (0, 1))
    path = opened.root / "nodes" / f"{parent.identity}.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    found = replay.replay(opened, SOURCE)
    assert found["damaged"] == [parent.identity] and found["not replayable here"] == [child.identity] and not found["ok"]
    assert "an ancestor cannot be read: the parameters of node" in found["reasons"][0] and len(found["identical"]) == 4
    status, result, _ = run(capsys, "verify", "--store", opened.root, "--replay", "all")
    assert status == 1 and len(result["problems"]) == 1 and parent.identity in result["problems"][0]


def test_nodes_from_before_a_registration_are_replayed_with_what_they_saw(tmp_path, opened):
    """Half of the examples come later: nodes that were trained before stand beside those that were healed after."""
    later = disk.create(tmp_path / "later", opened.manifest)
    half = SOURCE.ids[::2]
    creation.ensure_examples(later, dataclasses.replace(SOURCE, ids=half))
    healing.train_missing(later, SOURCE)
    more = SOURCE.ids[1::2]
    places = partition.assign(more, builds.SHARDS, builds.SLICES, builds.KEY)
    disk.register(later, more, places.shard, places.slice)
    disk.delete(later, [stores.ids_at(later, 0, 1)[0]])
    healing.heal(later, SOURCE)
    seen = {(node.shard, node.slices): publishing.load(later, node)[0].examples for node in publishing.live(later)}
    assert seen[0, (1,)] == len(stores.ids_at(later, 0, 1)) and seen[1, (1,)] < len(stores.ids_at(later, 1, 1))
    found = replay.replay(later, SOURCE)
    assert found["ok"] and len(found["identical"]) == found["proved"] == 6


def test_some_nodes_are_chosen(opened):
    names = [node.identity for node in publishing.live(opened)]
    assert [node.identity for node in replay.chosen(opened, "all")] == names
    some = [node.identity for node in replay.chosen(opened, 2)]
    assert len(some) == 2 and set(some) < set(names) and some == [node.identity for node in replay.chosen(opened, 2)]
    assert [node.identity for node in replay.chosen(opened, names[3])] == [names[3]]
    with pytest.raises(ValueError, match="no serving node is called x: "):
        replay.chosen(opened, "x")


# command line


def run(capsys, *words):
    """(status, object on standard output or None, standard error)."""
    try:
        status = main([*map(str, words), "--json"])
    except SystemExit as left:
        status = left.code
    out, err = capsys.readouterr()
    assert out.count("\n") == (1 if out else 0) and err.count("\n") == (1 if err else 0)
    return status, json.loads(out) if out else None, err


MAKE = ("--factory", builds.FACTORY, "--planner", "stumps", "--slices", 2, "--shards", 2, "--seed", 5)


def test_the_command_line_trains_heals_and_replays(tmp_path, template, capsys, monkeypatch):
    """With the template's key it makes the template's bytes: `stumps` of two slices is its plan."""
    root = tmp_path / "store"
    with monkeypatch.context() as patched:
        patched.setattr(os, "urandom", bytes)
        status, made, err = run(capsys, "train", "--store", root, *MAKE)
    assert (status, err) == (0, "") and (made["trained"], made["state"], made["depth"]) == (6, "complete", [2, 2])
    opened = disk.open(root)
    assert stores.content(opened) == stores.content(disk.look(template))
    status, again, err = run(capsys, "train", "--store", root, *MAKE, "--hyper", '{"toy": 1}')
    assert (status, err, again["trained"]) == (0, "", 0)
    one = stores.ids_at(opened, 0, 0)[0]
    assert run(capsys, "delete", "--store", root, "--ids", one, "--request-id", "R")[1]["nodes_dropped"] == 2
    status, done, err = run(capsys, "heal", "--store", root)
    assert (status, err) == (0, "") and (done["trained"], done["healed"], done["state"]) == (2, ["R"], "complete")
    status, proof, _ = run(capsys, "verify", "--store", root, "--replay", 3, "--arguments", f'{{"missing": [{one}]}}')
    assert (status, proof["ok"], len(proof["replay"]["identical"])) == (0, True, 3)
    assert main(["verify", "--store", str(root), "--replay", at(opened, 0, (0, 1)).identity]) == 0
    assert "replayed: 1 identical, 0 differs, 0 damaged, 0 not replayable here" in capsys.readouterr().out
    assert main(["heal", "--store", str(root)]) == 0
    assert capsys.readouterr().out.startswith("trained: 0 nodes, 0 in vain; 0 have no examples\nok, complete: ")


def test_a_train_beside_the_making_of_its_store_is_one_line(tmp_path, capsys, monkeypatch):
    """The second comes while the first makes the store; the third, while it takes in examples: both go on with one."""
    root, said = tmp_path / "store", []
    create, register = database.create_ledger, disk.register

    def creating(*args):
        monkeypatch.setattr(database, "create_ledger", create)
        said.append(run(capsys, "train", "--store", root, *MAKE))
        return create(*args)

    def registering(opened, *args):
        monkeypatch.setattr(disk, "register", register)
        said.append(run(capsys, "train", "--store", root, *MAKE))
        return register(opened, *args)

    monkeypatch.setattr(database, "create_ledger", creating)
    monkeypatch.setattr(disk, "register", registering)
    status, made, err = run(capsys, "train", "--store", root, *MAKE)
    assert said[0][:2] == (2, None) and said[0][2].startswith(f"error: another process makes a store in {root}: ")
    assert (said[1][0], said[1][1]["trained"]) == (0, 6) and (status, err, made["trained"]) == (0, "", 0)
    assert made["examples"] == len(SOURCE.ids) and verify.verify(root)["ok"]


def test_the_command_line_names_mistakes(tmp_path, opened, capsys):
    root = opened.root
    for words, message in (
        (("train", "--store", tmp_path / "no"), "to make one, give --factory and --planner and --slices and --shards"),
        (("train", "--store", tmp_path / "no", *MAKE, "--hyper", "[1]"), "expected a JSON object, got '[1]'"),
        (("train", "--store", tmp_path / "no", *MAKE, "--arguments", '{"where": 1}'), "does not take these arguments"),
        (("train", "--store", tmp_path / "no", *MAKE, "--factory", "nowhere:make"), "cannot be found"),
        (("train", "--store", tmp_path / "no", *MAKE, "--factory", ":make"), "a factory is named module:function"),
        (("train", "--store", tmp_path / "no", *MAKE, "--factory", "json:dumps"), "gives a str: name one that gives"),
        (("train", "--store", tmp_path / "no", *MAKE, "--seed", 1 << 32), "from 0 to 4294967295, got '4294967296'"),
        (("train", "--store", tmp_path / "no", *MAKE, "--seed", "9" * 20), "from 0 to 4294967295, got '9999"),
        (("train", "--store", tmp_path / "no", *MAKE, "--slices", 9), "4 blocks cannot be cut into 9 slots"),
        (("train", "--store", root, "--shards", 3), "made with another --shards (2)"),
        (("train", "--store", root, "--hyper", '{"toy": 3}'), "made with another --hyper"),
        (("train", "--store", root, "--planner", "sisa", "--slices", 2), "made for another plan"),
        (("train", "--store", root, *MAKE, "--prior", "1"), "prior"),
        (("train", "--store", root, "--planner", "sisa"), "--planner says nothing without --slices: give that too"),
        (("train", "--store", root, "--budget", 2), "--budget says nothing without --planner and --slices"),
        (("train", "--store", root, "--prior", "0.1,0.9"), "--prior says nothing without --planner and --slices"),
        (("verify", "--store", root, "--replay", 0), "0 nodes trained once more prove nothing"),
        (("train", "--store", tmp_path), "there is no store"),
        (("heal", "--store", tmp_path), "there is no store"),
        (("verify", "--store", root, "--replay", "abc"), "no serving node is called abc"),
    ):
        status, out, err = run(capsys, *words)
        assert (status, out) == (2, None) and err.startswith("error: ") and message in err, (words, err)
    assert not (tmp_path / "no").exists()


def test_a_store_that_no_factory_made_is_not_trained(tmp_path, opened, capsys):
    bare = disk.create(tmp_path / "bare", dataclasses.replace(opened.manifest, hyper={}))
    for command in ("train", "heal"):
        status, out, err = run(capsys, command, "--store", bare.root)
        assert (status, out) == (2, None) and "not made by `python -m s3t train`" in err


def test_without_examples_predict_asks_for_another_store(opened, capsys):
    ids = [one for shard in range(2) for s in range(2) for one in stores.ids_at(opened, shard, s)]
    status, _, err = run(capsys, "predict", "--store", builds.create(opened.root.parent / "new").root, "--ids", ids[0])
    assert status == 2 and err.endswith("nothing can be predicted; train the store\n")
    disk.delete(opened, ids)
    status, _, err = run(capsys, "predict", "--store", opened.root, "--ids", ids[0])
    assert status == 2 and err.endswith("it has no example left to train on: make another\n")
    assert main(["status", "--store", str(opened.root)]) == 1
    assert capsys.readouterr().out.startswith("not ok, needs rebuild: ")


def test_a_heal_that_nobody_reads_ends_without_a_word_and_goes_on(opened, capsys, monkeypatch):
    """A closed pipe as standard error stops it at the first node that it tells of, one as standard output at the end."""
    disk.delete(opened, [stores.ids_at(opened, 0, 0)[0]], "r")
    for stream, left in (("stderr", 1), ("stdout", 0)):
        read, write = os.pipe()
        os.close(read)
        with monkeypatch.context() as patch, os.fdopen(write, "w") as pipe:
            patch.setattr(sys, stream, pipe)
            assert main(["heal", "--store", str(opened.root)]) == 141
        out, err = capsys.readouterr()
        assert (out, err.count("error")) == ("", 0) and len(publishing.missing(opened)) == left
    assert state.status(opened)["requests"] == {"healed": 1} and verify.verify(opened.root)["ok"]


def test_an_interrupt_is_one_line(opened, capsys, monkeypatch):
    def interrupted(*args, **more):
        raise KeyboardInterrupt

    monkeypatch.setattr(healing, "train_missing", interrupted)
    status, out, err = run(capsys, "heal", "--store", opened.root)
    assert (status, out, err) == (130, None, "interrupted: the same command goes on from here\n")


# kill -9


def worker(root, requests, *more):
    cache = {
        "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir or "",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
    }
    return subprocess.Popen(
        [sys.executable, "-m", "tests.helpers.builds", str(root), str(requests), *map(str, more)],
        cwd=ROOT, stdout=subprocess.PIPE, text=True, env={**os.environ, **cache, "PYTHONWARNINGS": "ignore"},
    )  # fmt: skip


def write(path, requests):
    path.write_text(json.dumps(requests))
    return path


def test_a_build_killed_with_kill_9_goes_on(tmp_path, template):
    """Before the store is one, before it has examples, between a node's file and its row, and while it trains."""
    file, root = write(tmp_path / "requests.json", []), tmp_path / "store"
    for step, left in ((2, None), (5, 0), (21, 1)):  # the manifest's rename, the commits of the examples and of a node
        killed = worker(root, file, step)
        said = killed.communicate(timeout=300)[0].split()
        assert killed.returncode == -9 and said == ["ready"]
        assert disk.exists(root) == (left is not None)
        if left is not None:
            looked = disk.look(root)
            status = state.status(looked)
            assert (status["nodes"]["live"], status["nodes"]["leftovers"]) == (0, left)
            assert status["examples"] == (len(SOURCE.ids) if left else 0)
            disk.close(looked)
    process = worker(root, file)
    assert [process.stdout.readline().strip() for _ in range(3)] == ["ready", "node", "node"]
    process.kill()
    said = process.communicate(timeout=300)[0].split()
    assert process.returncode == -9 and "done" not in said
    opened = disk.open(root)
    served = len(publishing.live(opened))
    assert 2 + len(said) <= served < 6 and verify.verify(root)["ok"]
    assert healing.heal(opened, SOURCE)["trained"] == 6 - served
    assert stores.content(opened) == stores.content(disk.look(template))


def kill_heals(tmp_path, template, kills, seed):
    """Kill a process that deletes and heals at random moments, restart it, and end where one that was never killed ends."""
    rng = random.Random(seed)
    root = tmp_path / "store"
    shutil.copytree(template, root)
    ids = [int(one) for one in rng.sample(list(SOURCE.ids), 36)]
    requests = [[f"r{i}", [one]] for i, one in enumerate(ids)]
    done = died = 0
    while died < kills:
        process = worker(root, write(tmp_path / "requests.json", requests[done:]))
        lines = [process.stdout.readline().strip() for _ in range(rng.randint(1, 3))]
        time.sleep(rng.uniform(0, 0.1))
        process.kill()
        lines += process.communicate(timeout=300)[0].split()
        died += process.returncode == -9
        done += sum(line.startswith("r") and line != "ready" for line in lines)
        assert done < len(requests) - 1, "the stream of deletions is too short"
        opened = disk.open(root)
        assert verify.verify(root)["ok"] and all(deletions.answer(opened.ledger, name) for name, _ in requests[:done])
        disk.close(opened)
    requests = requests[: done + 1]  # the last one perhaps begun
    opened = disk.open(root)
    healing.heal(opened, SOURCE)
    builds.carry_out(opened, requests)
    healing.heal(opened, SOURCE)
    shutil.copytree(template, tmp_path / "peaceful")
    peaceful = disk.open(tmp_path / "peaceful")
    builds.carry_out(peaceful, [["all", [one for _, some in requests for one in some]]])
    assert stores.content(opened) == stores.content(peaceful)
    assert state.status(opened)["requests"] == {"healed": done + 1} and verify.verify(root)["ok"]
    assert replay.replay(opened, SOURCE)["ok"]


def test_a_heal_killed_with_kill_9_ends_as_one_in_peace(tmp_path, template):
    kill_heals(tmp_path, template, 3, seed=0)


@pytest.mark.slow
def test_a_heal_killed_with_kill_9_at_twenty_moments(tmp_path, template):
    kill_heals(tmp_path, template, 20, seed=1)

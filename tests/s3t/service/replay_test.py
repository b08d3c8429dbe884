"""Replays: nodes trained once more give the bytes that were published, and forgeries do not."""

import dataclasses

import jax
import numpy as np
import optax
import pytest

from s3t.cli import main
from s3t.plans import partition
from s3t.service import creation, environment, healing, replay, verify
from s3t.store import disk, publishing
from tests.helpers import builds, commands, stores

SOURCE = builds.make({})


def test_a_node_of_another_stack_is_not_judged(opened, monkeypatch, capsys):
    here = environment.here()
    monkeypatch.setattr(environment, "here", lambda: here | {"threads": 99, "jax": "0.0.1"})
    found = replay.replay(opened, SOURCE)
    assert not found["ok"] and len(found["not replayable here"]) == 6 and not found["identical"] and found["proved"] == 0
    why = (
        f"jax was {here['jax']}, here it is 0.0.1 (it takes pip install jax=={here['jax']}); "
        f"threads was {here['threads']}, here it is 99 (it takes NPROC={here['threads']} in the environment)"
    )
    assert found["reasons"] == [why] and found["verdict"] == "nothing was proved" and found["problems"] == []
    assert main(["verify", "--store", str(opened.root), "--replay", "2"]) == 3  # neither proved nor refuted
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "nothing was proved by replay: no node could be judged here" and told[-2:] == [
        "replayed: 0 identical, 0 differs, 0 damaged, 2 not replayable here",
        f"not replayable here: {why}",
    ]


@pytest.mark.parametrize("sound", [True, False])
@pytest.mark.parametrize("same", [True, False])
def test_a_store_is_ok_if_both_the_record_and_the_replay_are(opened, capsys, monkeypatch, sound, same):
    """Whatever either of them says beside its "ok"."""
    proof = verify.verify(opened.root)
    verdict = "proved" if same else "refuted"
    found = {"ok": same, "verdict": verdict, "problems": [], **{outcome: [] for outcome in replay.OUTCOMES}, "reasons": []}
    monkeypatch.setattr(verify, "verify", lambda *args: {**proof, "ok": sound})
    monkeypatch.setattr(replay, "replay", lambda *args: found)
    status, result, _ = commands.run(capsys, "verify", "--store", opened.root, "--replay", "all")
    assert (status, result["ok"], result["replay"]) == (0 if sound and same else 1, sound and same, found)


def test_a_node_of_other_code_is_not_judged(opened):
    other = SOURCE.recipe._replace(optimizer=lambda steps: optax.sgd(0.01))
    name = builds.at(opened, 0, (1,)).identity
    found = replay.replay(opened, dataclasses.replace(SOURCE, recipe=other), name)
    assert (
        found["verdict"] == "nothing was proved"
        and found["not replayable here"] == [name]
        and found["reasons"][0].startswith("program was ")
    )


def test_a_setting_of_jax_that_changes_bits_is_a_flag_of_the_stack():
    before = jax.config.values["jax_disable_most_optimizations"]
    try:
        jax.config.update("jax_disable_most_optimizations", not before)
        other = environment.here()["flags"]
    finally:
        jax.config.update("jax_disable_most_optimizations", before)
    changed = set(other) ^ set(environment.here()["flags"])
    assert changed == {"jax_disable_most_optimizations=True"}


def test_what_the_stack_records(monkeypatch):
    here = environment.here()
    assert {"jax", "jaxlib", "platform", "runtime", "device", "devices", "flags"} <= set(here)
    assert here["jax"] == jax.__version__ and here["devices"] == jax.device_count()
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=x --xla_b=1 --xla_a=2")
    unoptimised = ["jax_disable_most_optimizations=True"] * jax.config.values["jax_disable_most_optimizations"]
    assert environment.here()["flags"] == ["--xla_a=2", "--xla_b=1", *unoptimised]
    if here["platform"] == "cpu":
        assert here["threads"] >= 1 and here["processor"]
        monkeypatch.setenv("NPROC", "7")
        assert environment.here()["threads"] == 7


def forge(root, opened, **stack):
    """A store in which files, certificates and ledger agree, but one node's parameters were altered before."""
    forged = disk.create(root, opened.manifest)
    creation.ensure_examples(forged, SOURCE)
    name = builds.at(opened, 1, (1,)).identity
    for node in publishing.live(opened):
        certificate, tensors = publishing.load(opened, node)
        if node.identity == name:
            tensors["head/b"] = tensors["head/b"] + np.float32(1e-7)
        stated = certificate.stack | (stack if node.identity == name else {})
        parent = builds.at(opened, node.shard, node.slices[:-1]).identity if len(node.slices) > 1 else None
        publishing.publish(forged, publishing.draft_node(forged, node.shard, node.slices), tensors, stated, parent)
    return forged, name


def test_a_forged_node_differs(tmp_path, opened, capsys):
    forged, name = forge(tmp_path / "forged", opened)
    assert verify.verify(forged.root)["ok"]
    found = replay.replay(forged, SOURCE)
    assert not found["ok"] and found["differs"] == [name] and len(found["identical"]) == 5
    assert found["problems"] == [f"node {name}: training gives other bytes than were published"]
    status, result, _ = commands.run(capsys, "verify", "--store", forged.root, "--replay", name)
    assert (status, result["ok"], result["problems"]) == (1, False, found["problems"])


@pytest.mark.parametrize("which", ["all", 6, "forged"])
def test_a_forged_node_that_claims_another_stack_proves_nothing(tmp_path, opened, capsys, which):
    """Whatever else comes out alike: every node that was asked for must be judged."""
    forged, name = forge(tmp_path / "forged", opened, threads=999)
    assert verify.verify(forged.root)["ok"]
    status, result, _ = commands.run(
        capsys, "verify", "--store", forged.root, "--replay", name if which == "forged" else which
    )
    proved = 0 if which == "forged" else 5
    assert (status, result["ok"], result["verdict"]) == (3, False, "nothing was proved")
    told = result["replay"]
    assert (told["proved"], told["asked"], told["serving"], told["not replayable here"]) == (proved, proved + 1, 6, [name])
    if which == 6:
        assert main(["verify", "--store", str(forged.root), "--replay", "6"]) == 3
        lines = capsys.readouterr().out.splitlines()
        assert lines[0] == "nothing was proved by replay: 1 of 6 nodes could not be judged here"
        assert "asked for: 6 of 6 nodes" in lines


def test_threads_that_are_no_number_are_one_line(opened, monkeypatch, capsys):
    for text in ("abc", "0", "-1", "1_0", "9" * 5000):
        monkeypatch.setenv("NPROC", text)
        if environment.jax.default_backend() == "cpu":
            status, out, err = commands.run(capsys, "verify", "--store", opened.root, "--replay", 1)
            assert (status, out) == (2, None) and "make it a number of threads from 1 on, or unset it" in err
            root = opened.root.parent / "new"
            words = ("--planner", "stumps", "--slices", 2, "--shards", 2, "--factory", builds.FACTORY, "--store", root)
            assert commands.run(capsys, "train", *words)[0] == 2 and not root.exists()


def test_a_damaged_file_is_named(opened, capsys):
    parent, child = builds.at(opened, 0, (0,)), builds.at(opened, 0, (0, 1))
    path = opened.root / "nodes" / f"{parent.identity}.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    found = replay.replay(opened, SOURCE)
    assert found["damaged"] == [parent.identity] and found["not replayable here"] == [child.identity] and not found["ok"]
    assert "an ancestor cannot be read: the parameters of node" in found["reasons"][0] and len(found["identical"]) == 4
    status, result, _ = commands.run(capsys, "verify", "--store", opened.root, "--replay", "all")
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
    assert len(some) == 2 and set(some) < set(names) and some == sorted(some, key=names.index)
    assert len({node for _ in range(99) for node in replay.chosen(opened, 2)}) > 2, "nobody knows them before"
    assert [node.identity for node in replay.chosen(opened, 99)] == names
    assert [node.identity for node in replay.chosen(opened, names[3])] == [names[3]]
    with pytest.raises(ValueError, match="no serving node is called x: "):
        replay.chosen(opened, "x")

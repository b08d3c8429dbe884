"""The command line trains, heals and replays, and names mistakes."""

import dataclasses
import os
import sys

import pytest

from s3t.cli import main
from s3t.service import healing, verify
from s3t.store import disk, publishing, state
from s3t.store.ledger import database
from tests.helpers import builds, commands, stores

SOURCE = builds.make({})


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A trained store of the toy data."""
    return builds.trained(tmp_path_factory.mktemp("template") / "store")


MAKE = ("--factory", builds.FACTORY, "--planner", "stumps", "--slices", 2, "--shards", 2, "--seed", 5)


def test_the_command_line_trains_heals_and_replays(tmp_path, template, capsys, monkeypatch):
    """With the template's key it makes the template's bytes: `stumps` of two slices is its plan."""
    root = tmp_path / "store"
    with monkeypatch.context() as patched:
        patched.setattr(os, "urandom", bytes)
        status, made, err = commands.run(capsys, "train", "--store", root, *MAKE)
    assert (status, err) == (0, "") and (made["trained"], made["state"], made["depth"]) == (6, "complete", [2, 2])
    opened = disk.open(root)
    assert stores.content(opened) == stores.content(disk.look(template))
    status, again, err = commands.run(capsys, "train", "--store", root, *MAKE, "--hyper", '{"toy": 1}')
    assert (status, err, again["trained"]) == (0, "", 0)
    one = stores.ids_at(opened, 0, 0)[0]
    assert commands.run(capsys, "delete", "--store", root, "--ids", one, "--request-id", "R")[1]["nodes_dropped"] == 2
    status, done, err = commands.run(capsys, "heal", "--store", root)
    assert (status, err) == (0, "") and (done["trained"], done["healed"], done["state"]) == (2, ["R"], "complete")
    status, proof, _ = commands.run(
        capsys, "verify", "--store", root, "--replay", 3, "--arguments", f'{{"missing": [{one}]}}'
    )
    assert (status, proof["ok"], len(proof["replay"]["identical"])) == (0, True, 3)
    assert main(["verify", "--store", str(root), "--replay", builds.at(opened, 0, (0, 1)).identity]) == 0
    assert "replayed: 1 identical, 0 differs, 0 damaged, 0 not replayable here" in capsys.readouterr().out
    assert main(["heal", "--store", str(root)]) == 0
    assert capsys.readouterr().out.startswith("trained: 0 nodes, 0 in vain; 0 have no examples\nok, complete: ")


def test_a_train_beside_the_making_of_its_store_is_one_line(tmp_path, capsys, monkeypatch):
    """The second comes while the first makes the store; the third, while it takes in examples: both go on with one."""
    root, said = tmp_path / "store", []
    create, register = database.create_ledger, disk.register

    def creating(*args):
        monkeypatch.setattr(database, "create_ledger", create)
        said.append(commands.run(capsys, "train", "--store", root, *MAKE))
        return create(*args)

    def registering(opened, *args):
        monkeypatch.setattr(disk, "register", register)
        said.append(commands.run(capsys, "train", "--store", root, *MAKE))
        return register(opened, *args)

    monkeypatch.setattr(database, "create_ledger", creating)
    monkeypatch.setattr(disk, "register", registering)
    status, made, err = commands.run(capsys, "train", "--store", root, *MAKE)
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
        status, out, err = commands.run(capsys, *words)
        assert (status, out) == (2, None) and err.startswith("error: ") and message in err, (words, err)
    assert not (tmp_path / "no").exists()


def test_a_store_that_no_factory_made_is_not_trained(tmp_path, opened, capsys):
    bare = disk.create(tmp_path / "bare", dataclasses.replace(opened.manifest, hyper={}))
    for command in ("train", "heal"):
        status, out, err = commands.run(capsys, command, "--store", bare.root)
        assert (status, out) == (2, None) and "not made by `python -m s3t train`" in err


def test_without_examples_predict_asks_for_another_store(opened, capsys):
    ids = [one for shard in range(2) for s in range(2) for one in stores.ids_at(opened, shard, s)]
    status, _, err = commands.run(
        capsys, "predict", "--store", builds.create(opened.root.parent / "new").root, "--ids", ids[0]
    )
    assert status == 2 and err.endswith("nothing can be predicted; train the store\n")
    disk.delete(opened, ids)
    status, _, err = commands.run(capsys, "predict", "--store", opened.root, "--ids", ids[0])
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
    status, out, err = commands.run(capsys, "heal", "--store", opened.root)
    assert (status, out, err) == (130, None, "interrupted: the same command goes on from here\n")

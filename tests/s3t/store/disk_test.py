"""The store: making and opening, deleting and purging."""

import dataclasses
import json
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from s3t.service import verify
from s3t.store import disk, publishing, state
from s3t.store.files import flush, sync
from s3t.store.ledger import database, records
from s3t.store.manifests import plan_of
from tests.helpers import stores


def test_a_store_is_made_once_and_reads_as_made(tmp_path):
    made = stores.make(tmp_path / "deep" / "store")
    assert made.manifest == stores.manifest() == disk.look(tmp_path / "deep" / "store").manifest
    assert stores.manifest().nodes == plan_of(made.manifest).nodes
    for again in (tmp_path / "deep" / "store", tmp_path / "deep"):
        with pytest.raises(ValueError, match="is not empty"):
            stores.make(again)
    with pytest.raises(ValueError, match=r"there is no store at .*: it has no manifest.json"):
        disk.open(tmp_path / "nothing")
    (made.root / "manifest.json").write_text("{}")
    with pytest.raises(ValueError, match="is not a manifest"):
        disk.look(made.root)


def test_of_two_who_make_a_store_one_wins(tmp_path, monkeypatch):
    """The second comes at every step of the first: it is refused, and the first ends as if it had been alone."""
    root, asked = tmp_path / "store", []

    def refused(function):
        def called(*args, **more):
            monkeypatch.undo()  # the second makes no third
            with pytest.raises(ValueError, match=r"another process makes a store in .*: wait for it, or choose"):
                stores.make(root, shards=1)
            asked.append(function.__name__)
            return function(*args, **more)

        return called

    steps = {
        "s3t.store.files.flush": flush,
        "s3t.store.ledger.database.create_ledger": database.create_ledger,
        "pathlib.Path.replace": Path.replace,
    }
    for step, (name, function) in enumerate({**steps, "s3t.store.files.sync": sync}.items()):
        monkeypatch.setattr(name, refused(function))
        made = stores.make(root)
        assert len(asked) == step + 1 and made.manifest == stores.manifest() and verify.verify(root)["ok"]
        assert sorted(path.name for path in root.iterdir() if "ledger" not in path.name) == ["manifest.json", "nodes"]
        assert records.counts(made.ledger)["examples"] == 60
        with pytest.raises(ValueError, match="is not empty"):
            stores.make(root)
        disk.close(made)
        shutil.rmtree(root)


def test_of_many_threads_that_make_a_store_one_wins(tmp_path):
    barrier = threading.Barrier(8)

    def make(shards):
        barrier.wait()
        try:
            disk.close(stores.make(tmp_path / "store", shards=shards))
        except ValueError as error:
            return str(error)
        return shards

    with ThreadPoolExecutor(8) as pool:
        told = list(pool.map(make, range(1, 9)))
    (winner,) = (one for one in told if isinstance(one, int))
    assert all(one == winner or "another process makes a store" in one or "is not empty" in one for one in told)
    assert disk.look(tmp_path / "store").manifest == stores.manifest(shards=winner)
    assert verify.verify(tmp_path / "store")["ok"] and verify.verify(tmp_path / "store")["examples"] == 60


@pytest.mark.parametrize(
    "change, message",
    [
        ({"shards": 0}, "at least 1 shard"),
        ({"nodes": ((0, 1),)}, "not those of a plan"),
        ({"nodes": ((5,),)}, "slices from 0 to 2"),
        ({"factory": "module.make"}, "module:function"),
        ({"hyper": {"rate": float("nan")}}, "JSON"),
    ],
)
def test_a_manifest_that_cannot_be_is_refused(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        disk.create(tmp_path / "store", dataclasses.replace(stores.manifest(), **change))
    assert not (tmp_path / "store").exists()


def test_places_are_those_of_the_store(tmp_path):
    made = stores.make(tmp_path / "store")
    for shard, slice_, message in (
        (2, 0, "a shard .* between 0 and 1, got 2"),
        (0, -1, "a slice .* between 0 and 2, got -1"),
    ):
        with pytest.raises(ValueError, match=message):
            disk.register(made, [100], [shard], [slice_])
    assert disk.register(made, np.array([100]), np.array([1]), np.array([2])) == database.head(made.ledger).digest


def test_the_answer_to_a_deletion_is_the_promised_object(opened):
    one, two = stores.ids_at(opened, 0, 1)[:2]
    first = disk.delete(opened, [one], "first")
    assert list(first) == ["request", "state", "ids", "already", "unknown", "nodes_dropped", "head", "acknowledged_ms"]
    again = disk.delete(opened, [one, 777, two])
    assert (first["nodes_dropped"], again["nodes_dropped"]) == (4, 0)  # 01, 012, 1 and 12
    assert (again["ids"], again["already"], again["unknown"], again["state"]) == ([two], [one], [777], "deactivated")
    assert again["request"] not in ("", "first") and again["head"] == database.head(opened.ledger).digest
    assert 0 < again["acknowledged_ms"] < 10_000
    json.dumps([first, again])


def test_deleting_purging_healing(opened):
    before, files_before = stores.content(opened)[1], stores.files_of(opened)
    one = stores.ids_at(opened, 0, 1)[0]
    disk.delete(opened, [one], "r")
    kept = stores.live_files(opened)
    assert stores.files_of(opened) == files_before > kept and {node.shard for node in publishing.live(opened)} == {0, 1}
    assert all(1 not in node.slices for node in publishing.live(opened) if node.shard == 0)
    assert state.mark_healed(opened) == () and state.status(opened)["requests"] == {"deactivated": 1}
    assert disk.purge(opened) == ("r",) and disk.purge(opened) == () and stores.files_of(opened) == kept
    assert state.mark_healed(opened) == ()
    missing = publishing.missing(opened)
    assert set(missing) == {(0, slices) for slices in opened.manifest.nodes if 1 in slices}
    assert [len(slices) for _, slices in missing] == sorted(len(slices) for _, slices in missing)
    stores.fill(opened)
    assert state.mark_healed(opened) == ("r",) and state.mark_healed(opened) == () and publishing.missing(opened) == ()
    after = stores.content(opened)[1]
    assert {node[1:] for node in after} == {node[1:] for node in before} and len(after & before) == len(kept)
    assert state.status(opened)["requests"] == {"healed": 1} and verify.verify(opened.root)["ok"]


def test_a_node_without_examples_is_not_waited_for(tmp_path):
    opened = stores.fill(stores.make(tmp_path / "store", examples=6, shards=1, sequences=[(0, 1), (1,)], slices=2))
    disk.delete(opened, stores.ids_at(opened, 0, 1), "r")
    disk.purge(opened)
    assert state.mark_healed(opened) == ()
    stores.fill(opened)
    assert publishing.missing(opened) == ((0, (1,)),) and state.mark_healed(opened) == ("r",)


def test_a_dead_ensemble_says_so(opened):
    disk.delete(opened, [stores.ids_at(opened, 0, slice_)[0] for slice_ in range(3)])
    status = state.status(opened)
    assert (status["depth"], status["state"], status["ok"]) == ([0, 3], "partial", True)
    disk.delete(opened, [stores.ids_at(opened, 1, slice_)[0] for slice_ in range(3)])
    status = state.status(opened)
    assert (status["depth"], status["state"], status["ok"]) == ([0, 0], "needs rebuild", False)
    assert status["problems"] == ["needs rebuild: no shard has a model"]
    assert verify.verify(opened.root)["ok"]  # what serves nothing serves nothing deleted


def test_a_node_that_never_saw_the_example_stays(opened):
    disk.register(opened, [100, 101], [0, 0], [1, 1])
    assert disk.delete(opened, [100])["nodes_dropped"] == 0 and verify.verify(opened.root)["ok"]


def test_opening_finishes_what_was_begun(opened):
    disk.delete(opened, stores.ids_at(opened, 0, 1)[:1], "r")
    nodes = opened.root / "nodes"
    (nodes / f"{'1' * 64}.tmp").write_bytes(b"x")
    (nodes / f"{'0' * 64}.safetensors").write_bytes(b"never published")
    looked = disk.look(opened.root)
    assert stores.files_of(looked) - stores.live_files(looked) and state.status(looked)["nodes"]["leftovers"] == 6
    assert verify.verify(looked.root)["ok"] and verify.verify(looked.root)["leftovers"] == 6
    again = disk.open(opened.root)
    assert stores.files_of(again) == stores.live_files(again) and state.status(again)["requests"] == {"purged": 1}

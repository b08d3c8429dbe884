"""A store that processes train together: the files of one process, whatever happens to the build meanwhile."""

import dataclasses
import itertools
import shutil

import jax
import numpy as np
import pytest

from experiments.core.errors import UserError
from experiments.exact import sharing
from s3t.service import environment, healing
from s3t.store import disk, publishing
from s3t.training import stages
from tests.helpers import builds, peers, stores

SOURCE = builds.make({})
NARROW = dataclasses.replace(SOURCE, most_lanes=1)  # a call for each node


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A store of calls of one node, trained by one process."""
    root = tmp_path_factory.mktemp("alone") / "store"
    store = builds.create(root, lambda hyper: NARROW)
    healing.train_missing(store, NARROW)
    disk.close(store)
    return root


def content(root):
    with_nodes = disk.open(root)
    try:
        return stores.content(with_nodes)
    finally:
        disk.close(with_nodes)


def shared(monkeypatch, count, root, work, source=NARROW):
    """What `work(store, build)` of process 0 gives in each process, which have the same source."""

    def of_first(build):
        store = disk.open(root)
        try:
            return work(store, build)
        finally:
            disk.close(store)

    return peers.together(monkeypatch, count, lambda process: sharing.led(source, of_first))


@pytest.fixture
def calls(monkeypatch):
    """(process, nodes) of each call that was made."""
    made = []
    train = stages.train_nodes

    def recorded(stage, frozen, slices, key, jobs, *rest):
        made.append((jax.process_index(), tuple(jobs)))
        return train(stage, frozen, slices, key, jobs, *rest)

    monkeypatch.setattr(stages, "train_nodes", recorded)
    return made


def missing(store, build, **more):
    return healing.train_missing(store, NARROW, build=build, **more)


def stop_at_depth_2(draft):
    if len(draft.slices) == 2:
        raise KeyboardInterrupt


@pytest.mark.parametrize("count", [2, 3, 5])
def test_each_process_makes_its_calls_and_the_files_are_those_of_one(tmp_path, monkeypatch, template, calls, count):
    """Of two nodes at depth 2, some of three or five processes have none."""
    disk.close(builds.create(tmp_path / "store", lambda hyper: NARROW))
    assert shared(monkeypatch, count, tmp_path / "store", missing) == [(6, 0)] * count
    assert content(tmp_path / "store") == content(template)
    by_depth = [[(shard, node) for node in builds.PLAN.nodes if len(node) == d for shard in (0, 1)] for d in (1, 2)]
    turns = [(i % count, (job,)) for jobs in by_depth for i, job in enumerate(jobs)]
    assert sorted(calls) == sorted(turns)


def test_what_is_there_is_read_by_process_0_alone(tmp_path, monkeypatch, template, calls):
    """The others are told what the ancestors of a node own."""
    store = builds.create(tmp_path / "store", lambda hyper: NARROW)
    with pytest.raises(KeyboardInterrupt):
        healing.train_missing(store, NARROW, report=stop_at_depth_2)
    disk.close(store)
    del calls[:]
    assert shared(monkeypatch, 2, tmp_path / "store", missing) == [(1, 0)] * 2
    assert content(tmp_path / "store") == content(template) and calls == [(0, ((1, (0, 1)),))]


def test_a_deletion_meanwhile_ends_a_build_for_all(tmp_path, monkeypatch):
    """Process 0 leaves it after the first node that is outdated, and builds anew without the deleted."""
    disk.close(builds.create(tmp_path / "store", lambda hyper: NARROW))
    gone = []

    def work(store, build):
        def report(draft):
            if not gone:
                gone.extend(stores.ids_at(store, 1, 0)[:2])
                disk.delete(store, gone, "meanwhile")

        done = missing(store, build, report=report)
        return done, stores.content(store)[:2] == builds.never_had(tmp_path / "twin", store, gone)

    ends = shared(monkeypatch, 2, tmp_path / "store", work)
    assert ends == [((6, 1), True)] * 2


@pytest.mark.parametrize("process", [0, 1])
def test_a_call_that_cannot_be_made_is_the_same_mistake_in_every_process(tmp_path, monkeypatch, process):
    disk.close(builds.create(tmp_path / "store", lambda hyper: NARROW))

    def refuse(*args):
        if jax.process_index() == process:
            raise ValueError("no room")
        return train(*args)

    train = stages.train_nodes
    monkeypatch.setattr(stages, "train_nodes", refuse)
    for end in shared(monkeypatch, 2, tmp_path / "store", missing):
        assert isinstance(end, UserError) and str(end) == "no room"


def test_what_was_lost_comes_back_and_what_was_deleted_is_healed(tmp_path, monkeypatch, template):
    shutil.copytree(template, tmp_path / "store")
    shutil.copytree(template, tmp_path / "alone")

    def work(store, build):
        path, whole = builds.damage(store, 0, (1,))
        disk.delete(store, stores.ids_at(store, 1, 1)[:1], "s")
        done = healing.heal(store, NARROW, build=build)
        return done, path.read_bytes() == whole, stores.content(store)

    alone = disk.open(tmp_path / "alone")
    expected = work(alone, sharing.schedule.build)
    disk.close(alone)
    assert expected[:2] == ({"trained": 3, "discarded": 0, "skipped": 0, "healed": ["s"]}, True)
    assert shared(monkeypatch, 3, tmp_path / "store", work) == [expected] * 3


def test_a_node_that_diverges_is_a_mistake_in_every_process(tmp_path, monkeypatch):
    first = SOURCE.ids[0]

    def fetch(ids):
        x, y = SOURCE.fetch(ids)
        return np.where(np.asarray(ids)[:, None] == first, np.nan, x).astype(x.dtype), y

    poisoned = dataclasses.replace(NARROW, fetch=fetch)
    disk.close(builds.create(tmp_path / "store", lambda hyper: poisoned))
    ends = shared(
        monkeypatch,
        2,
        tmp_path / "store",
        lambda store, build: healing.train_missing(store, poisoned, build=build),
        poisoned,
    )
    for end in ends:
        assert isinstance(end, UserError) and "diverged to numbers that are not finite" in str(end)
    store = disk.look(tmp_path / "store")
    assert len(list(publishing.live(store))) == 4  # its slice's node and the one below it are not there


def test_processes_that_would_give_other_bytes_are_refused(monkeypatch):
    here = environment.here()
    threads = itertools.count(1)
    monkeypatch.setattr(environment, "here", lambda: {**here, "threads": next(threads)})
    for end in peers.together(monkeypatch, 2, lambda process: sharing.check_stack()):
        assert isinstance(end, UserError) and "other values of threads than process 0: start all with the same" in str(end)

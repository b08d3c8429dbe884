"""Examples that no node can hold are told."""

import pytest

from s3t.cli import main
from s3t.store import disk, state
from tests.helpers import stores


def made(root, sequences, places):
    """A store of examples at the given (shard, slice)."""
    store = disk.create(root, stores.manifest(sequences=sequences))
    disk.register(store, range(len(places)), *zip(*places, strict=True))
    return store


@pytest.mark.parametrize(
    "sequences, places, count, why",
    [
        ([(0, 1), (1,), (2,)], [(0, 0), (0, 1), (1, 1), (1, 2)], 0, None),
        (
            [(0, 1), (1, 2)],
            [(0, 0), (0, 1), (1, 2), (1, 2)],
            2,
            "all nodes with slice 2 begin with slice 1, empty in shard 1",
        ),
        ([(0, 1), (2, 1)], [(0, 1), (1, 2)], 1, "all nodes with slice 1 begin with slice 0 or 2, empty in shard 0"),
        ([(0, 1)], [(0, 1), (1, 2), (1, 2)], 3, "begin with slice 0, empty in shard 0 (and so in 1 more slices)"),
        ([(0,)], [(0, 0), (1, 2)], 1, "the plan has no node with slice 2"),
    ],
)
def test_examples_that_no_node_can_hold_are_counted_with_the_reason(tmp_path, capsys, sequences, places, count, why):
    store = made(tmp_path / "store", sequences, places)
    stores.fill(store)
    told = state.status(store)
    assert told["untrained"] == count and len(told["notes"]) == bool(why)
    main(["status", "--store", str(store.root)])
    out = capsys.readouterr().out
    assert ("warning: " in out) == bool(why)
    if why:
        assert f"warning: {count} examples are in no node: " in out and why in told["notes"][0]


def test_a_deletion_may_leave_examples_in_no_node(tmp_path):
    store = made(tmp_path / "store", [(0, 1)], [(0, 0), (0, 1), (0, 1), (1, 0)])
    stores.fill(store)
    assert state.status(store)["untrained"] == 0
    disk.delete(store, [0])
    assert state.status(store)["untrained"] == 2
    disk.delete(store, [1, 2])
    assert state.status(store)["untrained"] == 0

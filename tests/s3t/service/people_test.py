"""A source's groups and names reach the ledger of a store that is made of it."""

import dataclasses

import pytest

from s3t.store import disk
from s3t.store.ledger import audit, registry
from s3t.training.source import Placing
from tests.helpers import builds

SOURCE = builds.make({})
GROUPS = [f"p{i % 5}" if i % 3 else None for i in range(len(SOURCE.ids))]


def grouped(hyper):
    return dataclasses.replace(SOURCE, placing=lambda: Placing(groups=GROUPS))


def test_a_persons_examples_share_a_slice_and_are_deleted_together(tmp_path):
    opened = builds.create(tmp_path / "store", grouped)
    expected = {int(id_): group for id_, group in zip(SOURCE.ids, GROUPS, strict=True) if group}
    assert registry.labels_of(opened.ledger, registry.GROUPS) == expected
    done = disk.delete(opened, [], "R", ["p1"])
    assert sorted(done["ids"]) == [id_ for id_, group in expected.items() if group == "p1"]
    marks = ",".join(map(str, done["ids"]))
    places = opened.ledger.execute(f"SELECT DISTINCT shard, slice FROM examples WHERE id IN ({marks})").fetchall()
    audit.check(opened)
    assert len(places) == 1


def test_groups_that_are_written_alike_leave_no_examples(tmp_path):
    odd = dataclasses.replace(SOURCE, placing=lambda: Placing(groups=[5, "5", *[None] * (len(SOURCE.ids) - 2)]))
    with pytest.raises(ValueError, match="are written alike"):
        builds.create(tmp_path / "store", lambda hyper: odd)
    assert not disk.exists(tmp_path / "store")


def test_names_of_a_source_are_kept(tmp_path):
    names = [f"img {id_}.png" if id_ % 2 else None for id_ in SOURCE.ids.tolist()]
    opened = builds.create(tmp_path / "store", lambda hyper: dataclasses.replace(SOURCE, names=names))
    kept = registry.labels_of(opened.ledger, registry.NAMES)
    assert kept == {id_: name for id_, name in zip(SOURCE.ids.tolist(), names, strict=True) if name}
    with pytest.raises(ValueError, match="two examples have the name 'x'"):
        builds.create(tmp_path / "odd", lambda hyper: dataclasses.replace(SOURCE, names=["x"] * len(names)))
    assert not disk.exists(tmp_path / "odd")

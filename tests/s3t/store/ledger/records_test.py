"""The ledger: states, precise answers, tampering, two processes."""

import json
import subprocess
import sys
import threading

import numpy as np
import pytest

from s3t.store import deletions
from s3t.store.ledger import audit, database, records
from tests.helpers import ledgers
from tests.helpers.ledgers import MANIFEST, rows


@pytest.fixture
def opened(tmp_path):
    with ledgers.small(tmp_path / "ledger.sqlite") as made:
        yield made


def live(made):
    return [node.identity for node in records.nodes(made)]


def states(made):
    return records.counts(made)["requests"]


# what a deletion does


def test_a_deletion_by_hand(opened):
    done = deletions.record_deletion(opened, [12], "r")  # shard 0, slice 0
    assert done == ("r", "deactivated", (12,), (), (), ("a", "ab"), rows(opened)[-1].digest, (), ())
    assert live(opened) == ["b", "c", "ca"]
    assert [(row.kind, row.request, json.loads(row.detail)) for row in rows(opened)[-2:]] == [
        ("received", "r", {"ids": [12]}),
        ("deactivated", "r", {"ids": [12], "already": [], "unknown": [], "nodes": ["a", "ab"]}),
    ]
    assert audit.audit(opened, MANIFEST) == []


def test_only_nodes_that_saw_the_example_are_dropped(opened):
    records.record_examples(opened, [22], [0], [1])  # after b and ab were trained
    assert deletions.record_deletion(opened, [22], "late").dropped == ()
    assert records.members(opened, 0, (1,))[1] == (10, 16) and records.members(opened, 0, (1, 0))[1] == (10, 12, 16, 18)
    assert deletions.record_deletion(opened, [10], "early").dropped == ("ab", "b")


def test_slice_1_is_not_slice_12(opened):
    records.record_examples(opened, [30, 31], [5, 5], [1, 12])
    for name, slices in (("twelve", (12,)), ("one", (1,)), ("both", (12, 1))):
        assert publish(opened, name, 5, slices, database.head(opened).rows, parent="twelve" if name == "both" else None)
    assert deletions.record_deletion(opened, [30], "r").dropped == ("both", "one")


def test_members_are_those_not_deleted(opened):
    head, ids = records.members(opened, 1, (2, 0))
    assert (head, ids) == (database.head(opened), (11, 15, 17))
    deletions.record_deletion(opened, [15], "r")
    assert records.members(opened, 1, (2, 0))[1] == (11, 17)


def test_a_batch_is_one_transaction_that_names_every_id_once(opened):
    deletions.record_deletion(opened, [14], "first")
    before = len(rows(opened))
    done = deletions.record_deletion(opened, np.array([13, 99, 14, 13, 12, -5]), "second")
    assert (done.ids, done.already, done.unknown) == ((13, 12), (14,), (99, -5))
    assert len(rows(opened)) == before + 2 and records.counts(opened)["deleted"] == 3


@pytest.mark.parametrize(
    "ids, state",
    [([99], "unknown"), ([14], "deactivated"), ([14, 99, 14], "deactivated"), ([2**63 - 1, -(2**63)], "unknown")],
)
def test_ids_that_are_unknown_or_deleted_change_nothing(opened, ids, state):
    deletions.record_deletion(opened, [14], "first")
    before = rows(opened)
    done = deletions.record_deletion(opened, ids, "second")
    assert (done.ids, done.dropped, done.state, done.head) == ((), (), state, before[-1].digest)
    assert set(done.already) | set(done.unknown) == set(ids) and rows(opened) == before
    assert states(opened) == {"deactivated": 1}
    assert deletions.record_deletion(opened, [13], "second").ids == (13,)  # it left no trace


@pytest.mark.parametrize("bad", [1.0, "12", None, True, 2**63, -(2**63) - 1, b"1", [1], np.float32(1), float("nan")])
def test_a_malformed_id_refuses_the_whole_batch(opened, bad):
    before = rows(opened)
    with pytest.raises(ValueError, match=r"whole number of 64 bits.*nothing was changed"):
        deletions.record_deletion(opened, [12, bad, 99], "r")
    assert rows(opened) == before and records.counts(opened)["deleted"] == 0


@pytest.mark.parametrize("ids, request_, message", [([], "r", "at least one id")] + [
    ([12], bad, "1 to 200 printable") for bad in ("", "x" * 201, "a\nb", 7, None)
])  # fmt: skip
def test_a_malformed_request_is_refused(opened, ids, request_, message):
    with pytest.raises(ValueError, match=message):
        deletions.record_deletion(opened, ids, request_)
    assert len(rows(opened)) == 7


def test_a_repeated_request_is_answered_as_it_was(opened):
    first = deletions.record_deletion(opened, [12, 99], "r")
    deletions.record_deletion(opened, [13], "other")
    records.record_examples(opened, [99], [0], [0])
    deletions.record_purge(opened, lambda serving: None)
    before = rows(opened)
    assert deletions.record_deletion(opened, [99, 12, 12], "r") == first == deletions.answer(opened, "r")
    assert rows(opened) == before and deletions.answer(opened, "never") is None
    with pytest.raises(ValueError, match="request r was made before, for other ids"):
        deletions.record_deletion(opened, [12], "r")
    assert rows(opened) == before


# states


def test_the_states_of_a_request(opened):
    with pytest.raises(ValueError, match="r is unknown"):
        deletions.record_healed(opened, "r")
    deletions.record_deletion(opened, [12], "r")
    deletions.record_deletion(opened, [11], "s")
    with pytest.raises(ValueError, match="r is deactivated"):
        deletions.record_healed(opened, "r")
    given = []
    assert deletions.record_purge(opened, given.append) == ("r", "s")
    assert (
        given == [{"b"}]
        and states(opened) == {"purged": 2}
        and set(records.purged_identities(opened)) == {"a", "ab", "c", "ca"}
    )
    assert deletions.record_purge(opened, given.append) == () and given == [{"b"}] * 2
    assert deletions.record_healed(opened, "r") and not deletions.record_healed(opened, "r")
    assert states(opened) == {"healed": 1, "purged": 1} and deletions.requests(opened, "purged") == ("s",)
    assert [row.kind for row in rows(opened)[7:]] == ["received", "deactivated"] * 2 + ["purged"] * 2 + ["healed"]
    assert audit.audit(opened, MANIFEST) == []


def test_what_fails_inside_a_transaction_leaves_nothing(opened):
    deletions.record_deletion(opened, [12], "r")
    before = rows(opened)

    def fail(*_):
        raise OSError("disk full")

    with pytest.raises(OSError):
        deletions.record_purge(opened, fail)
    with pytest.raises(OSError):
        records.record_node(opened, records.PublishedNode("new", 0, (1,), len(before), "c"), None, fail)
    assert rows(opened) == before and states(opened) == {"deactivated": 1} and live(opened) == ["b", "c", "ca"]


# examples


def test_a_registration_is_all_or_nothing(opened):
    deletions.record_deletion(opened, [12], "r")
    before = rows(opened)
    for ids, message in (
        ([30, 13], "id 13 was registered before"),
        ([12], "id 12 was"),
        ([31, 30, 31], "id 31 is given twice"),
    ):
        with pytest.raises(ValueError, match=message):
            records.record_examples(opened, ids, [0] * len(ids), [0] * len(ids))
    with pytest.raises(ValueError, match="whole number"):
        records.record_examples(opened, [30, "x"], [0, 0], [0, 0])
    with pytest.raises(ValueError, match="one shard and one slice for each id"):
        records.record_examples(opened, [30, 31], [0, 0], [0])
    assert rows(opened) == before and records.counts(opened)["examples"] == 10


# nodes


def publish(made, name, shard, slices, as_of, certificate="c", parent=None):
    placed = []
    new = records.record_node(
        made, records.PublishedNode(name, shard, slices, as_of, certificate), parent, lambda: placed.append(name)
    )
    assert new == bool(placed)
    return new


def test_a_node_is_published_once(opened):
    assert publish(opened, "x", 0, (2,), 7)
    before = rows(opened)
    assert not publish(opened, "x", 0, (2,), 7) and rows(opened) == before
    with pytest.raises(ValueError, match="with other bytes"):
        publish(opened, "x", 0, (2,), 7, "other")


def test_a_deletion_during_training_keeps_the_node_back(opened):
    as_of = database.head(opened).rows
    deletions.record_deletion(opened, [12], "r")
    for name, slices, parent in (("x", (0,), None), ("bx", (1, 0), "b")):
        with pytest.raises(records.Outdated):
            publish(opened, name, 0, slices, as_of, parent=parent)
    with pytest.raises(records.Outdated):  # a dropped node does not come back
        publish(opened, "a", 0, (0,), as_of, "certificate of a")
    assert publish(opened, "y", 0, (2,), as_of) and publish(opened, "x", 0, (0,), as_of + 2)
    records.record_examples(opened, [42], [0], [2])
    as_of = database.head(opened).rows
    records.record_examples(opened, [48], [0], [2])
    deletions.record_deletion(opened, [48], "later than the draft")
    assert publish(opened, "z", 0, (2,), as_of)


def test_a_parent_must_be_one_and_serve(opened):
    as_of = database.head(opened).rows
    for parent in ("c", "ab", "never", None):  # another shard, other slices
        with pytest.raises(ValueError, match="no parent of"):
            publish(opened, "a2", 0, (0, 2), as_of, parent=parent)
    with pytest.raises(ValueError, match="no parent of"):  # it has seen a later ledger
        publish(opened, "a2", 0, (0, 2), 1, parent="a")
    with pytest.raises(ValueError, match="no parent of"):
        publish(opened, "x", 0, (2,), as_of, parent="a")
    deletions.record_deletion(opened, [12], "r")
    with pytest.raises(records.Outdated, match="parent"):
        publish(opened, "a2", 0, (0, 2), as_of + 2, parent="a")
    with pytest.raises(ValueError, match="never published"):
        records.certificate_of(opened, "never")


# files and processes


def test_create_and_open_name_what_is_wrong(tmp_path):
    path = tmp_path / "ledger.sqlite"
    with pytest.raises(ValueError, match="no ledger at"):
        database.open_ledger(path)
    database.create_ledger(path, MANIFEST).close()
    with pytest.raises(ValueError, match=r"a ledger at .* already"):
        database.create_ledger(path, MANIFEST)


def test_writes_are_synced_and_logged_ahead(opened):
    assert opened.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert opened.execute("PRAGMA synchronous").fetchone() == (2,)


def test_another_connection_sees_the_head_move(tmp_path, opened):
    reader = database.open_ledger(tmp_path / "ledger.sqlite")
    before = database.head(reader)
    done = deletions.record_deletion(opened, [12], "r")
    assert database.head(reader) == (before.rows + 2, done.head) and live(reader) == ["b", "c", "ca"]
    reader.close()


def test_a_writer_waits_for_another(tmp_path, opened):
    opened.execute("BEGIN IMMEDIATE")
    answers = []

    def work():
        other = database.open_ledger(tmp_path / "ledger.sqlite")
        answers.append(deletions.record_deletion(other, [12], "r").ids)
        other.close()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(0.2)
    assert answers == []
    opened.execute("COMMIT")
    thread.join(10)
    assert answers == [(12,)]


WRITER = """
import sys
from pathlib import Path
from s3t.store import deletions
from s3t.store.ledger import database
ledger = database.open_ledger(Path(sys.argv[1]))
input()
for one in range(100, 400):
    done = deletions.record_deletion(ledger, [one, one + 1], f"{sys.argv[2]}-{one}")
    print(*done.ids)
"""


def test_two_processes_delete_every_id_once(tmp_path, opened):
    ids = range(100, 401)
    records.record_examples(opened, ids, [i % 2 for i in ids], [i % 3 for i in ids])
    command = [sys.executable, "-c", WRITER, str(tmp_path / "ledger.sqlite")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    both = [subprocess.Popen([*command, name], **pipes) for name in "xy"]
    for one in both:
        one.stdin.write("go\n")
        one.stdin.flush()
    deleted = [one.communicate(timeout=60)[0].split() for one in both]
    assert all(one.returncode == 0 for one in both)
    assert sorted(int(one) for part in deleted for one in part) == list(ids)
    assert audit.audit(opened, MANIFEST) == [] and records.counts(opened)["deleted"] == len(ids)

"""Stores that are deleted from and healed: equality to the bit with one that never had the examples."""

import dataclasses

from s3t.service import healing, replay, verify
from s3t.store import disk, publishing, state
from tests.helpers import builds, stores

SOURCE = builds.make({})


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
    lost = builds.hit(opened, (0, 1), (1, 0))
    assert done == {"trained": 4, "discarded": 0, "skipped": 0, "healed": ["r", "s"]} and len(lost) == 4
    assert set(made) == lost and [len(node) for _, node in made] == sorted(len(node) for _, node in made)
    assert not set(asked) & set(gone)
    files, live, _ = stores.content(opened)
    assert survived <= {name for name, *_ in live} and len(live & before) == 2
    assert (files, live) == builds.never_had(tmp_path / "twin", opened, gone)
    assert verify.verify(opened.root)["ok"]
    found = replay.replay(opened, builds.lacking_example(gone[0]))
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
    assert (files, live) == builds.never_had(tmp_path / "twin", opened, [first, second])


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
    assert (files, live) == builds.never_had(tmp_path / "twin", opened, [first, second])


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

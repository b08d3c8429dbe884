"""Stores that take in more examples: equal to the bit to one that had them from the beginning."""

import dataclasses
import json

import numpy as np
import pytest

from s3t.cli import main
from s3t.service import appending, creation, healing, replay, verify
from s3t.service.serving import Server
from s3t.store import disk, newcomers, publishing, state
from s3t.store.ledger import database, records, redaction, registry
from s3t.training.source import Placing
from tests.helpers import builds, commands, stores

SOURCE = builds.make({})
ALL = SOURCE.ids.tolist()


def of(ids, **changes):
    """The source when the data held these examples alone."""
    return dataclasses.replace(SOURCE, ids=np.array(sorted(ids)), **changes)


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Where each example goes."""
    made = builds.create(tmp_path_factory.mktemp("places") / "store")
    found = {id_: (shard, slice_) for id_, shard, slice_ in made.ledger.execute("SELECT id, shard, slice FROM examples")}
    return made.manifest, found


@pytest.fixture(scope="module")
def newer(places):
    """Three examples: two of slice 0 of shard 0, one of slice 1 of shard 1."""
    at = lambda *place: [id_ for id_, where in places[1].items() if where == place]  # noqa: E731
    return [*at(0, 0)[:2], at(1, 1)[0]]


@pytest.fixture(scope="module")
def before(tmp_path_factory, places, newer):
    """A trained store of all examples but these, made for the shapes of all."""
    store = disk.create(tmp_path_factory.mktemp("before") / "store", places[0])
    source = of(set(ALL) - set(newer))
    creation.ensure_examples(store, source)
    assert healing.train_missing(store, source) == (6, 0)
    disk.close(store)
    return store.root


@pytest.fixture
def opened(tmp_path, before):
    with stores.copied(before, tmp_path / "store") as store:
        yield store


def test_a_store_that_took_in_examples_is_one_that_had_them_all(tmp_path, opened, template, newer):
    """And one that they are deleted from is one that never had them: its nodes bear the names that they bore before."""
    first = stores.content(opened)
    server = Server(opened, SOURCE.backbone, SOURCE.frozen, SOURCE.recipe.lora, batch_size=8)
    x, _ = SOURCE.fetch(SOURCE.ids[:8])
    answers = [server.predict(x)]
    assert appending.append(opened, SOURCE) == 3 and stores.problems(opened) == []
    assert server.predict(x).logits.tobytes() == answers[0].logits.tobytes(), "the old nodes serve until others are there"
    late = {(node.shard, node.slices) for node in newcomers.behind(opened)}
    assert late == builds.hit(opened, (0, 0), (1, 1)) and state.status(opened)["state"] == "partial"
    made, depths = [], []

    def report(draft):
        made.append((draft.shard, draft.slices))
        depths.append(server.predict(x).depth)

    done = healing.heal(opened, SOURCE, report=report)
    assert done == {"trained": 4, "discarded": 0, "skipped": 0, "healed": []} and set(made) == late
    assert (2, 2) in depths and all(min(depth) >= 1 for depth in depths)
    files, live, _ = stores.content(opened)
    assert (files, live) == stores.content(disk.look(template))[:2], "files of the old nodes are gone"
    assert len(live & first[1]) == 2 and state.status(opened)["state"] == "complete" and verify.verify(opened.root)["ok"]
    assert replay.replay(opened, SOURCE, 3)["ok"]
    answers.append(server.predict(x))
    disk.delete(opened, newer, "back")
    done = healing.heal(opened, SOURCE)
    assert (done["trained"], done["healed"]) == (4, ["back"])
    assert stores.content(opened)[:2] == first[:2] and stores.problems(opened) == [] and verify.verify(opened.root)["ok"]
    assert server.predict(x).logits.tobytes() == answers[0].logits.tobytes() != answers[1].logits.tobytes()
    assert appending.newcomers_of(opened, SOURCE) == [] and appending.append(opened, SOURCE) == 0, "deleted, so not new"
    assert healing.heal(opened, SOURCE)["trained"] == 0


def test_an_example_that_goes_before_it_was_trained_on_leaves_all_as_it_was(opened, newer):
    first = stores.content(opened)
    appending.append(opened, SOURCE)
    disk.delete(opened, newer, "soon")
    assert newcomers.behind(opened) == set() and healing.heal(opened, SOURCE)["trained"] == 0
    assert stores.content(opened)[:2] == first[:2] and verify.verify(opened.root)["ok"]


def test_a_deletion_while_the_new_are_trained(tmp_path, opened, newer):
    """Its nodes are discarded; what serves then never had the example, and a killed heal goes on where it was."""
    appending.append(opened, SOURCE)
    other, calls = disk.open(opened.root), []

    def place(lanes):
        calls.append(lanes)
        if len(calls) == 1:
            disk.delete(other, newer[:1], "during")
        return lanes

    done = healing.heal(opened, dataclasses.replace(SOURCE, place=place))
    assert done["healed"] == ["during"] and done["discarded"] > 0
    assert stores.content(opened)[:2] == builds.never_had(tmp_path / "twin", opened, newer[:1])
    assert verify.verify(opened.root)["ok"]


def test_a_training_says_what_is_new_and_takes_it_in_when_asked(opened, capsys, newer):
    head, words = database.head(opened.ledger), ("train", "--store", opened.root)
    status, done, err = commands.run(capsys, *words)
    assert (status, err, done["new"], done["trained"], done["state"]) == (0, "", 3, 0, "complete")
    assert main([*map(str, words)]) == 0
    assert (
        "warning: 3 new examples of the data are not in the store: train --append takes them in" in capsys.readouterr().out
    )
    assert database.head(opened.ledger) == head
    status, done, _ = commands.run(capsys, *words, "--append")
    assert (status, done["appended"], done["new"], done["trained"], done["state"]) == (0, 3, 0, 4, "complete")
    assert done["notes"] == [] and done["nodes"]["leftovers"] == 0
    status, done, _ = commands.run(capsys, *words, "--append")
    assert (status, done["appended"], done["trained"]) == (0, 0, 0)
    commands.run(capsys, "delete", "--store", opened.root, "--ids", newer[0])
    status, done, _ = commands.run(capsys, *words, "--append")
    assert (done["appended"], done["new"], done["deleted"]) == (0, 0, 1) and verify.verify(opened.root)["ok"]


def refused(store, source, message):
    head = database.head(store.ledger)
    with pytest.raises(ValueError, match=message) as error:
        appending.append(store, source)
    assert database.head(store.ledger) == head and "\n" not in str(error.value)


def test_more_than_there_is_room_for_is_refused(tmp_path, opened, newer):
    hyper = json.loads(json.dumps(opened.manifest.hyper))
    for shape in hyper["shapes"]:
        shape["capacity"] = len(stores.ids_at(opened, 0, 0)) + 1
    small = disk.create(tmp_path / "small", dataclasses.replace(opened.manifest, hyper=hyper))
    creation.ensure_examples(small, of(set(ALL) - set(newer[:2])))
    refused(
        small, SOURCE, "^1 of 2 new examples fit: .* slice 0 of shard 0 is full; nothing was changed: make another store"
    )
    assert appending.append(small, of(set(ALL) - set(newer[:1]))) == 1
    for shape in hyper["shapes"]:
        shape["capacity"], shape["steps"] = 64, 2
    short = disk.create(tmp_path / "short", dataclasses.replace(opened.manifest, hyper=hyper))
    creation.ensure_examples(short, of(ALL[:1]))
    refused(short, SOURCE, r"^\d+ of 43 new examples fit: ")


def test_a_source_that_lacks_examples_or_is_another_is_refused(opened, newer):
    lacking = stores.ids_at(opened, 0, 1)[0]
    refused(opened, of(set(ALL) - {lacking}), f"the data lack example {lacking}, which the store has")
    refused(opened, dataclasses.replace(SOURCE, hyper={"toy": 2}), "other hyper-parameters")
    disk.delete(opened, [lacking])
    assert appending.append(opened, of(set(ALL) - {lacking})) == 3


def people(ids, **more):
    """Two persons, whose examples are told by `more`; others stand alone."""
    return of(ids, placing=lambda: Placing(groups=[more.get(f"_{id_}") for id_ in sorted(ids)]))


def test_an_example_of_a_known_group_lands_in_its_slice(tmp_path, opened, newer):
    """Even if that is not where its name would lie now; of a store that kept none, all groups of the source are kept."""
    old, other = stores.ids_at(opened, 0, 1)[:2]
    groups = {f"_{old}": "ann", f"_{newer[0]}": "ann", f"_{newer[2]}": "bob"}
    assert appending.append(opened, people(ALL, **groups)) == 3
    where = dict(opened.ledger.execute("SELECT id, shard * 10 + slice FROM examples"))
    assert where[newer[0]] == where[old] == 1
    assert (
        registry.ids_with(opened.ledger, registry.GROUPS, "ann") == sorted([old, newer[0]])
        and stores.problems(opened) == []
    )
    refused(
        opened,
        people(ALL, **groups | {f"_{old}": "bob"}),
        f"example {old} is 'bob' among the groups of the data and 'ann' in",
    )
    assert appending.append(opened, people(ALL, **groups | {f"_{other}": "bob"})) == 0 and stores.problems(opened) == []
    assert sorted(disk.delete(opened, [], None, ["bob"])["ids"]) == sorted([other, newer[2]])


def test_two_at_once_take_the_examples_in_once(opened, monkeypatch):
    register, other = disk.register, disk.look(opened.root)

    def quicker(store, *columns, **more):
        monkeypatch.setattr(disk, "register", register)
        assert appending.append(other, SOURCE) == 3
        return register(store, *columns, **more)

    monkeypatch.setattr(disk, "register", quicker)
    assert appending.append(opened, SOURCE) == 0 and stores.problems(opened) == []
    assert records.counts(opened.ledger)["examples"] == len(ALL)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE nodes SET dropped = NULL WHERE dropped IS NOT NULL",
        "UPDATE log SET detail = replace(detail, '\"retrain\":true', '\"retrain\":1') WHERE kind = 'registered'",
        "DELETE FROM log WHERE kind = 'replaced'",
    ],
)
def test_altered_rows_of_replaced_nodes_are_noticed(opened, statement):
    appending.append(opened, SOURCE)
    healing.heal(opened, SOURCE)
    assert stores.problems(opened) == []
    opened.ledger.execute(statement)
    assert stores.problems(opened)


def test_a_node_that_no_row_replaced_does_not_come_back(opened):
    """The file of a node that serves is not removed because a table says that it was replaced."""
    appending.append(opened, SOURCE)
    healing.heal(opened, SOURCE)
    name = publishing.live(opened)[0].identity
    opened.ledger.execute(
        "UPDATE nodes SET dropped = (SELECT max(seq) FROM log WHERE kind = 'replaced') WHERE identity = ?", (name,)
    )
    with pytest.raises(database.Damaged, match="no row says why"):
        disk.purge(opened)
    assert disk.file_of(opened, name).exists()


def test_a_forgotten_example_that_stays_in_the_data_is_not_new(opened, newer):
    gone = stores.ids_at(opened, 0, 0)[0]
    disk.delete(opened, [gone], "R")
    healing.heal(opened, of(set(ALL) - set(newer)))
    assert redaction.redact(opened).examples == 1
    assert appending.newcomers_of(opened, of(set(ALL) - set(newer))) == []
    assert appending.newcomers_of(opened, SOURCE) == sorted(newer)
    assert appending.append(opened, SOURCE) == 3 and stores.problems(opened) == []
    assert gone not in stores.ids_at(opened, 0, 0)

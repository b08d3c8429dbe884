"""What examples are called beside their ids: kept with their registration, bound by the chain, and deleted by."""

import pytest

from s3t.cli import main
from s3t.service import verify
from s3t.store import disk, state
from s3t.store.ledger import database, records, redaction, registry
from tests.helpers import commands, stores

PERSONS = {id_: f"u{id_ % 7:03}" for id_ in range(50)}  # of 60 examples; ten are nobody's
NAMES = {1: "alice.jpg", 2: "017", 3: "José", 4: "7", 5: "a b, c.png"}
ANN = [id_ for id_, group in PERSONS.items() if group == "u003"]


@pytest.fixture(scope="module")
def named(tmp_path_factory):
    """A filled store whose examples 0 to 49 belong to seven persons."""
    made = stores.manifest()
    store = disk.create(tmp_path_factory.mktemp("named") / "store", made)
    groups = [PERSONS.get(id_) for id_ in range(60)]
    names = registry.name_labels(range(60), [NAMES.get(id_) for id_ in range(60)])
    labels = {registry.GROUPS: registry.group_labels(range(60), groups), registry.NAMES: names}
    disk.register(store, range(60), *stores.places(range(60)), labels)
    disk.close(stores.fill(store))
    return store.root


@pytest.fixture
def persons(named, tmp_path):
    with stores.copied(named, tmp_path / "store") as store:
        yield store


# groups


def test_all_examples_of_a_group_are_deleted_and_answered_as_ids(persons, capsys):
    words = ("delete", "--store", persons.root, "--groups", "u003, nobody", "--request-id", "R")
    status, done, err = commands.run(capsys, *words)
    assert (status, err) == (0, "") and done["ids"] == ANN and done["nodes_dropped"] > 0
    assert (done["groups"], done["unknown_groups"], done["unknown"]) == (["u003"], ["nobody"], [])
    assert stores.problems(persons) == [] and verify.verify(persons.root)["ok"]
    again = commands.run(capsys, *words)[1]
    assert {**again, "acknowledged_ms": 0} == {**done, "acknowledged_ms": 0}
    later = commands.run(capsys, "delete", "--store", persons.root, "--groups", "u003")
    assert later[0] == 0 and (later[1]["ids"], later[1]["already"]) == ([], ANN)


def test_a_repeated_request_is_answered_as_before_though_its_group_grew(persons):
    done = disk.delete(persons, [55], "R", ["u003"])
    disk.register(persons, [100], [0], [0], {registry.GROUPS: {100: "u003"}})
    assert {**disk.delete(persons, [55], "R", ["u003"]), "acknowledged_ms": 0} == {**done, "acknowledged_ms": 0}
    assert disk.delete(persons, [], None, ["u003"])["ids"] == [100] and stores.problems(persons) == []
    for ids, groups in (([55], []), ([55], ["u003", "u004"]), ([], ["u003"]), ([*ANN, 55], [])):
        with pytest.raises(ValueError, match="request R was made before, for other ids"):
            disk.delete(persons, ids, "R", groups)


def test_unknown_groups_alone_delete_nothing(persons, capsys):
    head = database.head(persons.ledger)
    status, done, _ = commands.run(capsys, "delete", "--store", persons.root, "--groups", "u3,U003")
    assert (status, done["verdict"], done["unknown_groups"]) == (4, "nothing was deleted", ["u3", "U003"])
    assert main(["delete", "--store", str(persons.root), "--groups", "u3", "--ids", "999"]) == 4
    assert "nothing was deleted: the store has no example 999 and no group u3\n" in capsys.readouterr().out
    assert database.head(persons.ledger) == head


def test_groups_in_words_and_from_a_file(persons, capsys, tmp_path):
    (tmp_path / "groups").write_text('u001\n"u002", nobody\n')
    assert main(["delete", "--store", str(persons.root), "--groups", f"@{tmp_path / 'groups'}", "--ids", "55"]) == 0
    out = capsys.readouterr().out
    assert "15 examples deleted" in out and "\ngroups: u001, u002\nunknown groups: nobody\n" in out
    for text, message in (('"u001', "has a stray '\"': close each quote"), (" ,\n", "holds no name")):
        (tmp_path / "groups").write_text(text)
        status, _, err = commands.run(capsys, "delete", "--store", persons.root, "--groups", f"@{tmp_path / 'groups'}")
        assert status == 2 and message in err and "nothing was changed" in err
    for text in ("", "a,,b", '"a'):
        status, _, err = commands.run(capsys, "delete", "--store", persons.root, f"--groups={text}")
        assert status == 2 and "expected names between commas" in err
    status, _, err = commands.run(capsys, "delete", "--store", persons.root)
    assert status == 2 and "give --ids or --groups" in err


def test_a_store_without_groups_refuses_them(tmp_path, capsys):
    """So does one of an older version, whose ledger has no such table."""
    store = stores.make(tmp_path / "store")
    assert not store.ledger.execute("SELECT 1 FROM sqlite_master WHERE name = 'labels'").fetchall()
    status, _, err = commands.run(capsys, "delete", "--store", store.root, "--groups", "u003", "--ids", "1")
    assert status == 2 and "the store has no groups: ask for ids" in err
    assert records.counts(store.ledger)["deleted"] == 0 and stores.problems(store) == []


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE labels SET label = 'u004' WHERE id = 3",
        "DELETE FROM labels WHERE id = 3",
        "DELETE FROM labels",
        "DROP TABLE labels",
        "UPDATE labels SET id = 59 WHERE id = 3",
        "UPDATE labels SET registered = 1 WHERE id = 3",
        "INSERT INTO labels VALUES ('groups', 59, 'u003', 2, '')",
        "INSERT INTO labels VALUES ('groups', 59, 7, 2, '')",
        "UPDATE labels SET id = 6 WHERE label = 'alice.jpg'",
        "INSERT INTO labels VALUES ('other', 59, 'u003', 2, '')",
    ],
)
def test_altered_groups_are_noticed(persons, statement):
    persons.ledger.execute(statement)
    assert any("the labels registered by row" in problem for problem in stores.problems(persons))


def test_labels_of_forgotten_examples_leave_no_trace_but_the_digest(persons):
    """While the example is there, its labels must be."""
    persons.ledger.execute("BEGIN")
    registry.forget(persons.ledger, [3])
    assert stores.problems(persons) == ["labels of examples are gone that the ledger has not forgotten"]
    kept = registry.digests(persons.ledger)
    persons.ledger.execute("ROLLBACK")
    assert kept == registry.digests(persons.ledger) and stores.problems(persons) == []
    with database.writing(persons.ledger):
        registry.forget(persons.ledger, ANN)
    assert registry.ids_with(persons.ledger, registry.GROUPS, "u003") == []
    left = [
        str(row) for table in ("labels", "forgotten_labels") for row in persons.ledger.execute(f"SELECT * FROM {table}")
    ]
    assert not any("u003" in row or "Jos" in row for row in left)


def test_groups_that_are_written_alike_are_refused():
    assert registry.group_labels([1, 2, 3], [5, "a", None]) == {1: "5", 2: "a"}
    with pytest.raises(ValueError, match="the groups '5' and 5 are written alike"):
        registry.group_labels([1, 2], [5, "5"])


# names


def test_examples_are_deleted_by_name_and_the_answer_shows_the_names(persons, capsys):
    words = (
        "delete",
        "--store",
        persons.root,
        "--request-id",
        "R",
        "--ids",
        'alice.jpg, 017,7,nobody.jpg,Jose\u0301,"a b, c.png"',
    )
    status, done, err = commands.run(capsys, *words)
    assert (status, err) == (0, "") and done["ids"] == [1, 2, 7, 3, 5], (
        "a number in digits is one, whoever has it as a name"
    )
    assert done["unknown"] == ["nobody.jpg"] and stores.problems(persons) == []
    assert done["names"] == {"alice.jpg": 1, "017": 2, "Jos\u00e9": 3, "a b, c.png": 5}
    again = commands.run(capsys, *words)[1]
    assert {**again, "acknowledged_ms": 0} == {**done, "acknowledged_ms": 0}
    assert main(["delete", "--store", str(persons.root), "--ids", "1,2"]) == 0
    assert "0 examples deleted, 0 nodes dropped\nnames: alice.jpg, 017\nalready: 1, 2\n" in capsys.readouterr().out
    status, done, _ = commands.run(capsys, "delete", "--store", persons.root, "--ids", "Alice.jpg")
    assert (status, done["verdict"], done["unknown"]) == (4, "nothing was deleted", ["Alice.jpg"])


def test_names_come_from_a_file_and_prove(persons, capsys, tmp_path):
    (tmp_path / "names").write_text('\ufeffalice.jpg\n"a b, c.png" 8\n')
    for of, ids in ((f"@{tmp_path / 'names'}", [1, 5, 8]), ("alice.jpg", [1])):
        status, result, _ = commands.run(capsys, "verify", "--store", persons.root, "--prove", of)
        assert status == 0 and [proof["id"] for proof in result["proofs"]] == ids
    status, _, err = commands.run(capsys, "verify", "--store", persons.root, "--prove", "Alice.jpg")
    assert status == 2 and "the store has no example of the name 'Alice.jpg'" in err


def test_a_request_by_name_is_the_one_by_number(persons):
    done = disk.delete(persons, ["alice.jpg", "nobody"], "R")
    assert disk.delete(persons, [1, "nobody"], "R")["head"] == done["head"]
    disk.register(persons, [100], [0], [0], {registry.NAMES: {100: "nobody"}})
    assert disk.delete(persons, ["alice.jpg", "nobody"], "R")["unknown"] == ["nobody"], "as it was then"
    assert disk.delete(persons, ["nobody"])["ids"] == [100]


def test_numbers_are_taken_as_before_where_there_are_no_names(opened, capsys):
    assert commands.run(capsys, "delete", "--store", opened.root, "--ids", "017")[1]["ids"] == [17]
    status, _, err = commands.run(capsys, "delete", "--store", opened.root, "--ids", "1,alice.jpg")
    assert status == 2 and "got 'alice.jpg'; the store has no names: nothing was changed" in err
    assert records.counts(opened.ledger)["deleted"] == 1


def test_one_name_is_of_one_example(persons):
    head = database.head(persons.ledger)
    with pytest.raises(ValueError, match="two examples have the name 'Jos\u00e9', however accents"):
        registry.name_labels([1, 2, 3], ["Jos\u00e9", None, "Jose\u0301"])
    with pytest.raises(ValueError, match=r"another example has the name 'alice.jpg' already: rename one; nothing was"):
        disk.register(persons, [100], [0], [0], {registry.NAMES: {100: "alice.jpg"}})
    assert database.head(persons.ledger) == head
    with pytest.raises(ValueError, match=r"example 1 stands among the names of the store already"):
        disk.register(persons, [100], [0], [0], {registry.NAMES: {1: "other.jpg"}})
    with pytest.raises(ValueError, match=r"names must match the ids one by one, got 1 for 2 ids"):
        registry.name_labels([1, 2], ["a"])
    assert database.head(persons.ledger) == head and stores.problems(persons) == []


def test_a_redaction_forgets_names_and_groups_with_their_examples(persons):
    """No byte of a name stays, every digest fits, and the rest keeps what it is called."""
    disk.delete(persons, ["alice.jpg"], "R", ["u003"])
    disk.purge(persons)
    stores.fill(persons)
    assert state.mark_healed(persons) == ("R",)
    left = {id_: name for id_, name in NAMES.items() if id_ not in (1, *ANN)}
    assert redaction.redact(persons).requests == ("R",)
    disk.close(persons)
    again = disk.look(persons.root)
    assert stores.problems(again) == [] and verify.verify(again.root)["ok"]
    assert registry.labels_of(again.ledger, registry.NAMES) == left
    data = b"".join(path.read_bytes() for path in again.root.iterdir() if path.is_file())
    assert b"alice.jpg" not in data and b"u003" not in data and b"u004" in data
    assert disk.delete(again, [], "R2", ["u003"])["unknown_groups"] == ["u003"]

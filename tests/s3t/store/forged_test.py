"""Ledgers that were forged from the inside: triggers, other tables, cells and rows of other types."""

import json
import sqlite3

import pytest

from s3t.service import verify
from s3t.store import deletions, disk, publishing
from s3t.store.ledger import database, hash_chain
from tests.helpers import commands, stores
from tests.s3t.store.hostile_test import relink


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TRIGGER back AFTER INSERT ON log BEGIN DELETE FROM log WHERE kind = 'deactivated'; END",
        "CREATE TRIGGER back AFTER UPDATE ON examples BEGIN UPDATE examples SET deleted = NULL; END",
        "CREATE VIEW everything AS SELECT * FROM examples",
        "CREATE VIRTUAL TABLE found USING fts5(words)",
        "ALTER TABLE nodes ADD COLUMN more INTEGER",
    ],
)
def test_a_ledger_that_would_take_a_deletion_back_records_none(opened, capsys, statement):
    """SQLite runs a trigger inside our own transaction: an acknowledged deletion would be gone."""
    try:
        opened.ledger.execute(statement)
    except sqlite3.OperationalError as error:
        pytest.skip(str(error))  # this SQLite has no such module
    head = database.head(opened.ledger)
    for words in (("delete", "--ids", "1"), ("status",), ("heal",), ("predict", "--ids", "1")):
        status, _, err = commands.run(capsys, *words, "--store", opened.root)
        assert status == 2 and "ledger was altered (the" in err and "is none of a store's): restore it from a copy" in err
    assert "ledger was altered" in verify.verify(opened.root)["problems"][0]
    assert database.head(opened.ledger) == head


def test_a_table_beside_ours_may_be_there(opened):
    """As versions to come may have them."""
    opened.ledger.execute("CREATE TABLE labels (kind TEXT NOT NULL, id INTEGER NOT NULL)")
    opened.ledger.execute("CREATE INDEX labelled ON labels (kind)")
    assert verify.verify(opened.root)["ok"]


@pytest.mark.parametrize(
    "statement, words, message",
    [
        ("UPDATE requests SET state = x'ff'", ("status",), "a request's state is b'"),
        ("UPDATE requests SET deactivated = 'x'", ("delete", "--ids", "1"), "a row is called 'x'"),
        (f"UPDATE requests SET deactivated = {hash_chain.LAST}", ("delete", "--ids", "1"), "a row is called 9223"),
        (f"UPDATE log SET seq = {hash_chain.LAST} WHERE kind = 'deactivated'", ("delete", "--ids", "2"), "its last row is"),
    ],
)
def test_a_cell_of_another_type_is_one_line(opened, capsys, statement, words, message):
    disk.delete(opened, [stores.ids_at(opened, 0, 0)[0]], "R")
    opened.ledger.execute(statement)
    status, _, err = commands.run(capsys, *words, "--store", opened.root)
    assert status == 2 and message in err and err.count("\n") == 1


@pytest.mark.parametrize(
    "detail", ['{"ids": [[7]], "already": [], "unknown": [], "nodes": []}', '{"ids": [7]}', "[" * 5000]
)
def test_an_answer_or_a_row_that_was_forged_is_one_line(opened, capsys, detail):
    disk.delete(opened, [stores.ids_at(opened, 0, 0)[0]], "R")
    relink(opened.ledger, "deactivated", detail)
    for words in (("delete", "--ids", "7", "--request-id", "R"), ("delete", "--ids", "1", "--request-id", "S")):
        status, _, err = commands.run(capsys, *words, "--store", opened.root)
        assert status in (0, 2) and err.count("\n") == (status == 2)
    with pytest.raises(database.Damaged, match="ledger was altered"):
        deletions.answer(opened.ledger, "R")


def test_a_file_whose_header_has_lines_is_one_line(opened):
    path = disk.file_of(opened, publishing.live(opened)[0].identity)
    header = json.dumps({"x": {"dtype": "F\n32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    (problem,) = verify.verify(opened.root)["problems"]
    assert "is damaged" in problem and "\n" not in problem

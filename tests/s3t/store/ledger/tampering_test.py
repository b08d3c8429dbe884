"""A ledger that somebody changed: every field, every row and their order are watched."""

import json
import sqlite3

import pytest

from s3t.store import deletions
from s3t.store.ledger import audit, database, hash_chain
from tests.helpers import ledgers
from tests.helpers.ledgers import MANIFEST, rows


@pytest.fixture
def opened(tmp_path):
    with ledgers.small(tmp_path / "ledger.sqlite") as made:
        yield made


@pytest.fixture
def used(opened):
    """A ledger with a row of every kind and requests in every state."""
    deletions.record_deletion(opened, [12, 99], "r")
    deletions.record_purge(opened, lambda serving: None)
    deletions.record_healed(opened, "r")
    deletions.record_deletion(opened, [13], "s")
    deletions.record_purge(opened, lambda serving: None)
    deletions.record_deletion(opened, [14, 12], "t")
    assert audit.audit(opened, MANIFEST) == []
    assert {row.kind for row in rows(opened)} == {"created", "registered", "published", *hash_chain.BEFORE, "received"}
    return opened


def tampered(made, *statements):
    """The audit's problems after some statements, which are taken back."""
    made.execute("BEGIN")
    changed = sum(made.execute(*statement).rowcount for statement in statements)
    problems = audit.audit(made, MANIFEST)
    made.execute("ROLLBACK")
    assert changed
    return problems


KEYS = {"log": "seq", "examples": "id", "requests": "request", "nodes": "identity"}


@pytest.mark.parametrize("table", KEYS)
def test_every_field_of_every_row_is_watched(used, table):
    columns = [row[1] for row in used.execute(f"PRAGMA table_info({table})")]
    for row in used.execute(f"SELECT * FROM {table}").fetchall():
        key = row[columns.index(KEYS[table])]
        for column, value in zip(columns, row, strict=True):
            others = [value + 1, -value - 1, 10**6] if isinstance(value, int) else ["x", "", b"x", "{}", f"{value} "]
            others += (
                [None] if (table, column) in {("examples", "deleted"), ("nodes", "dropped"), ("nodes", "purged")} else []
            )
            for other in {*others} - {value}:
                try:
                    found = tampered(used, (f"UPDATE {table} SET {column} = ? WHERE {KEYS[table]} = ?", (other, key)))
                except sqlite3.IntegrityError:  # the place of another row, or no number
                    used.execute("ROLLBACK")
                    continue
                assert found, (table, column, row, other)
        assert tampered(used, (f"DELETE FROM {table} WHERE {KEYS[table]} = ?", (key,))), (table, row)
    assert audit.audit(used, MANIFEST) == []


def test_rows_of_a_kind_cannot_pass_for_another_kind(used):
    for row in rows(used):
        for kind in {"created", "registered", "published", "received", *hash_chain.BEFORE} - {row.kind}:
            assert tampered(used, ("UPDATE log SET kind = ? WHERE seq = ?", (kind, row.seq)))


def test_any_two_rows_that_change_places_show(used):
    there = rows(used)
    put = "UPDATE log SET at = ?, kind = ?, request = ?, detail = ?, digest = ? WHERE seq = ?"
    for a in there:
        for b in there[a.seq :]:
            found = tampered(used, (put, (*b[1:], a.seq)), (put, (*a[1:], b.seq)))
            assert found and f"row {a.seq} " in found[0]


def test_inserted_and_added_rows_show(used):
    last = rows(used)[-1]
    add = "INSERT INTO log VALUES (?, ?, ?, ?, ?, ?)"
    assert tampered(used, (add, (last.seq + 1, *last[1:])))
    assert tampered(used, (add, (last.seq + 2, *last[1:])))
    assert tampered(used, ("INSERT INTO examples VALUES (77, 0, 0, 2, NULL)",))


def relinked(made, upto, **changes):
    """Statements that change the row `upto` and forge all digests from there on."""
    statements, before = [], hash_chain.START
    for row in rows(made):
        row = row._replace(**changes) if row.seq == upto else row
        digest = hash_chain.link(before, *row[:5])
        put = "UPDATE log SET at = ?, kind = ?, request = ?, detail = ?, digest = ? WHERE seq = ?"
        statements.append((put, (*row[1:5], digest, row.seq)))
        before = digest
    return statements


def test_a_forged_chain_contradicts_the_tables_or_itself(used):
    for row in rows(used):
        detail = json.loads(row.detail)
        for field, value in detail.items():
            other = value[:-1] if isinstance(value, list) and value else "x" if value != [] else [12345]
            if field in ("already", "unknown") or (row.kind, field) == ("received", "ids"):
                continue  # told nowhere else: what only an earlier head protects
            forged = json.dumps({**detail, field: other})
            assert tampered(used, *relinked(used, row.seq, detail=forged)), (row, field)
        for broken in ("{", "[]", "{}", "7"):
            if (row.kind, broken) != ("healed", "{}") and row.kind not in ("healed", "received"):
                assert tampered(used, *relinked(used, row.seq, detail=broken)), (row, broken)
        if row.kind not in ("created", "registered", "published"):
            assert tampered(used, *relinked(used, row.seq, request="forged"))


def test_a_ledger_set_back_shows_only_to_who_kept_a_head(tmp_path, opened):
    deletions.record_deletion(opened, [13], "r")
    middle = database.head(opened).digest
    opened.execute("VACUUM INTO ?", (str(tmp_path / "copy.sqlite"),))
    receipt = deletions.record_deletion(opened, [12], "s").head
    deletions.record_purge(opened, lambda serving: None)
    old = database.open_ledger(tmp_path / "copy.sqlite")
    assert audit.audit(old, MANIFEST) == [] == audit.audit(old, MANIFEST, middle)
    assert "its end was cut off or rewritten" in audit.audit(old, MANIFEST, receipt)[0]
    assert audit.audit(opened, MANIFEST, receipt) == [] == audit.audit(opened, MANIFEST, middle)
    assert "another" not in audit.audit(opened, "another")[0] and "the manifest is not" in audit.audit(opened, "another")[0]
    old.close()


def test_cutting_rows_off_the_end_shows_without_a_head(used):
    last = len(rows(used))
    for kept in range(last):
        assert tampered(used, ("DELETE FROM log WHERE seq > ?", (kept,)))


def test_rows_must_tell_a_possible_story():
    def chained(*parts):
        before, out = hash_chain.START, []
        for seq, (kind, request, detail) in enumerate(parts, 1):
            text = json.dumps(detail)
            before = hash_chain.link(before, seq, "now", kind, request, text)
            out.append(hash_chain.Row(seq, "now", kind, request, text, before))
        return hash_chain.read_on(hash_chain.start(), out).problem

    created = ("created", "", {"manifest": "m"})
    received, nothing = ("received", "r", {"ids": [1]}), {"ids": [1], "already": [], "unknown": [], "nodes": []}
    gone = ("deactivated", "r", nothing)
    assert chained(created, received, gone) == ""
    assert "no rows" in chained()
    assert "created once and first" in chained(received)
    assert "created once and first" in chained(created, created)
    assert "received before" in chained(created, received, received)
    assert "becomes deactivated from None" in chained(created, gone)
    assert "becomes purged from received" in chained(created, received, ("purged", "r", {"nodes": []}))
    assert "becomes healed from deactivated" in chained(created, received, gone, ("healed", "r", {}))
    assert "id 1 was deleted before" in chained(
        created, received, gone, ("received", "s", {}), ("deactivated", "s", nothing)
    )
    assert "never published" in chained(created, received, ("deactivated", "r", {**nothing, "nodes": ["n"]}))
    assert "restored but does not serve" in chained(created, ("restored", "", {"identity": "n"}))
    assert "unknown kind" in chained(created, ("forgiven", "r", {}))

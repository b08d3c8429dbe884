"""Forgeries: ledgers and manifests written anew as whole chains by whoever gives a store away, and altered tables.

Against heads that were kept a forged chain is noticed. Without them it may claim what it likes, but every command ends with
one line, nothing outside is touched, and a table is not believed where the chain says otherwise.
"""

import json
import sqlite3

from s3t.store import certificates, disk, manifests
from s3t.store.ledger import hash_chain
from tests.faults import odd, victims

HEAL_EVERY = 15
COLUMNS = {
    "log": ("seq", "at", "kind", "request", "detail", "digest"),
    "examples": ("id", "shard", "slice", "registered", "deleted"),
    "requests": ("request", "state", "deactivated"),
    "nodes": ("identity", "shard", "slices", "as_of", "certificate", "published", "dropped", "purged"),
}
KINDS = ["created", "registered", "published", "restored", "received", "deactivated", "purged", "healed", "other", ""]
CELLS = [None, 0, 1, -1, 3, 1 << 40, (1 << 63) - 1, -(1 << 63), 0.5, 1e300, "", "x", ",0,", ",0,1,", "0" * 64, "é", "\x00",
         b"", b"\xff\xfe", "9" * 5000, ",x,", "[]", "{}", "deactivated", "purged", "healed"]  # fmt: skip


def attack(room, rng, limit, tally):
    """One forgery or two, then every command, with the heads that were kept or without."""
    victims.prepare()
    victim = victims.make(room.folder)
    for number in limit:
        root = room.fresh(victim.template)
        heads, what = rng.random() < 0.5, f"{number}: "
        ledger = sqlite3.connect(root / disk.LEDGER, isolation_level=None)
        for forge in rng.choices([rows, manifest, tables, ends], [4, 3, 4, 1], k=rng.choice([1, 1, 2])):
            try:
                what += f"{forge.__name__} {forge(rng, ledger, root)}, "
            except sqlite3.Error as error:  # of a table that the first forgery dropped, or a constraint
                what += f"{forge.__name__} in vain ({error}), "
        ledger.close()
        victims.attacked(room, victim, tally, what, rng, heads=heads, heal=number % HEAL_EVERY == HEAL_EVERY - 1)


# --- Chains -----------------------------------------------------------------------------------------------------------


def rows(rng, ledger, root):
    """A row of the chain says something else, and all digests from there on are right again."""
    chain = read(ledger)
    if not chain:
        return "none"
    at = rng.randrange(len(chain))
    row = chain[at]
    field = rng.choice(["detail"] * 5 + ["kind", "request", "at"])
    value = {
        "detail": lambda: odd.text_of(rng, odd.altered_value(rng, parsed(row.detail))),
        "kind": lambda: rng.choice(KINDS),
        "request": lambda: rng.choice(odd.TEXTS),
        "at": lambda: rng.choice(odd.TEXTS),
    }[field]()
    chain[at] = row._replace(**{field: value})
    written(ledger, chain)
    return f"{at + 1} ({row.kind}) {field} {value!r:.200}"


def ends(rng, ledger, root):
    """Rows lost, twice or in another order, and all digests right again."""
    chain = read(ledger)
    how = rng.choice(["cut", "lost", "twice", "moved"])
    at, to = sorted((rng.randrange(len(chain)), rng.randrange(len(chain)))) if chain else (0, 0)
    chain = {
        "cut": chain[: at + 1],
        "lost": chain[:at] + chain[at + 1 :],
        "twice": chain[: at + 1] + chain[at:],
        "moved": chain[:at] + chain[to : to + 1] + chain[at:to] + chain[to + 1 :],
    }[how]
    written(ledger, chain)
    return f"{how} {at} {to}"


def manifest(rng, ledger, root):
    """Another manifest, which the first row agrees with."""
    path = root / disk.MANIFEST
    value = odd.altered_value(rng, parsed(path.read_text(errors="replace")))
    try:
        text = certificates.canonical(value) if rng.random() < 0.5 else odd.text_of(rng, value).encode(errors="replace")
    except (ValueError, TypeError):
        text = b"{}"
    path.write_bytes(text)
    chain = read(ledger)
    if chain:
        chain[0] = chain[0]._replace(detail=json.dumps({"manifest": manifests.digest_of(text)}, separators=(",", ":")))
        written(ledger, chain)
    return repr(text)[:300]


def parsed(text):
    try:
        return json.loads(text)
    except (ValueError, TypeError, RecursionError):
        return {}


def read(ledger):
    return [hash_chain.Row(*row) for row in ledger.execute(f"SELECT {', '.join(COLUMNS['log'])} FROM log ORDER BY seq")]


def written(ledger, chain):
    """A chain with its numbers and digests made right, as far as anything can be."""
    before = hash_chain.START
    ledger.execute("DELETE FROM log")
    for seq, row in enumerate(chain, 1):
        try:
            before = hash_chain.link(before, seq, *row[1:5])
        except (ValueError, TypeError):
            before = "0" * 64
        try:
            ledger.execute("INSERT INTO log VALUES (?, ?, ?, ?, ?, ?)", (seq, *row[1:5], before))
        except (sqlite3.Error, ValueError):  # a text that SQLite does not take
            ledger.execute("INSERT INTO log VALUES (?, '', 'other', '', '{}', ?)", (seq, before))


# --- Tables -----------------------------------------------------------------------------------------------------------


def tables(rng, ledger, root):
    """A cell, a column or a row of a table is another; the chain is left."""
    table = rng.choice(list(COLUMNS))
    column, value = rng.choice(COLUMNS[table]), rng.choice(CELLS)
    keys = [key for (key,) in ledger.execute(f"SELECT rowid FROM {table}")]
    key = rng.choice(keys) if keys else 0
    row = [rng.choice(CELLS) for _ in COLUMNS[table]]
    statement, values = rng.choice([
        (f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (value, key)),
        (f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (value, key)),
        (f"UPDATE {table} SET {column} = ?", (value,)),
        (f"DELETE FROM {table} WHERE rowid = ?", (key,)),
        (f"DELETE FROM {table}", ()),
        (f"INSERT INTO {table} VALUES ({', '.join('?' * len(row))})", row),
        (f"DROP TABLE {table}", ()),
        ("DROP INDEX places", ()),
        (f"ALTER TABLE {table} ADD COLUMN more INTEGER", ()),
        (f"CREATE TRIGGER t{rng.randrange(99)} AFTER INSERT ON log BEGIN DELETE FROM {table}; END", ()),
        (f"ALTER TABLE {table} RENAME TO old_{table}", ()),
    ])  # fmt: skip
    ledger.execute(statement, values)
    return f"{statement} {values!r:.200}"

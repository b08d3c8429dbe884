"""What examples are called beside their ids: names of their own, and the group that each belongs to.

Labels come with a registration and are bound by the chain: the row `registered` holds a digest of the labels that it
brought. Each is covered under a salt of its own, so that a ledger that forgets an example may forget them, too, and keep
what the digest needs. Their tables are made with the first of them; a ledger of an older version has none.
"""

from __future__ import annotations

import hashlib
import json
import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from s3t.store.certificates import is_number, whole
from s3t.store.ledger.database import Ledger
from s3t.store.ledger.hash_chain import LABELS

Labels = Mapping[str, Mapping[int, str]]  # kind -> id -> label

GROUPS, NAMES = LABELS

SCHEMA = (
    "CREATE TABLE IF NOT EXISTS labels (kind TEXT NOT NULL, id INTEGER NOT NULL, label TEXT NOT NULL, "
    "registered INTEGER NOT NULL, salt TEXT NOT NULL, PRIMARY KEY (kind, id)) WITHOUT ROWID",
    "CREATE INDEX IF NOT EXISTS labelled ON labels (kind, label)",
    "CREATE TABLE IF NOT EXISTS forgotten_labels (registered INTEGER NOT NULL, kind TEXT NOT NULL, leaf TEXT NOT NULL)",
)
SALT_BYTES = 16


def group_labels(ids: Iterable[int], groups: Iterable[int | str | None]) -> dict[int, str]:
    """The groups of examples as text, as they are asked for; an example of no group is left out.

    Args:
      ids: distinct.
      groups: of each, as in `partition.assign`.

    Raises:
      ValueError: two groups that are one as text, a number and its digits.
    """
    of_id = {int(id_): group for id_, group in zip(ids, groups, strict=True) if group is not None}
    seen: dict[str, int | str] = {}
    for group in of_id.values():
        if seen.setdefault(spelled(group), group) != group:
            raise ValueError(f"the groups {group!r} and {seen[spelled(group)]!r} are written alike: rename one")
    return {id_: spelled(group) for id_, group in of_id.items()}


def name_labels(ids: Iterable[int], names: Iterable[str | None]) -> dict[int, str]:
    """The names of examples; one without is left out.

    Args:
      ids: distinct.
      names: of each.

    Raises:
      ValueError: more or fewer names than ids; two names that are one, be it in another of Unicode's spellings.
    """
    ids, names = list(ids), list(names)
    if len(ids) != len(names):
        raise ValueError(f"names must match the ids one by one, got {len(names)} for {len(ids)} ids")
    of_id = {int(id_): spelled(name) for id_, name in zip(ids, names, strict=True) if name is not None}
    if len(set(of_id.values())) < len(of_id):
        twice, _ = Counter(of_id.values()).most_common(1)[0]
        raise ValueError(f"two examples have the name {twice!r:.80}, however accents in it are written: rename one")
    return of_id


def spelled(label: object) -> str:
    """A label as text, in the one of Unicode's spellings that is kept."""
    return unicodedata.normalize("NFC", str(label))


# --- Writing, inside a transaction ------------------------------------------------------------------------------------


def record(ledger: Ledger, seq: int, labels: Labels) -> dict[str, str]:
    """Keep the labels that row `seq` brings.

    Returns:
      kind -> digest of them, for the row's detail; of kinds that have some.

    Raises:
      ValueError: an example has another label of the kind already, or the name is another example's.
    """
    found = {kind: sorted(of_id.items()) for kind, of_id in labels.items() if of_id}
    for statement in SCHEMA if found else ():
        ledger.execute(statement)
    for kind, pairs in found.items():
        kept = labels_of(ledger, kind)
        if again := [id_ for id_, _ in pairs if id_ in kept]:
            raise ValueError(f"example {again[0]} stands among the {kind} of the store already: nothing was registered")
    if twice := [name for _, name in found.get(NAMES, ()) if ids_with(ledger, NAMES, name)]:
        raise ValueError(f"another example has the name {twice[0]!r:.80} already: rename one; nothing was registered")
    digests_of = {}
    for kind, pairs in found.items():
        rows = [(kind, *pair, seq, os.urandom(SALT_BYTES).hex()) for pair in pairs]
        ledger.executemany("INSERT INTO labels VALUES (?, ?, ?, ?, ?)", rows)
        digests_of[kind] = leaves_digest(_leaf(id_, label, salt) for _, id_, label, _, salt in rows)
    return digests_of


def forget(ledger: Ledger, ids: Iterable[int]) -> None:
    """Take the labels of examples that the ledger forgets out of it."""
    if not _are_kept(ledger):
        return
    asked = (json.dumps(list(ids)),)
    of_ids = "FROM labels WHERE id IN (SELECT value FROM json_each(?))"
    rows = ledger.execute(f"SELECT registered, kind, id, label, salt {of_ids}", asked).fetchall()
    leaves = ((seq, kind, _leaf(id_, label, salt)) for seq, kind, id_, label, salt in rows)
    ledger.executemany("INSERT INTO forgotten_labels VALUES (?, ?, ?)", leaves)
    ledger.execute(f"DELETE {of_ids}", asked)


def leaves_digest(leaves: Iterable[str]) -> str:
    """SHA-256 over the leaves of a registration's labels, whatever their order."""
    return hashlib.sha256("\n".join(["s3t.labels", *sorted(leaves)]).encode()).hexdigest()


def _leaf(id_: Any, label: Any, salt: Any) -> str:
    """What a label adds to the digest of its registration: without the salt it tells nothing."""
    return hashlib.sha256(f"s3t.label\n{json.dumps([salt, id_, label])}".encode()).hexdigest()


# --- Reading ----------------------------------------------------------------------------------------------------------


def has(ledger: Ledger, kind: str) -> bool:
    """Whether any example has a label of a kind."""
    if not _are_kept(ledger):
        return False
    return ledger.execute("SELECT 1 FROM labels WHERE kind = ? LIMIT 1", (kind,)).fetchone() is not None


def labels_of(ledger: Ledger, kind: str) -> dict[int, str]:
    """The label of a kind of each id that has one."""
    return dict(ledger.execute("SELECT id, label FROM labels WHERE kind = ?", (kind,))) if has(ledger, kind) else {}


def ids_with(ledger: Ledger, kind: str, label: str) -> list[int]:
    """The ids of a label, ascending, those of deleted examples among them; none if nothing has it."""
    if not has(ledger, kind):
        return []
    rows = ledger.execute("SELECT id FROM labels WHERE kind = ? AND label = ? ORDER BY id", (kind, label))
    return [id_ for (id_,) in rows]


def resolve(ledger: Ledger, asked: Iterable[int | str]) -> list[int | str]:
    """Ids of what is asked for by number or name; a name that nobody has stays as it is.

    Raises:
      ValueError: a text that is no number, in a store without names; no whole number of 64 bits.
    """
    words = asked.tolist() if hasattr(asked, "tolist") else list(asked)
    named = any(isinstance(word, str) for word in words) and has(ledger, NAMES)
    return [_resolved(ledger, word, named) if isinstance(word, str) else whole([word])[0] for word in words]


def _resolved(ledger: Ledger, word: str, named: bool) -> int | str:
    if named:
        return next(iter(ids_with(ledger, NAMES, spelled(word))), word)
    raise ValueError(
        f"an id is a whole number of 64 bits, got {word!r:.80}, and the store has no names: nothing was changed"
    )


def typed(ledger: Ledger, words: Iterable[int | str]) -> list[int | str]:
    """Ids and names as people type them: without names to tell it from, 017 is a number.

    Raises:
      ValueError: a text that is no number, in a store without names.
    """
    words = list(words)
    if has(ledger, NAMES):
        return words
    if strange := [word for word in words if isinstance(word, str) and not is_number(word)]:
        raise ValueError(
            f"expected whole numbers between commas, got {strange[0]!r:.80}; the store has no names: nothing was changed"
        )
    return [int(word) for word in words]


def known(ledger: Ledger, asked: Iterable[int | str]) -> list[int]:
    """Ids of what people ask for by number or name; of a number nobody asks whether the store has it.

    Raises:
      ValueError: as `typed`; a name that no example has.
    """
    found = [_resolved(ledger, word, True) if isinstance(word, str) else word for word in typed(ledger, asked)]
    if unknown := [word for word in found if isinstance(word, str)]:
        raise ValueError(f"the store has no example of the name {unknown[0]!r:.80}: look at how it is written")
    return [id_ for id_ in found if isinstance(id_, int)]


def names_of(ledger: Ledger, ids: Iterable[int]) -> dict[str, int]:
    """Name -> id of those examples that have one, in the order of the ids."""
    if not has(ledger, NAMES):
        return {}
    query = "SELECT value, label FROM json_each(?) JOIN labels ON kind = ? AND labels.id = value ORDER BY key"
    return {name: id_ for id_, name in ledger.execute(query, (json.dumps(list(ids)), NAMES))}


def digests(ledger: Ledger) -> dict[tuple[int, str], str]:
    """(row, kind) -> digest of the labels that the table says the row brought."""
    if not _are_kept(ledger):
        return {}
    leaves: dict[tuple[int, str], list[str]] = {}
    for seq, kind, *label in ledger.execute("SELECT registered, kind, id, label, salt FROM labels"):
        leaves.setdefault((seq, kind), []).append(_leaf(*label))
    for seq, kind, leaf in ledger.execute("SELECT registered, kind, leaf FROM forgotten_labels"):
        leaves.setdefault((seq, kind), []).append(str(leaf))
    return {key: leaves_digest(found) for key, found in leaves.items()}


def most_forgotten(ledger: Ledger) -> int:
    """Of how many examples a label is forgotten, at least: a ledger forgets no label of an example that it has."""
    if not _are_kept(ledger):
        return 0
    counts = ledger.execute("SELECT count(*) FROM forgotten_labels GROUP BY kind").fetchall()
    return max((count for (count,) in counts), default=0)


def _are_kept(ledger: Ledger) -> bool:
    """Whether the ledger has the tables."""
    names = ledger.execute("SELECT name FROM sqlite_master WHERE name IN ('labels', 'forgotten_labels')").fetchall()
    return len(names) == len({"labels", "forgotten_labels"})

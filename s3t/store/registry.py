"""What examples are called beside their ids: names of their own, and the group that each belongs to.

Labels come with a registration, stay for ever, and are bound by the chain: the row `registered` holds a digest of the
labels that it brought. Their table is made with the first of them, so that a ledger of an older version has none.
"""

from __future__ import annotations

import hashlib
import json
import operator
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import groupby

from s3t.store.certificates import is_number, whole
from s3t.store.database import Ledger

Labels = Mapping[str, Mapping[int, str]]  # kind -> id -> label

GROUPS, NAMES = "groups", "names"
KINDS = (GROUPS, NAMES)  # as the rows of the log call them, too

SCHEMA = (
    "CREATE TABLE IF NOT EXISTS labels (kind TEXT NOT NULL, id INTEGER NOT NULL, label TEXT NOT NULL, "
    "registered INTEGER NOT NULL, PRIMARY KEY (kind, id)) WITHOUT ROWID",
    "CREATE INDEX IF NOT EXISTS labelled ON labels (kind, label)",
)


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
      ValueError: two names that are one, be it in another of Unicode's spellings.
    """
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
    """
    found = {kind: sorted(of_id.items()) for kind, of_id in labels.items() if of_id}
    for statement in SCHEMA if found else ():
        ledger.execute(statement)
    if twice := [name for _, name in found.get(NAMES, ()) if ids_with(ledger, NAMES, name)]:
        raise ValueError(f"another example has the name {twice[0]!r:.80} already: rename one; nothing was registered")
    for kind, pairs in found.items():
        ledger.executemany("INSERT INTO labels VALUES (?, ?, ?, ?)", ((kind, *pair, seq) for pair in pairs))
    return {kind: labels_digest(pairs) for kind, pairs in found.items()}


def labels_digest(pairs: Iterable[tuple[int, str]]) -> str:
    """SHA-256 over (id, label) in ascending order of ids."""
    sha = hashlib.sha256(b"s3t.labels\n")
    for pair in pairs:
        sha.update(json.dumps(pair, separators=(",", ":")).encode() + b"\n")
    return sha.hexdigest()


# --- Reading ----------------------------------------------------------------------------------------------------------


def has(ledger: Ledger, kind: str) -> bool:
    """Whether any example has a label of a kind."""
    if not ledger.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'labels'").fetchone():
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
    if not ledger.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'labels'").fetchone():
        return {}
    rows = ledger.execute("SELECT registered, kind, id, label FROM labels ORDER BY registered, kind, id")
    batches = groupby(rows, key=operator.itemgetter(0, 1))
    return {key: labels_digest([row[2:] for row in batch]) for key, batch in batches}

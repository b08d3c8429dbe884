"""A backup put in a store's place, with the deletions that came after it.

What is restored is verified before anything is moved, and what stood in its place is moved aside, not overwritten. While it
is looked at and moved nobody can delete from it: a deletion is either seen here or refused there.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from s3t.service import verify
from s3t.store import copies, deletions, disk, events, files, manifests
from s3t.store.disk import Store
from s3t.store.ledger import database, marks, salvage
from s3t.store.ledger.salvage import Past

ASIDE = ".before-restore-"  # and a number, after the name of what was moved aside


class Later(NamedTuple):
    """A deletion that the backup lacks.

    request: its id.
    ids: as asked for.
    unknown: how many of the deleted ids the backup never had.
    """

    request: str
    ids: tuple[int, ...]
    unknown: int


def restore(
    backup: Path | str,
    root: Path | str,
    expect_heads: Sequence[str] = (),
    *,
    replay: bool = False,
    lose: bool = False,
) -> dict[str, Any]:
    """Put a backup in the place of a store, which may be damaged or gone.

    Args:
      backup: directory of the backup.
      root: directory of the store; what is there is moved aside.
      expect_heads: heads that the backup must hold.
      replay: delete again what the store in `root` says was deleted since, as far as it can be read.
      lose: restore although deletions in `root` are not in the backup, or may not be.

    Returns:
      head and rows of the restored ledger; taken, the time of the backup; replayed, of each deletion that was made again
      request, ids (how many) and head; unknown, how many ids of those the backup never had; moved, where the old directory
      is, or None; warnings, one line each.

    Raises:
      ValueError: no backup, one that is damaged, lacks a head or, unless told, a deletion; a place that holds something
        else. Nothing is changed then.
    """
    backup, root = Path(backup), Path(os.path.abspath(root))
    description = copies.describe(backup)
    _check_place(root, lose)
    with copies.beside(root) as temporary:
        copies.unpack(backup, description, temporary)
        _check(backup, temporary, description, expect_heads)
        with salvage.held(root / disk.LEDGER) as past:
            past = past if _holds_something(root) else Past()
            store = disk.look(temporary)
            try:
                _check_same(root, past, store)
                later = _later(past, store)
                if not replay and not lose:
                    _refuse_to_forget(root, past, later)
                replayed = _replay(store, later) if replay else []
                head = database.head(store.ledger)
            finally:
                disk.close(store)
            for directory in (temporary / disk.NODES, temporary):
                files.sync(directory)
            moved = _swap(temporary, root)
    unknown = sum(deletion.unknown for deletion in later)
    events.LOGGER.info("replaced replayed=%d row=%d head=%s", len(replayed), head.rows, head.digest)
    return {
        "head": head.digest,
        "rows": head.rows,
        "taken": description.time,
        "replayed": replayed,
        "unknown": unknown,
        "moved": moved and str(moved),
        "warnings": _warnings(past, [] if replay else later, unknown, moved),
    }


def _holds_something(root: Path) -> bool:
    return root.is_dir() and any(root.iterdir())


def _check_place(root: Path, lose: bool) -> None:
    """Refuse what is no store, and go on after a restore that was stopped half-way only when told."""
    if root.is_symlink() or (root.exists() and not root.is_dir()):
        raise ValueError(f"{root} is a link or a file: name the directory of the store itself")
    if not root.parent.is_dir():
        raise ValueError(f"there is no directory {root.parent}: make it first")
    if _holds_something(root) and not any((root / name).exists() for name in (disk.MANIFEST, disk.LEDGER)):
        raise ValueError(f"{root} holds something else than a store: choose another directory")
    if not root.exists() and not lose and (aside := _asides(root)):
        raise ValueError(
            f"{root} is missing beside {aside[-1]}: if a restore was stopped between the two, move that back to {root} and "
            "repeat, so that its deletions are not forgotten; else move it elsewhere, or give --lose-deletions"
        )


def _asides(root: Path) -> list[Path]:
    """What earlier restores moved aside, the latest last."""
    paths = [path for path in root.parent.iterdir() if path.name.startswith(root.name + ASIDE) and _number(path)]
    return sorted(paths, key=_number)


def _number(path: Path) -> int:
    """The number in the name of what was moved aside; 0 of another name."""
    text = path.name.rpartition(ASIDE)[2]
    return int(text) if text.isascii() and text.isdecimal() else 0


def _check(backup: Path, unpacked: Path, description: copies.Description, expect_heads: Sequence[str]) -> None:
    """Prove that the unpacked backup is a whole store, the one that the backup speaks of."""
    result = verify.verify(unpacked, *expect_heads)
    if not result["ok"]:
        raise ValueError(f"{backup} cannot be restored, {result['problems'][0]}: use another backup")
    if (result["rows"], result["head"]) != (description.rows, description.head):
        raise ValueError(f"{backup} cannot be restored, its ledger has another head than it says: use another backup")


def _check_same(root: Path, past: Past, store: Store) -> None:
    """Refuse to put one store in the place of another."""
    made_with = manifests.digest_of(disk.manifest_text(store.root))
    if past.manifest not in ("", made_with):
        raise ValueError(f"{root} holds another store than the backup: choose another directory")


def _later(past: Past, store: Store) -> list[Later]:
    """The deletions of the old ledger that have not come to pass in the restored one, those that it names first."""
    key = manifests.key_of(store.manifest)
    deleted = dict(store.ledger.execute("SELECT id, deleted FROM examples"))  # id -> row, None if it is not
    done = marks.forgotten(store.ledger, key, {id_ for _, _, gone in past.deletions for id_ in gone} - deleted.keys())
    named = [
        Later(request, asked, len(set(gone) - deleted.keys()))
        for request, asked, gone in past.deletions
        if any(deleted.get(id_) is None and id_ not in done for id_ in gone)
    ]
    ids = {marks.mark(key, id_): id_ for id_ in deleted} if past.forgotten else {}
    found = {request: sorted(ids[mark] for mark in gone & ids.keys()) for request, gone in past.forgotten.items()}
    return named + [
        Later(request, tuple(again), 0) for request, again in found.items() if any(deleted[id_] is None for id_ in again)
    ]


def _refuse_to_forget(root: Path, past: Past, later: Sequence[Later]) -> None:
    """What was deleted must not come back unless somebody says so.

    Raises:
      ValueError: it would, or might.
    """
    told = "--replay-deletions to delete again what can be read, or --lose-deletions to restore without"
    if later:
        raise ValueError(
            f"the backup lacks {len(later)} deletions that {root} has acknowledged, first of request {later[0].request}: "
            f"give {told} them"
        )
    if past.problem:
        raise ValueError(f"{root} may hold deletions that the backup lacks, for {past.problem}: give {told} knowing")


def _replay(store: Store, later: Sequence[Later]) -> list[dict[str, Any]]:
    """Make deletions again under their requests' ids, and purge; what of them left a trace."""
    answers = [disk.delete(store, deletion.ids, deletion.request) for deletion in later]
    disk.purge(store)
    made = [answer for answer in answers if answer["state"] != deletions.UNKNOWN]
    return [{"request": answer["request"], "ids": len(answer["ids"]), "head": answer["head"]} for answer in made]


def _swap(temporary: Path, root: Path) -> Path | None:
    """Move what is there aside and the restored store in its place; where the old one is now."""
    moved = None
    if _holds_something(root):
        number = 1 + max(map(_number, _asides(root)), default=0)
        moved = root.with_name(f"{root.name}{ASIDE}{number}")
        root.rename(moved)
    try:
        temporary.rename(root)
    except BaseException:
        if moved:
            moved.rename(root)
        raise
    files.sync(root.parent)
    return moved


def _warnings(past: Past, lost: Sequence[Later], unknown: int, moved: Path | None) -> list[str]:
    """What the operator has to see to."""
    warnings = [f"{len(lost)} deletions are lost: make them again"] if lost else []
    if past.problem:
        warnings += [f"not all that was deleted may be known, for {past.problem}: make later deletions again"]
    if unknown:
        warnings += [f"{unknown} deleted ids came into the old store after the backup: do not register them again"]
    if moved:
        warnings += [f"{moved} still holds what was deleted since the backup: destroy it when it is not needed"]
    return warnings

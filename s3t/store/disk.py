"""A trained ensemble on disk: its manifest, its ledger, and one file for each node that serves.

    DIR/manifest.json                  what was built, and with what; never changes; readable by its owner alone
    DIR/ledger.sqlite                  examples, deletions, and which nodes serve (`s3t.store.ledger.records`)
    DIR/nodes/<identity>.safetensors   a node's slot and head, its certificate in the metadata

The directory and all in it are for their owner alone, and no link in it is followed. The ledger alone says what serves. A
file of a node that it does not name as serving is left over from a killed process or waiting to be purged; `open` and
`purge` remove it, and nothing else: what the store did not make is named and stays. Files are unlinked, not overwritten:
journals, copy on write and the wear levelling of flash memory keep what overwriting is meant to destroy, so keep a store on
an encrypted disk if that matters. Copies elsewhere (backups, what a server holds in memory) are not in reach of a purge.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

from s3t.store import certificates, deletions, files, manifests
from s3t.store.ledger import database, records, registry
from s3t.store.ledger.database import Ledger
from s3t.store.manifests import Manifest

__all__ = ["Store", "create", "open"]

MANIFEST, LEDGER, NODES, SUFFIX = "manifest.json", "ledger.sqlite", "nodes", ".safetensors"
IDENTITY = re.compile("[0-9a-f]{64}")
OWN = re.compile(f"({IDENTITY.pattern})({re.escape(SUFFIX)}|{re.escape(files.TEMPORARY)})")  # files that a store makes
PRIVATE = 0o700  # the ledger tells who lies where, and a node's parameters what they looked like
OTHERS = 0o077  # what everybody but the owner may do


class Store(NamedTuple):
    """An open store, of one process and one thread."""

    root: Path
    manifest: Manifest
    ledger: Ledger


# --- Making and opening -----------------------------------------------------------------------------------------------


def create(root: Path | str, manifest: Manifest) -> Store:
    """A new store without examples and nodes, in a new or empty directory, or one in which a creation was killed.

    Raises:
      ValueError: a directory that holds something else, or in which another process is making a store; a manifest that
        cannot be.
    """
    root = Path(root).absolute()
    text = certificates.canonical(vars(manifests.checked(manifest)))
    root.parent.mkdir(parents=True, exist_ok=True)
    root.mkdir(PRIVATE, exist_ok=True)
    with files.alone(root):
        begun = (root / MANIFEST).with_suffix(files.TEMPORARY)
        present = sorted(root.iterdir())
        ours = [path for path in present if path in (begun, root / NODES) or path.name.startswith(LEDGER)]
        if present and (begun not in present or ours != present):
            raise ValueError(f"{root} is not empty: choose another directory for the store")
        root.chmod(PRIVATE)  # an empty directory that was there
        files.flush(begun, text)  # first: what stands beside it is not a store yet
        for path in root.glob(f"{LEDGER}*"):
            path.unlink()
        (root / NODES).mkdir(PRIVATE, exist_ok=True)
        database.create_ledger(root / LEDGER, manifests.digest_of(text)).close()
        begun.replace(root / MANIFEST)  # last: a directory without it is no store
        files.sync(root)
    files.sync(root.parent)
    return look(root)  # the manifest as JSON has it, as every other process will see it


def open(root: Path | str) -> Store:
    """An existing store, after finishing what a killed process began: what serves no more is removed.

    Raises:
      ValueError: there is no store.
    """
    store = look(root)
    try:
        purge(store)
    except BaseException:
        close(store)
        raise
    return store


def exists(root: Path | str) -> bool:
    """Whether there is a store."""
    return (Path(root) / MANIFEST).is_file()


def look(root: Path | str, *, read_only: bool = False) -> Store:
    """An existing store as it is; nothing is changed.

    Args:
      root: its directory.
      read_only: it may be a copy on a read-only disk, as in `database.open_ledger`; not for a server.

    Raises:
      ValueError: there is no store; its manifest is not the one that its ledger was created with, or cannot be; a ledger
        that cannot be read; a link in place of one of its files.
    """
    root = Path(root).absolute()  # wherever the process goes meanwhile
    text = manifest_text(root)
    manifest = manifests.parse(text, root / MANIFEST)
    ledger = database.open_ledger(root / LEDGER, read_only=read_only)
    try:
        with database.reading(ledger):
            made_with = records.manifest_digest(ledger)
        if made_with != manifests.digest_of(text):
            raise ValueError(
                f"the manifest of {root} is not the one that its ledger was created with: restore it from a copy"
            )
        return Store(root, manifests.checked(manifest), ledger)
    except ValueError:
        ledger.close()
        raise


def manifest_text(root: Path) -> bytes:
    """The manifest's file as it is.

    Raises:
      ValueError: there is no store.
    """
    if not exists(root):
        raise ValueError(f"there is no store at {root}: it has no {MANIFEST}")
    return files.read_text(root / MANIFEST, manifests.MOST_BYTES)


def close(store: Store) -> None:
    """Close the ledger's file."""
    store.ledger.close()


# --- Files ------------------------------------------------------------------------------------------------------------


def file_of(store: Store, identity: str) -> Path:
    """Where a node's file is, or would be.

    Raises:
      ValueError: no identity of a node, such as a path that leads elsewhere.
    """
    if not IDENTITY.fullmatch(identity):
        raise ValueError(f"{identity!r:.80} is no identity of a node: restore the store from a copy")
    return store.root / NODES / (identity + SUFFIX)


def leftovers(store: Store, live: Iterable[str]) -> list[Path]:
    """Everything among the files of nodes that is not the file of one of these.

    Raises:
      ValueError: a link in place of their directory.
    """
    if not os.path.lexists(store.root / NODES):
        return []
    names = {identity + SUFFIX for identity in live}
    with files.folder(store.root / NODES) as directory:
        return sorted(store.root / NODES / name for name in os.listdir(directory) if name not in names)


def paths(store: Store) -> list[Path]:
    """The store's directory and all that lies in it; of what is gone meanwhile the name alone."""
    return [store.root, *sorted(store.root.iterdir()), *leftovers(store, ())]


def is_open_to_others(path: Path) -> bool:
    """Whether somebody beside its owner may read, write or enter what lies at a path, and no link's target."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:  # dropped meanwhile
        return False
    return not stat.S_ISLNK(mode) and bool(mode & OTHERS)


def make_room(store: Store) -> None:
    """Make the directory of the nodes' files again if it was lost."""
    (store.root / NODES).mkdir(PRIVATE, exist_ok=True)
    files.sync(store.root)


# --- Examples and deletions -------------------------------------------------------------------------------------------


def register(
    store: Store,
    ids: Iterable[int],
    shards: Iterable[int],
    slices: Iterable[int],
    labels: registry.Labels | None = None,
    *,
    retrain: bool = False,
) -> str:
    """Take in examples at the places that `s3t.plans.partition.assign` gave them, all or none.

    Args:
      store: the store.
      ids, shards, slices: of each.
      labels: what some of them are called, by kind, see `s3t.store.ledger.registry`.
      retrain: whether nodes of their slices are to be trained anew.

    Returns:
      the ledger's new head.

    Raises:
      ValueError: a place that does not exist; an id that is malformed, given twice, or was registered before.
    """
    shards, slices = [int(shard) for shard in shards], [int(slice_) for slice_ in slices]
    for what, values, end in (("shard", shards, store.manifest.shards), ("slice", slices, store.manifest.slices)):
        if wrong := [value for value in values if not 0 <= value < end]:
            raise ValueError(f"a {what} of this store lies between 0 and {end - 1}, got {wrong[0]}")
    key = manifests.key_of(store.manifest)
    return records.record_examples(store.ledger, ids, shards, slices, labels, retrain, key).digest


def delete(
    store: Store, ids: Iterable[int | str], request_id: str | None = None, groups: Iterable[str] = ()
) -> dict[str, Any]:
    """Delete examples: durable when this returns, and in force for every process that asks the ledger. Purge next.

    Args:
      store: the store.
      ids: whole numbers, or names where the store has them.
      request_id: of the caller's choice; a request that is repeated is answered as it was; a random one if None.
      groups: whose examples are deleted as well, all that are registered now.

    Returns:
      if no id and no group is one of the store's ok, false, and a verdict "nothing was deleted"; redacted, true, if the
      request was carried out before and its ids are forgotten since; request, state, ids, already, unknown, nodes_dropped,
      head (a receipt: `s3t.service.verify` finds it in the chain), and acknowledged_ms, milliseconds from the call to the
      durable record. If groups were asked for groups, those that are known, and unknown_groups. If one of these examples
      has a name names, name -> id.

    Raises:
      ValueError: as `deletions.record_deletion`; nothing is changed.
    """
    began = perf_counter()
    request_id, groups = os.urandom(8).hex() if request_id is None else request_id, tuple(groups)
    deletion = deletions.record_deletion(store.ledger, ids, request_id, groups, manifests.key_of(store.manifest))
    names = registry.names_of(store.ledger, [*deletion.ids, *deletion.already])
    nothing = {"ok": False, "verdict": "nothing was deleted"} if deletion.state == deletions.UNKNOWN else {}
    forgotten = {"redacted": True} if deletion.state == deletions.HEALED else {}
    return {
        **nothing,
        **forgotten,
        "request": deletion.request,
        "state": deletion.state,
        "ids": list(deletion.ids),
        "already": list(deletion.already),
        "unknown": list(deletion.unknown),
        **({"groups": list(deletion.groups), "unknown_groups": list(deletion.unknown_groups)} if groups else {}),
        **({"names": names} if names else {}),
        "nodes_dropped": len(deletion.dropped),
        "head": deletion.head,
        "acknowledged_ms": 1e3 * (perf_counter() - began),
    }


def purge(store: Store) -> tuple[str, ...]:
    """Remove every file of a node that does not serve, whole or half-written; may be repeated and interrupted.

    Returns:
      the requests that became purged.

    Raises:
      ValueError: something that the store did not make, perhaps a copy of a node: it stays, all files that the store made
        are gone, and no request is purged. No directory of files, which may be out of reach with all that is in it.
      Damaged: the ledger's rows do not say that a node serves no more; nothing is removed.
    """

    def remove(serving: set[str]) -> None:
        if not os.path.lexists(store.root / NODES):
            raise ValueError(f"{store.root / NODES} is missing: put it back, or heal the store, which makes it anew")
        with files.folder(store.root / NODES) as directory:
            left = set(os.listdir(directory)) - {identity + SUFFIX for identity in serving}
            own = {match[0]: match[1] for name in left if (match := OWN.fullmatch(name)) and files.is_file(name, directory)}
            for identity in set(own.values()) - serving:
                records.check_gone(store.ledger, identity)
            for name in sorted(own):
                os.unlink(name, dir_fd=directory)
            os.fsync(directory)
        if strange := sorted(left - own.keys()):
            raise ValueError(
                f"{store.root / NODES / strange[0]} is nothing that the store made, perhaps a copy of a node: remove it, "
                "then run python -m s3t purge"
            )

    return deletions.record_purge(store.ledger, remove)

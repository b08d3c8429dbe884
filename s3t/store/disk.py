"""A trained ensemble on disk: its manifest, its ledger, and one file for each node that serves.

    DIR/manifest.json                  what was built, and with what; never changes; readable by its owner alone
    DIR/ledger.sqlite                  examples, deletions, and which nodes serve (`s3t.store.records`)
    DIR/nodes/<identity>.safetensors   a node's slot and head, its certificate in the metadata

The ledger alone says what serves. A file that it does not name as serving is left over from a killed process or waiting to
be purged; `open` and `purge` remove it. Files are unlinked, not overwritten: journals, copy on write and the wear levelling
of flash memory keep what overwriting is meant to destroy, so keep a store on an encrypted disk if that matters. Copies
elsewhere (backups, what a serving process holds in memory) are not in reach of a purge.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

from s3t.store import certificates, database, deletions, files, manifests, records
from s3t.store.database import Ledger
from s3t.store.manifests import Manifest

__all__ = ["Store", "create", "open"]

MANIFEST, LEDGER, NODES, SUFFIX = "manifest.json", "ledger.sqlite", "nodes", ".safetensors"


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
    root = Path(root)
    text = certificates.canonical(vars(manifests.checked(manifest)))
    root.mkdir(parents=True, exist_ok=True)
    with files.alone(root):
        begun = (root / MANIFEST).with_suffix(".tmp")
        present = sorted(root.iterdir())
        ours = [path for path in present if path in (begun, root / NODES) or path.name.startswith(LEDGER)]
        if present and (begun not in present or ours != present):
            raise ValueError(f"{root} is not empty: choose another directory for the store")
        begun.touch(0o600)  # the partition's key is in it
        files.flush(begun, text)  # first: what stands beside it is not a store yet
        for path in root.glob(f"{LEDGER}*"):
            path.unlink()
        (root / NODES).mkdir(exist_ok=True)
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
    purge(store)
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
      ValueError: there is no store; its manifest is not the one that its ledger was created with; a ledger that cannot be
        read.
    """
    root = Path(root)
    text = manifest_text(root)
    manifest = manifests.parse(text, root / MANIFEST)
    ledger = database.open_ledger(root / LEDGER, read_only=read_only)
    if records.manifest_digest(ledger) != manifests.digest_of(text):
        ledger.close()
        raise ValueError(f"the manifest of {root} is not the one that its ledger was created with: restore it from a copy")
    return Store(root, manifest, ledger)


def manifest_text(root: Path) -> bytes:
    """The manifest's file as it is.

    Raises:
      ValueError: there is no store.
    """
    if not exists(root):
        raise ValueError(f"there is no store at {root}: it has no {MANIFEST}")
    return (root / MANIFEST).read_bytes()


def close(store: Store) -> None:
    """Close the ledger's file."""
    store.ledger.close()


# --- Files ------------------------------------------------------------------------------------------------------------


def file_of(store: Store, identity: str) -> Path:
    """Where a node's file is, or would be."""
    return store.root / NODES / (identity + SUFFIX)


def leftovers(store: Store, live: Iterable[str]) -> list[Path]:
    """Everything among the files of nodes that is not the file of one of these."""
    names, folder = {identity + SUFFIX for identity in live}, store.root / NODES
    return sorted(path for path in folder.iterdir() if path.name not in names) if folder.is_dir() else []


def make_room(store: Store) -> None:
    """Make the directory of the nodes' files again if it was lost."""
    (store.root / NODES).mkdir(exist_ok=True)
    files.sync(store.root)


# --- Examples and deletions -------------------------------------------------------------------------------------------


def register(store: Store, ids: Iterable[int], shards: Iterable[int], slices: Iterable[int]) -> str:
    """Take in examples at the places that `s3t.plans.partition.assign` gave them, all or none.

    Returns:
      the ledger's new head.

    Raises:
      ValueError: a place that does not exist; an id that is malformed, given twice, or was registered before.
    """
    shards, slices = [int(shard) for shard in shards], [int(slice_) for slice_ in slices]
    for what, values, end in (("shard", shards, store.manifest.shards), ("slice", slices, store.manifest.slices)):
        if wrong := [value for value in values if not 0 <= value < end]:
            raise ValueError(f"a {what} of this store lies between 0 and {end - 1}, got {wrong[0]}")
    return records.record_examples(store.ledger, ids, shards, slices).digest


def delete(store: Store, ids: Iterable[int], request_id: str | None = None) -> dict[str, Any]:
    """Delete examples: durable when this returns, and in force for every process that asks the ledger. Purge next.

    Args:
      store: the store.
      ids: whole numbers.
      request_id: of the caller's choice; a request that is repeated is answered as it was; a random one if None.

    Returns:
      request, state, ids, already, unknown, nodes_dropped, head (a receipt: `s3t.service.verify` finds it in the chain),
      and acknowledged_ms, milliseconds from the call to the durable record.

    Raises:
      ValueError: as `deletions.record_deletion`; nothing is changed.
    """
    began = perf_counter()
    deletion = deletions.record_deletion(store.ledger, ids, os.urandom(8).hex() if request_id is None else request_id)
    return {
        "request": deletion.request,
        "state": deletion.state,
        "ids": list(deletion.ids),
        "already": list(deletion.already),
        "unknown": list(deletion.unknown),
        "nodes_dropped": len(deletion.dropped),
        "head": deletion.head,
        "acknowledged_ms": 1e3 * (perf_counter() - began),
    }


def purge(store: Store) -> tuple[str, ...]:
    """Remove every file of a node that does not serve, whole or half-written; may be repeated and interrupted.

    Returns:
      the requests that became purged.

    Raises:
      ValueError: a directory among the files, which the store did not make and does not remove; all files are gone, but no
        request is purged. No directory of files, which may be out of reach with all that is in it.
    """

    def remove(serving: set[str]) -> None:
        if not (store.root / NODES).is_dir():
            raise ValueError(f"{store.root / NODES} is missing: put it back, or heal the store, which makes it anew")
        left = leftovers(store, serving)
        directories = [path for path in left if path.is_dir() and not path.is_symlink()]
        for path in left:
            if path not in directories:
                path.unlink()
        files.sync(store.root / NODES)
        if directories:
            raise ValueError(f"{directories[0]} is a directory, perhaps of copies: remove it, then purge again")

    return deletions.record_purge(store.ledger, remove)

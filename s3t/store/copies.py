"""Backups of a store: taken while it is in use, whole or not there, and held against their digests when they are read.

    DEST/backup.json   head, rows, time, version, and the digest of each file
    DEST/store/        the store as it was at that head, with the files of the nodes that served then

SQLite itself copies the ledger, at one moment. A plain copy of the file misses the rows that still lie beside it, in its
-wal. A node that is dropped meanwhile may lose its file: then a later snapshot is taken, never half of one.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from s3t.store import certificates, disk, files, manifests, publishing
from s3t.store.disk import LEDGER, MANIFEST, NODES, PRIVATE, SUFFIX, Store
from s3t.store.ledger import audit, database
from s3t.store.ledger.records import PublishedNode

DESCRIPTION, STORE = "backup.json", "store"
MOST_BYTES = 1 << 28  # of a description
SNAPSHOTS = 100  # that are taken at most
FILE = re.compile(f"{re.escape(MANIFEST)}|{re.escape(LEDGER)}|{NODES}/{disk.IDENTITY.pattern}{re.escape(SUFFIX)}")


class Description(NamedTuple):
    """What a backup says of itself.

    head, rows: of its ledger.
    time: in UTC.
    version: of the program that made it.
    files: path within the store -> SHA-256.
    """

    head: str
    rows: int
    time: str
    version: str
    files: dict[str, str]


# --- Making one -------------------------------------------------------------------------------------------------------


def back_up(root: Path | str, destination: Path | str, version: str) -> Description:
    """Copy a store, which others may use meanwhile, to a directory that is made; nothing is left of a copy that fails.

    Args:
      root: directory of the store.
      destination: where the backup is to stand: nothing, or an empty directory.
      version: of this program.

    Raises:
      ValueError: no store; a destination that cannot be; a file of a serving node that is missing or altered.
      Damaged: a ledger that was altered.
      OSError: the copy cannot be written.
    """
    destination = Path(os.path.abspath(destination))
    store = disk.look(root, read_only=True)
    try:
        _check_free(destination, store)
        with beside(destination) as temporary:
            copy = temporary / STORE
            (copy / NODES).mkdir(PRIVATE, parents=True)
            copy.chmod(PRIVATE)
            files.write(copy / MANIFEST, disk.manifest_text(store.root))
            head = _copy(store, copy)
            paths = (path for path in sorted(copy.rglob("*")) if path.is_file())
            digests = {path.relative_to(copy).as_posix(): digest_of(path.read_bytes()) for path in paths}
            time = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            description = Description(head.digest, head.rows, time, version, digests)
            files.write(temporary / DESCRIPTION, certificates.canonical(description._asdict()))
            for directory in (copy / NODES, copy, temporary):
                files.sync(directory)
            temporary.rename(destination)
            files.sync(destination.parent)
    finally:
        disk.close(store)
    return description


def _check_free(destination: Path, store: Store) -> None:
    """Refuse a place where something is, or where a backup would be part of what it copies."""
    if destination.is_symlink():
        raise ValueError(f"{destination} is a link: name the directory itself")
    if destination.exists() and not (destination.is_dir() and not any(destination.iterdir())):
        raise ValueError(f"{destination} is there already: choose another place for the backup")
    if not destination.parent.is_dir():
        raise ValueError(f"there is no directory {destination.parent}: make it, or mount the disk of the backups")
    if destination.resolve().is_relative_to(store.root.resolve()):
        raise ValueError(f"{destination} lies in the store: choose a place outside it, best on another disk")


@contextmanager
def beside(path: Path) -> Iterator[Path]:
    """A private empty directory beside a path, to be renamed to it; what is not renamed is removed.

    Raises:
      ValueError: another process fills it.
    """
    temporary = path.with_name(f".{path.name}{files.TEMPORARY}")
    if temporary.is_symlink():
        raise ValueError(f"{temporary} is a link: remove it")
    temporary.mkdir(PRIVATE, exist_ok=True)
    with files.alone(temporary):
        try:
            for left in temporary.iterdir():  # by a process that was killed
                shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()
            temporary.chmod(PRIVATE)
            yield temporary
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _copy(store: Store, root: Path) -> database.Head:
    """Copy ledger and nodes as they are at one moment; what an earlier snapshot has copied already is kept."""
    for _ in range(SNAPSHOTS):
        _snapshot(store, root / LEDGER)
        copy = disk.look(root)
        try:
            with database.reading(copy.ledger):
                made_with = manifests.digest_of(disk.manifest_text(root))
                problems = audit.audit(copy.ledger, made_with, key=manifests.key_of(copy.manifest))
                problems = problems or audit.misplaced(copy.ledger, copy.manifest)
                head = database.head(copy.ledger)
            if problems:
                raise database.Damaged(f"{store.root} is not worth a backup, {problems[0]}: restore it from an earlier one")
            if _copy_nodes(store, copy):
                return head
        finally:
            disk.close(copy)
    raise ValueError(f"{store.root} lost nodes faster than they could be copied: repeat the command")


def _snapshot(store: Store, path: Path) -> None:
    """The ledger at one moment, on disk when this returns."""
    database.check_file(store.ledger)
    path.unlink(missing_ok=True)
    path.touch(0o600)
    try:
        with closing(sqlite3.connect(path, isolation_level=None)) as copy:
            store.ledger.backup(copy)
    except sqlite3.Error as error:
        ours = database.code_of(error) not in database.BROKEN  # what cannot be written is the copy
        raise database.explanation(path if ours else store.ledger.path, error) from None
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _copy_nodes(store: Store, copy: Store) -> bool:
    """Bring the copy's files of nodes to what its ledger says; False if one was dropped meanwhile."""
    nodes = publishing.live(copy)
    for path in disk.leftovers(copy, publishing.identities(nodes)):  # of the snapshot before
        path.unlink()
    if nodes:
        with files.folder(store.root / NODES):  # no link
            return all(_copy_node(store, copy, node) for node in nodes)
    return True


def _copy_node(store: Store, copy: Store, node: PublishedNode) -> bool:
    """Copy a node's file and hold it against its certificate; False if the node serves no more."""
    path = disk.file_of(copy, node.identity)
    if path.exists():
        return True
    try:
        try:
            data = files.read_bytes(disk.file_of(store, node.identity))
        except FileNotFoundError:
            raise ValueError(f"the file of node {node.identity} is missing") from None
        files.write(path, data)
        publishing.check(copy, node)
    except ValueError as error:
        if node.identity not in publishing.identities(publishing.live(store)):
            return False
        raise ValueError(f"{store.root} is not whole, {error}: heal it, then back it up") from None
    return True


# --- Reading one ------------------------------------------------------------------------------------------------------


def describe(backup: Path) -> Description:
    """What a backup says of itself.

    Raises:
      ValueError: there is no backup, or one that was damaged.
    """
    path = backup / DESCRIPTION
    if not path.is_file():
        raise ValueError(f"there is no backup at {backup}: it has no {DESCRIPTION}")
    try:
        fields: dict[str, Any] = json.loads(files.read_text(path, MOST_BYTES))
        description = Description(**fields)
        kinds = [type(value) for value in description]
        names = description.files.keys() if isinstance(description.files, dict) else set()
        if kinds != [str, int, str, str, dict] or not names >= {MANIFEST, LEDGER} or not all(map(FILE.fullmatch, names)):
            raise TypeError
    except (TypeError, ValueError, RecursionError):
        raise ValueError(f"{path} is damaged: use another backup") from None
    return description


def unpack(backup: Path, description: Description, root: Path) -> None:
    """Copy a backup's store into an empty directory; every byte is held against its digest.

    Raises:
      ValueError: a file that is missing, a link, or not what was backed up.
    """
    (root / NODES).mkdir(PRIVATE)
    for directory in (backup / STORE, backup / STORE / NODES):
        with files.folder(directory):  # no link
            pass
    for name, digest in description.files.items():
        path = backup / STORE / name
        try:
            data = files.read_bytes(path)
        except FileNotFoundError:
            raise ValueError(f"the backup's file {path} is missing: use another backup") from None
        if digest_of(data) != digest:
            raise ValueError(f"the backup's file {path} is not what was backed up: use another backup")
        files.write(root / name, data)


def digest_of(data: bytes) -> str:
    """SHA-256, as 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()

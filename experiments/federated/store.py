"""An archive of a federated training on a disk: who sent what in which round, kept until it is erased or too old.

Its files are those of `experiments.federated.layout`, its log is that of `experiments.federated.log`. A round is there once
its row is on the disk. What a kill leaves is mended by the next writer: a row that was cut short goes, files of the round
that has no row yet go, and so do files whose rows say that they are gone.

Users are called by a stable id of their own, never by what an engine calls a connection: a client that restarts may get
another. The log and the certificates name whom they tell of, after an erasure too: give pseudonyms. Files are unlinked, not
overwritten. Shared files and models hold traces of all who took part; no certificate says that those are gone.
"""

from __future__ import annotations

import fcntl
import re
import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, NamedTuple

from experiments.core import files
from experiments.federated import layout, log
from experiments.federated.log import ArchiveError, Row

NODE_ID = re.compile(r"\d{17,20}")  # 64 bits at random, as Flower calls its nodes


class Update(NamedTuple):
    """A user's update as bytes, and the weight it entered the model with."""

    weight: float
    content: bytes


class Entry(NamedTuple):
    """An update that is on the disk, as the log has it."""

    weight: float
    digest: str
    bytes: int


def check_user(user: Any) -> None:
    """Refuse what is no user's stable id.

    Raises:
      ArchiveError: no text, an odd one, or what an engine calls a node.
    """
    if not isinstance(user, str):
        raise ArchiveError(f"a user is {user!r:.80}, no text: give the user's stable id, not what an engine calls a node")
    if not user or len(user) > 200 or not user.isprintable():
        raise ArchiveError(f"a user's id is {user!r:.80}: give 1 to 200 printable characters")
    if unicodedata.normalize("NFC", user) != user:
        raise ArchiveError(
            f"a user's id is {user!r:.80}, with accents as characters of their own: write it in Unicode's NFC"
        )
    if NODE_ID.fullmatch(user):
        raise ArchiveError(f"{user} looks like an engine's node id, which a restart may change: give the user's stable id")


def create(root: Path, start: bytes, about: Mapping[str, Any]) -> Store:
    """Make an archive and open it for writing.

    Args:
      root: a folder that is not there, and which only its owner will read; or an empty one, whose mode stays.
      start: the model before the first round.
      about: what JSON can hold; the archive only keeps it.

    Raises:
      ArchiveError: there is something already, or no folder.
      WorkdirError: the disk is full or may not be written.
    """
    if root.exists() and not root.is_dir():
        raise ArchiveError(f"{root} is no folder: give another")
    files.remove_unfinished(root)
    others = {path.name for path in root.iterdir()} - {"start"} if root.exists() else set()
    if others:
        raise ArchiveError(f"{root} is not empty: open the archive that is there, or give another folder")
    with files.writing(root):
        root.mkdir(mode=0o700, parents=True, exist_ok=True)  # updates tell of users' data
    files.write_bytes(layout.start(root, 0), start)
    told = {"format": log.FORMAT, "about": dict(about), "start": log.facts(start)}
    files.write_bytes(root / layout.LOG, log.line(log.next_row([], "created", told)))
    return open_store(root, write=True)


def open_store(root: Path, *, write: bool = False) -> Store:
    """Open an archive; with `write`, alone, and mended of what a kill left.

    Raises:
      ArchiveError: no archive, another format, an altered log, files that it does not know, another writer.
    """
    if not write:
        return Store(root, None)
    try:
        lock = (root / layout.LOG).open("rb")
    except OSError as error:
        raise ArchiveError(f"{root} is no archive (no {layout.LOG}): give the folder of one, or create it") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return Store(root, lock)
    except BlockingIOError:
        lock.close()
        raise ArchiveError(f"another process writes to {root}: wait for it, or open the archive for reading") from None
    except BaseException:
        lock.close()
        raise


class Store:
    """An open archive; made by `create` and `open_store`, closed by `close` or a with statement.

    rows: of the log.
    rounds: {round: {user: Entry}} of what is there, rounds rising.
    """

    def __init__(self, root: Path, lock: IO[bytes] | None) -> None:
        """Read the log; with a lock on it, the archive is for writing too and is mended."""
        self.root, self._lock = root, lock
        self.rows: list[Row] = []
        self.rounds: dict[int, dict[str, Entry]] = {}
        self._shared: dict[int, str] = {}  # digests
        self._gone: set[tuple[str, int]] = set()
        removed = [path for row in log.read(root / layout.LOG, mend=lock is not None) for path in self._take(row)]
        if lock is not None:
            self._mend(removed)

    def __enter__(self) -> Store:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Let another writer in."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    # --- Reading ---

    @property
    def about(self) -> dict[str, Any]:
        """What the archive's maker said of it."""
        return dict(self.rows[0]["about"])

    @property
    def head(self) -> str:
        """The digest of the last row: a receipt of all that was done."""
        return str(self.rows[-1]["digest"])

    def read(self, user: str, round: int) -> bytes:
        """A user's update of a round.

        Raises:
          ArchiveError: it is not there (erased, dropped, absent, never), or the file is not the one of the log.
        """
        if (user, round) in self._gone:
            raise ArchiveError(f"the update of {user} in round {round} was erased or dropped: the log has its digest alone")
        entry = self._round(round).get(user)
        if entry is None:
            raise ArchiveError(f"{user} took no part in round {round}: choose from its {len(self.rounds[round])} users")
        return layout.content(layout.update(self.root, user, round), entry.digest)

    def shared(self, round: int) -> bytes:
        """What belongs to a round and to no user; empty if there is nothing. Raises as `read` does."""
        self._round(round)
        return layout.content(layout.shared(self.root, round), self._shared[round]) if round in self._shared else b""

    def start(self) -> tuple[int, bytes]:
        """The number of the first round that may be kept, and the model before it. Raises as `read` does."""
        row = next(row for row in reversed(self.rows) if "start" in row)
        first = row.get("before", 0)
        return first, layout.content(layout.start(self.root, first), row["start"]["digest"])

    def sizes(self) -> dict[str, int]:
        """Bytes on the disk, by what they are."""
        names = ("users", "shared", "start", "certificates")
        sizes = {name: sum(path.stat().st_size for path in (self.root / name).rglob("*.*")) for name in names}
        return sizes | {"log": (self.root / layout.LOG).stat().st_size}

    def verify(self) -> int:
        """Read every file against its digest, and count them. Raises as `read` does."""
        self.start()
        contents = [self.read(user, t) for t, users in self.rounds.items() for user in users]
        return 1 + len(contents) + len([self.shared(t) for t in self._shared])

    def _round(self, round: int) -> dict[str, Entry]:
        if round not in self.rounds:
            there = f"rounds {min(self.rounds)} to {max(self.rounds)}" if self.rounds else "no round"
            raise ArchiveError(f"round {round} is not in the archive {self.root}: it has {there}")
        return self.rounds[round]

    # --- Writing ---

    def append(self, round: int, updates: Mapping[str, Update], *, shared: bytes = b"", model: str = "") -> None:
        """Add a round; when this returns it is on the disk.

        Args:
          round: its number, above that of any round before.
          updates: of those who took part, by stable id.
          shared: what belongs to the round and to no user.
          model: the digest of the model after it.

        Raises:
          ArchiveError: a number, a user or a weight that cannot be; an archive opened for reading.
          WorkdirError: the disk is full or may not be written.
        """
        self._check_writer()
        if round <= self._last():
            raise ArchiveError(f"round {round} cannot follow round {self._last()}: give a larger number")
        for user, update in updates.items():
            check_user(user)
            if not 0 <= update.weight <= 1:
                raise ArchiveError(f"the weight of {user} is {update.weight}: give its share of the round, from 0 to 1")
        contents = {layout.update(self.root, user, round): update.content for user, update in updates.items()}
        if shared:
            contents[layout.shared(self.root, round)] = shared
        told = [{"user": user, "weight": float(one.weight), **log.facts(one.content)} for user, one in updates.items()]
        try:
            layout.write(contents)
            self._add("round", round=round, updates=told, shared=log.facts(shared) if shared else None, model=model)
        except BaseException:
            layout.remove(contents)
            raise

    def drop_before(self, round: int, start: bytes) -> None:
        """Retention: let go of all rounds before one, given the model before it. Raises as `append` does."""
        self._check_writer()
        self._round(round)
        if round > self.start()[0]:
            files.write_bytes(layout.start(self.root, round), start)
            layout.remove(self._add("dropped", before=round, start=log.facts(start)))

    def erase(self, user: str, *, method: str, model_before: str, model_after: str) -> Row:
        """Delete a user's own history, once the model is free of the user; returns the certificate.

        Args:
          user: whose updates go.
          method: how the model was freed of the user, for people.
          model_before, model_after: digests of the model with and without the user.

        Raises:
          ArchiveError: there is nothing of the user; an archive opened for reading.
          WorkdirError: the disk is full or may not be written.
        """
        self._check_writer()
        entries = {t: users[user] for t, users in self.rounds.items() if user in users}
        if not entries:
            raise ArchiveError(f"there is no update of {user} in {self.root}: name a user of the archive")
        removed = [{"round": t, "digest": entry.digest, "bytes": entry.bytes} for t, entry in entries.items()]
        told = {"user": user, "method": method, "model_before": model_before, "model_after": model_after}
        layout.remove(self._add("erased", **told, removed=removed))
        return self._certify(self.rows[-1])

    def _add(self, kind: str, **told: Any) -> list[Path]:
        row = log.next_row(self.rows, kind, told)
        log.append(self.root / layout.LOG, row)
        return self._take(row)

    def _take(self, row: Row) -> list[Path]:
        """Know what a row says; the files that are gone by it."""
        self.rows.append(row)
        gone: list[Path] = []
        if row["kind"] == "round":
            entries = {one["user"]: Entry(one["weight"], one["digest"], one["bytes"]) for one in row["updates"]}
            self.rounds[row["round"]] = entries
            if row["shared"]:
                self._shared[row["round"]] = row["shared"]["digest"]
        elif row["kind"] == "dropped":
            for t in [t for t in self.rounds if t < row["before"]]:
                gone += [self._forget(user, t) for user in list(self.rounds[t])]
                del self.rounds[t]
                self._shared.pop(t, None)
                gone.append(layout.shared(self.root, t))
            gone += [layout.start(self.root, one.get("before", 0)) for one in self.rows[:-1] if "start" in one]
        elif row["kind"] == "erased":
            gone += [self._forget(row["user"], one["round"]) for one in row["removed"]]
        return gone

    def _forget(self, user: str, round: int) -> Path:
        del self.rounds[round][user]
        self._gone.add((user, round))
        return layout.update(self.root, user, round)

    def _certify(self, row: Row) -> Row:
        certificate = {"archive": self.rows[0]["digest"], **row}
        files.write_json(layout.certificate(self.root, row), certificate, indent=1)
        return certificate

    def _mend(self, gone: Iterable[Path]) -> None:
        """Finish what a kill interrupted; files that the log does not know are refused."""
        files.remove_unfinished(self.root)
        layout.remove(gone)
        known = {layout.update(self.root, user, t) for t, users in self.rounds.items() for user in users}
        known |= {layout.shared(self.root, t) for t in self._shared}
        strange = {*(self.root / "users").glob("*/*"), *(self.root / "shared").glob("*")} - known
        late = {path for path in strange if path.stem.isdecimal() and int(path.stem) > self._last()}
        if strange - late or len({path.stem for path in late}) > 1:
            path = min(strange - late or late)
            raise ArchiveError(f"the log of {self.root} does not know {path}: restore the log, or move the file away")
        layout.remove(late)
        newest = self.start()[0]
        layout.remove(path for path in (self.root / "start").glob("*") if path != layout.start(self.root, newest))
        for row in self.rows:
            if row["kind"] == "erased" and not layout.certificate(self.root, row).exists():
                self._certify(row)

    def _last(self) -> int:
        return max((row["round"] for row in self.rows if row["kind"] == "round"), default=-1)

    def _check_writer(self) -> None:
        if self._lock is None:
            raise ArchiveError(f"the archive {self.root} is open for reading: open it with write=True")


def check_certificate(store: Store, certificate: Row) -> None:
    """Check that an archive has the row of a certificate of erasure, and none of the files that it says are gone.

    Raises:
      ArchiveError: the certificate was altered or is of another archive, or a file is there again.
    """
    row = {name: value for name, value in certificate.items() if name != "archive"}
    seq = row.get("seq")
    known = isinstance(seq, int) and 0 <= seq < len(store.rows) and store.rows[seq] == row and row["kind"] == "erased"
    if not known or certificate.get("archive") != store.rows[0]["digest"]:
        raise ArchiveError(f"the archive {store.root} has no such erasure: give its own certificate, as it was issued")
    for one in row["removed"]:
        if (path := layout.update(store.root, row["user"], one["round"])).exists():
            raise ArchiveError(f"{path} is there, though it was erased: open the archive for writing, which removes it")

"""What an attack counts, how long it goes on, and the room that it takes place in."""

import contextlib
import dataclasses
import hashlib
import os
import shutil
import time
import traceback

GOOD, BAD = ("tried", "seen"), ("wrong", "lost", "served", "tracebacks", "outside")


@dataclasses.dataclass
class Tally:
    """Numbers of one attack.

    tried: kills, alterations, inputs.
    seen: of these, what was refused or noticed as it should, and kills after which all is as it should be. The rest did
      nothing that could be seen, as a flipped bit in a page that holds nothing.
    wrong: anything else than it should be: other bytes at the end, a status that is none, two lines of an error.
    lost: acknowledged deletions that are not in the ledger, and nobody says so.
    served: answers by a node that holds a deleted example.
    tracebacks: exceptions that are no line for the user.
    outside: files that changed beside the store.
    notes: of what was bad, to do it again.
    """

    attack: str
    tried: int = 0
    seen: int = 0
    wrong: int = 0
    lost: int = 0
    served: int = 0
    tracebacks: int = 0
    outside: int = 0
    seconds: float = 0.0
    notes: list[str] = dataclasses.field(default_factory=list)

    def bad(self, kind, note):
        """Count something that may not happen."""
        setattr(self, kind, getattr(self, kind) + 1)
        self.notes.append(
            f"{self.attack}: {kind}: {note[:1200]} ... {note[-1200:]}"
            if len(note) > 2400
            else f"{self.attack}: {kind}: {note}"
        )

    @property
    def faults(self):
        return sum(getattr(self, kind) for kind in BAD)

    @contextlib.contextmanager
    def trial(self, what, *allowed):
        """One try: seen if it ends with an allowed error, or without any; another is a traceback."""
        self.tried += 1
        before = self.faults
        try:
            yield
        except allowed as error:
            if "\n" in str(error).strip() and not getattr(error, "mistakes", ()):
                self.bad("wrong", f"{what}: an error of several lines: {error}")
        except Exception:
            self.bad("tracebacks", f"{what}: {traceback.format_exc(limit=-4)}")
        self.seen += self.faults == before


@dataclasses.dataclass(frozen=True)
class Limit:
    """For how long an attack goes on: a number of rounds, or of seconds."""

    rounds: int | None = None
    seconds: float | None = None

    def __iter__(self):
        began, done = time.monotonic(), 0
        while (self.rounds is None or done < self.rounds) and not self._late(began):
            yield done
            done += 1

    def _late(self, began):
        return self.seconds is not None and time.monotonic() - began > self.seconds


@dataclasses.dataclass(frozen=True)
class Room:
    """A folder with a place for a store, and with somebody else's files beside it, which nothing may touch."""

    folder: os.PathLike

    @classmethod
    def make(cls, folder):
        """A room with files called like a store's."""
        beside = folder / "beside"
        (beside / "nodes").mkdir(parents=True)
        for name in ("thesis.txt", "ledger.sqlite", f"nodes/{'0' * 64}.safetensors", f"nodes/{'1' * 64}.tmp"):
            (beside / name).write_text("precious")
        return cls(folder)

    @property
    def store(self):
        return self.folder / "store"

    @property
    def beside(self):
        return self.folder / "beside"

    def fresh(self, template):
        """A copy of a template in the store's place."""
        shutil.rmtree(self.store, ignore_errors=True)
        shutil.copytree(template, self.store, symlinks=True)
        return self.store

    def surroundings(self):
        """A digest of each name beside the store."""
        found = {}
        for folder, folders, names in os.walk(self.folder):
            if folder == str(self.folder):
                folders[:] = [name for name in folders if name != "store"]
            for name in names:
                path = os.path.join(folder, name)
                found[path] = "link" if os.path.islink(path) else _digest(path)
            found |= {os.path.join(folder, name): "folder" for name in folders}
        return found


def _digest(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

"""Where an archive's files lie; contents read against their digests, and files removed for good.

In an archive's folder:

    log.jsonl                   see `experiments.federated.log`
    start/000000.bin            the model before the first round that is kept
    users/NAME/000007.bin       a user's update of a round; NAME is a hash of the user's id
    shared/000007.bin           what belongs to a round and to no user, if there is something
    certificates/000012.json    of an erasure, by the number of its row
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent import futures
from pathlib import Path

from experiments.core import files
from experiments.federated import log
from experiments.federated.log import ArchiveError, Row
from s3t.store.files import sync

LOG = "log.jsonl"
WRITERS = 16  # files that are written side by side


def update(root: Path, user: str, round: int) -> Path:
    """The file of a user's update."""
    return root / "users" / log.digest(user.encode(errors="surrogatepass"))[:32] / f"{round:06d}.bin"


def shared(root: Path, round: int) -> Path:
    """The file of what belongs to a round and to no user."""
    return root / "shared" / f"{round:06d}.bin"


def start(root: Path, round: int) -> Path:
    """The file of the model before a round."""
    return root / "start" / f"{round:06d}.bin"


def certificate(root: Path, row: Row) -> Path:
    """The file of an erasure's certificate."""
    return root / "certificates" / f"{row['seq']:06d}.json"


def content(path: Path, digest: str) -> bytes:
    """What a file holds.

    Raises:
      ArchiveError: it is missing, or its digest is another.
    """
    try:
        found = path.read_bytes()
    except OSError as error:
        raise ArchiveError(f"{path} is missing or cannot be read: restore it from a copy") from error
    if log.digest(found) != digest:
        raise ArchiveError(f"{path} was altered: its digest is not the log's; restore it from a copy")
    return found


def write(contents: Mapping[Path, bytes]) -> None:
    """Write files side by side, since each waits for the disk; all are on it once this returns.

    Raises:
      WorkdirError: the disk is full or may not be written; some of the files may be there.
    """
    with futures.ThreadPoolExecutor(WRITERS) as pool:
        try:
            for done in [pool.submit(files.write_bytes, *one) for one in contents.items()]:
                done.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)  # the block waits for those that are under way
            raise


def remove(paths: Iterable[Path]) -> None:
    """Unlink files, for good once this returns, and users' folders that are left empty; what is gone already stays so."""
    folders = set()
    for path in paths:
        if path.exists():
            with files.writing(path):
                path.unlink()
            folders.add(path.parent)
    for folder in folders:
        sync(folder)
        if folder.parent.name == "users" and not any(folder.iterdir()):
            folder.rmdir()

"""Files of a store: written durably and whole or not at all, read with their certificate; a directory kept from others.

No link is followed and nothing but a regular file is read or replaced: a store may come from somebody else. What is changed
in a directory is changed through its descriptor, so that what takes its name meanwhile is out of reach.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from s3t.store import certificates, tensors
from s3t.store.certificates import Certificate

Stamp = tuple[int, int, int]  # inode, size, time

TEMPORARY = ".tmp"
UNSTATED = 1 << 30  # bytes of parameters that are read where a certificate does not say how many there are


# --- Directories ------------------------------------------------------------------------------------------------------


@contextmanager
def folder(path: Path) -> Iterator[int]:
    """A directory, held open by its descriptor.

    Raises:
      ValueError: a link, or no directory.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except NotADirectoryError:
        raise ValueError(f"{path} is not a directory but a link or a file: remove it or put the directory back") from None
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def check_regular(path: Path) -> None:
    """Refuse what stands at a path unless it is a file, or nothing.

    Raises:
      ValueError: a link, a directory, a pipe or a device.
    """
    if what := _instead_of_a_file(path):
        raise ValueError(f"{path} is {what}: put the store's own file in its place")


def _instead_of_a_file(path: Path) -> str:
    """What stands at a path if that is no file; empty if it is one or there is nothing."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return ""
    if stat.S_ISREG(mode):
        return ""
    return "a link" if stat.S_ISLNK(mode) else "a directory" if stat.S_ISDIR(mode) else "a pipe or a device"


def is_file(name: str, directory: int) -> bool:
    """Whether a name in a directory is a file, and no link to one."""
    return stat.S_ISREG(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode)


def sync(directory: Path) -> None:
    """Make names that came or went in a directory durable."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# --- Writing ----------------------------------------------------------------------------------------------------------


def write(path: Path, data: bytes) -> None:
    """Write a file for its owner alone, so that after a crash it is there whole or not at all.

    Raises:
      OSError: it cannot be written; nothing half-written is left.
    """
    temporary = path.with_suffix(TEMPORARY).name
    with folder(path.parent) as directory:
        try:
            flush(temporary, data, directory)
            os.replace(temporary, path.name, src_dir_fd=directory, dst_dir_fd=directory)
        except OSError as error:
            with suppress(OSError):
                os.unlink(temporary, dir_fd=directory)
            raise OSError(error.errno, error.strerror, str(path)) from None  # which a failed write does not name
        os.fsync(directory)


def flush(name: str | Path, data: bytes, directory: int | None = None) -> None:
    """Make a file that is on disk when this returns, for its owner alone.

    Raises:
      OSError: it cannot be written.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    try:
        descriptor = os.open(name, flags, 0o600, dir_fd=directory)
    except FileExistsError:  # of a killed process, or a planted link
        os.unlink(name, dir_fd=directory)
        descriptor = os.open(name, flags, 0o600, dir_fd=directory)
    with open(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


# --- Reading ----------------------------------------------------------------------------------------------------------


def stamp(path: Path) -> Stamp | None:
    """What distinguishes a file from one that takes its place; None if there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def read_text(path: Path, most: int) -> bytes:
    """The content of a file that should be small.

    Raises:
      ValueError: what is no file, or more than `most` bytes.
    """
    with _opened(path) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise ValueError(f"{path} has more than {most} bytes, so that it is no file of a store: restore it from a copy")
    return data


def read_bytes(path: Path) -> bytes:
    """The content of a file.

    Raises:
      ValueError: what is no file.
      OSError: it is missing or cannot be read.
    """
    with _opened(path) as file:
        return file.read()


def _opened(path: Path) -> BinaryIO:
    """A file, opened once: what is looked at is what is read.

    Raises:
      ValueError: what is no file.
      OSError: it is missing or cannot be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)  # a pipe without a writer has no end
    except OSError:
        check_regular(path)
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        check_regular(path)
        raise ValueError(f"{path} is no file: put the store's own file in its place")
    return os.fdopen(descriptor, "rb")


def read(path: Path, certificate: str) -> tuple[Certificate, dict[str, np.ndarray]]:
    """A node's file; no parameters are read before its certificate is known to be the one that was published.

    Args:
      path: of the file.
      certificate: the digest of its certificate.

    Raises:
      ValueError: a file that is missing, damaged or cannot be read; another certificate, or parameters of another size.
    """
    with _node(path, certificate) as (file, recorded, found):
        return recorded, tensors.read(file, found)


def digest(path: Path, certificate: str) -> tuple[Certificate, str]:
    """A node's certificate and the digest of its parameters, of which little is in memory at once; as `read`."""
    with _node(path, certificate) as (file, recorded, found):
        return recorded, tensors.digest(file, found)


@contextmanager
def _node(path: Path, certificate: str) -> Iterator[tuple[BinaryIO, Certificate, dict[str, tensors.Tensor]]]:
    """A node's open file, its certificate, and where its arrays lie."""
    if what := _instead_of_a_file(path):
        raise ValueError(f"the file {path} cannot be read: it is {what}")
    try:
        with _opened(path) as file:
            try:
                header = tensors.header(file, os.fstat(file.fileno()).st_size)
            except ValueError as error:
                raise ValueError(f"the file {path} is damaged: {error}") from None
            recorded = _certificate(path, header.metadata.get("certificate", ""))
            if certificates.certificate_digest(recorded) != certificate:
                raise ValueError(f"the certificate of node {path.stem} is not the one that was published")
            most = recorded.stack.get("bytes", UNSTATED)
            if type(most) is not int or header.size > most:
                raise ValueError(f"the file {path} is damaged: it is larger than what was published")
            yield file, recorded, header.tensors
    except FileNotFoundError:
        raise ValueError(f"the file {path} is missing") from None
    except OSError as error:  # a disk that fails
        raise ValueError(f"the file {path} cannot be read: {error}") from None


def _certificate(path: Path, text: Any) -> Certificate:
    try:
        return certificates.from_json(text if isinstance(text, str) else "")
    except ValueError as error:
        raise ValueError(f"the file {path} is damaged: {error}") from None


@contextmanager
def alone(root: Path) -> Iterator[None]:
    """Keep others from making a store in a directory, until this process is done with it or ends, however it ends."""
    descriptor = os.open(root, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"another process makes a store in {root}: wait for it, or choose another directory") from None
        except OSError:  # a file system without locks: better a store made without one than none
            pass
        yield
    finally:
        os.close(descriptor)

"""Files of a store: written durably and whole or not at all, read with their certificate; a directory kept from others."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from s3t.store import certificates
from s3t.store.certificates import Certificate

Stamp = tuple[int, int, int]  # inode, size, time


def write(path: Path, data: bytes) -> None:
    """Write a file so that after a crash it is there whole or not at all."""
    temporary = path.with_suffix(".tmp")
    try:
        flush(temporary, data)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


def flush(path: Path, data: bytes) -> None:
    """Write a file that is on disk when this returns."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def sync(directory: Path) -> None:
    """Make names that came or went in a directory durable."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def stamp(path: Path) -> Stamp | None:
    """What distinguishes a file from one that takes its place; None if there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def read(path: Path) -> tuple[Certificate, dict[str, np.ndarray]]:
    """A node's file.

    Raises:
      ValueError: a file that is missing, damaged or cannot be read.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a dict
    except FileNotFoundError:
        raise ValueError(f"the file {path} is missing") from None
    except (SafetensorError, AttributeError, TypeError) as error:  # the latter two of types that numpy lacks
        raise ValueError(f"the file {path} is damaged: {error}") from None
    except OSError as error:  # a directory in its place, a disk that fails
        raise ValueError(f"the file {path} cannot be read: {error}") from None
    try:
        return certificates.from_json(metadata.get("certificate", "")), tensors
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

"""Statements that an operator signs, and whether a signature holds: Ed25519, by the library `cryptography` if it is there.

A signed statement is a JSON object {"statement": {...}, "public_key": 64 hexadecimal digits, "signature": 128 of them}.
What is signed are the bytes "s3t.signed", a line feed, and the statement as canonical JSON (`certificates.canonical`). The
public key beside it is for convenience: a check is against the key that the auditor holds.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from s3t.store import files, given
from s3t.store.certificates import canonical

Signed = dict[str, Any]
Sign = Callable[[dict[str, Any]], Signed]

PREFIX = b"s3t.signed\n"
MOST_BYTES = 1 << 14  # of a key's file
MAKE = "give the file of a key, which python -m s3t key makes"
PUBLIC = ".pub"  # what the name of the public half ends with


def make_key(path: Path) -> str:
    """A new private key, for its owner alone, and beside it its public half, PATH.pub.

    Returns:
      the public key in hexadecimal digits.

    Raises:
      ValueError: one of the two exists; the library is missing.
    """
    ed25519, serialization = _library()
    public = path.with_name(path.name + PUBLIC)
    for name in (path, public):
        if os.path.lexists(name):
            raise ValueError(f"there is something at {name} already: choose another name for the key")
    key = ed25519.Ed25519PrivateKey.generate()
    pem, encoding = serialization.PrivateFormat.PKCS8, serialization.Encoding.PEM
    files.flush(path, key.private_bytes(encoding, pem, serialization.NoEncryption()))
    files.flush(public, key.public_key().public_bytes(encoding, serialization.PublicFormat.SubjectPublicKeyInfo))
    return str(_hex(key.public_key()))


def signer(path: Path) -> Sign:
    """What signs with the private key of a file.

    Raises:
      ValueError: no such file, no private Ed25519 key without a password, a file that others may read; no library.
    """
    ed25519, serialization = _library()
    data = given.read(path, MOST_BYTES, MAKE)
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise ValueError(f"others may read the private key {path}: chmod 600 it, or make another key")
    try:
        key = serialization.load_pem_private_key(data, None)
    except (TypeError, ValueError):
        key = None
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise ValueError(f"{path} is no private Ed25519 key in PEM without a password: python -m s3t key makes one")

    def sign(statement: dict[str, Any]) -> Signed:
        signature = key.sign(PREFIX + canonical(statement)).hex()
        return {"statement": statement, "public_key": _hex(key.public_key()), "signature": signature}

    return sign


def public_key(path: Path) -> str:
    """The public key of a file, in hexadecimal digits.

    Raises:
      ValueError: no such file, or no public Ed25519 key; the library is missing.
    """
    ed25519, serialization = _library()
    data = given.read(path, MOST_BYTES, MAKE)
    try:
        key = serialization.load_pem_public_key(data)
    except (TypeError, ValueError):
        key = None
    if not isinstance(key, ed25519.Ed25519PublicKey):
        raise ValueError(f"{path} is no public Ed25519 key in PEM: give the file NAME{PUBLIC} that python -m s3t key makes")
    return str(_hex(key))


def holds(signed: Any, key: str) -> bool:
    """Whether a key signed a statement; what is malformed nobody signed."""
    ed25519, _ = _library()
    from cryptography.exceptions import InvalidSignature

    try:
        message, signature = PREFIX + canonical(signed["statement"]), bytes.fromhex(signed["signature"])
        ed25519.Ed25519PublicKey.from_public_bytes(bytes.fromhex(key)).verify(signature, message)
    except (InvalidSignature, LookupError, TypeError, ValueError):
        return False
    return True


def _hex(key: Any) -> str:
    return str(key.public_bytes_raw().hex())


def _library() -> tuple[Any, Any]:
    """The modules of `cryptography` that sign and read keys."""
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError:
        raise ValueError("signatures need the library cryptography: pip install 'forethought[signing]'") from None
    return ed25519, serialization

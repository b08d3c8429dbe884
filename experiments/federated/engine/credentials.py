"""What binds updates to users on a network: the server's certificate, and the keys that the operator has of each user."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path
from typing import NamedTuple

from experiments.core.errors import UserError, line
from experiments.federated.store import check_user


class TLS(NamedTuple):
    """The server's certificate, its private key, and the authority that signed it: PEM files."""

    certificate: Path
    key: Path
    authority: Path


def users_of(keys: Path) -> dict[str, Path]:
    """Users and their public keys, from files called USER.pub.

    Raises:
      UserError: there are none, or one is called by what is no user's id.
    """
    found = {path.stem: path for path in sorted(keys.glob("*.pub"))}
    if not found:
        raise UserError(f"there is no USER.pub in {keys}: put the public key of each user there")
    for user in found:
        check_user(user)
    return found


def public_keys(folder: Path) -> dict[bytes, str]:
    """Public keys, as Flower tells of them, and whose they are; see `users_of`.

    Raises:
      UserError: a file without an ECDSA key, or one key of two users.
    """
    try:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_public_key
    except ImportError as error:
        raise UserError("keys need Flower's packages: pip install 'forethought[federated]'") from error
    users: dict[bytes, str] = {}
    for user, path in users_of(folder).items():
        try:
            key = load_ssh_public_key(path.read_bytes())
        except (ValueError, UnsupportedAlgorithm) as error:
            raise UserError(f"{path} is no public key: give what ssh-keygen -t ecdsa writes") from error
        if not isinstance(key, EllipticCurvePublicKey):
            raise UserError(f"{path} is a key of another kind than ECDSA: give what ssh-keygen -t ecdsa writes")
        content = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        if content in users:
            raise UserError(f"{user} and {users[content]} have one key: give each its own")
        users[content] = user
    return users


def check_certificate(tls: TLS) -> None:
    """Refuse files that are no certificate with its key, or no authority.

    Raises:
      UserError: one of them.
    """
    context = _trusting(tls.authority)
    try:
        context.load_cert_chain(tls.certificate, tls.key, password="")
    except (ssl.SSLError, OSError) as error:
        both = f"{tls.certificate} and {tls.key}"
        raise UserError(f"{both} are no certificate and its private key in PEM, without password: {line(error)}") from error


def check_name(tls: TLS, host: str, port: int) -> None:
    """Refuse a server that is up and whose certificate its own machine cannot trust.

    Raises:
      UserError: another authority signed it, it does not name the host, or it is out of date.
    """
    try:
        with socket.create_connection((host, port), timeout=30) as plain:
            _trusting(tls.authority).wrap_socket(plain, server_hostname=host).close()
    except ssl.SSLError as error:
        what = f"{tls.certificate} cannot be trusted at {host} by {tls.authority}"
        raise UserError(f"{what}: give one for {host}, as docs/federated.md makes it: {line(error)}") from error


def _trusting(authority: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(authority)
    except (ssl.SSLError, OSError) as error:
        raise UserError(f"{authority} is no certificate in PEM: give that of who signed the server's") from error
    return context

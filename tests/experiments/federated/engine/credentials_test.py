"""Certificates and keys: those that cannot work are one line, before or as a server starts."""

import contextlib
import socket
import ssl
import threading

import pytest

pytest.importorskip("cryptography", reason="no cryptography on this machine: the extra `federated` has it")

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from experiments.core.errors import UserError
from experiments.federated.engine.credentials import TLS, check_certificate, check_name, public_keys
from tests.helpers.certificates import certificates


@pytest.fixture
def tls(tmp_path):
    certificates(tmp_path)
    return TLS(tmp_path / "server.pem", tmp_path / "server.key", tmp_path / "ca.pem")


@contextlib.contextmanager
def listening(tls):
    """A server with a certificate; its port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tls.certificate, tls.key)

    def answer(plain):
        with contextlib.suppress(OSError), plain.accept()[0] as one:
            context.wrap_socket(one, server_side=True).close()

    with socket.create_server(("127.0.0.1", 0)) as plain:
        plain.settimeout(30)
        thread = threading.Thread(target=answer, args=(plain,))
        thread.start()
        yield plain.getsockname()[1]
        thread.join()


def test_a_certificate_of_its_key_host_and_authority_is_taken(tls):
    check_certificate(tls)
    with listening(tls) as port:
        check_name(tls, "127.0.0.1", port)


def test_files_that_are_no_certificate_with_its_key_are_one_line(tls, tmp_path):
    (tmp_path / "empty").touch()
    (tmp_path / "other").mkdir()
    certificates(tmp_path / "other")
    key = serialization.load_pem_private_key(tls.key.read_bytes(), None)
    secret = serialization.BestAvailableEncryption(b"secret")
    forms = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    (tmp_path / "encrypted").write_bytes(key.private_bytes(*forms, secret))
    for odd in (
        {"certificate": tmp_path / "empty"},
        {"key": tmp_path / "empty"},
        {"key": tmp_path / "encrypted"},
        {"key": tmp_path / "other/server.key"},
    ):
        with pytest.raises(UserError, match="are no certificate and its private key in PEM, without password") as refused:
            check_certificate(tls._replace(**odd))
        assert "\n" not in str(refused.value)
    with pytest.raises(UserError, match="empty is no certificate in PEM: give that of who signed"):
        check_certificate(tls._replace(authority=tmp_path / "empty"))


def test_a_certificate_of_another_host_or_authority_is_one_line(tls, tmp_path):
    (tmp_path / "other").mkdir()
    certificates(tmp_path / "other", "10.0.0.5")
    away = TLS(*(tmp_path / "other" / path.name for path in tls))
    with listening(away) as port, pytest.raises(UserError, match=r"cannot be trusted at 127.0.0.1 .*IP address mismatch"):
        check_name(away, "127.0.0.1", port)
    odd = tls._replace(authority=away.authority)
    with listening(odd) as port, pytest.raises(UserError, match=r"cannot be trusted at 127.0.0.1 by .*other/ca.pem"):
        check_name(odd, "127.0.0.1", port)


def test_a_key_of_another_kind_is_refused_before_flower_does(tmp_path):
    for user, key in (("ann", ec.generate_private_key(ec.SECP384R1())), ("bob", ed25519.Ed25519PrivateKey.generate())):
        ssh = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
        (tmp_path / f"{user}.pub").write_bytes(ssh)
    with pytest.raises(
        UserError, match=r"bob\.pub is a key of another kind than ECDSA: give what ssh-keygen -t ecdsa writes"
    ):
        public_keys(tmp_path)
    (tmp_path / "bob.pub").unlink()
    assert list(public_keys(tmp_path).values()) == ["ann"]

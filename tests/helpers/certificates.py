"""Certificates for tests, made anew; needs the library cryptography."""

import datetime
import ipaddress

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec


def pem(key):
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def certificates(folder, host="127.0.0.1"):
    """An authority, ca.pem, and server.pem and server.key of a host, an address, that it signs."""
    now, day = datetime.datetime.now(datetime.UTC), datetime.timedelta(days=1)
    authority, server = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    names = [x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]) for name in ("authority", "server")]

    def signed(index, public, *extensions):
        builder = x509.CertificateBuilder().subject_name(names[index]).issuer_name(names[0]).public_key(public)
        builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - day).not_valid_after(now + day)
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        return builder.sign(authority, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    own, other = (x509.SubjectKeyIdentifier.from_public_key(key.public_key()) for key in (authority, server))
    usage = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only", "decipher_only"),
        False,
    )
    issuer = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)
    local = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(host)), x509.DNSName("localhost")])
    ca = signed(
        0, authority.public_key(), (x509.BasicConstraints(True, None), True), (own, False),
        (x509.KeyUsage(digital_signature=True, key_cert_sign=True, crl_sign=True, **usage), True),
    )  # fmt: skip
    leaf = signed(
        1, server.public_key(), (x509.BasicConstraints(False, None), True), (other, False), (issuer, False), (local, False),
        (x509.KeyUsage(digital_signature=True, key_cert_sign=False, crl_sign=False, **usage), True),
        (x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.SERVER_AUTH]), False),
    )  # fmt: skip
    for name, content in (("ca.pem", ca), ("server.pem", leaf), ("server.key", pem(server))):
        (folder / name).write_bytes(content)

"""Certificate authorities for tests, which also issue what no server or client should be let in with."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

SERVER, CLIENT = x509.ExtendedKeyUsageOID.SERVER_AUTH, x509.ExtendedKeyUsageOID.CLIENT_AUTH


class Authority:
    """A CA, whose certificate is in ``ca``, and what it has issued in ``directory``."""

    def __init__(self, directory: Path, name: str = "ca") -> None:
        self.directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(f"CN={name}")
        self.ca = directory / f"{name}.pem"
        self._number = 1
        builder = self._builder(self._name, self._key, 3600)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        self.ca.write_bytes(builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))

    def issue(
        self,
        file: str,
        *names: str,
        subject: str = "CN=test",
        usage: Sequence[x509.ObjectIdentifier] = (SERVER, CLIENT),
        seconds: float = 3600,
    ) -> tuple[Path, Path]:
        """Write a certificate with the alternative ``names`` (``DNS:a``), and its key; the paths of both."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = self._builder(_name(subject), key, seconds)
        if names:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([_alternative(each) for each in names]), critical=False
            )
        builder = builder.add_extension(x509.ExtendedKeyUsage(list(usage)), critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        paths = self.directory / f"{file}.pem", self.directory / f"{file}.key"
        encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        secret = key.private_bytes(encoding, form, serialization.NoEncryption())
        for path, content in zip(paths, (certificate.public_bytes(encoding), secret), strict=True):
            fresh = path.with_suffix(".new")
            fresh.write_bytes(content)
            fresh.chmod(0o600)
            fresh.replace(path)
        return paths

    def revoke(self, *certificates: Path, seconds: float = 3600, name: str = "crl") -> Path:
        """Write a list of certificates that are revoked, which is good for so long; its path."""
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self._name)
            .last_update(now - datetime.timedelta(hours=2))
            .next_update(now + datetime.timedelta(seconds=seconds))
        )
        for path in certificates:
            serial = x509.load_pem_x509_certificate(path.read_bytes()).serial_number
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now)
            builder = builder.add_revoked_certificate(entry.build())
        path = self.directory / f"{name}.pem"
        fresh = path.with_suffix(".new")
        fresh.write_bytes(builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        fresh.replace(path)
        return path

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, seconds: float) -> x509.CertificateBuilder:
        self._number += 1
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(self._number)
            .not_valid_before(now - datetime.timedelta(hours=2))
            .not_valid_after(now + datetime.timedelta(seconds=seconds))
        )


def _name(text: str) -> x509.Name:
    return x509.Name.from_rfc4514_string(text)


def _alternative(text: str) -> x509.GeneralName:
    kind, _, value = text.partition(":")
    if kind == "IP":
        return x509.IPAddress(ip_address(value))
    if kind == "email":
        return x509.RFC822Name(value)
    return x509.UniformResourceIdentifier(value) if kind == "URI" else x509.DNSName(value)

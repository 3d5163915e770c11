# -*- test-case-name: tests.http1.test_client -*-
"""TLS towards servers: whom to trust, what to show, and what went wrong in words.

Imported only where something speaks https: OpenSSL takes a third of what an idle process needs in all.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import SSL
from twisted.internet.ssl import (
    Certificate,
    PrivateCertificate,
    optionsForClientTLS,
    platformTrust,
    trustRootFromCertificates,
)
from twisted.web.iweb import IPolicyForHTTPS
from zope.interface import implementer

_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----\n?", re.DOTALL)


@implementer(IPolicyForHTTPS)
@attrs.frozen
class TLSPolicy:
    """Certificates are verified, always. ``trust`` None: what this machine trusts; ``own`` is shown to who asks."""

    trust: Any = None
    own: Any = None

    @classmethod
    def from_files(cls, ca: str | None, cert: str | None, key: str | None) -> TLSPolicy:
        """From PEM files. `ValueError` in words where one cannot be used."""
        trust = own = None
        if ca is not None:
            pems = _PEM.findall(_read(ca))
            with _words(f"{ca} holds no certificates in PEM"):
                trust = trustRootFromCertificates([Certificate.loadPEM(pem) for pem in pems])
            if not pems:
                raise ValueError(f"{ca} holds no certificates in PEM")
        if cert is not None:
            shown, secret = _read(cert), _read(key or cert)
            with _words(f"{cert} holds no certificate in PEM"):
                Certificate.loadPEM(shown)
            with _words(f"{key or cert} holds no private key in PEM, or one under a password"):
                # Asked for a password, OpenSSL would ask at the terminal.
                load_pem_private_key(secret, None)
            with _words(f"{key or cert} is not the key of {cert}"):
                own = PrivateCertificate.loadPEM(shown + b"\n" + secret)
                own.options().getContext().check_privatekey()
        return cls(trust, own)

    def creatorForNetloc(self, hostname: bytes, port: int) -> Any:
        return optionsForClientTLS(
            hostname.decode("ascii"), trustRoot=self.trust or platformTrust(), clientCertificate=self.own
        )


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from None


@contextmanager
def _words(words: str) -> Iterator[None]:
    try:
        yield
    except Exception:  # whatever OpenSSL has to say: it is about bytes, and the operator thinks in files
        raise ValueError(words) from None


def words_of(error: BaseException) -> str:
    """What is wrong with a handshake, in words."""
    if not isinstance(error, SSL.Error):
        return "TLS: the certificate is for another name"
    said = error.args[0] if error.args and isinstance(error.args[0], list) else []
    return f"TLS: {', '.join(str(each[-1]) for each in said) or 'the connection was closed'}"

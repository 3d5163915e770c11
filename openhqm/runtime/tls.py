# -*- test-case-name: tests.http1.test_client -*-
"""TLS to servers: which certificates are trusted, which one is shown, and descriptions of what failed.

Imported only where a URL is https: OpenSSL takes a third of the memory of an idle process.
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

PEM = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----\n?", re.DOTALL)


@implementer(IPolicyForHTTPS)
@attrs.frozen
class TLSPolicy:
    """Verifies the server's certificate, always.

    ``trust`` is the trusted CAs; None: those of the machine. ``own`` is the client certificate for servers that ask for
    one, or None.
    """

    trust: Any = None
    own: Any = None

    @classmethod
    def from_files(cls, ca: str | None, cert: str | None, key: str | None) -> TLSPolicy:
        """A policy from PEM files: CAs, client certificate, and its key (None: in the file ``cert``).

        Raises `ValueError` with the name of the file that cannot be used.
        """
        trust, own = None if ca is None else read_authorities(ca), None
        if cert is not None:
            shown, secret = read_pem(cert), read_pem(key or cert)
            with complain(f"{cert} holds no certificate in PEM"):
                Certificate.loadPEM(shown)
            with complain(f"{key or cert} holds no private key in PEM, or one under a password"):
                # For a key under a password, OpenSSL would prompt at the terminal.
                load_pem_private_key(secret, None)
            with complain(f"{key or cert} is not the key of {cert}"):
                own = PrivateCertificate.loadPEM(shown + b"\n" + secret)
                own.options().getContext().check_privatekey()
        return cls(trust, own)

    def creatorForNetloc(self, hostname: bytes, port: int) -> Any:
        return client_tls(hostname.decode("ascii"), trust=self.trust or platformTrust(), own=self.own)


def client_tls(host: str, *, trust: Any = None, own: Any = None) -> Any:
    """The TLS of a connection to ``host``: it verifies the certificate, and that it is for that name.

    ``trust`` is the trusted CAs (None: those of the machine), ``own`` the client certificate or None. As in
    `runtime.connecting`, the name may have an underscore, which IDNA would refuse.
    """
    if "_" not in host:
        return optionsForClientTLS(host, trustRoot=trust, clientCertificate=own)
    options: Any = optionsForClientTLS("name.invalid", trustRoot=trust, clientCertificate=own)
    options._hostname = options._hostnameASCII = host
    options._hostnameBytes = host.encode("ascii")
    return options


def read_authorities(path: str) -> Any:
    """The CAs in a file, as what is trusted. `ValueError` names the file that cannot be used."""
    pems = PEM.findall(read_pem(path))
    with complain(f"{path} holds no certificates in PEM"):
        found = trustRootFromCertificates([Certificate.loadPEM(pem) for pem in pems])
    if not pems:
        raise ValueError(f"{path} holds no certificates in PEM")
    return found


def read_pem(path: str) -> bytes:
    """The content of a file. `ValueError` says why it cannot be read."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from None


@contextmanager
def complain(message: str) -> Iterator[None]:
    """`ValueError` with ``message`` in place of any error."""
    try:
        yield
    except Exception:  # OpenSSL names bytes; the operator needs the name of the file
        raise ValueError(message) from None


def describe_tls_error(error: BaseException) -> str:
    """A text for people about why a TLS handshake failed."""
    if not isinstance(error, SSL.Error):
        return "TLS: the certificate is for another name"
    reasons = error.args[0] if error.args and isinstance(error.args[0], list) else []
    return f"TLS: {', '.join(str(each[-1]) for each in reasons) or 'the connection was closed'}"

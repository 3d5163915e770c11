# -*- test-case-name: tests.ingress.test_tls -*-
"""TLS of listening sockets, from files that are read again when they have changed.

A connection keeps the certificate that it began with. Renegotiation, compression and tickets are off.

Imported only where a configuration asks for it: OpenSSL takes a third of the memory of an idle process.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from OpenSSL import SSL, crypto
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.internet.ssl import CertificateOptions, TLSVersion
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOFactory
from zope.interface import implementer

from openhqm.runtime.file_versions import file_version
from openhqm.runtime.private_files import read_private
from openhqm.runtime.revocation import read_lists
from openhqm.runtime.tls import PEM, complain, read_pem

LOOK_SECONDS = 1.0
"""How long a changed file may be without effect on new connections."""
MOST_BYTES = 1024 * 1024
MINIMUM = {"1.2": TLSVersion.TLSv1_2, "1.3": TLSVersion.TLSv1_3}


@implementer(IOpenSSLServerConnectionCreator)
class ServerTLS:
    """The TLS of a server: ``cert`` (with the chain behind it) and ``key`` are the paths of PEM files.

    ``client_ca``: CAs whose client certificates are taken. A client without one is let in, and has to prove by other
    means who it is; one with a certificate of another CA is not. None: clients are not asked. ``client_crl`` has lists
    of certificates of theirs that were revoked; one without a list that is good now is not let in.

    ``minimum_version`` is one of `MINIMUM`. ``section`` is where the configuration has this. ``seconds`` is a clock
    that only goes on.

    Files that have become wrong change nothing: the last good ones stand, and the log says what is wrong.
    """

    _log = Logger()

    def __init__(
        self,
        cert: str,
        key: str,
        client_ca: str | None,
        minimum_version: str,
        section: str,
        seconds: Callable[[], float],
        client_crl: str | None = None,
    ) -> None:
        self._client_crl = client_crl
        self._section = section
        self._cert, self._key, self._client_ca = cert, key, client_ca
        self._minimum = MINIMUM[minimum_version]
        self._seconds = seconds
        self._look_at = 0.0
        self._version: object = None
        self._context: Any = None

    def open(self) -> None:
        """Read the files for the first time. `ValueError` begins with the key that is wrong: ``key: /a.pem ...``."""
        self._look_at = self._seconds() + LOOK_SECONDS
        self._version = self._versions()
        self._context = self._read()

    def wrap(self, factory: Any, reactor: Any) -> Any:
        """A factory of TLS connections, whose protocols are those of ``factory``."""
        return TLSMemoryBIOFactory(self, False, factory, clock=reactor)

    def serverConnectionForTLS(self, tlsProtocol: object) -> SSL.Connection:
        """The TLS of one connection, with the files as they are now (`IOpenSSLServerConnectionCreator`)."""
        if self._seconds() >= self._look_at:
            self._look()
        return SSL.Connection(self._context, None)

    def _look(self) -> None:
        self._look_at = self._seconds() + LOOK_SECONDS
        version = self._versions()
        if version == self._version:
            return
        self._version = version
        try:
            self._context = self._read()
        except ValueError as error:
            self._log.error("{section}.{error}; the certificate before stands", section=self._section, error=str(error))
        else:
            self._log.info(
                "{section}: read {cert} and {key} again", section=self._section, cert=self._cert, key=self._key
            )

    def _versions(self) -> object:
        return [
            file_version(path)
            for path in (self._cert, self._key, self._client_ca, self._client_crl)
            if path is not None
        ]

    def _read(self) -> Any:
        chain = self._certificates("cert", self._cert)
        try:
            _, secret = read_private(self._key, MOST_BYTES)
        except ValueError as error:
            raise ValueError(f"key: {self._key} {error}") from None
        with complain(f"key: {self._key} holds no private key in PEM, or one under a password"):
            # An empty passphrase: OpenSSL would prompt at the terminal.
            key = crypto.load_privatekey(crypto.FILETYPE_PEM, secret, b"")
        trusted = None if self._client_ca is None else self._certificates("client_ca", self._client_ca)
        options = CertificateOptions(
            privateKey=key,
            certificate=chain[0],
            extraCertChain=chain[1:],
            verify=trusted is not None,
            caCerts=trusted,
            requireCertificate=False,
            raiseMinimumTo=self._minimum,
            acceptableProtocols=[b"http/1.1"],
        )
        with complain(f"key: {self._key} is not the key of {self._cert}, or too short for OpenSSL"):
            context = options.getContext()
        if self._client_crl is not None:
            self._refuse_revoked(context, self._client_crl)
        return context

    def _refuse_revoked(self, context: Any, path: str) -> None:
        try:
            lists = read_lists(path)
        except ValueError as error:
            raise ValueError(f"client_crl: {error}") from None
        store = context.get_cert_store()
        for each in lists:
            store.add_crl(each)
        store.set_flags(crypto.X509StoreFlags.CRL_CHECK)

    def _certificates(self, name: str, path: str) -> list[crypto.X509]:
        try:
            pems = PEM.findall(read_pem(path))
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
        with complain(f"{name}: {path} holds no certificate in PEM"):
            found = [crypto.load_certificate(crypto.FILETYPE_PEM, pem) for pem in pems]
        if not found:
            raise ValueError(f"{name}: {path} holds no certificate in PEM")
        return found

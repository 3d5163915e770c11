# -*- test-case-name: tests.ingress.test_tls -*-
"""Whom a client certificate stands for. TLS has verified it before a byte of the first request was read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from openhqm.policy.api_keys import Caller
from openhqm.policy.certificate_names import Certificate, read_certificate


class Certificates:
    """The ``clients`` by the names in their certificates. ``now`` is the time of day.

    ``refuses`` says whether the certificate of an issuer with a serial number was revoked. The certificate of a
    connection is read once; its times, and whether it was revoked, are looked at for each request.
    """

    def __init__(
        self,
        clients: Mapping[str, Caller],
        now: Callable[[], float],
        refuses: Callable[[bytes, int], bool] | None = None,
    ) -> None:
        self._refuses = refuses
        self._clients = clients
        self._now = now

    def caller(self, connection: Any) -> Caller | None:
        """Whose certificate the connection has; None: it has none, or one that is not known or has expired.

        ``connection`` is an `openhqm.http1.channel.HTTP1Channel`.
        """
        if not connection.identified:
            connection.identity, connection.identified = self._read(connection), True
        if connection.identity is None:
            return None
        identity: tuple[Certificate, Caller] = connection.identity
        certificate, caller = identity
        if not certificate.is_live(self._now()):
            return None
        if self._refuses is not None and self._refuses(certificate.issuer, certificate.serial):
            return None
        return caller

    def _read(self, connection: Any) -> tuple[Certificate, Caller] | None:
        if not connection.isSecure():
            return None
        shown = connection.transport.getPeerCertificate()
        if shown is None:
            return None
        try:
            certificate = read_certificate(shown.to_cryptography())
        except ValueError:  # OpenSSL takes some extensions that cryptography does not
            return None
        known = next((name for name in self._clients if name in certificate.names), None)
        return None if known is None else (certificate, self._clients[known])

# -*- test-case-name: tests.runtime.test_renewed_tls -*-
"""TLS to servers, from files that are read again when they have changed.

Imported only where a URL is https: OpenSSL takes a third of the memory of an idle process.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.logger import Logger
from twisted.web.iweb import IPolicyForHTTPS
from zope.interface import implementer

from openhqm.runtime.file_versions import file_version
from openhqm.runtime.tls import TLSPolicy

LOOK_SECONDS = 1.0
"""How long a changed file may be without effect on new connections."""


@implementer(IPolicyForHTTPS)
class RenewedTLS:
    """The `TLSPolicy` from the files ``ca``, ``cert`` and ``key`` as they are when a connection begins.

    Open connections go on. Files that have become wrong change nothing: the last good ones stand, and the log says
    what is wrong, with the ``section`` of the configuration. ``seconds`` is a clock that only goes on.
    `ValueError` names the file that cannot be used from the start.
    """

    _log = Logger()

    def __init__(
        self, ca: str | None, cert: str | None, key: str | None, section: str, seconds: Callable[[], float]
    ) -> None:
        self._files = ca, cert, key
        self._section = section
        self._seconds = seconds
        self._look_at = seconds() + LOOK_SECONDS
        self._version = self._versions()
        self._policy = TLSPolicy.from_files(*self._files)

    def creatorForNetloc(self, hostname: bytes, port: int) -> Any:
        return _Creator(self, hostname, port)

    def now(self) -> TLSPolicy:
        """That of the files as they are; the same one while they do not change."""
        if self._seconds() >= self._look_at:
            self._look_at = self._seconds() + LOOK_SECONDS
            version = self._versions()
            if version != self._version:
                self._version = version
                self._read()
        return self._policy

    def _versions(self) -> list[object]:
        return [file_version(path) for path in self._files if path is not None]

    def _read(self) -> None:
        try:
            self._policy = TLSPolicy.from_files(*self._files)
        except ValueError as error:
            self._log.error("{section}: {error}; the files before stand", section=self._section, error=str(error))
        else:
            self._log.info("{section}: read the files again", section=self._section)


@implementer(IOpenSSLClientConnectionCreator)
class _Creator:
    """The TLS of connections to one server, made again with the files."""

    def __init__(self, policy: RenewedTLS, hostname: bytes, port: int) -> None:
        self._policy = policy
        self._server = hostname, port
        self._made_from = policy.now()
        self._creator = self._made_from.creatorForNetloc(hostname, port)

    def clientConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:
        policy = self._policy.now()
        if policy is not self._made_from:
            self._made_from, self._creator = policy, policy.creatorForNetloc(*self._server)
        connection: SSL.Connection = self._creator.clientConnectionForTLS(tlsProtocol)
        return connection

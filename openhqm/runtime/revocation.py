# -*- test-case-name: tests.runtime.test_revocation -*-
"""Lists of revoked client certificates (CRLs, RFC 5280), in a file that is read again when it has changed.

Imported only where a configuration asks for it: cryptography is an extra.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from cryptography import x509
from twisted.logger import Logger

from openhqm.runtime.file_versions import file_version
from openhqm.runtime.tls import complain, read_pem

LOOK_SECONDS = 1.0
MOST_BYTES = 64 * 1024 * 1024
_LIST = re.compile(rb"-----BEGIN X509 CRL-----.*?-----END X509 CRL-----\n?", re.DOTALL)


def read_lists(path: str) -> list[x509.CertificateRevocationList]:
    """The lists in a file of PEM. `ValueError` with a sentence that says what is wrong."""
    content = read_pem(path)
    with complain(f"{path} holds no list of revoked certificates in PEM"):
        found = [x509.load_pem_x509_crl(pem) for pem in _LIST.findall(content)]
    if not found or len(content) > MOST_BYTES:
        raise ValueError(f"{path} holds no list of revoked certificates in PEM, or is too large")
    for each in found:
        if each.next_update_utc is None:
            raise ValueError(f"{path} has a list that does not say until when it is good (nextUpdate)")
    return found


class Revocations:
    """The lists in the file at ``path``. ``seconds`` is a clock that only goes on, ``now`` the time of day.

    A file that has become wrong changes nothing: the last good lists stand until they expire, and the log says so.
    """

    _log = Logger()

    def __init__(self, path: str, seconds: Callable[[], float], now: Callable[[], float]) -> None:
        self._path = path
        self._seconds = seconds
        self._now = now
        self._look_at = 0.0
        self._version: object = None
        self._until: dict[bytes, float] = {}
        self._revoked: set[tuple[bytes, int]] = set()
        self._told: set[bytes] = set()

    def open(self) -> None:
        """Read it for the first time. `ValueError`."""
        self._look_at = self._seconds() + LOOK_SECONDS
        self._version = file_version(self._path)
        self._read()

    def refuses(self, issuer: bytes, serial: int) -> bool:
        """Whether a certificate does not count: it is revoked, or no list that is good now is of its ``issuer``."""
        if self._seconds() >= self._look_at:
            self._look()
        if (issuer, serial) in self._revoked:
            return True
        if self._now() < self._until.get(issuer, 0.0):
            return False
        if issuer not in self._told:
            self._told.add(issuer)
            self._log.error(
                "server.tls.client_crl: {path} has no list that is good now for the issuer of a client certificate, "
                "and refuses all of that issuer: renew it",
                path=self._path,
            )
        return True

    def _look(self) -> None:
        self._look_at = self._seconds() + LOOK_SECONDS
        version = file_version(self._path)
        if version == self._version:
            return
        self._version = version
        try:
            self._read()
        except ValueError as error:
            self._log.error("server.tls.client_crl: {reason}; the lists before stand", reason=str(error))

    def _read(self) -> None:
        until: dict[bytes, float] = {}
        revoked: set[tuple[bytes, int]] = set()
        for each in read_lists(self._path):
            issuer, end = each.issuer.public_bytes(), each.next_update_utc
            assert end is not None, "it was looked at"
            until[issuer] = max(until.get(issuer, 0.0), end.timestamp())
            revoked.update((issuer, entry.serial_number) for entry in each)
        self._until, self._revoked, self._told = until, revoked, set()

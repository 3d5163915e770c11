"""Files for TLS to a server that are exchanged while the process runs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from OpenSSL import SSL
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from openhqm.runtime.renewed_tls import LOOK_SECONDS, RenewedTLS
from tests.authorities import Authority

SECTION = "proxy.endpoints.billing.tls"


class Protocol:
    """What the TLS of a connection tells of the name in the certificate of the server."""

    wrappedFactory = None
    refused: Failure | None = None

    @property
    def factory(self) -> Any:
        return self

    def failVerification(self, reason: Failure) -> None:
        self.refused = reason


def shake_hands(client: SSL.Connection, server: SSL.Connection) -> str | None:
    """Have the two begin; the name in the certificate of the client, as the server has it. `SSL.Error`."""
    for _ in range(10):
        for one, other in ((client, server), (server, client)):
            with contextlib.suppress(SSL.WantReadError):
                one.do_handshake()
            try:
                while True:
                    other.bio_write(one.bio_read(65536))
            except SSL.WantReadError:
                continue
    shown = server.get_peer_certificate()
    return None if shown is None else shown.get_subject().CN


class RenewedTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        self.before, self.after = Authority(self.directory, "before"), Authority(self.directory, "after")
        self.ca = self.directory / "ca.pem"
        self.trust(self.before)

    def trust(self, *authorities: Authority) -> None:
        fresh = self.ca.with_suffix(".new")
        fresh.write_bytes(b"".join(each.ca.read_bytes() for each in authorities))
        fresh.replace(self.ca)

    def server(self, authority: Authority) -> Callable[[], SSL.Connection]:
        """A server with a certificate of ``authority``, which asks clients for theirs, of the first authority."""
        cert, key = authority.issue(f"server-{authority.ca.stem}", "DNS:localhost")
        context = SSL.Context(SSL.TLS_METHOD)
        context.use_certificate_file(str(cert))
        context.use_privatekey_file(str(key))
        context.load_verify_locations(str(self.before.ca))
        context.set_verify(SSL.VERIFY_PEER, lambda *about: bool(about[-1]))

        def accept() -> SSL.Connection:
            connection = SSL.Connection(context, None)
            connection.set_accept_state()
            return connection

        return accept

    def connect(self, creator: Any, server: Callable[[], SSL.Connection]) -> str | None:
        client = creator.clientConnectionForTLS(Protocol())
        client.set_connect_state()
        return shake_hands(client, server())

    def refuses(self, creator: Any, server: Callable[[], SSL.Connection]) -> None:
        self.assertRaises(SSL.Error, self.connect, creator, server)

    def policy(self, cert: Path | None = None, key: Path | None = None) -> RenewedTLS:
        files = None if cert is None else str(cert), None if key is None else str(key)
        return RenewedTLS(str(self.ca), *files, SECTION, self.clock.seconds)

    def test_authorities(self) -> None:
        """The next connection trusts the authorities that the file has by then, and no others."""
        creator = self.policy().creatorForNetloc(b"localhost", 443)
        old, new = self.server(self.before), self.server(self.after)
        self.connect(creator, old)
        self.refuses(creator, new)
        self.trust(self.before, self.after)
        self.clock.advance(LOOK_SECONDS)
        self.connect(creator, old)
        self.connect(creator, new)
        self.trust(self.after)
        self.clock.advance(LOOK_SECONDS)
        self.connect(creator, new)
        self.refuses(creator, old)

    def test_own(self) -> None:
        """The next connection shows the certificate that the files have by then."""
        server = self.server(self.before)
        cert, key = self.before.issue("own", subject="CN=one")
        creator = self.policy(cert, key).creatorForNetloc(b"localhost", 443)
        self.assertEqual(self.connect(creator, server), "one")
        self.before.issue("own", subject="CN=two")
        self.assertEqual(self.connect(creator, server), "one", "it is looked at once a second")
        self.clock.advance(LOOK_SECONDS)
        self.assertEqual(self.connect(creator, server), "two")

    def test_wrong(self) -> None:
        """Files that cannot be used, or do not fit each other, change nothing, and the log says why, once."""
        server = self.server(self.before)
        cert, key = self.before.issue("own", subject="CN=one")
        other, _ = self.before.issue("other", subject="CN=two")
        creator = self.policy(cert, key).creatorForNetloc(b"localhost", 443)
        for content in (b"", other.read_bytes()):
            cert.write_bytes(content)
            with capturedLogs() as logged:
                for _ in range(3):
                    self.clock.advance(LOOK_SECONDS)
                    self.assertEqual(self.connect(creator, server), "one")
            (line,) = [each for each in logged if each["log_level"] is LogLevel.error]
            self.assertIn(f"{SECTION}: ", formatEvent(line))
        self.before.issue("own", subject="CN=three")
        self.clock.advance(LOOK_SECONDS)
        self.assertEqual(self.connect(creator, server), "three")

    def test_unusable(self) -> None:
        """From the start they have to be right."""
        self.ca.write_bytes(b"")
        self.assertRaisesRegex(ValueError, "ca.pem holds no certificates", self.policy)

    def test_name(self) -> None:
        """A certificate for another name is refused, also after the files were exchanged."""
        creator = self.policy().creatorForNetloc(b"billing.test", 443)
        for authority in (self.before, self.after):
            self.trust(authority)
            self.clock.advance(LOOK_SECONDS)
            self.refuses(creator, self.server(authority))

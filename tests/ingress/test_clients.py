"""Whose address counts, behind proxies that are trusted and behind those that are not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from openhqm.ingress.clients import MOST_PROXIES, Clients
from openhqm.policy.proxying import TrustedProxies
from tests.ingress.test_access import made
from tests.servers import Server

JSON = {"Content-Type": "application/json"}
PROXY, OTHER, CLIENT = "10.0.0.1", "10.0.0.2", "192.0.2.7"


class Connection:
    """A connection from an address; empty: over a Unix socket."""

    secure = True

    def __init__(self, host: str) -> None:
        self.peer_host = host


class ClientsTests(SynchronousTestCase):
    def host(self, peer: str, *values: str, trusted: tuple[str, ...] = ("10.0.0.0/24", "2001:db8::/64")) -> str:
        """Whose address counts where the field is sent with these values."""
        fields = [(b"host", b"a"), *((b"x-forwarded-for", each.encode()) for each in values)]
        host: str = Clients(TrustedProxies(trusted)).of(Connection(peer), fields).peer_host
        return host

    def test_trusted(self) -> None:
        """What a trusted proxy has written last counts, and through further ones what the first of them has."""
        for values in (
            (CLIENT,),
            (f"{CLIENT}, {OTHER}",),
            (CLIENT, OTHER),
            (f" {CLIENT} ,{OTHER}\t",),
            (f"{CLIENT}:4711",),
            (f"{CLIENT}, 2001:db8::1",),
            (f"{CLIENT}, [2001:db8::1]:443",),
        ):
            self.assertEqual(self.host(PROXY, *values), CLIENT, values)
        self.assertEqual(self.host("", CLIENT, trusted=("unix",)), CLIENT)
        self.assertEqual(self.host("2001:db8::9", "2001:db8:1::1"), "2001:db8:1::1")

    def test_forged(self) -> None:
        """What a client has written itself stands before that, and counts for nothing; nor what no proxy has sent."""
        for forged in ("198.51.100.1", "127.0.0.1", PROXY, f"{PROXY}, {OTHER}", "unix", "", "x" * 5000, ",,,", "::1"):
            self.assertEqual(self.host(PROXY, f"{forged}, {CLIENT}"), CLIENT, forged)
            self.assertEqual(self.host(PROXY, forged, CLIENT), CLIENT, forged)
            self.assertEqual(self.host(CLIENT, forged), CLIENT, forged)
        self.assertEqual(self.host("", CLIENT), "", "a Unix socket is not trusted here")

    def test_nothing(self) -> None:
        """Without a value, and with one that is no address, it is the last proxy that is known."""
        for value in ("", "unknown", "_hidden", "192.0.2", "192.0.2.7/24", "1" * 400, "\xff"):
            self.assertEqual(self.host(PROXY, value), PROXY, value)
            self.assertEqual(self.host(PROXY, f"{value}, {OTHER}"), OTHER, value)
        self.assertEqual(self.host(PROXY), PROXY)
        self.assertEqual(self.host(PROXY, ", ".join([CLIENT, *[OTHER] * MOST_PROXIES])), OTHER)

    def test_connection(self) -> None:
        """Everything else is asked of the connection itself, and what is counted for a client is not kept there."""
        connection: Any = Connection(PROXY)
        found = Clients(TrustedProxies((PROXY,))).of(connection, [(b"x-forwarded-for", CLIENT.encode())])
        self.assertTrue(found.secure)
        found.counted_as = 1
        self.assertFalse(hasattr(connection, "counted_as"))


class ProcessTests(SynchronousTestCase):
    """A process behind a proxy on the same host"""

    def start(self, **settings: str) -> Server:
        directory = Path(self.mktemp()).absolute()
        directory.mkdir()
        (directory / "keys.json").write_text('{"keys": []}')
        (directory / "keys.json").chmod(0o600)
        server = Server(directory, OPENHQM_QUEUE__TYPE="memory", **settings)
        server.start()
        self.addCleanup(server.stop)
        return server

    def ask(self, server: Server, path: str, client: str, body: Any, **fields: str) -> int:
        found: int = server.ask("POST", path, body, {**JSON, "X-Forwarded-For": client, **fields})[0]
        return found

    def test_rate_limit(self) -> None:
        """Each client behind the proxy has its own limit, by each way in; a forged field has none."""
        limit = json.dumps({"requests": 1, "per_seconds": 3600})
        server = self.start(OPENHQM_RATE_LIMIT=limit, OPENHQM_SERVER__TRUSTED_PROXIES='["127.0.0.1"]')
        submit = {"payload": 1}
        for client, status in ((CLIENT, 202), (CLIENT, 429), (f"198.51.100.1, {CLIENT}", 429), ("192.0.2.8", 202)):
            self.assertEqual(self.ask(server, "/api/v1/submit", client, submit), status, client)
        batch = {"requests": [submit]}
        for client, status in ((CLIENT, 429), ("192.0.2.9", 202), ("192.0.2.9", 429)):
            self.assertEqual(self.ask(server, "/api/v1/batch", client, batch), status, client)
        long = {"payload": "x" * 100_000}
        for client, status in (("192.0.2.9", 429), ("192.0.2.10", 202)):
            self.assertEqual(self.ask(server, "/api/v1/submit", client, long), status, client)

    def test_not_trusted(self) -> None:
        """Without trusted proxies, no client gets another limit by what it says."""
        server = self.start(OPENHQM_RATE_LIMIT=json.dumps({"requests": 1, "per_seconds": 3600}))
        for client, status in ((CLIENT, 202), ("192.0.2.8", 429)):
            self.assertEqual(self.ask(server, "/api/v1/submit", client, {"payload": 1}), status)

    def test_wrong_logins(self) -> None:
        """One client that guesses is refused unseen, and no other one behind the proxy is."""
        key, _ = made("a", frozenset())
        auth = {"type": "api_key", "keys_file": "keys.json", "wrong_logins": {"requests": 2}}
        server = self.start(OPENHQM_AUTH=json.dumps(auth), OPENHQM_SERVER__TRUSTED_PROXIES='["127.0.0.1"]')
        for client, status in ((CLIENT, 401), (CLIENT, 401), (CLIENT, 429), ("192.0.2.8", 401)):
            found = self.ask(server, "/api/v1/submit", client, {"payload": 1}, **{"OpenHQM-Key": key})
            self.assertEqual(found, status, client)

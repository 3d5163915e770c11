"""Who may use which route: one table, which has every route, decided before anything else of a request."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from pathlib import Path

import attrs
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

import openhqm.ingress.access
from openhqm.http1.rules import credentials_in
from openhqm.ingress.access import IN_THE_URL, OPEN, TABLE, UNAUTHORIZED, Access, Keys, role_for
from openhqm.ingress.authentication import Authentication
from openhqm.ingress.key_file import LOOK_SECONDS, KeyFile
from openhqm.ingress.routes import Routes
from openhqm.ingress.stream_query import EVENTS
from openhqm.policy.api_keys import Caller, Key, Role, digest_of, new_key, write_keys
from tests.servers import Server

EXAMPLES = {
    "<correlation_id>": "00000000-0000-4000-8000-000000000000",
    "<number>": "999999",
}


def path_of(route: str) -> str:
    """A path that the route matches."""
    for name, value in EXAMPLES.items():
        route = route.replace(name, value)
    return route


FINISHING = tuple(f"/api/v1/{what}/<correlation_id>" for what in ("complete", "progress"))
"""What a target asks with the token that it was given: no key is looked at, and none opens it."""


def target_of(route: str) -> str:
    """A request target that the route answers: without an id, a stream over many requests would not end."""
    return path_of(route) + ("?id=unknown" if route == EVENTS else "")


def made(id: str, roles: frozenset[Role], expires: int | None = None) -> tuple[str, Key]:
    """A key, and what is kept of it."""
    secret = new_key(secrets.token_bytes)
    return secret, Key(id * 12, digest_of(secret), "acme", roles, 1, expires)


def write(path: Path, *keys: Key, mode: int = 0o600) -> None:
    """Replace a file of keys."""
    temporary = path.with_suffix(".new")
    temporary.write_text(write_keys(keys))
    temporary.chmod(mode)
    temporary.replace(path)


class TableTests(SynchronousTestCase):
    """The table of routes"""

    def test_every_route(self) -> None:
        """Every route of the application has a row, and no row is without a route. A new route needs a decision."""
        routes = {
            (method, rule.rule)
            for rule in Routes.app.url_map.iter_rules()
            for method in (rule.methods or ())
            if method not in ("HEAD", "OPTIONS")
        }
        self.assertEqual({(method, path) for method, path, _ in TABLE}, routes)
        self.assertEqual(len(TABLE), len(routes))

    def test_found(self) -> None:
        """A request has the role of its row, HEAD that of GET, and what no row matches that of an operator."""
        for method, path, role in TABLE:
            self.assertIs(role_for(method.encode(), path_of(path).encode()), role, path)
            if method == "GET":
                self.assertIs(role_for(b"HEAD", path_of(path).encode()), role, path)
        for method, unknown in (
            ("PUT", "/health/live"),
            ("GET", "/health/live/"),
            ("GET", "/api/v1/status/a/b"),
            ("GET", ""),
        ):
            self.assertIs(role_for(method.encode(), unknown.encode()), Role.ADMIN)

    def test_what_is_open(self) -> None:
        """Probes need no key, nor do webhooks, whose signature is checked, and targets, whose token is."""
        found = [path for _, path, role in TABLE if role is OPEN]
        self.assertEqual(found, [*FINISHING, "/hooks/<name>", "/health/live", "/health/ready"])


class Known:
    """Two keys."""

    def caller(self, secret: bytes, verify: bool = True) -> Caller | None:
        roles = {b"reader": {Role.READ}, b"writer": {Role.SUBMIT}}.get(secret)
        return None if roles is None else Caller("acme", frozenset(roles), "1")

    def certified(self, connection: object) -> Caller | None:
        return None


def access(keys: Keys) -> Access:
    """The table with ``keys``, at no time."""
    return Access(keys, Clock(), lambda: 0.0)


class CredentialsTests(SynchronousTestCase):
    """Where a key is looked for"""

    def status(self, *fields: tuple[bytes, bytes], target: bytes = b"/", role: Role | None = Role.READ) -> int:
        answer = access(Known()).check(role, target, credentials_in(fields))[0]
        return 200 if answer is None else answer.status

    def test_fields(self) -> None:
        """A key comes in Authorization, or in OpenHQM-Key, beside which Authorization is the application's."""
        bearer = (b"authorization", b"Bearer reader")
        key = (b"openhqm-key", b"reader")
        basic = (b"authorization", b"Basic cmVhZGVyOg==")
        self.assertEqual(self.status(bearer), 200)
        self.assertEqual(self.status((b"authorization", b"bearer reader")), 200)
        self.assertEqual(self.status(key), 200)
        self.assertEqual(self.status(key, basic), 200)
        self.assertEqual(self.status(basic, key), 200)

    def test_refused(self) -> None:
        """No key, a wrong one, two of them, one in another scheme or with anything around it: 401, all the same."""
        bearer, key = (b"authorization", b"Bearer reader"), (b"openhqm-key", b"reader")
        for fields in (
            (),
            (bearer, bearer),
            (key, key),
            (key, (b"openhqm-key", b"other")),
            ((b"openhqm-key", b"other"), bearer),
            ((b"authorization", b"Bearer other"),),
            ((b"authorization", b"Bearer  reader"),),
            ((b"authorization", b"Bearer reader "),),
            ((b"authorization", b"Bearer reader\x00"),),
            ((b"authorization", b"reader"),),
            ((b"authorization", b"Basic reader"),),
            ((b"authorization", b"Bearer"),),
            ((b"authorization", b""),),
            ((b"cookie", b"reader"),),
        ):
            answer = access(Known()).check(Role.READ, b"/", credentials_in(fields))[0]
            assert answer is not None, fields
            self.assertEqual(answer.status, 401, fields)
            self.assertEqual(answer, access(Known()).check(Role.READ, b"/", ())[0], fields)
            self.assertIn((b"WWW-Authenticate", b'Bearer realm="openhqm"'), answer.fields)
            self.assertIn(UNAUTHORIZED.encode(), answer.body)

    def test_roles(self) -> None:
        """A key without the role gets 403, and no role includes another one."""
        writer = (b"authorization", b"Bearer writer")
        self.assertEqual(self.status(writer, role=Role.SUBMIT), 200)
        for role in (Role.READ, Role.CANCEL, Role.ADMIN):
            self.assertEqual(self.status(writer, role=role), 403)

    def test_in_the_url(self) -> None:
        """A key in a URL is refused, also on an open route and beside a good key."""
        for role in (Role.READ, OPEN):
            answer = access(Known()).check(role, b"/?key=ohqm_1", ((b"openhqm-key", b"reader"),))[0]
            assert answer is not None
            self.assertEqual(answer.status, 400)
            self.assertIn(IN_THE_URL.encode(), answer.body)


class RememberedTests(SynchronousTestCase):
    """Callers that were known a moment ago"""

    def setUp(self) -> None:
        self.clock, self.now = Clock(), 1000.0
        self.path = Path(self.mktemp())
        self.secret, self.key = made("a", frozenset({Role.READ}), 2000)
        write(self.path, self.key)
        file = KeyFile(str(self.path), self.clock.seconds, lambda: self.now)
        file.open()
        self.access = Access(Authentication(file, None, None, self.clock), self.clock, lambda: self.now)

    def served(self, secret: str) -> bool:
        return self.access.check(Role.READ, b"/", ((b"openhqm-key", secret.encode()),))[0] is None

    def test_revoked(self) -> None:
        """A key that is taken out of the file is refused within a second, also where it is used all the time."""
        write(self.path)
        self.clock.advance(0.49)  # the file is not looked at yet
        self.assertTrue(self.served(self.secret))
        while self.clock.seconds() < 0.9:
            self.clock.advance(0.1)
            self.served(self.secret)
        self.clock.advance(1 - self.clock.seconds())
        self.assertFalse(self.served(self.secret))

    def test_expired(self) -> None:
        """A key is refused from the moment at which it expires."""
        self.now = 1999.75
        self.assertTrue(self.served(self.secret))
        self.clock.advance(0.125)
        self.now = 1999.875
        self.assertTrue(self.served(self.secret))
        self.clock.advance(0.125)
        self.now = 2000.0
        self.assertFalse(self.served(self.secret))

    def test_set_clock(self) -> None:
        """A time of day that is set back by an hour makes no key good for longer after it was revoked."""
        self.assertTrue(self.served(self.secret))
        write(self.path)
        self.now -= 3600
        self.clock.advance(LOOK_SECONDS)
        self.assertFalse(self.served(self.secret))

    def test_bounded(self) -> None:
        """No more callers are remembered than the bound says, and none whose credential is not good."""
        pairs = [made("a", frozenset({Role.READ})) for _ in range(4)]
        write(self.path, *(attrs.evolve(key, id=f"{number:012x}") for number, (_, key) in enumerate(pairs)))
        self.clock.advance(LOOK_SECONDS)
        self.patch(openhqm.ingress.access, "MOST_REMEMBERED", 3)
        for secret, _ in pairs:
            self.assertTrue(self.served(secret))
            self.assertFalse(self.served(secret + "x"))
        self.assertEqual(len(self.access._remembered), 1)


class KeyFileTests(SynchronousTestCase):
    """`KeyFile`"""

    def setUp(self) -> None:
        self.clock, self.now = Clock(), 1000.0
        self.path = Path(self.mktemp())
        self.secret, self.key = made("a", frozenset({Role.READ}), 2000)
        write(self.path, self.key)
        self.file = KeyFile(str(self.path), self.clock.seconds, lambda: self.now)
        self.file.open()

    def known(self, secret: str) -> bool:
        return self.file.caller(secret.encode()) is not None

    def test_caller(self) -> None:
        """A key has its tenant, roles and id; any other text has nothing."""
        self.assertEqual(self.file.caller(self.secret.encode()), Caller("acme", frozenset({Role.READ}), "a" * 12))
        other, _ = made("b", frozenset({Role.READ}))
        for wrong in (other, "", "ohqm_", self.secret + "a", self.key.digest, "ohqm_" + "a" * 100_000, "ohqm_ÿ"):
            self.assertFalse(self.known(wrong), wrong[:80])

    def test_expires(self) -> None:
        """A key is good until it expires, without the file being read again."""
        self.now = 1999.9
        self.assertTrue(self.known(self.secret))
        self.now = 2000.0
        self.assertFalse(self.known(self.secret))

    def test_changed(self) -> None:
        """A key that is revoked or added counts within a second."""
        other, added = made("b", frozenset({Role.READ}))
        write(self.path, added)
        self.clock.advance(LOOK_SECONDS)
        self.assertTrue(self.known(other))
        self.assertFalse(self.known(self.secret))

    def test_became_wrong(self) -> None:
        """A file that is gone, broken or open to others changes nothing, is said once, and is used when it is good."""
        other, added = made("b", frozenset({Role.READ}))
        for spoil in (
            self.path.unlink,
            lambda: self.path.write_text("{"),
            lambda: write(self.path, added, mode=0o604),
        ):
            spoil()
            for _ in range(2):
                self.clock.advance(LOOK_SECONDS)
                self.assertTrue(self.known(self.secret))
        write(self.path, added)
        self.clock.advance(LOOK_SECONDS)
        self.assertTrue(self.known(other))

    def test_cannot_begin(self) -> None:
        """A file that cannot be used is refused at first, with what is wrong."""
        for mode, word in ((0o644, "chmod"), (0o660, "chmod"), (0o601, "chmod")):
            os.chmod(self.path, mode)
            self.assertIn(word, str(self.assertRaises(ValueError, self.file.open)))
        os.chmod(self.path, 0o640)
        self.file.open()
        self.path.write_text("")
        self.assertIn("JSON", str(self.assertRaises(ValueError, self.file.open)))
        self.path.unlink()
        self.assertIn("cannot be read", str(self.assertRaises(ValueError, self.file.open)))


class ProcessTests(SynchronousTestCase):
    """A process with a file of keys"""

    def test_matrix(self) -> None:
        """Every credential on every route: 401 without a key, 403 without the role, and then what the route says."""
        directory = Path(self.mktemp()).absolute()
        directory.mkdir()
        path = directory / "keys.json"
        pairs = {role: made(id, frozenset({role})) for id, role in zip("abcd", Role, strict=True)}
        write(path, *(key for _, key in pairs.values()))
        auth = {"OPENHQM_AUTH__TYPE": "api_key", "OPENHQM_AUTH__KEYS_FILE": str(path)}
        server = Server(directory, OPENHQM_QUEUE__TYPE="memory", **auth)
        server.start()
        self.addCleanup(server.stop)

        def ask(method: str, path: str, fields: Mapping[str, str]) -> int:
            body = {"payload": 1} if method == "POST" else None
            return server.ask(method, path, body, dict(fields))[0]

        for method, route, needed in TABLE:
            target = target_of(route)
            self.assertEqual(ask(method, target, {}) == 401, needed is not OPEN, route)
            self.assertEqual(ask(method, target, {"Authorization": "Bearer wrong"}) == 401, needed is not OPEN, route)
            for role, (secret, _) in pairs.items():
                for fields in ({"Authorization": f"Bearer {secret}"}, {"OpenHQM-Key": secret}):
                    status = ask(method, target, fields)
                    if needed is OPEN and "<correlation_id>" in route:
                        self.assertEqual(status, 403, route)  # without the token that the target was given
                    elif needed in (OPEN, role):
                        self.assertNotIn(status, (401, 403), (route, role))
                    else:
                        self.assertEqual(status, 403, (route, role))
        # What was refused was not done: one request for each field that a key with the role came in.
        metrics = server.ask("GET", "/metrics", headers={"OpenHQM-Key": pairs[Role.ADMIN][0]})[2].decode()
        self.assertRegex(metrics, r'(?m)^openhqm_submissions_total\{outcome="accepted"\} 2\.0$')
        # A key that is revoked opens nothing within a second or two.
        write(path, pairs[Role.READ][1])
        secret = pairs[Role.SUBMIT][0]
        server.until(lambda: ask("POST", "/api/v1/submit", {"OpenHQM-Key": secret}) == 401, "it was not revoked", 10)
        for secret, _ in pairs.values():
            self.assertNotIn(secret, server.log())

    def test_not_started(self) -> None:
        """Without its file, or with one that others can read, the process ends with a line that says so."""
        directory = Path(self.mktemp()).absolute()
        directory.mkdir()
        path = directory / "keys.json"
        auth = {"OPENHQM_AUTH__TYPE": "api_key", "OPENHQM_AUTH__KEYS_FILE": str(path)}
        server = Server(directory, OPENHQM_QUEUE__TYPE="memory", **auth)
        for word in ("No such file", "chmod 640"):
            code, _, errors = server.run()
            self.assertEqual(code, 1, errors)
            self.assertIn(f"auth.keys_file: {path}: ", errors)
            self.assertIn(word, errors)
            write(path, mode=0o644)

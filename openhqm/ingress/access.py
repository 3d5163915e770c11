# -*- test-case-name: tests.ingress.test_access -*-
"""Who may use which route, decided in one table, before anything of a request is looked at."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.interfaces import IReactorTime

from openhqm.http1.messages import Answer
from openhqm.http1.rules import Credentials
from openhqm.ingress.answers import problem
from openhqm.ingress.tokens import KeysUnavailable
from openhqm.ingress.wrong_logins import WrongLogins
from openhqm.policy.api_keys import PREFIX, Caller, Role

OPEN = None
"""In the table: without a key. Probes and the senders of webhooks have none."""
TABLE: tuple[tuple[str, str, Role | None], ...] = (
    ("POST", "/api/v1/submit", Role.SUBMIT),
    ("POST", "/api/v1/batch", Role.SUBMIT),
    ("GET", "/api/v1/status/<correlation_id>", Role.READ),
    ("GET", "/api/v1/response/<correlation_id>", Role.READ),
    ("GET", "/api/v1/response/<correlation_id>/body", Role.READ),
    ("POST", "/api/v1/cancel/<correlation_id>", Role.CANCEL),
    ("POST", "/api/v1/complete/<correlation_id>", OPEN),  # the token that the target was given is the credential
    ("POST", "/api/v1/progress/<correlation_id>", OPEN),
    ("GET", "/api/v1/events/<correlation_id>", Role.READ),
    ("GET", "/api/v1/events", Role.READ),
    ("GET", "/api/v1/ws", Role.READ),  # and each message the role of what it asks for
    ("GET", "/api/v1/dead-letters", Role.ADMIN),
    ("GET", "/api/v1/dead-letters/<number>", Role.ADMIN),
    ("POST", "/api/v1/dead-letters/redrive", Role.ADMIN),
    ("POST", "/api/v1/dead-letters/<number>/redrive", Role.ADMIN),
    ("DELETE", "/api/v1/dead-letters", Role.ADMIN),
    ("DELETE", "/api/v1/dead-letters/<number>", Role.ADMIN),
    ("POST", "/hooks/<name>", OPEN),  # its signature is the credential
    ("GET", "/health", Role.ADMIN),
    ("GET", "/health/live", OPEN),
    ("GET", "/health/ready", OPEN),
    ("GET", "/metrics", Role.ADMIN),
    ("GET", "/openapi.json", Role.READ),
)
"""Method, path and role of each route. A request that no row matches needs the role ``admin``."""
_EXACT = {(method.encode(), path.encode()): role for method, path, role in TABLE if "<" not in path}
_PATTERNS = tuple(
    (method.encode(), re.compile(re.sub(r"<\w+>", "[^/]+", path).encode()), role)
    for method, path, role in TABLE
    if "<" in path
)
UNAUTHORIZED = "this needs a key or a token: Authorization: Bearer ..., or OpenHQM-Key: ..."
IN_THE_URL = "a key must not be in a URL, which is written into logs: send it in Authorization, and revoke this one"
_PREFIX = PREFIX.encode()
_TOKEN = re.compile(rb"eyJ[\w-]{8,}\.eyJ[\w-]{8,}\.")
_OPENHQM_KEY = b"openhqm-key"
REMEMBERED_SECONDS = 0.5
MOST_REMEMBERED = 1024  # callers
_UNAUTHORIZED = problem(401, UNAUTHORIZED, fields=((b"WWW-Authenticate", b'Bearer realm="openhqm"'),))


_UNAVAILABLE = problem(
    503, "the keys that prove this token cannot be had now; repeat the request", fields=((b"Retry-After", b"2"),)
)


class Keys(Protocol):
    """What knows whose a key or a token is."""

    def caller(self, secret: bytes, verify: bool = True) -> Caller | None:
        """Whose it is; None: it is not good. `KeysUnavailable` where that is not known now.

        Where it is not to ``verify``, nothing is done that costs more than a look into a table.
        """

    def certified(self, connection: Any) -> Caller | None:
        """Whose certificate the connection has; None: it has none that is known."""


def role_for(method: bytes, path: bytes) -> Role | None:
    """The role that a request needs; None: it needs no key. HEAD is GET (RFC 9110, section 9.3.2)."""
    method = b"GET" if method == b"HEAD" else method
    if (method, path) in _EXACT:
        return _EXACT[method, path]
    for known, pattern, role in _PATTERNS:
        if known == method and pattern.fullmatch(path):
            return role
    return Role.ADMIN


class Access:
    """Answers in place of a route where a request may not use it.

    ``now`` is the time of day. Whose the credentials of the last half second are is remembered, unless they expire by
    then, and not that any are wrong.
    """

    def __init__(
        self,
        keys: Keys,
        clock: IReactorTime,
        now: Callable[[], float],
        wrong: WrongLogins | None = None,
    ) -> None:
        self._keys = keys
        self._wrong = wrong
        self._clock = clock
        self._now = now
        self._remembered: dict[Credentials, Caller] = {}

    def check(
        self, role: Role | None, target: bytes, credentials: Credentials, connection: Any = None, count: bool = True
    ) -> tuple[Answer | None, Caller | None]:
        """Why a request must not be served, or None, and who has sent it.

        A key that is missing and one that is wrong get the same bytes, until the address has sent too many wrong ones.
        Who uses an open route is not asked. ``count``: whether a wrong one counts, or will be looked at once more.
        """
        if _PREFIX in target or (b"eyJ" in target and _TOKEN.search(target) is not None):
            return problem(400, IN_THE_URL), None
        if role is OPEN:
            return None, None
        try:
            caller = self.caller(credentials, connection)
        except KeysUnavailable:
            return _UNAVAILABLE, None
        if caller is None:
            return self._refused(credentials, connection, count), None
        if role not in caller.roles:
            return problem(403, f"this needs a key with the role {role.value}"), None
        return None, caller

    def _refused(self, credentials: Credentials, connection: Any, count: bool) -> Answer:
        if self._wrong is None or not credentials:
            return _UNAUTHORIZED
        wait = self._wrong.wait(connection)
        if wait:
            return self._wrong.refusal(wait)
        if count:
            self._wrong.note(connection)
        return _UNAUTHORIZED

    def caller(self, credentials: Credentials, connection: Any) -> Caller | None:
        """Who has sent a request; None: it has no credential that is good. `KeysUnavailable`.

        A credential in a field decides alone: it may be of another caller than the certificate.
        """
        if not credentials:
            return self._keys.certified(connection)
        return self._remembered.get(credentials) or self._ask(credentials, connection)

    def _ask(self, credentials: Credentials, connection: Any) -> Caller | None:
        secret = _secret(credentials)
        verify = self._wrong is None or not self._wrong.wait(connection)
        caller = None if secret is None else self._keys.caller(secret, verify)
        if caller is not None and caller.expires - self._now() > REMEMBERED_SECONDS:
            if len(self._remembered) >= MOST_REMEMBERED:
                self._remembered.clear()
            if not self._remembered:
                self._clock.callLater(REMEMBERED_SECONDS, self._remembered.clear)
            self._remembered[credentials] = caller
        return caller


def _secret(found: Credentials) -> bytes | None:
    """The one key in the fields ``found``. None where there is none, or more than one field could be it.

    With ``OpenHQM-Key``, ``Authorization`` is not ours.
    """
    if len(found) == 1:
        name, value = found[0]
        if name == _OPENHQM_KEY:
            return value
        scheme, _, secret = value.partition(b" ")
        return secret if scheme.lower() == b"bearer" else None
    # Beside our own field, Authorization is for another reader.
    ours = [value for name, value in found if name == _OPENHQM_KEY]
    return ours[0] if len(ours) == 1 else None

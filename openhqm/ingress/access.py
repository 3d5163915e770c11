# -*- test-case-name: tests.ingress.test_access -*-
"""Who may use which route, decided in one table, before anything of a request is looked at."""

from __future__ import annotations

import re
from collections.abc import Iterable
from time import time
from typing import Protocol

from twisted.internet.interfaces import IReactorTime

from openhqm.config.model import Auth
from openhqm.errors import Complaint, ConfigurationError
from openhqm.http1.messages import Answer
from openhqm.ingress.answers import problem
from openhqm.ingress.key_file import KeyFile
from openhqm.policy.api_keys import PREFIX, Caller, Role

OPEN = None
"""In the table: without a key. Probes have none."""
TABLE: tuple[tuple[str, str, Role | None], ...] = (
    ("POST", "/api/v1/submit", Role.SUBMIT),
    ("GET", "/api/v1/status/<correlation_id>", Role.READ),
    ("GET", "/api/v1/response/<correlation_id>", Role.READ),
    ("GET", "/api/v1/response/<correlation_id>/body", Role.READ),
    ("POST", "/api/v1/cancel/<correlation_id>", Role.CANCEL),
    ("GET", "/api/v1/events/<correlation_id>", Role.READ),
    ("GET", "/api/v1/dead-letters", Role.ADMIN),
    ("GET", "/api/v1/dead-letters/<number>", Role.ADMIN),
    ("POST", "/api/v1/dead-letters/redrive", Role.ADMIN),
    ("POST", "/api/v1/dead-letters/<number>/redrive", Role.ADMIN),
    ("DELETE", "/api/v1/dead-letters", Role.ADMIN),
    ("DELETE", "/api/v1/dead-letters/<number>", Role.ADMIN),
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
UNAUTHORIZED = "this needs a key: Authorization: Bearer ohqm_..., or OpenHQM-Key: ohqm_..."
IN_THE_URL = "a key must not be in a URL, which is written into logs: send it in Authorization, and revoke this one"
_PREFIX = PREFIX.encode()
CARRIERS = _AUTHORIZATION, _OPENHQM_KEY = b"authorization", b"openhqm-key"
"""The header fields that a key comes in."""

_UNAUTHORIZED = problem(401, UNAUTHORIZED, fields=((b"WWW-Authenticate", b'Bearer realm="openhqm"'),))


class Keys(Protocol):
    """What knows whose a key is."""

    def caller(self, secret: bytes) -> Caller | None: ...


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
    """Answers in place of a route where a request may not use it."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    def refusal(self, role: Role | None, target: bytes, fields: Iterable[tuple[bytes, bytes]]) -> Answer | None:
        """Why a request must not be served, or None. ``fields`` have names in lower case.

        A key that is missing and one that is wrong get the same bytes.
        """
        if _PREFIX in target:
            return problem(400, IN_THE_URL)
        if role is OPEN:
            return None
        secret = _secret(fields)
        caller = None if secret is None else self._keys.caller(secret)
        if caller is None:
            return _UNAUTHORIZED
        if role not in caller.roles:
            return problem(403, f"this needs a key with the role {role.value}")
        return None


def access_of(auth: Auth, clock: IReactorTime) -> Access | None:
    """What `Auth` asks for; None: everybody may. `ConfigurationError` where the file of keys cannot be used."""
    if auth.keys_file is None:
        return None
    keys = KeyFile(auth.keys_file, clock.seconds, time)
    try:
        keys.open()
    except ValueError as error:
        raise ConfigurationError([Complaint("auth.keys_file", f"{auth.keys_file}: {error}")]) from None
    return Access(keys)


def _secret(fields: Iterable[tuple[bytes, bytes]]) -> bytes | None:
    """The one key of a request. None where there is none, or more than one field could be it.

    With ``OpenHQM-Key``, ``Authorization`` is not ours.
    """
    found = [(name, value) for name, value in fields if name in CARRIERS]
    ours = [value for name, value in found if name == _OPENHQM_KEY] or [value for _, value in found]
    if len(ours) != 1:
        return None
    if found[0][0] == _OPENHQM_KEY or len(found) > 1:
        return ours[0]
    scheme, _, secret = ours[0].partition(b" ")
    return secret if scheme.lower() == b"bearer" else None

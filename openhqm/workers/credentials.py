# -*- test-case-name: tests.workers.test_credentials -*-
"""How a target knows that it is us: header fields, fixed or fetched."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Mapping
from typing import Any, Protocol
from urllib.parse import quote_plus

import attrs
from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.web.iweb import IAgent

from openhqm.errors import RetryLater
from openhqm.http1.client import content_producer, read_body, reason_of
from openhqm.runtime.deferreds import deferred

MOST_TOKEN_BYTES = 64 * 1024
TOKEN_SECONDS = 30.0
EARLY_SECONDS = 30.0
DEFAULT_LIFETIME = 300.0
LONGEST_LIFETIME = 86400.0
_TOKEN = re.compile(r"[\x21-\x7e]+")  # RFC 6749, appendix A.12


class Credentials(Protocol):
    """What is sent along."""

    def fields(self) -> Deferred[Mapping[str, str]]:
        """The header fields. `RetryLater` where there are none just now."""

    def refused(self, fields: Mapping[str, str]) -> bool:
        """The target did not take ``fields``. Whether there may be others if it is tried again."""


class Fixed:
    """The same fields every time."""

    def __init__(self, fields: Mapping[str, str]) -> None:
        self._fields = fields

    @deferred
    async def fields(self) -> Mapping[str, str]:
        """Those."""
        return self._fields

    def refused(self, fields: Mapping[str, str]) -> bool:
        """There are no others."""
        return False


def basic(username: str, password: str) -> str:
    """The value of an ``Authorization`` field (RFC 7617, section 2)."""
    return "Basic " + b64encode(f"{username}:{password}".encode()).decode("ascii")


@attrs.frozen
class TokenRequest:
    """Where a token is had, and for whom (RFC 6749, section 4.4)."""

    url: str
    client_id: str
    client_secret: str = attrs.field(repr=False)
    scope: str | None = None


class ClientCredentials:
    """A bearer token, fetched when it is first needed, kept until shortly before it expires, and shared."""

    def __init__(self, request: TokenRequest, agent: IAgent, clock: IReactorTime) -> None:
        self._request = request
        self._agent = agent
        self._clock = clock
        self._token: str | None = None
        self._good_until = 0.0
        self._waiting: list[Deferred[None]] = []
        self._fetching = False
        self._why = ""

    @deferred
    async def fields(self) -> Mapping[str, str]:
        """The ``Authorization`` field; whoever asks while a token is being fetched waits for that one."""
        if self._token is None or self._clock.seconds() >= self._good_until:
            # Whoever asked first waits like the others: should it be cancelled, they still have their token.
            waiter: Deferred[None] = Deferred(self._forget)
            self._waiting.append(waiter)
            if not self._fetching:
                self._fetching = True
                self._fetch()
            await waiter
        if self._token is None:
            raise RetryLater(None, f"no token could be had for this endpoint: {self._why}")
        return _authorization(self._token)

    def _forget(self, waiter: Deferred[None]) -> None:
        if waiter in self._waiting:
            self._waiting.remove(waiter)

    def refused(self, fields: Mapping[str, str]) -> bool:
        """The next one asks for a new token, unless there is a newer one than theirs already."""
        if self._token is not None and fields == _authorization(self._token):
            self._token = None
        return True

    @deferred
    async def _fetch(self) -> None:
        self._token, self._why = None, ""
        try:
            self._token, lifetime = await self._ask().addTimeout(TOKEN_SECONDS, self._clock)
            self._good_until = self._clock.seconds() + max(lifetime - EARLY_SECONDS, lifetime / 2)
        except TimeoutError:
            self._why = f"the token server has not answered within {TOKEN_SECONDS:g} s"
        except Exception as error:  # a server that is down, or answers with what is no token
            self._why = str(error) if isinstance(error, _NoToken) else reason_of(error)
        self._fetching = False
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            waiter.callback(None)

    @deferred
    async def _ask(self) -> tuple[str, float]:
        asked = self._request
        form = {"grant_type": "client_credentials"}
        if asked.scope:
            form["scope"] = asked.scope
        from treq.client import HTTPClient  # which brings OpenSSL, for whoever uses it

        # A client of its own: no cookie of one token server is shown to another.
        client: Any = HTTPClient(self._agent, data_to_body_producer=content_producer)
        response = await client.post(
            asked.url,
            data=form,
            # RFC 6749, section 2.3.1: both are form-encoded before they are joined.
            auth=(quote_plus(asked.client_id), quote_plus(asked.client_secret)),
            headers={"Accept": "application/json"},
            allow_redirects=False,
            unbuffered=True,
            reactor=self._clock,
        )
        body = await read_body(response, MOST_TOKEN_BYTES)
        if response.code != 200:
            raise _NoToken(f"the token server answered {response.code}")
        return _token_in(body)


class _NoToken(Exception):
    """What the token server answered is none."""


def _token_in(body: bytes) -> tuple[str, float]:
    """The token and its lifetime in seconds (RFC 6749, section 5.1); nothing of a wrong answer is repeated."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        document = None
    token = document.get("access_token") if isinstance(document, dict) else None
    if not isinstance(token, str) or not _TOKEN.fullmatch(token):
        raise _NoToken("the token server's answer holds no token")
    assert isinstance(document, dict)
    try:
        lifetime = float(document.get("expires_in") or DEFAULT_LIFETIME)
    except (ValueError, TypeError, OverflowError):
        lifetime = DEFAULT_LIFETIME
    return token, min(max(lifetime, 0.0), LONGEST_LIFETIME) if lifetime == lifetime else DEFAULT_LIFETIME


def _authorization(token: str) -> Mapping[str, str]:
    return {"Authorization": f"Bearer {token}"}

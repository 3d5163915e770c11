# -*- test-case-name: tests.test_credentials -*-
"""How a target knows that it is us: header fields, fixed or fetched."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Mapping
from typing import Any, Protocol
from urllib.parse import quote_plus, urlencode

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent

from openhqm.errors import RetryLater
from openhqm.runtime.deferreds import deferred
from openhqm.runtime.http_client import content_producer, read_body, reason_of

MOST_TOKEN_BYTES = 64 * 1024
TOKEN_SECONDS = 30.0
EARLY_SECONDS = 30.0
DEFAULT_LIFETIME = 300.0


class Credentials(Protocol):
    """What is sent along."""

    def fields(self) -> Deferred[Mapping[str, str]]:
        """The header fields. `RetryLater` where there are none just now."""

    def refused(self) -> bool:
        """The target did not take them. Whether there may be others if it is tried again."""


class Fixed:
    """The same fields every time."""

    def __init__(self, fields: Mapping[str, str]) -> None:
        self._fields = fields

    @deferred
    async def fields(self) -> Mapping[str, str]:
        """Those."""
        return self._fields

    def refused(self) -> bool:
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

    @deferred
    async def fields(self) -> Mapping[str, str]:
        """The ``Authorization`` field; whoever asks while a token is being fetched waits for that one."""
        if self._token is None or self._clock.seconds() >= self._good_until:
            if self._fetching:
                waiter: Deferred[None] = Deferred(self._waiting.remove)
                self._waiting.append(waiter)
                await waiter
            else:
                await self._fetch()
        if self._token is None:
            raise RetryLater(None, "no token could be had for this endpoint")
        return {"Authorization": f"Bearer {self._token}"}

    def refused(self) -> bool:
        """The next one asks for a new token."""
        self._token = None
        return True

    async def _fetch(self) -> None:
        self._fetching = True
        self._token = None
        try:
            # Not cancelled with the request that asked for it: others may wait for the same token.
            self._token, lifetime = await self._ask().addTimeout(TOKEN_SECONDS, self._clock)
            self._good_until = self._clock.seconds() + max(lifetime - EARLY_SECONDS, lifetime / 2)
        except RetryLater:
            raise
        except Exception as error:  # a server that is down, or answers with what is no token
            raise RetryLater(None, f"no token could be had for this endpoint: {reason_of(error)}") from None
        finally:
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
        # RFC 6749, section 2.3.1: both are form-encoded before they are joined.
        who = basic(quote_plus(asked.client_id), quote_plus(asked.client_secret))
        response: Any = await self._agent.request(
            b"POST",
            asked.url.encode("ascii"),
            Headers(
                {
                    "Authorization": [who],
                    "Content-Type": ["application/x-www-form-urlencoded"],
                    "Accept": ["application/json"],
                }
            ),
            content_producer(urlencode(form).encode()),
        )
        body = await read_body(response, MOST_TOKEN_BYTES)
        if response.code != 200:
            raise RetryLater(
                None, f"no token could be had for this endpoint: the token server answered {response.code}"
            )
        document = json.loads(body)
        token, lifetime = document["access_token"], document.get("expires_in", DEFAULT_LIFETIME)
        if not isinstance(token, str) or not token.isascii() or not token.isprintable():
            raise ValueError("the token server's answer holds no token")
        return token, float(lifetime)

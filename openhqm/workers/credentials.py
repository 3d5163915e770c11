# -*- test-case-name: tests.workers.test_credentials -*-
"""The header fields by which a target authenticates this gateway: configured, or with a token that is fetched."""

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
from openhqm.http1.bodies import content_producer, read_body
from openhqm.http1.failures import NotConnected, describe_failure, of_tls
from openhqm.runtime.deferreds import deferred
from openhqm.workers.handlers import Unreachable

MOST_TOKEN_BYTES = 64 * 1024
TOKEN_SECONDS = 30.0
EARLY_SECONDS = 30.0
DEFAULT_LIFETIME = 300.0
LONGEST_LIFETIME = 86400.0
_TOKEN = re.compile(r"[\x21-\x7e]+")  # RFC 6749, appendix A.12


class Credentials(Protocol):
    """Header fields for the calls of one target."""

    def fields(self) -> Deferred[Mapping[str, str]]:
        """Fires with the header fields, or fails with `RetryLater` where no token can be fetched now.

        It is `Unreachable` where there was no connection to the token server.
        """

    def at_hand(self) -> Mapping[str, str] | None:
        """The header fields, where they are known now."""

    def refused(self, fields: Mapping[str, str]) -> bool:
        """The target answered 401 to ``fields``. True where another attempt may be made with other fields."""


class Fixed:
    """The same ``fields`` for every call."""

    def __init__(self, fields: Mapping[str, str]) -> None:
        self._fields = fields

    @deferred
    async def fields(self) -> Mapping[str, str]:
        """Fires with the configured fields."""
        return self._fields

    def at_hand(self) -> Mapping[str, str]:
        """The configured fields."""
        return self._fields

    def refused(self, fields: Mapping[str, str]) -> bool:
        """False: there are no other fields."""
        return False


def basic(username: str, password: str) -> str:
    """The value of an ``Authorization`` field for HTTP Basic authentication (RFC 7617, section 2)."""
    return "Basic " + b64encode(f"{username}:{password}".encode()).decode("ascii")


@attrs.frozen
class TokenRequest:
    """The token endpoint and the client's credentials for it (RFC 6749, section 4.4)."""

    url: str
    client_id: str
    client_secret: str = attrs.field(repr=False)
    scope: str | None = None


class ClientCredentials:
    """A bearer token for all calls of one target: fetched when first needed, and again shortly before it expires."""

    def __init__(self, request: TokenRequest, agent: IAgent, clock: IReactorTime) -> None:
        self._request = request
        self._agent = agent
        self._clock = clock
        self._token: str | None = None
        self._good_until = 0.0
        self._waiting: list[Deferred[None]] = []
        self._fetching = False
        self._failure = ""
        self._reached = True

    @deferred
    async def fields(self) -> Mapping[str, str]:
        """Fires with the ``Authorization`` field. Calls that ask while a token is fetched wait for the same token."""
        if self.at_hand() is None:
            # The call that starts the fetch waits like the others: where it is cancelled, they still get the token.
            waiter: Deferred[None] = Deferred(self._forget)
            self._waiting.append(waiter)
            if not self._fetching:
                self._fetching = True
                self._fetch()
            await waiter
        if self._token is None:
            text = f"no OAuth 2 token for this endpoint could be fetched: {self._failure}"
            raise RetryLater(None, text) if self._reached else Unreachable(text)
        return _authorization(self._token)

    def at_hand(self) -> Mapping[str, str] | None:
        """The ``Authorization`` field, while its token is good."""
        if self._token is None or self._clock.seconds() >= self._good_until:
            return None
        return _authorization(self._token)

    def _forget(self, waiter: Deferred[None]) -> None:
        if waiter in self._waiting:
            self._waiting.remove(waiter)

    def refused(self, fields: Mapping[str, str]) -> bool:
        """True. The token of ``fields`` is dropped, unless a newer one has replaced it already."""
        if self._token is not None and fields == _authorization(self._token):
            self._token = None
        return True

    @deferred
    async def _fetch(self) -> None:
        self._token, self._failure, self._reached = None, "", True
        try:
            self._token, lifetime = await self._ask().addTimeout(TOKEN_SECONDS, self._clock)
            self._good_until = self._clock.seconds() + max(lifetime - EARLY_SECONDS, lifetime / 2)
        except TimeoutError:
            self._failure = f"the token server has not answered within {TOKEN_SECONDS:g} s"
        except Exception as error:  # the connection failed, or the answer has no token
            self._reached = not isinstance(error, NotConnected) or of_tls(error)
            self._failure = str(error) if isinstance(error, _NoToken) else describe_failure(error)
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
        from treq.client import HTTPClient  # here, because it imports OpenSSL, which most configurations do not need

        # A client for each call: treq would send the cookies of one token server to another.
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
    """The answer of the token server has no token."""


def _token_in(body: bytes) -> tuple[str, float]:
    """The token and its lifetime in seconds (RFC 6749, section 5.1). `_NoToken` quotes nothing of the answer."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        document = None
    token = document.get("access_token") if isinstance(document, dict) else None
    if not isinstance(token, str) or not _TOKEN.fullmatch(token):
        raise _NoToken("the answer of the token server has no access_token")
    assert isinstance(document, dict)
    try:
        lifetime = float(document.get("expires_in") or DEFAULT_LIFETIME)
    except (ValueError, TypeError, OverflowError):
        lifetime = DEFAULT_LIFETIME
    return token, min(max(lifetime, 0.0), LONGEST_LIFETIME) if lifetime == lifetime else DEFAULT_LIFETIME


def _authorization(token: str) -> Mapping[str, str]:
    return {"Authorization": f"Bearer {token}"}

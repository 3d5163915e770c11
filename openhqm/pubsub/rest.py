# -*- test-case-name: tests.pubsub.test_faults -*-
"""Calls of Pub/Sub's REST interface: each with an account and a deadline, and again where it was only busy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from twisted.internet.defer import Deferred, TimeoutError, fail
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from openhqm.errors import NotDurable
from openhqm.http1.calls import Fetched
from openhqm.http1.client import IFetch
from openhqm.http1.failures import CallFailed, NotConnected, describe_failure
from openhqm.pubsub.errors import Busy, refusal
from openhqm.pulled.product import Unreachable
from openhqm.runtime.deferreds import deferred

MOST_BYTES = 64 << 20
"""Of an answer."""
FIRST_PAUSE = 0.1
LONGEST_PAUSE = 30.0
LEAST_SECONDS = 1.0
"""What has to be left of the time for another try."""
BUSY = frozenset({408, 429, 500, 502, 503, 504})
"""https://cloud.google.com/pubsub/docs/reference/error-codes: the call may be repeated after a while."""
_JSON = (b"Content-Type", b"application/json")


class Authorization(Protocol):
    """Where header fields with a token come from: see `openhqm.pubsub.credentials.GoogleCredentials`."""

    def fields(self) -> Deferred[Mapping[str, str]]: ...

    def refused(self, fields: Mapping[str, str]) -> bool: ...


class NoAuthorization:
    """An emulator asks for no account."""

    @deferred
    async def fields(self) -> Mapping[str, str]:
        """No field."""
        return {}

    def refused(self, fields: Mapping[str, str]) -> bool:
        """False: there are no others."""
        return False


class Rest:
    """``base`` is the URL of the service, without a path. ``random`` is as `random.random`."""

    def __init__(
        self,
        client: IFetch,
        authorization: Authorization,
        clock: IReactorTime,
        random: Callable[[], float],
        base: str,
    ) -> None:
        self._client = client
        self._authorization = authorization
        self._clock = clock
        self._random = random
        self._base = base
        self._calls: set[Deferred[bytes]] = set()
        self._closed = False
        self._not_before: dict[str, tuple[float, str]] = {}

    def close(self) -> None:
        """Give up every call, and make no more."""
        self._closed = True
        for calling in list(self._calls):
            calling.cancel()

    def call(self, method: str, name: str, verb: str, content: bytes | None, seconds: float) -> Deferred[bytes]:
        """The answer to ``verb`` (``publish``, say; or "") of a resource, within ``seconds``.

        Fails with `Missing`, `Forbidden`, `AlreadyThere` or another `NotDurable`; with `Busy` where Pub/Sub was busy
        until the time was over; with `Unreachable` where there was no answer; with `AnswerTooLong`.
        """
        if self._closed:
            return fail(NotDurable("the client was stopped"))
        calling = self._call(method, name, verb, content, seconds)
        self._calls.add(calling)
        return calling.addBoth(self._called, calling)

    def _called(self, result: Any, calling: Deferred[bytes]) -> Any:
        self._calls.discard(calling)
        return result

    @deferred
    async def _call(self, method: str, name: str, verb: str, content: bytes | None, seconds: float) -> bytes:
        due = self._clock.seconds() + seconds
        # A percent sign may stand in a name, and begins something else in a URL.
        url = f"{self._base}/v1/{name.replace('%', '%25')}" + (f":{verb}" if verb else "")
        pause = FIRST_PAUSE
        while True:
            now = self._clock.seconds()
            not_before, said = self._not_before.get(verb, (now, ""))
            wait = not_before - now
            if wait > 0:
                if now + wait >= due - min(LEAST_SECONDS, seconds / 4):
                    raise Busy(f"{said}; it is asked again in {wait:.1f} s")
                await deferLater(self._clock, wait)  # type: ignore[arg-type]
            answer = await self._once(method, url, content, due)
            if answer.status == 200:
                return answer.body
            if answer.status not in BUSY:
                raise refusal(answer.status, answer.body)
            wait = _retry_after(answer) or pause * (0.5 + self._random())
            pause = min(2 * pause, LONGEST_PAUSE)
            not_before = self._clock.seconds() + min(wait, LONGEST_PAUSE)
            self._not_before[verb] = not_before, refusal(answer.status, answer.body).reason

    async def _once(self, method: str, url: str, content: bytes | None, due: float) -> Fetched:
        """One answer; a second one where another token can be had."""
        for last in (False, True):
            fields = await self._authorization.fields()
            answer = await self._fetch(method, url, fields, content, due)
            if answer.status != 401 or not self._authorization.refused(fields) or last:
                return answer
        raise AssertionError("the second answer is the last one")

    async def _fetch(
        self, method: str, url: str, fields: Mapping[str, str], content: bytes | None, due: float
    ) -> Fetched:
        sent = [(name.encode(), value.encode()) for name, value in fields.items()]
        if content is not None:
            sent.append(_JSON)
        left = max(0.01, due - self._clock.seconds())
        try:
            asking = self._client.fetch(method.encode(), url.encode(), sent, content, MOST_BYTES)
            return await asking.addTimeout(left, self._clock)
        except TimeoutError:
            raise Unreachable(f"{self._base} has not answered in {left:.3g} s", maybe_done=True) from None
        except NotConnected as error:
            raise Unreachable(f"{self._base}: {describe_failure(error)}") from None
        except CallFailed as error:
            raise Unreachable(f"{self._base}: {describe_failure(error)}", maybe_done=True) from None


def _retry_after(answer: Fetched) -> float | None:
    """The seconds in the field ``Retry-After``, where it has a number."""
    value = answer.field(b"retry-after") or b""
    return float(value) if value.isdigit() and len(value) < 6 else None

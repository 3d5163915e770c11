# -*- test-case-name: tests.pubsub.test_faults -*-
"""The access token of the account that this process has: found by google-auth, and renewed in a thread.

Application default credentials (https://cloud.google.com/docs/authentication/application-default-credentials): a file
with the key of a service account, workload identity federation, or the metadata server of the machine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from openhqm.errors import NotDurable
from openhqm.pubsub import transport
from openhqm.runtime.deferreds import deferred

SCOPE = "https://www.googleapis.com/auth/pubsub"
EARLY_SECONDS = 240.0
"""How long before its end a token is renewed, while the old one is still used."""
DEFAULT_SECONDS = 300.0
LONGEST_REASON = 300

RunInThread = Callable[[Callable[[], Any]], Deferred[Any]]


def find(path: str | None) -> Any:
    """The credentials in a file, or those that google-auth finds. It blocks, and raises what google-auth raises."""
    import google.auth

    request: Any = transport.request
    if path is None:
        return google.auth.default(scopes=[SCOPE], request=request)[0]
    return google.auth.load_credentials_from_file(path, scopes=[SCOPE], request=request)[0]


class GoogleCredentials:
    """A token for all calls: fetched when first needed, and again before it expires.

    ``load`` finds the credentials; ``run`` runs it, and what fetches a token, in a thread. What was found is found
    again after a failure: a file may have been replaced.
    """

    _log = Logger()

    def __init__(self, load: Callable[[], Any], run: RunInThread, clock: IReactorTime) -> None:
        self._load = load
        self._run = run
        self._clock = clock
        self._found: Any = None
        self._fields: Mapping[str, str] | None = None
        self._good_until = self._renewed_at = 0.0
        self._waiting: list[Deferred[None]] = []
        self._fetching = False
        self._failure = ""

    @deferred
    async def fields(self) -> Mapping[str, str]:
        """Fires with the ``Authorization`` field. `NotDurable` where there is no token now."""
        if self.at_hand() is None:
            waiter: Deferred[None] = Deferred(self._forget)
            self._waiting.append(waiter)
            self._fetch()
            await waiter
        elif self._clock.seconds() >= self._renewed_at:
            self._fetch()
        if self._fields is None:
            raise NotDurable(f"there is no access token for Pub/Sub: {self._failure}")
        return self._fields

    def at_hand(self) -> Mapping[str, str] | None:
        """The field, while its token is good."""
        return None if self._clock.seconds() >= self._good_until else self._fields

    def refused(self, fields: Mapping[str, str]) -> bool:
        """Pub/Sub answered 401 to ``fields``: they are dropped, and so are the credentials that they are from."""
        if self._fields == fields:
            self._fields = self._found = None
        return True

    def _forget(self, waiter: Deferred[None]) -> None:
        if waiter in self._waiting:
            self._waiting.remove(waiter)

    def _fetch(self) -> None:
        if not self._fetching:
            self._fetching = True
            self._run(self._renew).addCallbacks(self._fetched, self._failed).addBoth(self._tell)

    def _renew(self) -> tuple[str, float]:
        """In a thread: a token, and for how many seconds it is good."""
        found = self._found or self._load()
        found.refresh(transport.request)
        self._found = found
        expiry: datetime | None = found.expiry
        if expiry is None:
            return found.token, DEFAULT_SECONDS
        return found.token, (expiry.replace(tzinfo=UTC) - datetime.now(UTC)).total_seconds()

    def _fetched(self, got: tuple[str, float]) -> None:
        token, seconds = got
        now = self._clock.seconds()
        self._fields = {"Authorization": f"Bearer {token}"}
        self._good_until = now + seconds * 0.95
        self._renewed_at = now + max(seconds - EARLY_SECONDS, seconds / 2)

    def _failed(self, failure: Failure) -> None:
        """The token that there is stays, as long as it is good."""
        self._found = None
        self._failure = f"{type(failure.value).__name__}: {failure.getErrorMessage()}"[:LONGEST_REASON]
        self._renewed_at = self._clock.seconds() + DEFAULT_SECONDS / 10
        if self.at_hand() is None:
            self._fields = None
        self._log.warn("no access token for Pub/Sub: {reason}", reason=self._failure)

    def _tell(self, result: object) -> None:
        self._fetching = False
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            waiter.callback(None)

# -*- test-case-name: tests.workers.test_dispatch_gate -*-
"""The dispatch gate of an endpoint: a URL that says whether the target can take more, and holds its requests."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from openhqm.http1.calls import Fetched
from openhqm.http1.client import IFetch

ANSWER_SECONDS = 5.0
MOST_BODY = 64 * 1024
_FIELDS = ((b"Accept", b"*/*"), (b"User-Agent", b"OpenHQM"))


class DispatchGate:
    """Asks ``url`` with GET, at most once in about ``interval`` seconds, and only while requests want to go.

    A 2xx says yes. Any other status, and no answer within `ANSWER_SECONDS`, says no until the next one. A yes is good
    for two intervals. After that requests wait for the next answer. ``name`` is that of the endpoint.

    ``answered`` is called after each answer.
    """

    _log = Logger()

    def __init__(
        self,
        name: str,
        url: str,
        client: IFetch,
        clock: IReactorTime,
        interval: float,
        random: Callable[[], float],
    ) -> None:
        self.answered: Callable[[], None] = lambda: None
        self._name = name
        self._url = url.encode("ascii")
        self._client = client
        self._clock = clock
        self._interval = interval
        self._random = random
        self._refusal: str | None = None
        self._answered_at: float | None = None
        self._refused_since = self._due = float("-inf")
        self._asking = False

    @property
    def is_closed(self) -> bool:
        """Whether the last answer was no."""
        return self._refusal is not None

    @property
    def warning(self) -> str | None:
        """Why requests are held, or None."""
        if self._refusal is None:
            return None
        seconds = self._clock.seconds() - self._refused_since
        return f"endpoint {self._name}: its gate {self._refusal}, for {seconds:.0f} s now, and its requests are held"

    def wait(self, now: float) -> float | None:
        """Seconds until a call may begin, as far as that is known: 0 for now, None until the next answer."""
        if now >= self._due and not self._asking:
            self._ask(now)
        if self._refusal is not None:
            return None if self._asking else max(0.0, self._due - now)
        if self._answered_at is not None and now - self._answered_at <= 2 * self._interval:
            return 0.0
        return None

    def _ask(self, now: float) -> None:
        self._asking = True
        self._due = now + self._interval * (0.9 + 0.2 * self._random())
        asked: Deferred[Fetched] = maybeDeferred(
            self._client.fetch, b"GET", self._url, _FIELDS, None, MOST_BODY
        ).addTimeout(ANSWER_SECONDS, self._clock)
        asked.addCallbacks(_refusal_of, _no_answer).addCallback(self._told)

    def _told(self, refusal: str | None) -> None:
        now = self._clock.seconds()
        if refusal is not None and self._refusal is None:
            self._refused_since = now
            self._log.warn("the requests for endpoint {name} are held: its gate {why}", name=self._name, why=refusal)
        elif refusal is None and self._refusal is not None:
            self._log.info("the requests for endpoint {name} go on: its gate is open", name=self._name)
        self._refusal, self._answered_at, self._asking = refusal, now, False
        self._due = max(self._due, now + self._interval / 2)  # an answer that takes long is not asked for on its heels
        self.answered()


def _refusal_of(fetched: Fetched) -> str | None:
    return None if 200 <= fetched.status < 300 else f"answers {fetched.status}"


def _no_answer(failure: Failure) -> str:
    return f"does not answer ({type(failure.value).__name__})"

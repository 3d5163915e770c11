# -*- test-case-name: tests.ingress.test_key_sets -*-
"""The keys of an issuer, fetched from its JWK set (RFC 7517) and fetched again, at most once a minute."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from openhqm.errors import DestinationRefused
from openhqm.http1.client import IFetch
from openhqm.http1.failures import AnswerTooLong, CallFailed, NotConnected, describe_failure
from openhqm.policy.token_keys import TokenKey, read_key_set
from openhqm.runtime.deferreds import deferred

FETCH_SECONDS = 10.0
PAUSE_SECONDS = 60.0
"""The least time between two fetches, whatever tokens ask for and however a fetch ends."""
REFRESH_SECONDS = 300.0
"""How old a set may become: for so long, a key is good that its issuer has taken back."""
MOST_BYTES = 256 * 1024
FIELDS = ((b"Accept", b"application/jwk-set+json, application/json"),)


class FetchedKeys:
    """The JWK set at ``url``. It has no keys until the first fetch has succeeded.

    A fetch that fails leaves the keys as they are. ``client`` follows no redirects, and calls what the guard allows.
    """

    _log = Logger()

    def __init__(self, url: str, client: IFetch, clock: IReactorTime) -> None:
        self._url = url
        self._client = client
        self._clock = clock
        self._fetching: Deferred[None] | None = None
        self._next_at = float("-inf")
        self._refresh_at = float("-inf")
        self.keys: Sequence[TokenKey] = ()
        self.generation = 0
        """How often the keys have changed."""
        self.failure: str | None = None
        """Why the last fetch failed; None: it did not."""

    @property
    def fetching(self) -> bool:
        """Whether an answer is waited for."""
        return self._fetching is not None

    def look(self) -> None:
        """Fetch the set where it is old. To be called now and then."""
        if self._clock.seconds() >= self._refresh_at:
            self.refresh()

    def refresh(self) -> None:
        """Fetch the set, unless the last fetch is less than a minute ago or has not ended."""
        now = self._clock.seconds()
        if self._fetching is None and now >= self._next_at:
            self._next_at = now + PAUSE_SECONDS
            fetching = self._fetch()
            if not fetching.called:
                self._fetching = fetching

    def stop(self) -> None:
        """End a fetch that goes on."""
        fetching, self._fetching = self._fetching, None
        if fetching is not None:
            fetching.cancel()

    @deferred
    async def _fetch(self) -> None:
        try:
            answer = await self._client.fetch(b"GET", self._url.encode(), FIELDS, None, MOST_BYTES).addTimeout(
                FETCH_SECONDS, self._clock
            )
            if answer.status != 200:
                raise ValueError(f"the server answered {answer.status}, and 200 is needed (no redirect is followed)")
            keys = read_key_set(answer.body)
            if not keys:
                raise ValueError("the set has no key that verifies signatures")
        except CancelledError:
            return
        except DestinationRefused as refused:
            self._failed(f"{refused}: a private address has to be in auth.jwt.allow")
        except TimeoutError:
            self._failed(f"there was no answer within {FETCH_SECONDS:g} s")
        except AnswerTooLong:
            self._failed(f"the answer is longer than {MOST_BYTES} bytes")
        except (NotConnected, CallFailed) as error:
            self._failed(describe_failure(error))
        except ValueError as error:
            self._failed(str(error))
        except Exception:  # a bug of ours: tokens are checked by the last good keys
            self._log.failure("fetching {url} broke down", url=self._url)
            self._failed("an error of OpenHQM, which is in the log")
        else:
            self._fetched(keys)
        self._fetching = None

    def _fetched(self, keys: Sequence[TokenKey]) -> None:
        if self.failure is not None or not self.keys:
            self._log.info("{url} has {count} keys for tokens", url=self._url, count=len(keys))
        if {key.identity for key in keys} != {key.identity for key in self.keys}:
            self.generation += 1
        self.keys, self.failure = keys, None
        self._refresh_at = self._clock.seconds() + REFRESH_SECONDS

    def _failed(self, reason: str) -> None:
        if reason != self.failure:
            self._log.error(
                "auth.jwt: the keys of an issuer cannot be fetched from {url}: {reason}; {what}",
                url=self._url,
                reason=reason,
                what="the keys before stand" if self.keys else "its tokens are answered with 503 until they can be",
            )
        self.failure = reason


class FixedKeys:
    """Keys from files, which are read at the start."""

    generation = 0
    failure = None
    fetching = False

    def __init__(self, keys: Sequence[TokenKey]) -> None:
        self.keys = keys

    def look(self) -> None:
        """Nothing is fetched."""

    def refresh(self) -> None:
        """Nothing is fetched."""

    def stop(self) -> None:
        """Nothing is fetched."""

# -*- test-case-name: tests.http1.test_guarded -*-
"""The addresses of a host name, all of them, within a time."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import (
    IAddress,
    IHostnameResolver,
    IHostResolution,
    IReactorTime,
    IResolutionReceiver,
)
from zope.interface import implementer

from openhqm.errors import DestinationRefused
from openhqm.runtime.deferreds import deferred


@deferred
async def resolved(resolver: IHostnameResolver, clock: IReactorTime, host: str, seconds: float) -> list[str]:
    """Every address of ``host``, each once, in the resolver's order.

    `DestinationRefused` where there is none, or none in time. What comes after that is not listened to; the look-up
    itself goes on, for Twisted's cannot be cancelled.
    """
    answers = _Answers()
    try:
        resolver.resolveHostName(answers, host)
        found = await answers.done.addTimeout(seconds, clock)
    except CancelledError:
        raise
    except Exception as error:  # whatever a resolver may raise, the name has no address now
        raise DestinationRefused(f"the name was not resolved: {type(error).__name__}") from error
    if not found:
        raise DestinationRefused("the name has no address")
    return list(dict.fromkeys(found))


@implementer(IResolutionReceiver)
class _Answers:
    def __init__(self) -> None:
        self.done: Deferred[list[str]] = Deferred()
        self._found: list[str] = []

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
        """Nothing to keep of it."""

    def addressResolved(self, address: IAddress) -> None:
        """One more. An address of a kind that is unknown here must not be passed over: it passes no check."""
        self._found.append(getattr(address, "host", "unknown"))

    def resolutionComplete(self) -> None:
        """That is all of them."""
        self.done.callback(self._found)

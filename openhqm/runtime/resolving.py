# -*- test-case-name: tests.http1.test_guarded -*-
"""All addresses of a host name, within a time limit."""

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
async def resolve_host(resolver: IHostnameResolver, clock: IReactorTime, host: str, seconds: float) -> list[str]:
    """Fires with every address of ``host``, each once, in the resolver's order.

    Fails with `DestinationRefused` where there is none, or none within ``seconds``. A later answer is ignored:
    Twisted's look-up cannot be cancelled, and goes on.
    """
    answers = _Answers()
    try:
        resolver.resolveHostName(answers, host)
        found = await answers.done.addTimeout(seconds, clock)
    except CancelledError:
        raise
    except Exception as error:  # a resolver may raise anything, and each means that the name has no address now
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
        """Nothing to do: the resolution cannot be cancelled."""

    def addressResolved(self, address: IAddress) -> None:
        """Note one address. An address of an unknown kind is noted as text that no check permits."""
        self._found.append(getattr(address, "host", "unknown"))

    def resolutionComplete(self) -> None:
        """The resolver has reported all addresses."""
        self.done.callback(self._found)

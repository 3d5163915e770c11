# -*- test-case-name: tests.http1.test_client -*-
"""Bodies of requests and responses in memory, as `IAgent` wants and gives them."""

from __future__ import annotations

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IConsumer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.iweb import IBodyProducer, IResponse
from zope.interface import implementer

from openhqm.http1.failures import AnswerTooLong


def content_producer(content: bytes) -> IBodyProducer:
    """A body producer for `IAgent.request` that sends ``content``."""
    return Content(content)


@implementer(IBodyProducer)
class Content:
    """Writes the whole content at once, because it is in memory anyway."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.length = len(content)

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        consumer.write(self.content)
        return succeed(None)

    def pauseProducing(self) -> None:
        """The content was written already."""

    def resumeProducing(self) -> None:
        """The content was written already."""

    def stopProducing(self) -> None:
        """The content was written already."""


def read_body(response: IResponse, most: int) -> Deferred[bytes]:
    """Fires with the whole body of ``response``, of at most ``most`` bytes.

    Fails with `AnswerTooLong`, or as the connection fails. Cancelling closes the connection.
    """
    collector = _Collector(most)
    response.deliverBody(collector)
    return collector.done


class _Collector(Protocol):
    def __init__(self, most: int) -> None:
        self.done: Deferred[bytes] = Deferred(lambda done: self._stop())
        self._most = most
        self._body = bytearray()

    def dataReceived(self, data: bytes) -> None:
        if len(self._body) + len(data) <= self._most:
            self._body += data
        elif not self.done.called:
            self._body.clear()
            self.done.errback(AnswerTooLong(f"the response is longer than {self._most} bytes"))
            self._stop()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.done.called:
            return
        # Without a length, the end of the connection ends the body (RFC 9112, section 6.3).
        if reason.check(ResponseDone, PotentialDataLoss):
            self.done.callback(bytes(self._body))
        else:
            self.done.errback(reason)

    def _stop(self) -> None:
        if self.transport is not None:
            self.transport.stopProducing()  # type: ignore[attr-defined]

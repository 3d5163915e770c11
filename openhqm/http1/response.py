# -*- test-case-name: tests.http1.test_agent -*-
"""A response as Twisted's `IResponse`: its head, and its body in pieces that wait until they are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import attrs
from twisted.internet.interfaces import IProtocol, IPushProducer
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone, ResponseFailed
from twisted.web.http_headers import Headers
from twisted.web.iweb import UNKNOWN_LENGTH, IClientRequest, IResponse
from zope.interface import implementer


@implementer(IClientRequest)
@attrs.frozen
class ClientRequest:
    """The request of a response, as `IClientRequest` has it."""

    method: bytes
    absoluteURI: bytes
    headers: Headers


class BodySource(Protocol):
    """What the body of a response comes from."""

    def pause(self) -> None:
        """Do not read more of the body."""

    def resume(self) -> None:
        """Read on."""

    def give_up(self) -> None:
        """The rest of the body is not wanted."""


@implementer(IResponse)
class Response:
    """One response. Until `deliverBody` is called, at most the pieces of one read are held."""

    version = (b"HTTP", 1, 1)

    def __init__(
        self,
        request: ClientRequest,
        code: int,
        phrase: bytes,
        fields: Sequence[tuple[bytes, bytes]],
        length: int | None,
        source: BodySource,
    ) -> None:
        self.request = request
        self.code = code
        self.phrase = phrase
        self.headers = Headers()
        for name, value in fields:
            self.headers.addRawHeader(name, value)
        self.length: Any = UNKNOWN_LENGTH if length is None else length
        self.previousResponse: IResponse | None = None
        self._source = source
        self._protocol: IProtocol | None = None
        self._pieces: list[bytes] = []
        self._outcome: Failure | None = None

    def setPreviousResponse(self, response: IResponse) -> None:
        """Note the response that led to this one."""
        self.previousResponse = response

    def deliverBody(self, protocol: IProtocol) -> None:
        """Give the body to ``protocol``. Its connection is lost with `ResponseDone`, or with `ResponseFailed`."""
        if self._protocol is not None:
            raise RuntimeError("the body of a response is delivered once")
        self._protocol = protocol
        transport: Any = _BodyTransport(self._source)
        protocol.makeConnection(transport)
        pieces, self._pieces = self._pieces, []
        for piece in pieces:
            protocol.dataReceived(piece)
        if self._outcome is not None:
            protocol.connectionLost(self._outcome)
        else:
            self._source.resume()

    def received(self, piece: bytes) -> None:
        """A piece of the body was read."""
        if self._protocol is None:
            self._pieces.append(piece)
        else:
            self._protocol.dataReceived(piece)

    def ended(self, failure: Failure | None) -> None:
        """The body is complete, or will not be because of ``failure``."""
        if self._outcome is not None:
            return
        self._outcome = Failure(ResponseDone() if failure is None else ResponseFailed([failure], self))
        if self._protocol is not None:
            self._protocol.connectionLost(self._outcome)


@implementer(IPushProducer)
class _BodyTransport:
    """The transport of the protocol that a body is delivered to."""

    disconnecting = False

    def __init__(self, source: BodySource) -> None:
        self._source = source

    def pauseProducing(self) -> None:
        self._source.pause()

    def resumeProducing(self) -> None:
        self._source.resume()

    def stopProducing(self) -> None:
        self._source.give_up()

    loseConnection = abortConnection = stopProducing

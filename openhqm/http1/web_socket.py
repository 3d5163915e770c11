# -*- test-case-name: tests.ingress.test_web_sockets -*-
"""WebSocket over one connection (RFC 6455), by wsproto: messages of text in both directions, of bounded size."""

from __future__ import annotations

from base64 import b64decode
from binascii import Error as NotBase64
from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.interfaces import IPushProducer, IReactorTime
from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong, TextMessage
from wsproto.frame_protocol import CloseReason
from wsproto.utilities import LocalProtocolError, generate_accept_token
from zope.interface import implementer

from openhqm.http1.messages import Fields, FullRequest, ResponseWriter

CLOSE_SECONDS = 5.0
"""How long the client may take to answer that it closes, too."""
VERSION = b"13"
UPGRADE: Fields = ((b"Upgrade", b"websocket"), (b"Connection", b"Upgrade"))
PROTOCOL = b"openhqm"
"""What is spoken here. A client may offer it, and need not."""


class NotAWebSocket(ValueError):
    """The request asks for no WebSocket that can be had. ``fields``: those of the answer."""

    def __init__(self, status: int, reason: str, fields: Fields = ()) -> None:
        super().__init__(reason)
        self.status = status
        self.fields = fields


def handshake(request: FullRequest) -> Fields:
    """The fields of the answer that begins a WebSocket (RFC 6455, section 4.2). `NotAWebSocket`."""
    head = request.head
    tokens = {
        name: [token.strip().lower() for value in _values(request, name) for token in value.split(b",")]
        for name in (b"upgrade", b"connection")
    }
    if head.version != b"HTTP/1.1" or b"websocket" not in tokens[b"upgrade"] or b"upgrade" not in tokens[b"connection"]:
        raise NotAWebSocket(426, "this path speaks WebSocket alone", UPGRADE)
    if head.method != b"GET" or request.body:
        raise NotAWebSocket(400, "a WebSocket begins with a GET without a body")
    if _values(request, b"sec-websocket-version") != [VERSION]:
        version = (b"Sec-WebSocket-Version", VERSION)
        raise NotAWebSocket(426, "the version of WebSocket here is 13", (*UPGRADE, version))
    keys = _values(request, b"sec-websocket-key")
    try:
        if len(keys) != 1 or len(b64decode(keys[0], validate=True)) != 16:
            raise ValueError
    except (NotBase64, ValueError):
        raise NotAWebSocket(400, "Sec-WebSocket-Key must be 16 bytes in base64") from None
    fields = (*UPGRADE, (b"Sec-WebSocket-Accept", generate_accept_token(keys[0])))
    return (*fields, (b"Sec-WebSocket-Protocol", PROTOCOL)) if PROTOCOL in offered(request) else fields


def offered(request: FullRequest) -> list[bytes]:
    """The protocols that the client offers."""
    return [each.strip() for value in _values(request, b"sec-websocket-protocol") for each in value.split(b",")]


def _values(request: FullRequest, name: bytes) -> list[bytes]:
    return [value.strip() for each, value in request.head.headers if each == name]


class Session(Protocol):
    """What is said over a WebSocket."""

    def message(self, text: str) -> object:
        """The client has sent a message."""

    def paused(self) -> object:
        """The client does not keep up: send nothing, as far as that can be helped."""

    def resumed(self) -> object:
        """It does again."""

    def ended(self) -> object:
        """Nothing more can be sent, and nothing comes."""


@implementer(IPushProducer)
class WebSocket:
    """One WebSocket, behind its handshake. A message is of at most ``most`` bytes.

    ``begin`` makes the session; it may send at once. Everything that is sent after the end is dropped.
    """

    def __init__(
        self, writer: ResponseWriter, clock: IReactorTime, most: int, begin: Callable[[WebSocket], Session]
    ) -> None:
        self._connection = Connection(ConnectionType.SERVER)
        self._writer = writer
        self._clock = clock
        self._most = most
        self._pieces: list[str] = []
        self._late: Any = None
        self._open = True
        self._ended = False
        self._unanswered = 0
        self.held = 0
        self.takes_more = True
        self._session = begin(self)
        writer.registerProducer(self, True)

    # From the connection

    def received(self, data: bytes) -> None:
        """See `openhqm.http1.upgrading.Receiver`."""
        self._unanswered = 0
        if self._connection.state is ConnectionState.CLOSED:
            return  # bytes behind the end
        self._connection.receive_data(data)
        for event in self._connection.events():
            self._happened(event)

    def _happened(self, event: Any) -> None:
        if isinstance(event, TextMessage):
            if self._open:
                self._collect(event)
        elif isinstance(event, BytesMessage):
            self.close(CloseReason.UNSUPPORTED_DATA, "messages here are text")
        elif isinstance(event, Ping):
            self._send(Pong(event.payload))
        elif isinstance(event, CloseConnection):  # the client closes, or what it sent cannot be read
            self._send(event.response())
            self._finish()

    def _collect(self, event: TextMessage) -> None:
        self.held += len(event.data.encode())
        if self.held > self._most:
            self.close(CloseReason.MESSAGE_TOO_BIG, f"a message is of at most {self._most} bytes")
            self._forget()
            return
        if event.data:  # a message may come in any number of empty fragments
            self._pieces.append(event.data)
        if event.message_finished:
            text = "".join(self._pieces)
            self._forget()
            self._session.message(text)

    def _forget(self) -> None:
        self._pieces, self.held = [], 0

    def overloaded(self) -> None:
        """See `openhqm.http1.upgrading.Receiver`."""
        self._forget()
        self.close(CloseReason.TRY_AGAIN_LATER, "there is no memory for this message now")

    def half_closed(self) -> None:
        """See `openhqm.http1.upgrading.Receiver`."""
        self._finish()

    # To the client

    def send(self, text: str) -> None:
        """Send a message."""
        if self._open:
            self._send(TextMessage(text))

    def ping(self) -> int:
        """Ask whether the client is there; how often it was asked since it last sent something."""
        self._unanswered += 1
        if self._open:
            self._send(Ping())
        return self._unanswered

    def close(self, code: int, reason: str = "") -> None:
        """End it: the client has `CLOSE_SECONDS` to say that it does, too."""
        if not self._open:
            return
        self._open = False
        self._send(CloseConnection(code, reason.encode()[:120].decode("utf-8", "ignore")))
        self._late = self._clock.callLater(CLOSE_SECONDS, self._finish)

    def _send(self, event: Any) -> None:
        if not self._ended and self._connection.state is not ConnectionState.CLOSED:
            try:
                self._writer.write(self._connection.send(event))
            except LocalProtocolError:  # it has said that it closes
                return

    def _finish(self) -> None:
        if self._end():
            self._writer.unregisterProducer()
            self._writer.finish()

    def _end(self) -> bool:
        if self._ended:
            return False
        self._ended, self._open = True, False
        self._forget()
        if self._late is not None and self._late.active():
            self._late.cancel()
        self._session.ended()
        return True

    # IPushProducer: the connection says whether the client reads

    def pauseProducing(self) -> None:
        self._session.paused()

    def resumeProducing(self) -> None:
        self._session.resumed()

    def stopProducing(self) -> None:
        self._end()

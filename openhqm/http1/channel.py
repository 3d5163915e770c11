# -*- test-case-name: tests.http1.test_channel -*-
"""HTTP/1.1 over llhttp: a Twisted protocol that bounds everything a stranger can make it hold or wait for.

It serves the short lane (a function for hot paths) itself, and for everything else makes ``twisted.web`` requests,
so that any resource can stand behind it; what a passage takes is let through as it comes. One request is served at a
time; what is pipelined behind it waits, within bounds, and is answered in order.

Deadlines are absolute, kept by one ticker for all connections: a byte now and then buys nothing.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import Any

from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from openhqm.http1.access import Accesses
from openhqm.http1.messages import Answer, Message, Streaming, render, render_head
from openhqm.http1.outlet import ChannelOutlet
from openhqm.http1.pass_through import Relay
from openhqm.http1.reading import BUSY, HEAD_SECONDS, Reader
from openhqm.http1.rules import Refusal
from openhqm.http1.send_backlog import unsent
from openhqm.http1.web import WebChannel, WebRequest
from openhqm.runtime.deferreds import Running
from openhqm.runtime.pull_to_push import Puller

IDLE_SECONDS = 75.0
STALL_SECONDS = 30.0
LINGER_SECONDS = 2.0
MOST_PIPELINED = 32
MOST_PIPELINED_BYTES = 1024 * 1024


@implementer(IPushProducer, IHalfCloseableProtocol)
class HTTP1(WebChannel, Protocol):
    """One connection."""

    transport: Any
    _log = Logger()

    def __init__(self, site: Any) -> None:
        self.factory = self.site = site  # as Twisted and as twisted.web call it
        self._queue: deque[Message | Relay | Refusal] = deque()
        self._queued_bytes = 0  # of bodies
        self._buffered = 0  # as the site knows it: those, and what is being collected
        self._accesses = None if site.access is None else Accesses(site.access, site.clock)
        self._reader = Reader(self, self._took, self._go_ahead)
        self._serving: Any = None  # a WebRequest, a Relay, or what the short lane is about
        self._persistent = True
        self._producer: Any = None
        self._stalled_at: float | None = None  # since when the peer has taken nothing, while there is something to take
        self._unsent: float = 0
        self._ended = False  # the peer sends no more, and may still read
        self._broken = False  # nothing that follows can be understood, or will be answered
        self._reading = True
        self._send_some: Any = None  # of the transport; None: what is sent may have to wait behind other data

    # The transport

    def connectionMade(self) -> None:
        if hasattr(self.transport, "setTcpNoDelay"):
            self.transport.setTcpNoDelay(True)
        if not self.isSecure():  # what is not yet encrypted must not get past the encryption
            self._send_some = getattr(self.transport, "writeSomeData", None)
        self.transport.registerProducer(self, True)
        self._reader.due = self.factory.clock.seconds() + HEAD_SECONDS
        self.factory.connections.add(self)

    def dataReceived(self, data: bytes) -> None:
        if self._broken:
            return
        try:
            self._reader.feed(data)
        except Refusal as refusal:
            self._refuse(refusal)
        if self._queue:
            self._go_on()
        else:
            if self._reader.began_at is None and self._serving is None:
                self._begin_waiting()  # that was an empty line
            self.flow()
        if self.site.buffered > self.site.most_buffered and self._reader.collected:
            self._refuse(Refusal(503, BUSY))
            self._go_on()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.factory.connections.discard(self)
        self.site.buffered -= self._buffered
        self._queue.clear()
        serving, self._serving = self._serving, None
        self._broken = True
        if self._accesses is not None:
            self._accesses.lost()
        if isinstance(serving, Running):
            serving.cancel()
        elif isinstance(serving, WebRequest):
            serving.connectionLost(reason)
        elif isinstance(serving, Relay):
            serving.lose()
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.stopProducing()

    def tick(self, now: float) -> None:
        """Called about every second: is it still worth keeping?"""
        if self._has_stalled(now):
            self.transport.abortConnection()
        elif now > self._reader.due:
            if self._broken:
                if not self._unsent:  # a slow reader has as long as it reads
                    self.transport.abortConnection()
            elif self._reader.began_at is None:
                self.transport.loseConnection()
            else:
                self._refuse(Refusal(408, "the request did not come in time"))
                self._go_on()

    def _has_stalled(self, now: float) -> bool:
        if self._stalled_at is None:
            return False
        before, self._unsent = self._unsent, unsent(self.transport)
        if self._unsent < before:  # slow, and steady
            self._stalled_at = now
        return now - self._stalled_at > STALL_SECONDS

    def readConnectionLost(self) -> None:
        """The peer sends no more, and what it has asked is answered.

        It may as well be gone, which only writing to it tells: nobody behind is kept busy with what is let through.
        """
        if self._ended:
            return
        self._ended = True
        self._reader.due = float("inf")
        if isinstance(self._serving, Relay):
            self.transport.abortConnection()
        elif self._broken:
            self.transport.loseConnection()
        elif self._reader.began_at is not None:
            self._refuse(Refusal(400, "the connection ended within the request"))
            self._go_on()
        elif self._serving is None and not self._queue:
            self.transport.loseConnection()
        elif not self._queue:
            self._persistent = False

    def writeConnectionLost(self) -> None:
        """All that there was to say has gone out: see `_linger`."""

    @property
    def idle(self) -> bool:
        """Whether nothing is being served on it, and no request has begun to come."""
        return self._serving is None and not self._queue and self._reader.began_at is None

    def leave(self) -> None:
        """What is being served is the last, and its answer says so; where that has begun, one more may follow."""
        if isinstance(self._serving, WebRequest | Relay):
            self._serving.say_close()
        elif not isinstance(self._serving, ChannelOutlet):
            self._persistent = False

    # One request after the other

    def _took(self, message: Message | Relay) -> None:
        self._queue.append(message)
        if type(message) is Message:
            self._queued_bytes += len(message.body)

    def _go_ahead(self) -> None:
        """A sender asks before it sends a body; with others before it, its turn has not come."""
        if self._serving is None and not self._queue:
            self._send(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _go_on(self) -> None:
        while self._queue and self._serving is None and self._stalled_at is None:
            message = self._queue.popleft()
            if type(message) is Message:
                self._queued_bytes -= len(message.body)
                self._serve(message)
            elif isinstance(message, Relay):
                self._send_some = None
                self._serving = message
                if self._accesses is not None:
                    self._accesses.begin(message.head)
                message.persistent = message.persistent and not self.site.leaving
                message.begin()
            else:
                assert isinstance(message, Refusal)
                self._say(message)
                return
        self.flow()

    def flow(self) -> None:
        """Read on, unless there is nobody to take what would come."""
        self._count()
        inflow = self._reader.inflow
        if inflow is None:
            # One body may be as long as bodies may be. Those sent ahead of an answer may not all be.
            full = len(self._queue) >= MOST_PIPELINED or self._queued_bytes >= MOST_PIPELINED_BYTES
            self._read_on(not full and self._stalled_at is None)
            return
        # How fast the response is read has no say in how fast the body is: they go to different places.
        self._read_on(inflow.wants_more)
        self._reader.go_on() if self._reading else self._reader.hold()

    def _count(self) -> None:
        buffered = self._queued_bytes + self._reader.collected
        if buffered != self._buffered:
            self.site.buffered += buffered - self._buffered
            self._buffered = buffered

    def _read_on(self, reading: bool) -> None:
        if reading != self._reading and not self._broken and not self._ended:
            self._reading = reading
            self.transport.resumeProducing() if reading else self.transport.pauseProducing()

    def _serve(self, message: Message) -> None:
        self._persistent = message.keep_alive and not self.site.leaving and not (self._ended and not self._queue)
        if self._accesses is not None:
            self._accesses.begin(message.head)
        coroutine = self.site.fast_path(message)
        if coroutine is None:
            self._send_some = None
            request = self._serving = WebRequest(self, message, self._persistent)
            request.requestReceived(message.head.method, message.head.target, message.head.version)
            return
        self._serving = message
        serving = Running(coroutine, partial(self._answered, message), self._unanswered)
        if self._serving is message:  # it waits for something
            self._serving = serving

    def _answered(self, message: Message, answer: Answer | Streaming) -> None:
        if self._serving is None:
            return  # the connection was lost meanwhile
        if isinstance(answer, Streaming):
            self._send_some = None
            outlet = self._serving = ChannelOutlet(self, message.head.version == b"HTTP/1.1")
            self.transport.write(render_head(answer, message.head.version, self._persistent))
            answer.begin(outlet)
            return
        head_only = message.head.method == b"HEAD"
        if self._accesses is not None:
            size = 0 if head_only else len(answer.body)
            self._accesses.end(answer.status, size, dict(answer.fields).get(b"Location"))
        self._send(render(answer, message.head.version, self._persistent, head_only))
        self._done()

    def _send(self, data: bytes) -> None:
        """Into the socket at once, while nothing can be waiting there before it: that spares a turn of the reactor."""
        if self._send_some is not None:
            sent = self._send_some(data)
            if sent == len(data):
                return
            self._send_some = None
            if isinstance(sent, int) and sent > 0:
                data = data[sent:]
        self.transport.write(data)

    def _unanswered(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            self._log.failure("a request broke down", failure)
            self.transport.abortConnection()

    def _done(self) -> None:
        self._serving = None
        if not self._persistent or self.factory.draining or (self._ended and not self._queue):
            self._broken = True
            self._queue.clear()
            self._queued_bytes = 0
            self._count()
            self.transport.unregisterProducer()
            self._begin_stalling()  # nobody will say any more whether the peer takes what is left
            self.transport.loseConnection()
        elif self._queue:
            self.factory.clock.callLater(0, self._go_on)
        else:
            if self._reader.began_at is None:
                self._begin_waiting()
            if not self._reading:
                self.flow()

    def _begin_waiting(self) -> None:
        self._reader.due = self.factory.clock.seconds() + IDLE_SECONDS

    def _refuse(self, refusal: Refusal) -> None:
        """Nothing more can be read on this connection; what came before is still answered, and then this."""
        inflow, self._reader.inflow = self._reader.inflow, None
        if inflow is not None:
            self._cut(inflow)
        self._broken = True
        self._reader.drop()
        self._count()
        self._queue.append(refusal)

    def _cut(self, passing: Relay) -> None:
        """The rest of its body will not come: the refusal takes its place, unless it is being answered already."""
        passing.lose()
        if passing is not self._serving:
            self._queue.remove(passing)
        elif passing.responding:
            self.unregisterProducer()
            self.transport.abortConnection()
        else:
            self.unregisterProducer()
            self._serving = None

    def _say(self, refusal: Refusal) -> None:
        """Answer with what is wrong, and close so that the answer arrives: whoever still sends is not cut off."""
        if self._accesses is not None:
            self._accesses.refused(refusal.status)
        self._send(render(self.factory.problem(refusal), b"HTTP/1.1", False))
        self._linger()

    def _linger(self) -> None:
        self._broken = True
        if not self._reading and not self._ended:
            # What still comes is read past: a peer that cannot send on may not look for an answer.
            self._reading = True
            self.transport.resumeProducing()
        self.transport.unregisterProducer()
        self._reader.due = self.factory.clock.seconds() + LINGER_SECONDS
        self._begin_stalling()
        if self.isSecure() or self._ended:
            self.transport.loseConnection()  # TLS says goodbye by itself, and waits for the peer's
        else:
            self.transport.loseWriteConnection()

    # Back-pressure: the transport tells the channel, the channel tells whoever produces

    def pauseProducing(self) -> None:
        self._begin_stalling()
        if self._producer is not None:
            self._producer.pauseProducing()
        self.flow()

    def resumeProducing(self) -> None:
        self._stalled_at = None
        if self._producer is not None:
            self._producer.resumeProducing()
        self._go_on()

    def _begin_stalling(self) -> None:
        if self._stalled_at is None:
            self._stalled_at = self.factory.clock.seconds()
            self._unsent = float("inf")

    def stopProducing(self) -> None:
        """The connection is lost; `connectionLost` says so."""

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        if self._producer is not None:
            raise RuntimeError("there is a producer already")
        self._producer = producer if streaming else Puller(producer, self.factory.clock)
        if self._stalled_at is not None:
            self._producer.pauseProducing()

    def unregisterProducer(self) -> None:
        producer, self._producer = self._producer, None
        if isinstance(producer, Puller):
            producer.stop()

    # What twisted.web's requests want of a channel

    def streamed(self, outlet: ChannelOutlet) -> None:
        """A response of unknown length is complete."""
        if outlet is self._serving:
            if self._accesses is not None:
                self._accesses.end(200, outlet.sent)
            self._done()

    def passed(self, passing: Relay) -> None:
        """A response that came through is complete; the rest of the request's body, where there is one, is not."""
        if passing is not self._serving:
            return
        self._persistent = passing.persistent
        if self._accesses is not None:
            self._accesses.end(passing.status, passing.sent)
        if passing is self._reader.inflow:
            self._reader.inflow = self._serving = None
            self._linger()
        else:
            self._done()

    def requestDone(self, request: Any) -> None:
        if request is self._serving:
            self._persistent = self._persistent and not request.says_close
            if self._accesses is not None:
                location = request.responseHeaders.getRawHeaders(b"location", [None])[0]
                self._accesses.end(request.code, request.sentLength, location)
            self._done()

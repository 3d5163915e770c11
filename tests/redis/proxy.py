"""A TCP proxy that cuts the next answer, so that a command is done and its caller is not told; or acts as if frozen."""

from __future__ import annotations

from typing import Any

from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure


class _Side(Protocol):
    def __init__(self, proxy: CuttingProxy, peer: _Side | None) -> None:
        self.proxy = proxy
        self.peer = peer
        self.waiting: list[bytes] = []

    def connectionMade(self) -> None:
        self.proxy.sides.add(self)
        if self.peer is None:
            made = Factory.forProtocol(lambda: _Side(self.proxy, self))  # type: ignore[arg-type]
            TCP4ClientEndpoint(self.proxy.reactor, "127.0.0.1", self.proxy.port).connect(made).addCallbacks(
                self.joined, lambda failure: self.transport.abortConnection()
            )

    def joined(self, other: Any) -> None:
        self.peer = other
        waiting, self.waiting = self.waiting, []
        for data in waiting:
            other.transport.write(data)

    def dataReceived(self, data: bytes) -> None:
        self.proxy.hold(self, data)
        if self.peer is None or self is self.proxy.held:
            self.waiting.append(data)
        elif self in self.proxy.answering and self.proxy.cut:
            self.proxy.cut = False
            self.transport.abortConnection()
            self.peer.transport.abortConnection()
        else:
            if self.proxy.watch_for and self.proxy.watch_for in data:
                self.proxy.watch_for = b""
                self.proxy.cut = True
                self.proxy.answering = {self.peer}
            self.peer.transport.write(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.proxy.sides.discard(self)
        if self.peer is not None and self.peer.transport is not None:
            self.peer.transport.loseConnection()


class CuttingProxy(Factory):
    """In front of ``port`` of this machine."""

    noisy = False

    def __init__(self, reactor: Any, port: int) -> None:
        self.reactor = reactor
        self.port = port
        self.sides: set[_Side] = set()
        self.answering: set[Any] = set()
        self.cut = False
        self.watch_for = b""
        self.hold_from = b""
        self.held: _Side | None = None
        self._listening = reactor.listenTCP(0, self, interface="127.0.0.1")
        self.own_port: int = self._listening.getHost().port

    def buildProtocol(self, address: Any) -> _Side:
        return _Side(self, None)

    def cut_answer_to(self, text: bytes) -> None:
        """Let the next command with ``text`` in it through, and cut its answer."""
        self.watch_for = text

    def hold(self, side: _Side, data: bytes) -> None:
        """From ``hold_from`` on, hold back what this side says."""
        if self.hold_from and self.hold_from in data:
            self.hold_from = b""
            self.held = side

    def let_go(self) -> None:
        """Let through what was kept, and all that follows."""
        held, self.held = self.held, None
        assert held is not None and held.peer is not None
        waiting, held.waiting = held.waiting, []
        held.peer.transport.write(b"".join(waiting))  # type: ignore[union-attr]

    def stop(self) -> Any:
        for side in list(self.sides):
            assert side.transport is not None
            side.transport.abortConnection()  # type: ignore[attr-defined]
        return self._listening.stopListening()

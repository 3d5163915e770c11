"""A client of beanstalkd: commands over one TCP connection, and their answers in the same order (its protocol.txt)."""

from __future__ import annotations

from collections import deque
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol
from twisted.protocols.basic import LineReceiver

from openhqm.errors import NotDurable
from openhqm.pulled.product import Unreachable

Answer = tuple[list[str], bytes]
"""The words of the line, and the data after it."""


class Connection(LineReceiver):
    """``watching`` is the tube that jobs are reserved from."""

    watching = "default"

    def __init__(self, client: Client) -> None:
        self.client = client
        self.waiting: deque[Deferred[Answer]] = deque()

    def ask(self, command: str, body: bytes | None) -> Deferred[Answer]:
        answer: Deferred[Answer] = Deferred()
        self.waiting.append(answer)
        self.transport.write(command.encode() + b"\r\n" + (b"" if body is None else body + b"\r\n"))
        return answer

    def lineReceived(self, line: bytes) -> None:
        self.words, self.data = line.decode().split(), b""
        if self.words[0] in ("RESERVED", "OK"):
            self.setRawMode()
        else:
            self.waiting.popleft().callback((self.words, b""))

    def rawDataReceived(self, data: bytes) -> None:
        self.data += data
        size = int(self.words[-1])
        if len(self.data) >= size + 2:
            self.waiting.popleft().callback((self.words, self.data[:size]))
            self.setLineMode(self.data[size + 2 :])

    def connectionLost(self, reason: Any) -> None:
        self.client.lost()
        while self.waiting:
            self.waiting.popleft().errback(Unreachable("the connection to beanstalkd was lost", maybe_done=True))


class Client:
    """``on_lost`` is called with a reason when a connection ends: beanstalkd takes back what that had reserved."""

    on_lost: Any
    connection: Connection | None = None

    def __init__(self, clock: Any, host: str, port: int) -> None:
        self.endpoint = HostnameEndpoint(clock, host, port)

    async def probe(self) -> None:
        """Connect where there is no connection, and ask for a sign of life."""
        if self.connection is None:
            self.connection = await connectProtocol(self.endpoint, Connection(self))
        try:
            await self.ask("list-tube-used", "USING")
        except CancelledError:  # it did not answer in time: connect again
            self.disconnect()
            raise

    def lost(self) -> None:
        self.connection = None
        self.on_lost("the connection to beanstalkd was lost")

    def disconnect(self) -> None:
        if self.connection is not None:
            self.connection.transport.abortConnection()

    async def ask(self, command: str, expected: str, body: bytes | None = None) -> Answer:
        """The answer, which begins with one of the words that are expected. `NotDurable` for any other."""
        if self.connection is None:
            raise Unreachable("there is no connection to beanstalkd")
        words, data = await self.connection.ask(command, body)
        if words[0] not in expected.split():
            raise NotDurable(f"beanstalkd answered {words[0]} to {command.split()[0]}")
        return words, data

    def ask_all(self, *commands: tuple[Any, ...]) -> Deferred[list[Answer]]:
        """All at once: no other command comes between them."""
        return gatherResults([run(self.ask, *each) for each in commands], consumeErrors=True)


def run(function: Any, *arguments: Any) -> Deferred[Any]:
    """Run a coroutine function."""
    return Deferred.fromCoroutine(function(*arguments))

# -*- test-case-name: tests.fleet.test_parts -*-
"""The messages between a parent and its processes, and how they are framed in a pipe."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from twisted.internet.interfaces import ITransport
from twisted.protocols.basic import Int32StringReceiver

MOST_BYTES = 8 * 1024 * 1024


class MetricFamily(msgspec.Struct, frozen=True):
    """A Prometheus metric with its samples: each has a name, labels and a value."""

    name: str
    kind: str
    help: str
    samples: list[tuple[str, dict[str, str], float]]


class ProcessHealth(msgspec.Struct, frozen=True):
    """The health of a process, as it reports itself.

    ``unavailable_reason``: why it cannot accept requests now. ``stuck``: why only a restart of the process would help.
    ``warnings``: what an operator should know although the process works.
    """

    unavailable_reason: str | None = None
    stuck: str | None = None
    warnings: list[str] = []


class ProcessStatus(msgspec.Struct, frozen=True):
    """A process as its parent sees it. ``state`` is one of `STATES`."""

    pid: int
    state: str
    health: ProcessHealth


STATES = ("starting", "ready", "leaving", "silent")


class Report(msgspec.Struct, frozen=True, tag="report"):
    """Sent every second by a process: its health, its metrics, and whether it takes connections and requests."""

    health: ProcessHealth
    metrics: list[MetricFamily]
    serving: bool


class StatusRequest(msgspec.Struct, frozen=True, tag="status_request"):
    """Sent by a process: asks for the status of all processes, and with ``with_metrics`` for the sum of all metrics."""

    number: int
    with_metrics: bool


class FleetStatus(msgspec.Struct, frozen=True, tag="fleet_status"):
    """The parent's answer to the `StatusRequest` with the same number.

    ``missing``: how many processes there are fewer than ``server.workers``.
    """

    number: int
    processes: list[ProcessStatus]
    missing: int
    metrics: list[MetricFamily] | None


class Serve(msgspec.Struct, frozen=True, tag="serve"):
    """Sent by the parent: take connections, and receive requests."""


class Leave(msgspec.Struct, frozen=True, tag="leave"):
    """Sent by the parent: another process replaces you. Serve the connections that are open, and end."""


class Stop(msgspec.Struct, frozen=True, tag="stop"):
    """Sent by the parent: the whole fleet stops."""


PipeMessage = Report | StatusRequest | FleetStatus | Serve | Leave | Stop

_encoder = msgspec.msgpack.Encoder()  # not JSON, which has no infinity
_decoder: msgspec.msgpack.Decoder[PipeMessage] = msgspec.msgpack.Decoder(PipeMessage)


class Pipe(Int32StringReceiver):
    """Messages through a pipe, each with its length in front.

    ``on_message`` is called with each message that arrives, and ``on_lost`` when the pipe is closed.
    """

    MAX_LENGTH = MOST_BYTES

    def __init__(self, on_message: Callable[[Any], object], on_lost: Callable[[], object] = lambda: None) -> None:
        self._on_message = on_message
        self._on_lost = on_lost

    def send(self, message: PipeMessage) -> None:
        """Send ``message``."""
        self.sendString(_encoder.encode(message))

    def stringReceived(self, string: bytes) -> None:
        self._on_message(_decoder.decode(string))

    def connectionLost(self, reason: object = None) -> None:
        self._on_lost()


class PipeTransport:
    """The part of a transport that `Pipe` needs to send to a child process."""

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self.write = write

    def writeSequence(self, pieces: list[bytes]) -> None:
        self.write(b"".join(pieces))

    def loseConnection(self) -> None:
        """Called for a message that is too long. The process counts as silent when no report follows."""


def connect_pipe(pipe: Pipe, write: Callable[[bytes], object]) -> Pipe:
    """Connect ``pipe``, so that it sends by ``write``, and return it."""
    transport: ITransport | Any = PipeTransport(write)
    pipe.makeConnection(transport)
    return pipe

"""Load at a fixed rate: each latency is measured from the time at which its request was due.

Requests are due at that rate also while the server stalls, so that all requests which it delays count.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable

CONNECTIONS = 64


class Connection(asyncio.Protocol):
    """A persistent connection, which sends bytes and calls ``answered`` when the answer to them is complete.

    ``failed`` is called where it is closed.
    """

    def __init__(self, answered: Callable[[Connection, bytes], None], failed: Callable[[Exception], None]) -> None:
        self._answered = answered
        self._failed = failed
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        self._failed(error or ConnectionError("the server hung up"))

    def data_received(self, data: bytes) -> None:
        self._received += data
        if whole(self._received):
            answer, self._received = self._received, b""
            self._answered(self, answer)


def whole(answer: bytes) -> bool:
    """Whether the response in ``answer`` is complete."""
    head, found, body = answer.partition(b"\r\n\r\n")
    if not found:
        return False
    lower = head.lower()
    if b"transfer-encoding: chunked" in lower:
        return body.endswith(b"0\r\n\r\n")
    length = lower.partition(b"content-length: ")[2].partition(b"\r\n")[0]
    return len(body) >= int(length or 0)


class Load:
    """Sends each request when it is due, over a connection that is free; else over the next one that becomes free."""

    def __init__(self, request: bytes, good: Callable[[bytes], bool], count: int) -> None:
        self.latencies: list[float] = []
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._request = request
        self._good = good
        self._count = count
        self._due: deque[float] = deque()
        self._free: deque[Connection] = deque()
        self._sent: dict[Connection, float] = {}

    async def open(self, port: int) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(CONNECTIONS):
            _, connection = await loop.create_connection(
                lambda: Connection(self._answered, self._failed), "127.0.0.1", port
            )
            self._free.append(connection)

    def add(self, intended: float) -> None:
        """Add a request that is due at ``intended``."""
        self._due.append(intended)
        self._send()

    def _send(self) -> None:
        while self._due and self._free:
            connection = self._free.popleft()
            self._sent[connection] = self._due.popleft()
            connection.transport.write(self._request)

    def _answered(self, connection: Connection, answer: bytes) -> None:
        self.latencies.append(time.perf_counter() - self._sent.pop(connection))
        if not self._good(answer):
            self._failed(AssertionError(answer))
        self._free.append(connection)
        self._send()
        if len(self.latencies) == self._count and not self.done.done():
            self.done.set_result(None)

    def _failed(self, error: Exception) -> None:
        if not self.done.done():
            self.done.set_exception(error)


async def measure(port: int, request: bytes, good: Callable[[bytes], bool], rate: float, seconds: float) -> list[float]:
    """Latencies in seconds, sorted. `AssertionError` for an answer that ``good`` does not accept."""
    count = int(rate * seconds)
    load = Load(request, good, count)
    await load.open(port)
    started = time.perf_counter()
    for number in range(count):
        intended = started + number / rate
        pause = intended - time.perf_counter()
        if pause > 0:
            await asyncio.sleep(pause)
        elif number % 64 == 0:
            await asyncio.sleep(0)  # the load is late, and answers have to be read all the same
        load.add(intended)
    await load.done
    return sorted(load.latencies)


def percentile(latencies: list[float], share: float) -> float:
    """The latency in milliseconds below which ``share`` of all lie."""
    return latencies[min(len(latencies) - 1, int(len(latencies) * share))] * 1000

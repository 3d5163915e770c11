"""Journeys of a client that polls: submit, and ask until the answer is there."""

from __future__ import annotations

import asyncio
import json
import time

from benchmarks.open_model import CONNECTIONS, Connection
from benchmarks.running import BODY

PAUSE = 0.002
PATIENCE = 10.0
SUBMIT = (
    b"POST /api/v1/submit HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
    % (len(BODY), BODY)
)
ASK = b"GET /api/v1/response/%b HTTP/1.1\r\nHost: x\r\n\r\n"


async def journeys(port: int, seconds: float) -> tuple[float, float]:
    """Journeys per second over 64 connections, and how often each of them polled."""
    loop = asyncio.get_running_loop()
    callers = [Caller(time.perf_counter() + seconds) for _ in range(CONNECTIONS)]
    for caller in callers:
        transport, _ = await loop.create_connection(caller.connection, "127.0.0.1", port)
        transport.write(SUBMIT)
    await asyncio.gather(*(caller.done for caller in callers))
    count = sum(caller.count for caller in callers)
    return count / seconds, sum(caller.asked for caller in callers) / count


class Caller:
    """Makes one journey after another until the time ``until``."""

    def __init__(self, until: float) -> None:
        self.count = 0
        self.asked = 0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._until = until
        self._ask = b""

    def connection(self) -> Connection:
        """A new connection that makes its journeys."""
        return Connection(self._answered, self._failed)

    def _answered(self, connection: Connection, answer: bytes) -> None:
        pending = answer[9:12] == b"202"
        if not self._ask:
            assert pending, answer
            self._ask = ASK % json.loads(answer.partition(b"\r\n\r\n")[2])["correlation_id"].encode()
            self._again(connection)
        elif pending:
            if time.perf_counter() > self._until + PATIENCE:
                self._failed(AssertionError("an answer that does not come"))
            asyncio.get_running_loop().call_later(PAUSE, self._again, connection)
        else:
            self.count += 1
            self._ask = b""
            if time.perf_counter() < self._until:
                connection.transport.write(SUBMIT)
            else:
                self.done.set_result(None)
                connection.transport.close()

    def _again(self, connection: Connection) -> None:
        self.asked += 1
        connection.transport.write(self._ask)

    def _failed(self, error: Exception) -> None:
        if not self.done.done():
            self.done.set_exception(error)

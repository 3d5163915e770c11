"""Load at a fixed rate, each latency measured from when its request was meant to start.

A server that stalls is charged for everybody it keeps waiting: nothing is sent later because an answer was late.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable


class Connection:
    """A kept-alive connection that sends bytes and knows when the answer to them is whole."""

    async def open(self, port: int) -> Connection:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", port)
        return self

    async def exchange(self, request: bytes) -> bytes:
        """The whole response."""
        self.writer.write(request)
        head = await self.reader.readuntil(b"\r\n\r\n")
        lower = head.lower()
        if b"transfer-encoding: chunked" in lower:
            body = b""
            while True:
                size = int(await self.reader.readuntil(b"\r\n"), 16)
                piece = await self.reader.readexactly(size + 2)
                if not size:
                    return head + body
                body += piece[:-2]
        length = int(lower.split(b"content-length: ")[1].split(b"\r\n")[0])
        return head + await self.reader.readexactly(length)


async def measure(
    port: int, request: Callable[[int], bytes], good: Callable[[bytes], bool], rate: float, seconds: float
) -> list[float]:
    """Latencies in seconds, sorted. `AssertionError` for an answer that is not good."""
    free: asyncio.Queue[Connection] = asyncio.Queue()
    for _ in range(64):
        free.put_nowait(await Connection().open(port))
    latencies: list[float] = []

    async def one(number: int, intended: float) -> None:
        connection = await free.get()
        answer = await connection.exchange(request(number))
        latencies.append(time.perf_counter() - intended)
        assert good(answer), answer
        free.put_nowait(connection)

    started = time.perf_counter()
    tasks = []
    for number in range(int(rate * seconds)):
        intended = started + number / rate
        pause = intended - time.perf_counter()
        if pause > 0:
            await asyncio.sleep(pause)
        tasks.append(asyncio.create_task(one(number, intended)))
    await asyncio.gather(*tasks)
    return sorted(latencies)


def percentile(latencies: list[float], share: float) -> float:
    """In milliseconds."""
    return latencies[min(len(latencies) - 1, int(len(latencies) * share))] * 1000

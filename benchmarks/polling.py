"""Whole journeys as a client without streams makes them: submit, and ask until the answer is there."""

from __future__ import annotations

import asyncio
import json
import time

from benchmarks.open_model import CONNECTIONS, whole
from benchmarks.running import BODY

PAUSE = 0.002
PATIENCE = 10.0
SUBMIT = (
    b"POST /api/v1/submit HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
    % (len(BODY), BODY)
)


async def journeys(port: int, seconds: float) -> float:
    """Journeys a second, over 64 connections that make one after the other."""
    until = time.perf_counter() + seconds
    counts = await asyncio.gather(*(_caller(port, until) for _ in range(CONNECTIONS)))
    return sum(counts) / seconds


async def _caller(port: int, until: float) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)

    async def exchange(request: bytes) -> tuple[bytes, bytes]:
        writer.write(request)
        answer = b""
        while not whole(answer):
            piece = await reader.read(65536)
            assert piece, "the server hung up"
            answer += piece
        return answer[9:12], answer.partition(b"\r\n\r\n")[2]

    count = 0
    while time.perf_counter() < until:
        status, body = await exchange(SUBMIT)
        assert status == b"202", body
        correlation_id = json.loads(body)["correlation_id"]
        ask = b"GET /api/v1/response/%b HTTP/1.1\r\nHost: x\r\n\r\n" % correlation_id.encode()
        while (await exchange(ask))[0] == b"202":
            assert time.perf_counter() < until + PATIENCE, "an answer that does not come"
            await asyncio.sleep(PAUSE)
        count += 1
    writer.close()
    return count

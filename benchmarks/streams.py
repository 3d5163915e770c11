"""Streams over many requests: what an idle one takes, how soon an ending is told, and what the log of endings costs.

How soon is counted from the time that an ending carries to its last byte in the client, both by the clock of this host.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import re
import statistics
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from benchmarks import running
from benchmarks.open_model import CONNECTIONS, Connection, percentile
from benchmarks.table import Table

SUBMIT = "/api/v1/submit"
RATE = 1000
SUBSCRIBERS = 1000
CONNECTING = 50
PATIENCE = 60.0
WITHOUT, WITH = "CPU of a request that is answered, no stream", "CPU of a request that is answered, one stream"
_COMPLETED = re.compile(rb'"completed_at":"([^"]+)"')


class Stream(asyncio.Protocol):
    """A client of the endings with a tag: ``told`` gets the seconds that each took, and ``begun`` is called first."""

    def __init__(self, tag: str, begun: Callable[[], None], told: Callable[[float], None]) -> None:
        self._tag = tag
        self._begun = begun
        self._told = told
        self._left = b""
        self._is_open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        assert isinstance(transport, asyncio.Transport)
        transport.write(b"GET /api/v1/events?tag=%b HTTP/1.1\r\nHost: x\r\n\r\n" % self._tag.encode())

    def data_received(self, data: bytes) -> None:
        now = time.time()
        self._left += data
        *blocks, self._left = self._left.split(b"\n\n")
        for block in blocks:
            found = _COMPLETED.search(block)
            if found is not None:
                self._told(now - datetime.fromisoformat(found[1].decode()).timestamp())
            elif not self._is_open and b"id: " in block:
                self._is_open = True
                self._begun()


async def _open(port: int, tags: list[str], told: Callable[[float], None]) -> list[Stream]:
    loop = asyncio.get_running_loop()
    opened: list[Stream] = []
    for first in range(0, len(tags), CONNECTING):
        begun, all_begun = [0], loop.create_future()
        some = tags[first : first + CONNECTING]

        def one_more(begun: list[int] = begun, done: asyncio.Future[None] = all_begun, most: int = len(some)) -> None:
            begun[0] += 1
            if begun[0] == most:
                done.set_result(None)

        for tag in some:
            _, stream = await loop.create_connection(
                lambda tag=tag, began=one_more: Stream(tag, began, told), "127.0.0.1", port
            )
            opened.append(stream)
        await asyncio.wait_for(all_begun, PATIENCE)
    return opened


class Submitter:
    """Submits requests with tags over 64 connections."""

    def __init__(self) -> None:
        self._free: list[Connection] = []
        self._waiting: list[bytes] = []

    async def open(self, port: int) -> None:
        for _ in range(CONNECTIONS):
            _, connection = await asyncio.get_running_loop().create_connection(
                lambda: Connection(self._answered, lambda error: None), "127.0.0.1", port
            )
            self._free.append(connection)

    def submit(self, tag: str) -> None:
        body = json.dumps({"payload": {"a": 1}, "metadata": {"tags": [tag]}}).encode()
        head = b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        self._waiting.append(head % (SUBMIT.encode(), len(body)) + body)
        self._send()

    def _send(self) -> None:
        while self._free and self._waiting:
            self._free.pop().transport.write(self._waiting.pop(0))

    def _answered(self, connection: Connection, answer: bytes) -> None:
        assert answer.startswith(b"HTTP/1.1 202"), answer
        self._free.append(connection)
        self._send()


async def _until(count: int, told: list[float]) -> None:
    end = time.monotonic() + PATIENCE
    while len(told) < count:
        assert time.monotonic() < end, f"{len(told)} of {count} endings were told"
        await asyncio.sleep(0.01)


async def _spread(port: int, pid: int, count: int, seconds: float) -> tuple[float, list[float]]:
    """KiB of an idle stream, and how long each ending took, spread over all of them."""
    told: list[float] = []
    before = running.resident(pid)
    opened = await _open(port, [f"s{number}" for number in range(count)], told.append)
    size = (running.resident(pid) - before) * 1024 / count
    submitter = Submitter()
    await submitter.open(port)
    started = time.perf_counter()
    wanted = int(RATE * seconds)
    for number in range(wanted):
        pause = started + number / RATE - time.perf_counter()
        await asyncio.sleep(max(0.0, pause)) if pause > 0 or number % CONNECTIONS == 0 else None
        submitter.submit(f"s{number * 7919 % count}")
    await _until(wanted, told)
    for stream in opened:
        stream.transport.close()
    return size, sorted(told)


async def _to_all(port: int, endings: int) -> list[float]:
    """For each ending, how long it took to the last of its subscribers."""
    told: list[float] = []
    opened = await _open(port, ["all"] * SUBSCRIBERS, told.append)
    submitter = Submitter()
    await submitter.open(port)
    found = []
    for _ in range(endings):
        told.clear()
        submitter.submit("all")
        await _until(SUBSCRIBERS, told)
        found.append(max(told))
    for stream in opened:
        stream.transport.close()
    return sorted(found)


def _processor_seconds(pid: int) -> float:
    """How long a process has computed."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _cost(seconds: float, listening: bool) -> float:
    """Microseconds of the processor from the submission to the ending: other work on the machine does not count."""
    port = running.free_port()
    with running.openhqm(port) as server:
        running.submit(port)
        connection = http.client.HTTPConnection("127.0.0.1", port)
        if listening:
            connection.request("GET", "/api/v1/events?tag=none")
            connection.getresponse().readline()
        before = _processor_seconds(server.pid)
        count = running.wrk(port, SUBMIT, seconds) * seconds
        now = _processor_seconds(server.pid)
        while True:
            time.sleep(0.5)
            earlier, now = now, _processor_seconds(server.pid)
            if now - earlier < 0.03:  # all have ended
                return (now - before) / count * 1e6


def streams(table: Table, seconds: float, rounds: int, count: int) -> None:
    """The figures, on SQLite FULL."""
    running.allow_many_files()
    port = running.free_port()
    with running.openhqm(port, tls=False) as server:
        running.submit(port)
        size, told = asyncio.run(_spread(port, server.pid, count, seconds))
        table.at_most(f"one of {count:,} idle streams over a tag", size, "KiB", 4)
        for share in (0.5, 0.99):
            name = f"{RATE:,} endings/s over {count:,} streams, p{share * 100:g}"
            table.at_most(name, percentile(told, share), "ms", 100)
        found = asyncio.run(_to_all(port, 20))
        table.at_most(f"one ending to the last of {SUBSCRIBERS:,}, median", found[len(found) // 2] * 1000, "ms", 250)
        table.at_most(f"one ending to the last of {SUBSCRIBERS:,}, longest", found[-1] * 1000, "ms", 250)
    costs = [(_cost(seconds, False), _cost(seconds, True)) for _ in range(rounds)]
    for name, each in zip((WITHOUT, WITH), zip(*costs, strict=True), strict=True):
        table.add(name, statistics.median(each), "us")

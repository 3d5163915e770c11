"""Streams over many requests: what an idle one takes, how soon an ending is told, and what the log of endings costs.

How soon is counted from the time that an ending carries to its last byte in the client, both by the clock of this host.
`benchmarks.nchan` measures Nchan by the same clients, where it is installed.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import re
import statistics
import time
from collections.abc import Callable
from datetime import datetime

import attrs

from benchmarks import running
from benchmarks.drain import cpu
from benchmarks.open_model import CONNECTIONS, Connection, percentile
from benchmarks.table import Table

SUBMIT = "/api/v1/submit"
RATE = 1000
SUBSCRIBERS = 1000
CONNECTING = 50
PATIENCE = 60.0
WITHOUT, WITH = "CPU of a request that is answered, no stream", "CPU of a request that is answered, one stream"
_COMPLETED = re.compile(rb'"completed_at":"([^"]+)"')


@attrs.frozen
class Streams:
    """A server of streams: the requests for the stream of a channel, and that publish there.

    ``begun`` is in what a client receives once it will be told. A publishing is answered with one of ``taken``.
    """

    subscribe: Callable[[str], bytes]
    publish: Callable[[str], bytes]
    begun: bytes
    taken: tuple[bytes, ...]


def _subscribe(tag: str) -> bytes:
    return b"GET /api/v1/events?tag=%b HTTP/1.1\r\nHost: x\r\n\r\n" % tag.encode()


def _submit(tag: str) -> bytes:
    return post(SUBMIT, json.dumps({"payload": {"a": 1}, "metadata": {"tags": [tag]}}))


def post(path: str, body: str) -> bytes:
    """A request that posts JSON."""
    head = "POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
    return (head % (path, len(body), body)).encode()


OPENHQM = Streams(_subscribe, _submit, b"id: ", (b"202",))


class Stream(asyncio.Protocol):
    """A client of one channel: ``told`` gets the seconds that each message took, and ``begun`` is called first."""

    def __init__(self, of: Streams, channel: str, begun: Callable[[], None], told: Callable[[float], None]) -> None:
        self._of = of
        self._channel = channel
        self._begun = begun
        self._told = told
        self._left = b""
        self._is_open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        assert isinstance(transport, asyncio.Transport)
        transport.write(self._of.subscribe(self._channel))

    def data_received(self, data: bytes) -> None:
        now = time.time()
        self._left += data
        *blocks, self._left = self._left.split(b"\n\n")
        for block in blocks:
            found = _COMPLETED.search(block)
            if found is not None:
                self._told(now - datetime.fromisoformat(found[1].decode()).timestamp())
            elif not self._is_open and self._of.begun in block:
                self._is_open = True
                self._begun()


async def _open(of: Streams, port: int, channels: list[str], told: Callable[[float], None]) -> list[Stream]:
    loop = asyncio.get_running_loop()
    opened: list[Stream] = []
    for first in range(0, len(channels), CONNECTING):
        begun, all_begun = [0], loop.create_future()
        some = channels[first : first + CONNECTING]

        def one_more(begun: list[int] = begun, done: asyncio.Future[None] = all_begun, most: int = len(some)) -> None:
            begun[0] += 1
            if begun[0] == most:
                done.set_result(None)

        for channel in some:
            _, stream = await loop.create_connection(
                lambda channel=channel, began=one_more: Stream(of, channel, began, told), "127.0.0.1", port
            )
            opened.append(stream)
        await asyncio.wait_for(all_begun, PATIENCE)
    return opened


class Publisher:
    """Publishes over 64 connections."""

    def __init__(self, of: Streams) -> None:
        self._of = of
        self._free: list[Connection] = []
        self._waiting: list[bytes] = []

    async def open(self, port: int) -> None:
        for _ in range(CONNECTIONS):
            _, connection = await asyncio.get_running_loop().create_connection(
                lambda: Connection(self._answered, lambda error: None), "127.0.0.1", port
            )
            self._free.append(connection)

    def publish(self, channel: str) -> None:
        self._waiting.append(self._of.publish(channel))
        self._send()

    def _send(self) -> None:
        while self._free and self._waiting:
            self._free.pop().transport.write(self._waiting.pop(0))

    def _answered(self, connection: Connection, answer: bytes) -> None:
        assert answer[9:12] in self._of.taken, answer
        self._free.append(connection)
        self._send()


async def _until(count: int, told: list[float]) -> None:
    end = time.monotonic() + PATIENCE
    while len(told) < count:
        assert time.monotonic() < end, f"{len(told)} of {count} endings were told"
        await asyncio.sleep(0.01)


async def spread(of: Streams, port: int, pid: int, count: int, seconds: float) -> tuple[float, list[float], float]:
    """KiB of an idle stream, how long each message took, spread over all of them, and the CPU of a message."""
    told: list[float] = []
    before = running.resident(pid)
    opened = await _open(of, port, [f"s{number}" for number in range(count)], told.append)
    size = (running.resident(pid) - before) * 1024 / count
    publisher = Publisher(of)
    await publisher.open(port)
    spent, started = cpu(pid), time.perf_counter()
    wanted = int(RATE * seconds)
    for number in range(wanted):
        pause = started + number / RATE - time.perf_counter()
        await asyncio.sleep(max(0.0, pause)) if pause > 0 or number % CONNECTIONS == 0 else None
        publisher.publish(f"s{number * 7919 % count}")
    await _until(wanted, told)
    spent = (cpu(pid) - spent) / wanted * 1e6
    for stream in opened:
        stream.transport.close()
    return size, sorted(told), spent


async def to_all(of: Streams, port: int, messages: int) -> list[float]:
    """For each message, how long it took to the last of its subscribers."""
    told: list[float] = []
    opened = await _open(of, port, ["all"] * SUBSCRIBERS, told.append)
    publisher = Publisher(of)
    await publisher.open(port)
    found = []
    for _ in range(messages):
        told.clear()
        publisher.publish("all")
        await _until(SUBSCRIBERS, told)
        found.append(max(told))
    for stream in opened:
        stream.transport.close()
    return sorted(found)


def _cost(seconds: float, listening: bool) -> float:
    """Microseconds of the processor from the submission to the ending: other work on the machine does not count."""
    port = running.free_port()
    with running.openhqm(port) as server:
        running.submit(port)
        connection = http.client.HTTPConnection("127.0.0.1", port)
        if listening:
            connection.request("GET", "/api/v1/events?tag=none")
            connection.getresponse().readline()
        before = cpu(server.pid)
        count = running.wrk(port, SUBMIT, seconds) * seconds
        now = cpu(server.pid)
        while True:
            time.sleep(0.5)
            earlier, now = now, cpu(server.pid)
            if now - earlier < 0.03:  # all have ended
                return (now - before) / count * 1e6


def streams(table: Table, seconds: float, rounds: int, count: int) -> None:
    """The figures, on SQLite FULL."""
    running.allow_many_files()
    port = running.free_port()
    with running.openhqm(port, tls=False) as server:
        running.submit(port)
        size, told, _ = asyncio.run(spread(OPENHQM, port, server.pid, count, seconds))
        table.at_most(f"one of {count:,} idle streams over a tag", size, "KiB", 4)
        for share in (0.5, 0.99):
            name = f"{RATE:,} endings/s over {count:,} streams, p{share * 100:g}"
            table.at_most(name, percentile(told, share), "ms", 100)
        found = asyncio.run(to_all(OPENHQM, port, 20))
        table.at_most(f"one ending to the last of {SUBSCRIBERS:,}, median", found[len(found) // 2] * 1000, "ms", 250)
        table.at_most(f"one ending to the last of {SUBSCRIBERS:,}, longest", found[-1] * 1000, "ms", 250)
    costs = [(_cost(seconds, False), _cost(seconds, True)) for _ in range(rounds)]
    for name, each in zip((WITHOUT, WITH), zip(*costs, strict=True), strict=True):
        table.add(name, statistics.median(each), "us")

"""A broker that comes back: what the backlog of `queue.accept: journaled` costs new requests, and takes in memory."""

from __future__ import annotations

import asyncio
import re
import time
from contextlib import closing
from urllib.request import urlopen

from benchmarks import running
from benchmarks.open_model import measure, percentile
from benchmarks.table import Table
from tests.brokers import RabbitMQServer

RATE = 100  # new requests in a second
BURST = 2000  # requests in a second while the broker is away
WINDOW = 2.0  # seconds, in which the rate is measured once
REQUEST = (
    b"POST /api/v1/submit HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
    % (len(running.BODY), running.BODY)
)


def backlog(table: Table, count: int, seconds: float) -> None:
    """New requests at a listener with RabbitMQ there, and while it gets the ``count`` that were accepted without it."""
    port = running.free_port()
    broker = RabbitMQServer().start()
    settings = {
        "OPENHQM_QUEUE__TYPE": "rabbitmq",
        "OPENHQM_QUEUE__RABBITMQ_URL": broker.url,
        "OPENHQM_QUEUE__ACCEPT": "journaled",
    }
    with closing(broker), running.openhqm(port, "--role", "listener", **settings) as listener:
        _latencies(port, RATE, 1)
        without = percentile(_latencies(port, RATE, seconds), 0.99)
        table.add("backlog: resident memory at first", running.resident(listener.pid), "MiB")
        broker.kill()
        while b"waits for the broker" not in urlopen(f"http://127.0.0.1:{port}/health", timeout=60).read():
            time.sleep(0.1)
        _latencies(port, BURST, count / BURST)
        table.add(f"backlog: resident memory with {count:,} waiting", running.resident(listener.pid), "MiB")
        before = _waiting(port)
        broker.start()
        began, found = time.perf_counter(), _latencies(port, RATE, WINDOW)
        while _waiting(port) > RATE:
            found += _latencies(port, RATE, WINDOW)
        took = time.perf_counter() - began
        table.add("backlog: resident memory when it is published", running.resident(listener.pid), "MiB")
    within = percentile(sorted(found), 0.99)
    table.add("backlog: published", before / took, "messages/s")
    table.add("backlog: p99 of new requests without it", without, "ms")
    table.add("backlog: p99 of new requests beside it", within, "ms")
    table.at_most("backlog: p99 beside it / without", within / without, "ratio", 2)


def _latencies(port: int, rate: float, seconds: float) -> list[float]:
    return asyncio.run(measure(port, REQUEST, lambda answer: answer.startswith(b"HTTP/1.1 202"), rate, seconds))


def _waiting(port: int) -> int:
    """How many requests wait to be published; the count stops at 100,000."""
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
        found = re.findall(rb'openhqm_queue_depth\{[^}]*state="delayed"\} (\S+)', answer.read())
    return int(sum(map(float, found)))

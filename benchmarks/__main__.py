"""Measure everything in one go, print a table, and write a JSON file.

    python -m benchmarks [--quick] [--json FILE] [--only NAME ...]

Needs ``wrk``. The peers need ``redis-server`` and the packages of the bench environment, which ``tox run -e bench``
installs. Where these are missing, the peers are left out, and a line names what is missing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import shutil
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import running
from benchmarks.backlog import backlog
from benchmarks.batch import BATCHES, MANY, MANY_BATCHES, ONE, batch
from benchmarks.callbacks import callbacks
from benchmarks.consuming import CELERY, OURS, consume
from benchmarks.drain import drain
from benchmarks.fairness import fairness
from benchmarks.kafka import kafka
from benchmarks.nchan import nchan
from benchmarks.open_model import measure, percentile
from benchmarks.peers import (
    EMBEDDED,
    ON_RABBITMQ,
    ON_REDIS,
    RABBITMQ_BY_HAND,
    REDIS_BY_HAND,
    SUBMIT,
    forward,
    journeys_of,
    peers,
    rabbitmq,
    redis,
)
from benchmarks.processes import processes
from benchmarks.replay import replay
from benchmarks.streams import streams
from benchmarks.table import Table


def accepting(table: Table, seconds: float, rounds: int) -> None:
    """Accepting over 64 connections.

    The servers are measured in turns, so that a drift of the machine meets all of them; the median counts.
    """
    ports = [running.free_port() for _ in range(4)]
    floor, klein, memory, sqlite = ports
    yardstick = [sys.executable, "-m", "benchmarks.yardsticks"]
    found: dict[str, list[float]] = {}
    with (
        running.process([*yardstick, "floor", str(floor)], floor),
        running.process([*yardstick, "klein", str(klein)], klein),
    ):
        for _ in range(rounds):
            found.setdefault("accept: floor (llhttp, constant)", []).append(running.wrk(floor, SUBMIT, seconds))
            found.setdefault("accept: stock Klein (constant)", []).append(running.wrk(klein, SUBMIT, seconds))
            with running.openhqm(sqlite, "--role", "listener"):
                found.setdefault("accept: OpenHQM, SQLite FULL", []).append(running.wrk(sqlite, SUBMIT, seconds))
            with running.openhqm(sqlite):
                rate = running.wrk(sqlite, SUBMIT, seconds)
                found.setdefault("accept: OpenHQM, SQLite FULL, echo at work", []).append(rate)
            with running.openhqm(memory, OPENHQM_QUEUE__TYPE="memory"):
                found.setdefault("accept: OpenHQM, memory, echo at work", []).append(running.wrk(memory, SUBMIT, 1))
    for name, rates in found.items():
        table.add(name, statistics.median(rates), "requests/s")


def reading(table: Table, seconds: float) -> None:
    """Reading a finished response; whole journeys with one answer, by event stream, and by polling."""
    port, floor = running.free_port(), running.free_port()
    with (
        running.process([sys.executable, "-m", "benchmarks.yardsticks", "floor", str(floor)], floor),
        running.openhqm(port),
    ):
        path = f"/api/v1/response/{running.submit(port)}"
        table.add("read: floor", running.wrk(floor, path, seconds, None), "requests/s")
        table.add("read: OpenHQM, a finished response", running.wrk(port, path, seconds, None), "requests/s")
        journeys_of(table, "OpenHQM, SQLite FULL", port, seconds, SUBMIT, SUBMIT)


def _accepted(answer: bytes) -> bool:
    return answer.startswith(b"HTTP/1.1 202")


def _read(answer: bytes) -> bool:
    return answer.startswith(b"HTTP/1.1 200")


def _post(fields: bytes = b"") -> bytes:
    head = b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n%bContent-Length: %d\r\n\r\n%b"
    return head % (SUBMIT.encode(), fields, len(running.BODY), running.BODY)


def _get(correlation_id: str) -> bytes:
    return b"GET /api/v1/response/%b HTTP/1.1\r\nHost: x\r\n\r\n" % correlation_id.encode()


def latency(table: Table, seconds: float) -> None:
    """Latency at fixed rates: accepting and reading at 500/s and at 70 % of the highest rate, journeys by event stream
    at 200/s."""
    port = running.free_port()
    stream = _post(b"Accept: text/event-stream\r\n")

    def run(name: str, request: bytes, good: Callable[[bytes], bool], rate: float) -> list[float]:
        latencies = asyncio.run(measure(port, request, good, rate, seconds))
        for share in (0.5, 0.99, 0.999):
            table.add(f"latency: {name}, p{share * 100:g}", percentile(latencies, share), "ms")
        return latencies

    with running.openhqm(port):
        get = _get(running.submit(port))
        accept = run("accept at 500/s", _post(), _accepted, 500)
        read = run("read at 500/s", get, _read, 500)
        journey = run("journey by SSE at 200/s", stream, lambda answer: b"event: completed" in answer, 200)
        table.at_most("journey by SSE at 200/s, median", percentile(journey, 0.5), "ms", 5)
        table.at_most("accept at 500/s, p99", percentile(accept, 0.99), "ms", 10)
        table.at_most("read at 500/s, p99", percentile(read, 0.99), "ms", 5)
        # The highest rate is what the same server has just reached with wrk. The client here is Python, and has a limit
        # of its own.
        for name, request, good, path, body in (
            ("accept", _post(), _accepted, SUBMIT, running.BODY),
            ("read", get, _read, get.split()[1].decode(), None),
        ):
            rate = 0.7 * running.wrk(port, path, max(1, seconds / 5), body)
            table.add(f"latency: {name} at 70 %, the rate", rate, "requests/s")
            run(f"{name} at 70 %", request, good, rate)


def slow(table: Table, seconds: float, rounds: int, count: int) -> None:
    """The p99 of normal clients without and with clients that send or read byte by byte, and the memory that those
    take."""
    running.allow_many_files()
    port = running.free_port()
    slow_clients = [sys.executable, "-m", "benchmarks.slow", str(port), str(count)]
    alone: dict[str, list[float]] = {"accept": [], "read": []}
    crowded: dict[str, list[float]] = {"accept": [], "read": []}
    with running.openhqm(port) as server:
        get = _get(running.submit(port))
        large = running.submit(port, b'{"payload":"%b"}' % (b"x" * 100_000))

        def run(found: dict[str, list[float]]) -> None:
            found["accept"] += asyncio.run(measure(port, _post(), _accepted, 500, seconds))
            found["read"] += asyncio.run(measure(port, get, _read, 500, seconds))

        run({"accept": [], "read": []})  # warm
        before = running.resident(server.pid)
        most = before
        for _ in range(rounds):
            run(alone)
            with running.until_it_prints([*slow_clients, f"/api/v1/response/{large}"]):
                time.sleep(5)  # the open connections are measured, and not how they were opened
                run(crowded)
                most = max(most, running.resident(server.pid))
    for name in alone:
        without, beside = (percentile(sorted(found[name]), 0.99) for found in (alone, crowded))
        table.add(f"latency: {name} at 500/s, p99, no slow clients", without, "ms")
        table.add(f"latency: {name} at 500/s, p99, {count:,} slow clients", beside, "ms")
        table.at_most(f"{name} at 500/s, p99, with / without {count:,} slow clients", beside / without, "ratio", 1.5)
    table.add(f"memory that {count:,} slow clients add", most - before, "MiB")
    table.add("one slow client", (most - before) * 1024 / count, "KiB")


def sidecar(table: Table, seconds: float) -> None:
    """What the pass-through of the sidecar adds: small requests at 200/s to a fast target, directly and through the
    sidecar."""
    target, port = running.free_port(), running.free_port()
    upstream = f"http://127.0.0.1:{target}"
    settings = {"OPENHQM_PROXY__SIDECAR__ENABLED": "true", "OPENHQM_PROXY__SIDECAR__UPSTREAM": upstream}
    post = _post().replace(SUBMIT.encode(), b"/application", 1)
    with (
        running.process([sys.executable, "-m", "benchmarks.yardsticks", "floor", str(target)], target),
        running.openhqm(port, **settings),
    ):
        direct, through = (asyncio.run(measure(to, post, _accepted, 200, seconds)) for to in (target, port))
    for name, latencies in (("direct", direct), ("through", through)):
        for share in (0.5, 0.99):
            table.add(f"sidecar: {name} at 200/s, p{share * 100:g}", percentile(latencies, share), "ms")
    added = percentile(through, 0.5) - percentile(direct, 0.5)
    table.at_most("sidecar: added at the median", added, "ms", 1.5)


async def _streams(port: int, correlation_id: str, count: int) -> list[Any]:
    request = b"GET /api/v1/events/%b HTTP/1.1\r\nHost: x\r\n\r\n" % correlation_id.encode()
    opened = []
    for _ in range(count):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        opened.append((reader, writer))
    for reader, _ in opened:
        await reader.readuntil(b"event: pending")
    return opened


def memory(table: Table, streams: int, backlog: int) -> None:
    """Memory of an idle process, of an idle event stream, and of a backlog."""
    running.allow_many_files()
    port = running.free_port()
    with running.openhqm(port) as server:
        time.sleep(1)
        table.add("idle resident memory, with the extra tls", running.resident(server.pid), "MiB")
    with running.openhqm(port, "--role", "listener", tls=False) as server:
        time.sleep(1)
        idle = running.resident(server.pid)
        table.at_most("idle resident memory", idle, "MiB", 60)
        import http.client

        connection = http.client.HTTPConnection("127.0.0.1", port)
        connection.request("POST", SUBMIT, running.BODY, {"Content-Type": "application/json"})
        correlation_id = json.loads(connection.getresponse().read())["correlation_id"]
        before = running.resident(server.pid)

        async def hold() -> float:
            opened = await _streams(port, correlation_id, streams)
            held = running.resident(server.pid)
            for _, writer in opened:
                writer.close()
            return held

        held = asyncio.run(hold())
        table.at_most(f"one of {streams:,} idle event streams", (held - before) * 1024 / streams, "KiB", 10)
    directory = tempfile.mkdtemp(prefix="openhqm-bench-", dir="/var/tmp")
    try:
        _fill(port, directory, backlog)
        started = time.perf_counter()
        with running.openhqm(port, directory=directory, tls=False, OPENHQM_WORKER__COUNT="1") as server:
            table.at_most(f"ready on a backlog of {backlog:,}", time.perf_counter() - started, "s", 5)
            running.wrk(port, "/health/ready", 3, None)
            table.at_most(f"memory that a backlog of {backlog:,} adds", running.resident(server.pid) - idle, "MiB", 30)
    finally:
        shutil.rmtree(directory)


def _fill(port: int, directory: str, backlog: int) -> None:
    """Make a backlog of real rows: the server accepts one, and SQL copies it, which is faster."""
    import http.client

    with running.openhqm(port, "--role", "listener", directory=directory):
        connection = http.client.HTTPConnection("127.0.0.1", port)
        connection.request("POST", SUBMIT, running.BODY, {"Content-Type": "application/json"})
        connection.getresponse().read()
    database = sqlite3.connect(os.path.join(directory, "openhqm.db"))
    database.execute(
        "WITH RECURSIVE more(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM more WHERE n < ?)"
        " INSERT INTO messages SELECT first.key + n, first.at, first.body FROM more, (SELECT * FROM messages) first",
        (backlog - 1,),
    )
    database.commit()
    database.close()


def machine() -> dict[str, Any]:
    """The machine that this runs on."""
    names = [
        line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    return {
        "processor": names[0] if names else platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
    }


PARTS = (
    "accept",
    "batch",
    "read",
    "latency",
    "sidecar",
    "forward",
    "redis",
    "rabbitmq",
    "kafka",
    "consume",
    "drain",
    "callbacks",
    "replay",
    "backlog",
    "fairness",
    "processes",
    "memory",
    "slow",
    "streams",
    "nchan",
    "peers",
)


def main() -> int:
    """Return 0 when everything was measured. The table says whether each bound was kept; the exit code does not."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("--quick", action="store_true", help="short runs and small numbers: a check that it works")
    parser.add_argument("--json", help="write the figures here")
    parser.add_argument("--only", nargs="*", choices=list(PARTS))
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        print("wrk is missing: apt-get install wrk", file=sys.stderr)
        return 1
    table = Table()
    on = machine()
    print(f"{on['processor']}, {on['cores']} cores, Python {on['python']}\n")
    seconds, rounds = (1, 1) if options.quick else (5, 3)
    parts: dict[str, Callable[[], None]] = {
        "accept": lambda: accepting(table, seconds, rounds),
        "batch": lambda: batch(table, seconds, rounds),
        "read": lambda: reading(table, seconds),
        "latency": lambda: latency(table, 3 if options.quick else 20),
        "sidecar": lambda: sidecar(table, 3 if options.quick else 20),
        "forward": lambda: forward(table, seconds),
        "redis": lambda: redis(table, seconds, rounds),
        "rabbitmq": lambda: rabbitmq(table, seconds, rounds),
        "kafka": lambda: kafka(table, seconds, rounds, 3000 if options.quick else 10_000),
        "consume": lambda: consume(table, 5000 if options.quick else 10_000, rounds),
        "drain": lambda: drain(table, 5000 if options.quick else 20_000, rounds),
        "callbacks": lambda: callbacks(table, 2000 if options.quick else 5000, rounds),
        "replay": lambda: replay(table, 2000 if options.quick else 100_000, 3 if options.quick else 60),
        "backlog": lambda: backlog(table, 2000 if options.quick else 100_000, 3 if options.quick else 20),
        "fairness": lambda: fairness(table, 2000 if options.quick else 100_000, 50 if options.quick else 300),
        "processes": lambda: processes(table, seconds, rounds),
        "memory": lambda: memory(table, 1000 if options.quick else 10_000, 100_000 if options.quick else 1_000_000),
        "slow": lambda: slow(table, 2 if options.quick else 10, rounds, 500 if options.quick else 5000),
        "streams": lambda: streams(table, 2 if options.quick else 10, rounds, 500 if options.quick else 10_000),
        "nchan": lambda: nchan(table, 2 if options.quick else 10, 500 if options.quick else 10_000),
        "peers": lambda: peers(table, seconds),
    }
    for name in options.only or parts:
        parts[name]()
    ours, finished = "accept: OpenHQM, SQLite FULL", "read: OpenHQM, a finished response"
    print()
    table.ratio("accept, SQLite FULL / stock Klein", ours, "accept: stock Klein (constant)", 1.5)
    table.ratio("accept, SQLite FULL / floor", ours, "accept: floor (llhttp, constant)", 0.2)
    table.ratio("accept, SQLite FULL / FastAPI + Taskiq", ours, "accept: FastAPI + Taskiq + Redis", 3)
    table.ratio("accept, SQLite FULL / FastAPI + Celery", ours, "accept: FastAPI + Celery + Redis", 8)
    table.ratio("batches / one by one, one caller", BATCHES, ONE, 5)
    table.ratio("batches of many callers / one by one, 64 callers", MANY_BATCHES, MANY, 5)
    table.ratio("read / floor", finished, "read: floor", 0.25)
    table.ratio("accept, Redis / FastAPI + redis.asyncio", ON_REDIS, REDIS_BY_HAND, 4)
    table.ratio("accept, Redis / SQLite FULL", ON_REDIS, EMBEDDED, 0.8)
    table.ratio("consume, Redis / Celery", OURS, CELERY, 3)
    table.ratio("accept, RabbitMQ / FastAPI + aio-pika", ON_RABBITMQ, RABBITMQ_BY_HAND, 3)
    forwarded = "forward: OpenHQM, SQLite FULL"
    table.ratio("forward / treq alone", forwarded, "forward: treq alone", 0.5)
    table.ratio("forward / FastAPI + Taskiq + httpx", forwarded, "forward: FastAPI + Taskiq + httpx + Redis", 2)
    for peer in ("Taskiq", "Celery"):
        for way in ("journey", "journey by event stream", "journey by polling"):
            above, below = f"{way}: OpenHQM, SQLite FULL", f"{way}: FastAPI + {peer} + Redis"
            table.ratio(f"{way} / FastAPI + {peer}", above, below, 2)
    if options.json:
        Path(options.json).write_text(json.dumps({"machine": on, "figures": table.figures}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Measure everything in one go, print a table, and write a JSON file.

    python -m benchmarks [--quick] [--json FILE] [--only NAME ...]

Needs ``wrk``; the peers need ``redis-server`` and the packages of the bench environment (``tox run -e bench`` installs
those), and are left out, by name, where they are missing.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
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
from benchmarks.open_model import measure, percentile

SUBMIT = "/api/v1/submit"


class Table:
    """What was measured, printed as it comes."""

    def __init__(self) -> None:
        self.figures: dict[str, Any] = {}

    def add(self, name: str, value: float, unit: str) -> None:
        self.figures[name] = {"value": round(value, 4), "unit": unit}
        print(f"{name:<62} {value:>12,.2f} {unit}", flush=True)

    def ratio(self, name: str, above: str, below: str, wanted: float) -> None:
        if above in self.figures and below in self.figures:
            value = self.figures[above]["value"] / self.figures[below]["value"]
            self.bound(name, value, "ratio", wanted, value >= wanted, "at least")

    def bound(self, name: str, value: float, unit: str, wanted: float, kept: bool, word: str) -> None:
        self.figures[name] = {"value": round(value, 4), "unit": unit, "wanted": wanted, "kept": kept}
        verdict = "kept" if kept else "NOT REACHED"
        print(f"{name:<62} {value:>12,.2f} {unit}   {word} {wanted:g}: {verdict}", flush=True)

    def at_most(self, name: str, value: float, unit: str, wanted: float) -> None:
        self.bound(name, value, unit, wanted, value <= wanted, "at most")


def accepting(table: Table, seconds: float, rounds: int) -> None:
    """Accepting, 64 connections: in turns, so that a machine that drifts drifts for all; the median counts."""
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
    """Reading a finished response, and the whole journey in one request (Prefer: wait)."""
    port, floor = running.free_port(), running.free_port()
    with (
        running.process([sys.executable, "-m", "benchmarks.yardsticks", "floor", str(floor)], floor),
        running.openhqm(port),
    ):
        path = f"/api/v1/response/{running.submit(port)}"
        table.add("read: floor", running.wrk(floor, path, seconds, None), "requests/s")
        table.add("read: OpenHQM, a finished response", running.wrk(port, path, seconds, None), "requests/s")
        table.add(
            "journey: OpenHQM, SQLite FULL",
            running.wrk(port, SUBMIT, seconds, headers={"Prefer": "wait=10"}),
            "requests/s",
        )


def latency(table: Table, seconds: float) -> None:
    """Open model: accepting and reading at 500/s, and the journey by event stream at 200/s."""
    port = running.free_port()
    head = b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n%bContent-Length: %d\r\n\r\n%b"
    path = SUBMIT.encode()
    post = head % (path, b"", len(running.BODY), running.BODY)
    stream = head % (path, b"Accept: text/event-stream\r\n", len(running.BODY), running.BODY)
    with running.openhqm(port):
        get = b"GET /api/v1/response/%b HTTP/1.1\r\nHost: x\r\n\r\n" % running.submit(port).encode()

        def run(request: bytes, good: Callable[[bytes], bool], rate: float) -> list[float]:
            return asyncio.run(measure(port, lambda number: request, good, rate, seconds))

        accept = run(post, lambda answer: answer.startswith(b"HTTP/1.1 202"), 500)
        read = run(get, lambda answer: answer.startswith(b"HTTP/1.1 200"), 500)
        journey = run(stream, lambda answer: b"event: completed" in answer, 200)
    for name, latencies in (("accept at 500/s", accept), ("read at 500/s", read), ("journey by SSE at 200/s", journey)):
        for share in (0.5, 0.99, 0.999):
            table.add(f"latency: {name}, p{share * 100:g}", percentile(latencies, share), "ms")
    table.at_most("journey by SSE at 200/s, median", percentile(journey, 0.5), "ms", 5)
    table.at_most("accept at 500/s, p99", percentile(accept, 0.99), "ms", 10)
    table.at_most("read at 500/s, p99", percentile(read, 0.99), "ms", 5)


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
    """Idle, per idle event stream, and with a backlog."""
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    port = running.free_port()
    with running.openhqm(port, "--role", "listener") as server:
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
        with running.openhqm(port, directory=directory, OPENHQM_WORKER__COUNT="1") as server:
            table.at_most(f"ready on a backlog of {backlog:,}", time.perf_counter() - started, "s", 5)
            running.wrk(port, "/health/ready", 3, None)
            table.at_most(f"memory that a backlog of {backlog:,} adds", running.resident(server.pid) - idle, "MiB", 30)
    finally:
        shutil.rmtree(directory)


def _fill(port: int, directory: str, backlog: int) -> None:
    """A backlog of real rows: one accepted by the server, the others copied from it in SQL, which is quicker."""
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


def peers(table: Table, seconds: float) -> None:
    """FastAPI with Taskiq, and with Celery, over Redis: accepting, and the journey where the stack has one."""
    missing = [
        name for name in ("fastapi", "uvicorn", "taskiq_redis", "celery") if importlib.util.find_spec(name) is None
    ]
    if missing or shutil.which("redis-server") is None:
        print(f"peers: left out, missing {', '.join(missing) or 'redis-server'}")
        return
    redis, port = running.free_port(), running.free_port()
    url = f"redis://localhost:{redis}"
    uvicorn = [sys.executable, "-m", "uvicorn", "--log-level", "error", "--port", str(port)]
    serve = ["redis-server", "--port", str(redis), "--save", "", "--appendonly", "no"]
    with running.process(serve, redis):
        with running.process([*uvicorn, "benchmarks.peer_taskiq:app"], port, BENCH_REDIS=url):
            table.add("accept: FastAPI + Taskiq + Redis", running.wrk(port, SUBMIT, seconds), "requests/s")
        worker = [sys.executable, "-m", "taskiq", "worker", "--workers", "1", "benchmarks.peer_taskiq:broker"]
        with running.process(["redis-cli", "-p", str(redis), "flushall"]):
            time.sleep(0.5)
        with (
            running.process(worker, BENCH_REDIS=url),
            running.process([*uvicorn, "benchmarks.peer_taskiq:app"], port, BENCH_REDIS=url),
        ):
            time.sleep(3)
            table.add("journey: FastAPI + Taskiq + Redis", running.wrk(port, "/wait", seconds), "requests/s")
        with running.process([*uvicorn, "benchmarks.peer_celery:app"], port, BENCH_REDIS=url):
            table.add("accept: FastAPI + Celery + Redis", running.wrk(port, SUBMIT, seconds), "requests/s")


def machine() -> dict[str, Any]:
    """What this was measured on."""
    names = [
        line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    return {
        "processor": names[0] if names else platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
    }


def main() -> int:
    """0: everything was measured. Whether a bound was kept is in the table, not in the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("--quick", action="store_true", help="short runs and small numbers, to see that all works")
    parser.add_argument("--json", help="write the figures here")
    parser.add_argument("--only", nargs="*", choices=["accept", "read", "latency", "memory", "peers"])
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
        "read": lambda: reading(table, seconds),
        "latency": lambda: latency(table, 3 if options.quick else 20),
        "memory": lambda: memory(table, 1000 if options.quick else 10_000, 100_000 if options.quick else 1_000_000),
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
    table.ratio("read / floor", finished, "read: floor", 0.25)
    table.ratio("journey / FastAPI + Taskiq", "journey: OpenHQM, SQLite FULL", "journey: FastAPI + Taskiq + Redis", 2)
    if options.json:
        Path(options.json).write_text(json.dumps({"machine": on, "figures": table.figures}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

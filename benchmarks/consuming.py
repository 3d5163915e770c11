"""Working through a full queue: one worker process against one Celery worker, on the same Redis."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import Any

from benchmarks import running
from benchmarks.peers import CELERY_WORKER, SUBMIT, empty_redis, missing
from benchmarks.table import Table

SLOTS = 8
WARM = 0.1
PAUSE = 0.005
PATIENCE = 300.0
OURS = "consume: OpenHQM, Redis everysec"
CELERY = "consume: Celery prefork, Redis everysec"


def consume(table: Table, count: int, rounds: int) -> None:
    """Requests that are received, echoed and settled per second, 8 at once. The workers are measured in turns."""
    if missing():
        print(f"consume: left out, missing {missing()}")
        return
    found: dict[str, list[float]] = {OURS: [], CELERY: []}
    for _ in range(rounds):
        found[OURS].append(_ours(count))
        found[CELERY].append(_celery(count))
    for name, rates in found.items():
        table.add(name, sorted(rates)[len(rates) // 2], "requests/s")


def _ours(count: int) -> float:
    port = running.free_port()
    with empty_redis() as server:
        settings = {"OPENHQM_QUEUE__TYPE": "redis", "OPENHQM_QUEUE__REDIS_URL": f"redis://localhost:{server}"}
        with running.openhqm(port, "--role", "listener", **settings):
            time.sleep(1)
            while _ask(server, "ZCARD {openhqm}:open") < count:
                running.wrk(port, SUBMIT, 1)
        lying = _ask(server, "ZCARD {openhqm}:open")
        settings |= {"OPENHQM_WORKER__COUNT": str(SLOTS), "OPENHQM_WORKER__HANDLER": "echo"}
        worker = running.openhqm(None, "--role", "worker", **settings)
        return _rate(worker, lying, lambda: lying - _ask(server, "ZCARD {openhqm}:open"))


def _celery(count: int) -> float:
    with empty_redis() as server:
        there = {"BENCH_REDIS": f"redis://localhost:{server}"}
        running.printed("benchmarks.peer_celery", str(count), **there)
        before = _ask(server, "DBSIZE", database=2)
        worker = running.process([*CELERY_WORKER, "--pool", "prefork", "--concurrency", str(SLOTS)], **there)
        return _rate(worker, count, lambda: _ask(server, "DBSIZE", database=2) - before)


def _rate(worker: Any, count: int, done: Callable[[], int]) -> float:
    """Requests per second from the moment when ``WARM`` of them were done to the last one: the start is left out."""
    with worker:
        deadline = time.monotonic() + PATIENCE
        first: tuple[float, int] | None = None
        while (now := done()) < count:
            assert time.monotonic() < deadline, f"only {now} of {count} were done"
            if first is None and now >= WARM * count:
                first = time.perf_counter(), now
            time.sleep(PAUSE)
        assert first is not None, "all requests were done before the first count"
        return (count - first[1]) / (time.perf_counter() - first[0])


def _ask(port: int, command: str, database: int = 0) -> int:
    """The number that Redis answers to ``command``."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(f"SELECT {database}\r\n{command}\r\n".encode())
        lines = connection.makefile("rb")
        assert lines.readline() == b"+OK\r\n"
        return int(lines.readline()[1:])

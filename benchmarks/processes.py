"""What more processes on one port add, on one Redis and under the same load. The curve has no bound."""

from __future__ import annotations

import http.client
import json
import shutil
import statistics
import time

from benchmarks import running
from benchmarks.peers import SUBMIT, empty_redis
from benchmarks.table import Table

COUNTS = (1, 2, 4)


def processes(table: Table, seconds: float, rounds: int) -> None:
    """Accepting on Redis (AOF everysec) with 1, 2 and 4 listeners, measured in turns; the median counts."""
    if shutil.which("redis-server") is None:
        print("processes: left out, missing redis-server")
        return
    found: dict[int, list[float]] = {count: [] for count in COUNTS}
    for _ in range(rounds):
        for count in COUNTS:
            found[count].append(_accepting(count, seconds))
    for count, rates in found.items():
        name = f"accept: OpenHQM, Redis everysec, server.workers {count}"
        table.add(name, statistics.median(rates), "requests/s")


def _accepting(count: int, seconds: float) -> float:
    """Each measurement has a Redis of its own, so that all begin empty."""
    port = running.free_port()
    with empty_redis() as server:
        settings = {
            "OPENHQM_QUEUE__TYPE": "redis",
            "OPENHQM_QUEUE__REDIS_URL": f"redis://localhost:{server}",
            "OPENHQM_SERVER__WORKERS": str(count),
        }
        with running.openhqm(port, "--role", "listener", **settings):
            _wait_until_ready(port, count)
            return running.wrk(port, SUBMIT, seconds)


def _wait_until_ready(port: int, count: int) -> None:
    """Wait for the processes: the port is open before they are ready."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request("GET", "/health")
        document = json.loads(connection.getresponse().read())
        connection.close()
        if document["processes"].get("ready") == count and not document["troubles"]:
            return
        time.sleep(0.05)
    raise TimeoutError(f"port {port} has no {count} ready processes")

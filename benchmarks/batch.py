"""Submitting in batches, beside submitting one by one: by one caller who waits for each answer, and by many at once."""

from __future__ import annotations

import http.client
import json
import statistics
import time

from benchmarks import running
from benchmarks.drain import cpu
from benchmarks.table import Table

SUBMIT, BATCH = "/api/v1/submit", "/api/v1/batch"
NDJSON = "application/x-ndjson"
IN_A_BATCH = 1000
MOST_CALLERS = 8  # with 20 there would be more requests waiting for the disk than the server lets wait
BATCHES, MANY_BATCHES, ONE, MANY = (
    "batch: a caller with batches of 1000",
    f"batch: {MOST_CALLERS} callers with batches of 1000",
    "batch: a caller one by one",
    "batch: 64 callers one by one",
)


def batch(table: Table, seconds: float, rounds: int) -> None:
    """Requests accepted in a second, on SQLite FULL, and the CPU of the listener for each; nothing works on them."""
    found: dict[str, list[float]] = {BATCHES: [], MANY_BATCHES: [], ONE: [], MANY: []}
    spent: dict[str, list[float]] = {BATCHES: [], MANY_BATCHES: [], MANY: []}
    lines = (running.BODY.strip() + b"\n") * IN_A_BATCH
    for _ in range(rounds):
        port = running.free_port()
        with running.openhqm(port, "--role", "listener") as listener:
            rate, _ = _by_one(port, SUBMIT, running.BODY, "application/json", seconds)
            found[ONE].append(rate)
            before = cpu(listener.pid)
            rate, count = _by_one(port, BATCH, lines, NDJSON, seconds)
            found[BATCHES].append(rate)
            spent[BATCHES].append((cpu(listener.pid) - before) / count * 1e6)
            for name, path, body, kind, callers, size in (
                (MANY_BATCHES, BATCH, lines, NDJSON, MOST_CALLERS, IN_A_BATCH),
                (MANY, SUBMIT, running.BODY, "application/json", 64, 1),
            ):
                before = cpu(listener.pid)
                rate = size * running.wrk(port, path, seconds, body, {"Content-Type": kind}, callers)
                found[name].append(rate)
                spent[name].append((cpu(listener.pid) - before) / rate / seconds * 1e6)
    for name, rates in found.items():
        table.add(name, statistics.median(rates), "requests/s")
    for name, costs in spent.items():
        table.add(f"{name}, CPU of a request", statistics.median(costs), "us")


def _by_one(port: int, path: str, body: bytes, content_type: str, seconds: float) -> tuple[float, int]:
    """Requests accepted in a second, and how many these were in all."""
    connection, accepted = http.client.HTTPConnection("127.0.0.1", port), 0
    began = time.perf_counter()
    while time.perf_counter() - began < seconds:
        connection.request("POST", path, body, {"Content-Type": content_type})
        answer = json.loads(connection.getresponse().read())
        accepted += len(answer["accepted"]) if path == BATCH else len([answer["correlation_id"]])
    return accepted / (time.perf_counter() - began), accepted

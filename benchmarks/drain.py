"""Draining a Redis stream to a constant HTTP target: what one message costs in CPU, beside a client's bare loop."""

from __future__ import annotations

import json
import os
import socket
import statistics
import sys
import time
from pathlib import Path

from benchmarks import running
from benchmarks.client_loop import UNDER_WAY
from benchmarks.peers import empty_redis
from benchmarks.table import Table

INBOX = "openhqm-requests"
WARM = 0.1
PAUSE = 0.05
PATIENCE = 300.0
OURS, CLIENT, TREQ = "drain: OpenHQM, Redis everysec", "drain: our client alone", "drain: treq alone"
WANTED = 150.0
"""Microseconds of CPU for each message."""
_TICK = os.sysconf("SC_CLK_TCK")


def drain(table: Table, count: int, rounds: int) -> None:
    """The CPU of one worker for a message: read from the stream, sent to the target, settled; 64 are in hand at once.

    CPU, because the time that it takes says more about what else the machine does.
    """
    found: dict[str, list[float]] = {OURS: [], CLIENT: [], TREQ: []}
    rates = []
    target = running.free_port()
    url = f"http://127.0.0.1:{target}/"
    with running.process([sys.executable, "-m", "benchmarks.yardsticks", "floor", str(target)], target):
        for _ in range(rounds):
            spent, rate = _ours(url, count)
            found[OURS].append(spent)
            rates.append(rate)
            for name, which, calls in ((CLIENT, "ours", count), (TREQ, "treq", count // 4)):
                found[name].append(running.printed("benchmarks.client_loop", which, url, str(calls)))
    for name, costs in found.items():
        table.add(name, statistics.median(costs), "us of CPU")
    table.add("drain: OpenHQM, Redis everysec, for what it is worth", statistics.median(rates), "messages/s")
    table.at_most("drain: CPU of one message", statistics.median(found[OURS]), "us", WANTED)
    share = statistics.median(found[CLIENT]) / statistics.median(found[OURS])
    table.bound("drain: our client alone / OpenHQM", share, "ratio", 0.75, share >= 0.75, "at least")


def _ours(url: str, count: int) -> tuple[float, float]:
    """Microseconds of CPU for each message, and messages per second, once ``WARM`` of them are done."""
    with empty_redis() as server, _Redis(server) as redis:
        redis.fill(count)
        settings = {
            "OPENHQM_QUEUE__TYPE": "redis",
            "OPENHQM_QUEUE__REDIS_URL": f"redis://localhost:{server}",
            "OPENHQM_PROXY__ENABLED": "true",
            "OPENHQM_PROXY__DEFAULT_ENDPOINT": "target",
            "OPENHQM_PROXY__ENDPOINTS": json.dumps({"target": {"url": url}}),
            "OPENHQM_WORKER__COUNT": str(UNDER_WAY),
            "OPENHQM_WORKER__BATCH_SIZE": str(UNDER_WAY),
        }
        with running.openhqm(None, "--role", "worker", **settings) as worker:
            deadline = time.monotonic() + PATIENCE
            first: tuple[int, float, float] | None = None
            while (done := count - redis.left()) < count:
                assert worker.poll() is None, "the worker has ended"
                assert time.monotonic() < deadline, f"only {done} of {count} were done"
                if first is None and done >= WARM * count:
                    first = done, cpu(worker.pid), time.perf_counter()
                time.sleep(PAUSE)
            assert first is not None, "all messages were done before the first count"
            before, spent, began = first
            rate = (count - before) / (time.perf_counter() - began)
            return (cpu(worker.pid) - spent) / (count - before) * 1e6, rate


def cpu(pid: int) -> float:
    """The seconds of CPU that a process has used, with all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


class _Redis:
    """A connection to Redis, and no client: it must not need any of the machine's time."""

    def __init__(self, port: int) -> None:
        self._connection = socket.create_connection(("127.0.0.1", port), timeout=30)
        self._lines = self._connection.makefile("rb")

    def __enter__(self) -> _Redis:
        return self

    def __exit__(self, *error: object) -> None:
        self._lines.close()
        self._connection.close()

    def fill(self, count: int) -> None:
        """Add so many messages to the stream, as any program does."""
        payload = json.dumps(json.loads(running.BODY)["payload"])
        for start in range(0, count, 1000):
            part = range(start, min(start + 1000, count))
            self._connection.sendall(b"".join(_command("XADD", INBOX, "*", "payload", payload) for _ in part))
            for _ in part:
                self._lines.readline()
                self._lines.readline()

    def left(self) -> int:
        """How many messages are in the stream, or accepted and not settled."""
        self._connection.sendall(_command("XLEN", INBOX) + _command("ZCARD", "{openhqm}:open"))
        return sum(int(self._lines.readline()[1:]) for _ in range(2))


def _command(*words: str) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word.encode()) for word in words)

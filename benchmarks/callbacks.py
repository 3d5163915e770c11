"""Sending callbacks to a constant HTTP target: what one costs in CPU, beside a client's bare loop."""

from __future__ import annotations

import http.client
import json
import re
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor

from benchmarks import running
from benchmarks.drain import PATIENCE, PAUSE, WARM, cpu
from benchmarks.table import Table

OURS, CLIENT = "callbacks: OpenHQM, SQLite", "callbacks: our client alone"
PORTION = 1000
CANCELLING = 32
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # the one in the docs
_JSON = {"Content-Type": "application/json"}


def callbacks(table: Table, count: int, rounds: int) -> None:
    """The CPU of one process for a callback: received from the file, signed, sent, settled; 64 are under way.

    Their requests have been cancelled before, so that the process does nothing else.
    """
    found: dict[str, list[float]] = {OURS: [], CLIENT: []}
    target = running.free_port()
    url = f"http://127.0.0.1:{target}/"
    with running.process([sys.executable, "-m", "benchmarks.yardsticks", "floor", str(target)], target):
        for _ in range(rounds):
            found[OURS].append(_ours(url, count))
            found[CLIENT].append(running.printed("benchmarks.client_loop", "ours", url, str(count)))
    for name, costs in found.items():
        table.add(name, statistics.median(costs), "us of CPU")
    share = statistics.median(found[CLIENT]) / statistics.median(found[OURS])
    table.bound("callbacks: our client alone / OpenHQM", share, "ratio", 0.7, share >= 0.7, "at least")


def _ours(url: str, count: int) -> float:
    """Microseconds of CPU for each callback, once ``WARM`` of them are done."""
    sent = {"secrets": [SECRET], "allow": [url.rstrip("/")], "max_in_flight": 64}
    settings = {"OPENHQM_CALLBACKS": json.dumps(sent)}
    with tempfile.TemporaryDirectory(prefix="openhqm-bench-", dir="/var/tmp") as directory:
        port = running.free_port()
        idle = {"OPENHQM_WORKER__ENABLED": "false", "OPENHQM_WORKER__HANDLER": ""}
        with running.openhqm(port, directory=directory, **settings, **idle):
            _fill(port, url, count)
        with running.openhqm(port, directory=directory, **settings) as process:
            deadline = time.monotonic() + PATIENCE
            first: tuple[float, float] | None = None
            while (done := _delivered(port)) < count:
                assert time.monotonic() < deadline, f"only {done:.0f} of {count} were sent"
                if first is None and done >= WARM * count:
                    first = done, cpu(process.pid)
                time.sleep(10 * PAUSE)
            assert first is not None, "all callbacks were sent before the first count"
            return (cpu(process.pid) - first[1]) / (count - first[0]) * 1e6


def _fill(port: int, url: str, count: int) -> None:
    """Submit so many requests with a callback, and cancel them, many at once: each waits for the disk."""
    free = [http.client.HTTPConnection("127.0.0.1", port, timeout=60) for _ in range(CANCELLING)]

    def ask(path: str, document: object = None) -> dict:
        connection = free.pop()
        connection.request("POST", f"/api/v1/{path}", None if document is None else json.dumps(document), _JSON)
        answer = json.loads(connection.getresponse().read())
        free.append(connection)
        return answer

    one = {"payload": json.loads(running.BODY)["payload"], "metadata": {"callback_url": url}}
    with ThreadPoolExecutor(CANCELLING) as threads:
        for _ in range(count // PORTION):
            accepted = ask("batch", {"requests": [one] * PORTION})["accepted"]
            list(threads.map(ask, [f"cancel/{each['correlation_id']}" for each in accepted]))
    for connection in free:
        connection.close()


def _delivered(port: int) -> float:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    found = re.search(r'^openhqm_callbacks_total\{outcome="delivered"\} (\S+)$', text, re.MULTILINE)
    return 0.0 if found is None else float(found[1])

"""A tenant that waits in a crowd: the time of single requests without and with 100,000 of another tenant queued."""

from __future__ import annotations

import http.client
import json
import secrets
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from benchmarks import running
from benchmarks.open_model import percentile
from benchmarks.table import Table
from openhqm.policy.api_keys import Key, Role, digest_of, new_key, write_keys
from tests.brokers import RabbitMQServer, RedisServer

WORK_SECONDS = 0.02
SLOTS = 5
BATCH = 1000
HANDLER = f"""
from twisted.internet import reactor
from twisted.internet.task import deferLater

async def handle(work):
    return await deferLater(reactor, {WORK_SECONDS}, lambda: 1)
"""
TENANTS = [{"name": "noisy"}, {"name": "quiet"}]


def fairness(
    table: Table, waiting: int, singles: int, where: tuple[str, ...] = ("SQLite", "Redis", "RabbitMQ")
) -> None:
    """``singles`` requests of a quiet tenant, one after the other, alone and beside ``waiting`` of a noisy one."""
    for name in where:
        with tempfile.TemporaryDirectory() as scratch, _backend(name) as settings:
            # Over a broker the first of them wait until what lies before them is done.
            _measure(
                table, name, Path(scratch), settings, min(waiting, 2000) if name == "RabbitMQ" else waiting, singles
            )


@contextmanager
def _backend(name: str) -> Iterator[dict[str, str]]:
    if name == "SQLite":
        yield {}
        return
    server = RedisServer().start() if name == "Redis" else RabbitMQServer().start()
    with closing(server):
        kind = name.lower()
        yield {"OPENHQM_QUEUE__TYPE": kind, f"OPENHQM_QUEUE__{kind.upper()}_URL": server.url}


def _measure(table: Table, name: str, scratch: Path, settings: dict[str, str], waiting: int, singles: int) -> None:
    (scratch / "work.py").write_text(HANDLER)
    keys = {tenant: new_key(secrets.token_bytes) for tenant in ("noisy", "quiet")}
    roles, file = frozenset({Role.SUBMIT, Role.READ}), scratch / "keys.json"
    file.touch(0o600)
    rows = [Key(f"{number:012x}", digest_of(key), each, roles, 1) for number, (each, key) in enumerate(keys.items())]
    file.write_text(write_keys(rows))
    port = running.free_port()
    with running.openhqm(
        port,
        OPENHQM_AUTH__TYPE="api_key",
        OPENHQM_AUTH__KEYS_FILE=str(file),
        OPENHQM_TENANTS=json.dumps(TENANTS),
        OPENHQM_WORKER__HANDLER="work:handle",
        OPENHQM_WORKER__COUNT=str(SLOTS),
        PYTHONPATH=f"{running.ROOT}:{scratch}",
        **settings,
    ):
        _wait_until_ready(port)
        quiet, noisy = _Caller(port, keys["quiet"]), _Caller(port, keys["noisy"])
        quiet.singles(20)  # warm
        alone = quiet.singles(singles)
        noisy.queue(waiting)
        beside = quiet.singles(singles)
    for share in (0.5, 0.99):
        table.add(f"fairness: {name}, alone, p{share * 100:g}", percentile(alone, share), "ms")
        table.add(f"fairness: {name}, beside {waiting:,}, p{share * 100:g}", percentile(beside, share), "ms")
    ratio = percentile(beside, 0.99) / percentile(alone, 0.99)
    if name == "RabbitMQ":  # its requests stand behind what waits in the broker
        table.add(f"fairness: {name}, p99 beside / alone", ratio, "ratio")
    else:
        table.at_most(f"fairness: {name}, p99 beside / alone", ratio, "ratio", 2)


def _wait_until_ready(port: int) -> None:
    deadline = time.monotonic() + 30
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        connection.request("GET", "/health/ready")
        if connection.getresponse().status == 200:
            return
        assert time.monotonic() < deadline, "it does not get ready"
        time.sleep(0.1)


class _Caller:
    """One connection, with the key of a tenant."""

    def __init__(self, port: int, key: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port)
        self._fields = {"OpenHQM-Key": key}

    def singles(self, count: int) -> list[float]:
        """How long each of so many requests takes from its submission to its result, in seconds, sorted."""
        found = []
        for _ in range(count):
            started = time.perf_counter()
            fields = {"Content-Type": "application/json", "Prefer": "wait=60"}
            status = self._ask("/api/v1/submit", b'{"payload":1}', fields)
            found.append(time.perf_counter() - started)
            assert status == 200, status
        return sorted(found)

    def queue(self, count: int) -> None:
        """Submit so many, in batches."""
        body = b'{"payload":1}\n' * BATCH
        for _ in range(count // BATCH):
            status = self._ask("/api/v1/batch", body, {"Content-Type": "application/x-ndjson"})
            assert status == 202, status

    def _ask(self, path: str, body: bytes, fields: dict[str, str]) -> int:
        self._connection.request("POST", path, body, {**self._fields, **fields})
        answer = self._connection.getresponse()
        answer.read()
        return answer.status

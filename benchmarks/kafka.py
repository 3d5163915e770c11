"""Kafka: accepting, working through a full topic, a topic sent to an HTTP target, a slow key, latencies, and rest.

A part of ``python -m benchmarks --only kafka``. It needs the jars that ``.ci/run`` gets, and ``wrk``. The peers are in
a virtual environment of their own, whose directory ``BENCH_PEERS`` names::

    python3 -m venv /var/tmp/openhqm-peers && /var/tmp/openhqm-peers/bin/pip install 'faststream[confluent]' mq-bridge
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SkipTest

from benchmarks import running
from benchmarks.accepting import cpu
from benchmarks.open_model import measure, percentile
from benchmarks.peers import SUBMIT
from benchmarks.pubsub import cpu_of
from benchmarks.slow_key import USUAL
from benchmarks.table import Table
from openhqm.policy.queue_names import partition_of
from tests.kafka.programs import Programs
from tests.kafka.server import JVM, KafkaServer
from tests.servers import Server

PEERS = Path(os.environ.get("BENCH_PEERS", "/var/tmp/openhqm-peers"))
PARTITIONS = 12
WARM = 0.1
PAUSE = 0.05
PATIENCE = 300.0
EMBEDDED, ACCEPTING = "accept: OpenHQM, SQLite FULL, beside Kafka", "accept: OpenHQM, Kafka, ledger in SQLite FULL"
CONSUMING = "consume: OpenHQM, Kafka, ledger in SQLite FULL"
ECHOING, SILENT = "consume: FastStream (confluent), echo published", "consume: FastStream (confluent), echo dropped"
OURS_OUT = "Kafka -> HTTP: OpenHQM, queue in memory"
OURS_FILE = "Kafka -> HTTP: OpenHQM, queue in SQLite FULL"
BRIDGE_OUT = "Kafka -> HTTP: mq-bridge"
KEYS, EACH = 16, 10


class MeasuredKafka(KafkaServer):
    """With the memory and the garbage collector of Kafka's own ``kafka-server-start.sh``.

    That of the tests starts soon and takes little. Its collector stops it for 50 to 300 ms at a time, which is all that
    a p99 would tell.
    """

    jvm = (
        "-Xms1g",
        "-Xmx1g",
        "-XX:+UseG1GC",
        "-XX:MaxGCPauseMillis=20",
        "-XX:InitiatingHeapOccupancyPercent=35",
        *(option for option in JVM if option.startswith("-D")),
    )


def kafka(table: Table, seconds: float, rounds: int, count: int) -> None:
    """All of it, on one Kafka, which shares the machine and is not counted."""
    try:
        server = MeasuredKafka().start()
    except SkipTest as error:
        print(f"kafka: left out, {error}")
        return
    with closing(server):
        _accepting(table, server, seconds, rounds)
        _consuming(table, server, count, rounds)
        _forwarding(table, server, count, rounds)
        _slow_key(table, server)
        _gateway(table, server, seconds)


def _settings(server: KafkaServer, prefix: str, **more: Any) -> dict[str, str]:
    ours = {"bootstrap_servers": [server.bootstrap], "prefix": prefix, "partitions": PARTITIONS, **more}
    return {
        "OPENHQM_QUEUE__TYPE": "kafka",
        "OPENHQM_QUEUE__PRIORITIES": '["normal"]',
        "OPENHQM_QUEUE__CONNECTION__KAFKA": json.dumps(ours),
    }


def _accepting(table: Table, server: KafkaServer, seconds: float, rounds: int) -> None:
    """Confirmed, over 64 connections; in turns with the embedded queue. What it costs is the CPU of the process."""
    port = running.free_port()
    found: dict[str, list[tuple[float, float]]] = {EMBEDDED: [], ACCEPTING: []}
    for number in range(rounds):
        for name, settings in ((EMBEDDED, {}), (ACCEPTING, _settings(server, f"accept{number}."))):
            with running.openhqm(port, "--role", "listener", **settings) as process:
                _until_it_accepts(port)
                running.wrk(port, SUBMIT, 1)  # the first ones are slower, in Kafka too
                used = cpu(process.pid)
                rate = running.wrk(port, SUBMIT, seconds)
                found[name].append((rate, 1e6 * (cpu(process.pid) - used) / (rate * seconds)))
    for name, rounds_of_it in found.items():
        table.add(name, statistics.median(rate for rate, _ in rounds_of_it), "requests/s")
        table.add(f"{name}: CPU of it", statistics.median(cost for _, cost in rounds_of_it), "us for each request")
    table.ratio("accept, Kafka / the embedded queue", ACCEPTING, EMBEDDED, 0.6)


def _consuming(table: Table, server: KafkaServer, count: int, rounds: int) -> None:
    """Requests that are consumed, echoed and settled, from when a tenth of them is done."""
    found: dict[str, list[float]] = {}
    for number in range(rounds):
        found.setdefault(CONSUMING, []).append(_ours(server, f"consume{number}.", count))
        for name, replies in ((ECHOING, True), (SILENT, False)):
            if not _has("faststream"):
                continue
            programs = Programs(server, f"peer{number}{replies}.")
            topic = programs.topic("requests", PARTITIONS)
            _fill(programs, topic, count)
            arguments = [topic, programs.topic("replies", PARTITIONS)] if replies else [topic]
            peer = _peer("faststream", server, *arguments)
            rate = _rate(peer, count, lambda programs=programs, topic=topic: programs.committed("bench", topic))
            found.setdefault(name, []).append(rate)
    for name, rates in found.items():
        table.add(name, statistics.median(rates), "requests/s")
    table.ratio("consume, OpenHQM / FastStream", CONSUMING, ECHOING, 2)


def _ours(server: KafkaServer, prefix: str, count: int) -> float:
    port, settings = running.free_port(), _settings(server, prefix)
    with tempfile.TemporaryDirectory(prefix="openhqm-bench-", dir="/var/tmp") as directory:
        with running.openhqm(port, "--role", "listener", directory=directory, **settings):
            _until_it_accepts(port)
            while _metric(port, 'openhqm_submissions_total{outcome="accepted"}') < count:
                running.wrk(port, SUBMIT, 1)
            lying = int(_metric(port, 'openhqm_submissions_total{outcome="accepted"}'))
        settings |= {"OPENHQM_WORKER__COUNT": "64", "OPENHQM_WORKER__BATCH_SIZE": "64"}
        working = running.openhqm(port, directory=directory, **settings)
        return _rate(working, lying, lambda: int(_metric(port, 'openhqm_requests_total{outcome="completed"}')))


def _forwarding(table: Table, server: KafkaServer, count: int, rounds: int) -> None:
    """A topic with 12 partitions to a constant HTTP target, 64 calls at once."""
    target = running.free_port()
    url = f"http://127.0.0.1:{target}/"
    found: dict[str, list[float]] = {}
    with running.process([sys.executable, "-m", "benchmarks.yardsticks", "floor", str(target)], target):
        for number in range(rounds):
            for index, name in enumerate((OURS_OUT, OURS_FILE, BRIDGE_OUT)):
                if name == BRIDGE_OUT and not _has("mq_bridge"):
                    continue
                programs = Programs(server, f"forward{number}{index}.")
                topic = programs.topic("in", PARTITIONS)
                _fill(programs, topic, count)
                group = "bench" if name == BRIDGE_OUT else "openhqm/b"
                working: AbstractContextManager[Any]
                if name == BRIDGE_OUT:
                    working = _peer("mq_bridge", server, topic, url)
                else:
                    working = running.openhqm(None, "--role", "worker", **_bridge(server, topic, url, name))
                rate = _rate(working, count, lambda p=programs, g=group, t=topic: p.committed(g, t))  # type: ignore[misc]
                found.setdefault(name, []).append(rate)
    for name, rates in found.items():
        table.add(name, statistics.median(rates), "messages/s")


def _bridge(server: KafkaServer, topic: str, url: str, name: str) -> dict[str, str]:
    bridge = {"name": "b", "from": {"broker": "k", "topic": topic}, "endpoint": "target", "reply": "none", "most": 256}
    bridge |= {"acknowledge": "ending", "dead_letters": f"{topic}-failed"}
    memory = {"OPENHQM_QUEUE__TYPE": "memory"} if name == OURS_OUT else {}
    return {
        "OPENHQM_SERVER__ENABLED": "false",
        "OPENHQM_BROKERS": json.dumps({"k": {"type": "kafka", "bootstrap_servers": [server.bootstrap]}}),
        "OPENHQM_BRIDGES": json.dumps([bridge]),
        "OPENHQM_PROXY__ENABLED": "true",
        "OPENHQM_PROXY__ENDPOINTS": json.dumps({"target": {"url": url}}),
        "OPENHQM_WORKER__COUNT": "64",
        "OPENHQM_WORKER__BATCH_SIZE": "64",
        **memory,
    }


def _slow_key(table: Table, server: KafkaServer) -> None:
    """200 ms for each request of 16 keys, all in one partition of Kafka, without and beside a key that takes 2 s."""
    keys = _keys(KEYS + 1)
    found = {}
    for name, slow in (("alone", 0), ("beside a slow key", EACH)):
        with tempfile.TemporaryDirectory() as directory:
            settings = _settings(server, f"slow{slow}.", partitions=1) | {
                "OPENHQM_PARTITIONING__ENABLED": "true",
                "OPENHQM_PARTITIONING__PARTITION_COUNT": "256",
                "OPENHQM_WORKER__HANDLER": "benchmarks.slow_key:handle",
                "OPENHQM_WORKER__COUNT": str(KEYS + 1),
            }
            with _started(Server(directory, **settings)) as gateway:
                gateway.submit({"slow": False})
                began = time.perf_counter()
                for _ in range(slow):
                    gateway.submit({"slow": True}, partition_key=keys[0])
                ids = [gateway.submit({"slow": False}, partition_key=key) for _ in range(EACH) for key in keys[1:]]
                for id in ids:
                    gateway.response(id, 30)
                found[name] = time.perf_counter() - began
                gateway.kill()
        table.add(f"{KEYS} keys x {EACH} requests of 200 ms, {name}", found[name], "s")
    table.add("the same, were nothing in between", EACH * USUAL, "s")
    ratio = found["beside a slow key"] / found["alone"]
    table.at_most("other keys beside a slow key / alone", ratio, "ratio", 1.1)


def _keys(count: int) -> list[str]:
    """So many, no two of which are in one partition of ours."""
    keys: dict[int, str] = {}
    number = 0
    while len(keys) < count:
        keys.setdefault(partition_of(f"key{number}", 256), f"key{number}")
        number += 1
    return list(keys.values())


def _gateway(table: Table, server: KafkaServer, seconds: float) -> None:
    """One process at rest, and at 200 requests a second, beside a plain one."""
    rest = {}
    for name, settings in (("SQLite", {}), ("Kafka", _settings(server, "rest."))):
        with tempfile.TemporaryDirectory() as directory, _started(Server(directory, **settings)) as gateway:
            assert gateway.process is not None
            pid = gateway.process.pid
            gateway.response(gateway.submit({"a": 1}))
            time.sleep(3)
            used, began = cpu_of(pid), time.perf_counter()
            time.sleep(4 * seconds)
            rest[name] = running.resident(pid), 100 * (cpu_of(pid) - used) / (time.perf_counter() - began)
            table.add(f"idle resident memory, queue in {name}", rest[name][0], "MiB")
            if name == "Kafka":
                _latencies(table, gateway, seconds)
    table.at_most("idle memory that Kafka adds", rest["Kafka"][0] - rest["SQLite"][0], "MiB", 25)
    table.at_most("idle CPU with Kafka", rest["Kafka"][1], "% of a core", 1)


def _latencies(table: Table, gateway: Server, seconds: float) -> None:
    done = gateway.submit({"a": 1})
    gateway.response(done)
    body = json.dumps({"payload": {"a": 1}}).encode()
    head = "POST /api/v1/submit HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: "
    post = f"{head}{len(body)}\r\n\r\n".encode() + body
    get = f"GET /api/v1/response/{done} HTTP/1.1\r\nHost: a\r\n\r\n".encode()
    good: Callable[[bytes], bool] = lambda answer: answer[9:12] in (b"202", b"200")  # noqa: E731
    accepted = asyncio.run(measure(gateway.port, post, good, 200, 4 * seconds))
    table.add("accept at 200/s, p50", percentile(accepted, 0.5), "ms")
    table.at_most("accept at 200/s, p99", percentile(accepted, 0.99), "ms", 10)
    table.at_most("published and confirmed at 200/s, p99, under", _published(gateway.port), "ms", 50)
    read = asyncio.run(measure(gateway.port, get, good, 200, 4 * seconds))
    table.at_most("read at 200/s, p99", percentile(read, 0.99), "ms", 5)


def _published(port: int) -> float:
    """The upper bound, in milliseconds, of the bucket that the p99 of ``openhqm_publish_duration_seconds`` is in."""
    text = _metrics(port)
    buckets = re.findall(r'^openhqm_publish_duration_seconds_bucket\{le="([^"]+)"\} (\S+)', text, re.MULTILINE)
    whole = float(buckets[-1][1])
    return next(float(bound) * 1000 for bound, below in buckets if float(below) >= 0.99 * whole)


# The servers and their load


def _started(server: Server) -> AbstractContextManager[Server]:
    server.start()
    return _Stopping(server)


class _Stopping(AbstractContextManager[Server]):
    def __init__(self, server: Server) -> None:
        self._server = server

    def __enter__(self) -> Server:
        return self._server

    def __exit__(self, *error: object) -> None:
        self._server.stop()


def _has(package: str) -> bool:
    found = any(PEERS.glob(f"lib/python3*/site-packages/{package}"))
    if not found:
        print(f"{package}: left out, it is not in {PEERS}")
    return found


def _peer(name: str, server: KafkaServer, *arguments: str) -> AbstractContextManager[Any]:
    command = [str(PEERS / "bin" / "python"), f"benchmarks/peer_{name}.py", *arguments]
    return running.process(command, BENCH_KAFKA=server.bootstrap)


def _fill(programs: Programs, topic: str, count: int) -> None:
    payload = json.dumps(json.loads(running.BODY)["payload"]).encode()
    for number in range(0, count, 1000):
        keys = range(number, min(number + 1000, count))
        programs.publish(topic, *({"value": payload, "key": b"%d" % (key % 240)} for key in keys))


def _rate(working: AbstractContextManager[Any], count: int, done: Callable[[], int]) -> float:
    """How many a second, from the moment when ``WARM`` of them were done to the last one: the start is left out."""
    with working as process:
        deadline = time.monotonic() + PATIENCE
        first: tuple[float, int] | None = None
        while (now := _asked(done)) < count:
            assert process.poll() is None, "it has ended"
            assert time.monotonic() < deadline, f"only {now} of {count} were done"
            if first is None and now >= WARM * count:
                first = time.perf_counter(), now
            time.sleep(PAUSE)
        assert first is not None, "all were done before the first count"
        return (count - first[1]) / (time.perf_counter() - first[0])


def _asked(done: Callable[[], int]) -> int:
    from confluent_kafka import KafkaException

    try:
        return done()
    except (OSError, KafkaException):  # it does not listen yet; the group is new
        return 0


def _until_it_accepts(port: int) -> None:
    """The first request makes the topic."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("POST", SUBMIT, running.BODY, {"Content-Type": "application/json"})
        if connection.getresponse().status == 202:
            return
        time.sleep(PAUSE)
    raise AssertionError("it accepts nothing")


def _metrics(port: int) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/metrics")
    return connection.getresponse().read().decode()


def _metric(port: int, name: str) -> float:
    found = re.search(rf"^{re.escape(name)} (\S+)", _metrics(port), re.MULTILINE)
    return 0.0 if found is None else float(found[1])

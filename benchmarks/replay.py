"""A target that comes back: what the backlog of a bridge costs the messages of now, and what it takes in memory."""

from __future__ import annotations

import asyncio
import json
import re
import statistics
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from urllib.request import urlopen

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from benchmarks import running
from benchmarks.table import Table
from openhqm.policy.queue_names import partition_of
from tests.brokers import Mosquitto

RATE = 500
LIVE_RATE = 50
WINDOW = 500
DEVICES = 8
PATIENCE = 900.0
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1\r\n\r\n1"


def replay(table: Table, count: int, seconds: float) -> None:
    """The delay of live messages, from their publishing until the target has them, without and with a backlog.

    ``count`` messages wait while the target is away. Then it is back, and for ``seconds`` each of `LIVE_RATE` messages
    a second comes from devices of other partitions.
    """
    port, target = running.free_port(), running.free_port()
    broker = Mosquitto(max_queued_messages="0", autosave_interval="1800", autosave_on_changes="false").start()
    with closing(broker), tempfile.TemporaryDirectory() as scratch:
        settings = _settings(broker.port, f"http://127.0.0.1:{target}/")
        with running.openhqm(port, **settings) as gateway:
            sender = _Sender(broker.port)
            began = _Target(target, f"{scratch}/before")
            with began.running():
                while not began.seen():
                    sender.live(time.monotonic())
                    time.sleep(0.1)
                time.sleep(1)
                without = _late(began, sender, seconds)
            _look(table, gateway.pid, "replay: resident memory at first")
            first = _accepted(port)
            sender.backlog(count, lambda sent: _accepted(port) - first >= sent - 2000)
            deadline = time.monotonic() + PATIENCE
            while (accepted := _accepted(port) - first) < count:
                assert time.monotonic() < deadline, f"only {accepted} of {count} were accepted"
                time.sleep(0.2)
            _look(table, gateway.pid, f"replay: resident memory with {count:,} waiting")
            after = _Target(target, f"{scratch}/after")
            with after.running():
                while not after.seen():
                    time.sleep(0.05)
                time.sleep(1)
                replayed = after.replayed()
                started = time.perf_counter()
                within = _late(after, sender, seconds)
                rate = (after.replayed() - replayed) / (time.perf_counter() - started)
            _look(table, gateway.pid, "replay: resident memory while it drains")
    table.add("replay: p99 of live messages without a backlog", without, "ms")
    table.add("replay: p99 of live messages beside the backlog", within, "ms")
    table.add(f"replay: the backlog at rate {RATE}", rate, "messages/s")
    table.at_most("replay: p99 with / without", within / without, "ratio", 2)


def _settings(broker: int, url: str) -> dict[str, str]:
    bridge = {
        "name": "telemetry",
        "from": {"broker": "plant", "topics": ["sensors/#"]},
        "endpoint": "collector",
        "reply": "none",
        "partition_key": "{{ topic[1] }}",
        "replay": {"rate": RATE},
        "most": 200,
    }
    return {
        "OPENHQM_BROKERS": json.dumps({"plant": {"type": "mqtt", "host": "127.0.0.1", "port": broker}}),
        "OPENHQM_BRIDGES": json.dumps([bridge]),
        "OPENHQM_PARTITIONING": json.dumps({"enabled": True, "partition_count": 64}),
        "OPENHQM_PROXY": json.dumps({"enabled": True, "endpoints": {"collector": {"url": url}}}),
    }


def _late(target: _Target, sender: _Sender, seconds: float) -> float:
    """The p99, in milliseconds, of messages that are published at `LIVE_RATE` for so long: the median of its windows,
    for a machine that stands still for a moment does that in one of them.
    """
    before, began = len(target.late()), time.monotonic()
    count = round(seconds * LIVE_RATE)
    for number in range(count):
        due = began + number / LIVE_RATE
        time.sleep(max(0.0, due - time.monotonic()))
        sender.live(due)
    deadline = time.monotonic() + PATIENCE
    while len(found := target.late()[before:]) < count:
        assert time.monotonic() < deadline, f"only {len(found)} of {count} live messages came"
        time.sleep(0.1)
    windows = [found[start : start + WINDOW] for start in range(0, count, WINDOW)]
    whole = [each for each in windows if len(each) == WINDOW] or [found]
    return statistics.median(statistics.quantiles(each, n=100)[98] for each in whole) * 1000


def _look(table: Table, pid: int, name: str) -> None:
    table.add(name, running.resident(pid), "MiB")


def _accepted(port: int) -> int:
    """How many bridged messages the gateway has accepted."""
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
        found = re.search(rb'openhqm_bridged_messages_total\{outcome="accepted"\} (\S+)', answer.read())
    return 0 if found is None else int(float(found[1]))


class _Sender:
    """The devices. Those of the backlog are in other partitions than those that speak now."""

    def __init__(self, port: int) -> None:
        even = [name for name in map(str, range(1000)) if partition_of(name, 64) % 2 == 0]
        odd = [name for name in map(str, range(1000)) if partition_of(name, 64) % 2]
        self._kept, self._live, self._next = even[:DEVICES], odd[:DEVICES], 0
        self._client = Client(CallbackAPIVersion.VERSION2, "devices", protocol=MQTTProtocolVersion.MQTTv311)
        self._client.max_inflight_messages_set(200)
        self._client.max_queued_messages_set(0)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    def live(self, at: float) -> None:
        """One message of now, which was due ``at``."""
        self._next += 1
        device = self._live[self._next % DEVICES]
        self._client.publish(f"sensors/{device}", json.dumps({"live": at}), qos=1)

    def backlog(self, count: int, kept_up) -> None:
        """So many messages, of about 100 bytes."""
        for number in range(count):
            device = self._kept[number % DEVICES]
            self._client.publish(f"sensors/{device}", json.dumps({"n": number, "text": "x" * 80}), qos=1)
            if number % 1000 == 999:
                while not kept_up(number + 1):
                    time.sleep(0.05)


class _Target:
    """The target in a process of its own, and what it wrote down: a line for each message."""

    def __init__(self, port: int, file: str) -> None:
        self._port, self._file = port, Path(file)

    def running(self):
        """It answers within this context."""
        return running.process(
            [sys.executable, "-m", "benchmarks.replay", str(self._port), str(self._file)], self._port
        )

    def _lines(self) -> list[str]:
        return self._file.read_text().splitlines() if self._file.exists() else []

    def seen(self) -> bool:
        """Whether anything came."""
        return bool(self._lines())

    def late(self) -> list[float]:
        """How late each live message was, in seconds."""
        return [float(line) for line in self._lines() if line != "replayed"]

    def replayed(self) -> int:
        """How many messages were marked as the backlog."""
        return self._lines().count("replayed")


class _Service(asyncio.Protocol):
    """Answers each request at once."""

    def __init__(self, file) -> None:
        self._file = file
        self._received = b""

    def connection_made(self, transport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        while True:
            head, found, rest = self._received.partition(b"\r\n\r\n")
            length = re.search(rb"(?i)content-length: (\d+)", head)
            size = 0 if length is None else int(length[1])
            if not found or len(rest) < size:
                return
            body, self._received = rest[:size], rest[size:]
            if b"live" in body:
                self._file.write(f"{time.monotonic() - json.loads(body)['live']}\n")
            elif b"openhqm-replayed: true" in head.lower():
                self._file.write("replayed\n")
            self._transport.write(ANSWER)


async def _serve(port: int, file) -> None:
    server = await asyncio.get_running_loop().create_server(lambda: _Service(file), "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    with Path(sys.argv[2]).open("a", buffering=1) as written:
        asyncio.run(_serve(int(sys.argv[1]), written))

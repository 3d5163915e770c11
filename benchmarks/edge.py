"""The edge gateway: MQTT to HTTP beside a bare client and mq-bridge, a command to a device and back, and memory."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.request import urlopen

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from benchmarks import running
from benchmarks.drain import cpu
from benchmarks.open_model import measure, percentile
from benchmarks.table import Table
from tests.brokers import Mosquitto

TEXT = "x" * 80
DEVICES = 8
COMMANDS = 100
PORTION = 100_000
MOST_OPEN = 5000
PATIENCE = 900.0
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
PEER = """
import json, sys
from mq_bridge import Route
Route.from_str(sys.argv[1]).run()
"""
_RAPID = {"max_queued_messages": "0", "autosave_interval": "1800", "autosave_on_changes": "false"}


def bridged(table: Table, count: int, seconds: float) -> None:
    """``count`` messages that wait in Mosquitto go to a target: ours, a bare client's loop, and mq-bridge if it is
    there. Then messages come for ``seconds`` at half the rate that ours has reached.
    """
    ours = _Ours(count)
    rate, spent = ours.drain()
    table.add("edge: MQTT -> HTTP, OpenHQM", rate, "messages/s")
    table.add("edge: MQTT -> HTTP, OpenHQM", spent, "us of CPU")
    with _target() as url:
        bare = running.printed("benchmarks.client_loop", "ours", url, str(count))
        bare_rate = running.printed("benchmarks.client_loop", "ours", url, str(count), "rate")
    table.add("edge: our client's loop alone", bare_rate, "calls/s")
    table.add("edge: our client's loop alone", bare, "us of CPU")
    table.bound(
        "edge: OpenHQM / our client's loop", rate / bare_rate, "ratio", 0.6, rate / bare_rate >= 0.6, "at least"
    )
    table.at_most("edge: CPU of OpenHQM / our client's loop", spent / bare, "ratio", 2.5)
    peer = os.environ.get("MQ_BRIDGE")
    if peer is None:
        print("mq-bridge is left out: MQ_BRIDGE names no Python that has it")
    else:
        rate_of_peer, spent_by_peer = _peer(peer, count)
        table.add("edge: MQTT -> HTTP, mq-bridge", rate_of_peer, "messages/s")
        table.add("edge: MQTT -> HTTP, mq-bridge", spent_by_peer, "us of CPU")
    table.at_most(f"edge: p99 at {rate / 2:,.0f}/s", ours.late(rate / 2, seconds), "ms", 100)


class _Ours:
    """A gateway that keeps no order, and 100 calls under way."""

    def __init__(self, count: int) -> None:
        self._count = count

    def drain(self) -> tuple[float, float]:
        """Messages a second, and microseconds of CPU for each, once a tenth of them is done."""
        with _mosquitto() as broker, _target() as url:
            port, settings = running.free_port(), _settings(broker.port, url)
            with running.openhqm(port, **settings):
                _subscribed(broker.port, url)
            _publish(broker.port, self._count)
            with running.openhqm(port, **settings) as gateway:
                return _measured(url, self._count, gateway.pid)

    def late(self, rate: float, seconds: float) -> float:
        """The p99 of how late messages are at the target, in milliseconds, at a constant rate."""
        count = round(rate * seconds)
        with (
            _mosquitto() as broker,
            _target() as url,
            running.openhqm(running.free_port(), **_settings(broker.port, url)),
        ):
            _subscribed(broker.port, url)
            with closing(_Sender(broker.port)) as sender:
                sender.at(rate, seconds)
                _until(lambda: len(_ask(url, "late")) >= count, "not all came")
            return percentile(sorted(_ask(url, "late")), 0.99)


def _peer(python: str, count: int) -> tuple[float, float]:
    """The same by mq-bridge, which acknowledges what the target has answered.

    Its queue has to hold all that its session has kept: with the 100 of its default it got nothing of 150.
    """
    with _mosquitto() as broker, _target() as url:
        mqtt = {
            "url": f"mqtt://127.0.0.1:{broker.port}",
            "topic": "sensors/#",
            "client_id": "mq-bridge",
            "clean_session": False,
            "session_expiry_interval": 3600,
            "qos": 1,
            "max_inflight": 200,
            "queue_capacity": 2 * count,
        }
        route = {"input": {"mqtt": mqtt}, "output": {"http": {"url": url, "method": "POST"}}}
        more = {"concurrency": 64, "batch_size": 64}
        command = [python, "-c", PEER, json.dumps({**route, **more})]
        with running.process(command):
            _subscribed(broker.port, url)
        _publish(broker.port, count)
        with running.process(command) as bridge:
            return _measured(url, count, bridge.pid)


def commands(table: Table, seconds: float) -> None:
    """HTTP -> MQTT -> a device -> MQTT -> HTTP, `COMMANDS` times a second."""
    with _mosquitto() as broker:
        port = running.free_port()
        lamp = {"publish": {"broker": "plant", "topic": "lamps/{{ payload.id }}/set"}, "reply": {"timeout": 10}}
        settings = {
            "OPENHQM_BROKERS": json.dumps({"plant": {"type": "mqtt", "host": "127.0.0.1", "port": broker.port}}),
            "OPENHQM_PROXY": json.dumps({"enabled": True, "endpoints": {"lamp": lamp}}),
            "OPENHQM_WORKER__COUNT": "64",
        }
        body = json.dumps({"payload": {"id": 7, "on": True}, "metadata": {"endpoint": "lamp"}}).encode()
        request = b"POST /api/v1/submit HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nPrefer: wait=5\r\n"
        request += b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
        device = [sys.executable, "-m", "benchmarks.edge", "device", str(broker.port)]
        with running.until_it_prints(device), running.openhqm(port, **settings):
            asyncio.run(measure(port, request, _completed, 20, 2))
            latencies = asyncio.run(measure(port, request, _completed, COMMANDS, seconds))
    table.add(f"edge: command and answer at {COMMANDS}/s, p50", percentile(latencies, 0.5), "ms")
    table.at_most(f"edge: command and answer at {COMMANDS}/s, p99", percentile(latencies, 0.99), "ms", 50)


def memory(table: Table, count: int) -> None:
    """The resident memory of a gateway over ``count`` messages. The last tenth of them waits: the target is away.

    Without pyOpenSSL, as the extra `mqtt` alone installs it. A reply is kept for ten seconds.
    """
    waiting, portion = count // 10, count // 10
    with _mosquitto() as broker:
        port, target = running.free_port(), running.free_port()
        settings = {**_settings(broker.port, f"http://127.0.0.1:{target}/"), "OPENHQM_CACHE__TTL_SECONDS": "10"}
        with running.openhqm(port, tls=False, **settings) as gateway, closing(_Sender(broker.port)) as sender:
            found = []
            with _target(target) as url:
                _subscribed(broker.port, url)
                table.add("edge: resident memory at first", running.resident(gateway.pid), "MiB")
                for _ in range((count - waiting) // portion):
                    sender.many(portion, lambda: _open(port) < MOST_OPEN)
                    _until(lambda: not _open(port), "not all have ended")
                    found.append(running.resident(gateway.pid))
                    table.add(f"edge: resident memory after {len(found) * portion:,} messages", found[-1], "MiB")
            accepted = _accepted(port)
            sender.many(waiting, lambda: sender.sent - _accepted(port) < MOST_OPEN)
            _until(lambda: _accepted(port) - accepted >= waiting, "not all were accepted")
            last = running.resident(gateway.pid)
    table.at_most("edge: growth from the first to the last of these", found[-1] - found[0], "MiB", 1)
    table.at_most(f"edge: resident memory with {waiting:,} more that wait", last, "MiB", 80)


def wear(table: Table, seconds: float) -> None:
    """What a message writes to the disk, for each of these rates and waits of `queue.sync_milliseconds`."""
    for rate in (1, 10, 100):
        for wait in (0, 200, 1000):
            with _mosquitto() as broker, _target() as url:
                settings = {**_settings(broker.port, url), "OPENHQM_QUEUE__SYNC_MILLISECONDS": str(wait)}
                with (
                    running.openhqm(running.free_port(), **settings) as gateway,
                    closing(_Sender(broker.port)) as sender,
                ):
                    _subscribed(broker.port, url)
                    before, count = _written(gateway.pid), round(rate * seconds)
                    sender.at(rate, seconds)
                    _until(lambda count=count: len(_ask(url, "late")) >= count, "not all came")
                    time.sleep(3)
                    written = (_written(gateway.pid) - before) / count / 1024
                    late = percentile(sorted(_ask(url, "late")), 0.5)
            table.add(f"edge: written for a message, {rate}/s, {wait} ms", written, "KiB")
            table.add(f"edge: delay of a message, {rate}/s, {wait} ms, p50", late, "ms")


def _written(pid: int) -> int:
    """How many bytes a process has had written to a disk."""
    found = re.search(r"^write_bytes: (\d+)", Path(f"/proc/{pid}/io").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1])


@contextmanager
def _mosquitto() -> Iterator[Mosquitto]:
    broker = Mosquitto(**_RAPID).start()
    with closing(broker):
        yield broker


@contextmanager
def _target(port: int | None = None) -> Iterator[str]:
    port = running.free_port() if port is None else port
    with running.process([sys.executable, "-m", "benchmarks.edge", "target", str(port)], port):
        yield f"http://127.0.0.1:{port}/"


def _settings(broker: int, url: str) -> dict[str, str]:
    bridge = {
        "name": "telemetry",
        "from": {"broker": "plant", "topics": ["sensors/#"]},
        "endpoint": "collector",
        "reply": "none",
        "most": 200,
    }
    endpoint = {"url": url, "max_in_flight": 64}
    return {
        "OPENHQM_BROKERS": json.dumps({"plant": {"type": "mqtt", "host": "127.0.0.1", "port": broker}}),
        "OPENHQM_BRIDGES": json.dumps([bridge]),
        "OPENHQM_PROXY": json.dumps({"enabled": True, "endpoints": {"collector": endpoint}}),
        "OPENHQM_WORKER__BATCH_SIZE": "64",
        "OPENHQM_WORKER__MAX_RETRIES": "1000",
    }


def _subscribed(broker: int, url: str) -> None:
    """Until a message has come to the target."""
    with closing(_Sender(broker)) as sender:

        def came() -> bool:
            sender.many(1)
            time.sleep(0.1)
            return _ask(url, "count") > 0

        _until(came, "nothing came")
        time.sleep(1)


def _publish(broker: int, count: int) -> None:
    with closing(_Sender(broker)) as sender:
        sender.many(count)


def _measured(url: str, count: int, pid: int) -> tuple[float, float]:
    before = _ask(url, "count")
    _until(lambda: _ask(url, "count") - before >= count / 10, "they do not come")
    began, spent, first = time.perf_counter(), cpu(pid), _ask(url, "count") - before
    _until(lambda: _ask(url, "count") - before >= count, "not all came")
    done = _ask(url, "count") - before - first
    return done / (time.perf_counter() - began), (cpu(pid) - spent) / done * 1e6


def _until(reached, otherwise: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not reached():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.05)


def _ask(url: str, what: str):
    with urlopen(url + what, timeout=60) as answer:
        return json.loads(answer.read())


def _metric(port: int, name: str) -> float:
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
        found = re.search(rf"^{re.escape(name)} (\S+)$", answer.read().decode(), re.MULTILINE)
    return 0.0 if found is None else float(found[1])


def _open(port: int) -> float:
    return _metric(port, "openhqm_requests_open")


def _accepted(port: int) -> float:
    return _metric(port, 'openhqm_bridged_messages_total{outcome="accepted"}')


def _completed(answer: bytes) -> bool:
    return answer.startswith(b"HTTP/1.1 200") and b"COMPLETED" in answer


class _Sender:
    """The devices, with QoS 1."""

    def __init__(self, port: int) -> None:
        self.sent = 0
        self._client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv311)
        self._client.max_inflight_messages_set(200)
        self._client.max_queued_messages_set(0)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    def many(self, count: int, may_go_on=lambda: True) -> None:
        """So many messages, as fast as the broker confirms them."""
        for number in range(count):
            last = self._client.publish(f"sensors/{number % DEVICES}", json.dumps({"n": number, "text": TEXT}), qos=1)
            self.sent += 1
            if number % 1000 == 999:
                last.wait_for_publish(PATIENCE)
                while not may_go_on():
                    time.sleep(0.02)
        last.wait_for_publish(PATIENCE)

    def at(self, rate: float, seconds: float) -> None:
        """Messages at a constant rate, each with the time at which it was due."""
        began = time.monotonic()
        for number in range(round(rate * seconds)):
            due = began + number / rate
            time.sleep(max(0.0, due - time.monotonic()))
            self._client.publish(f"sensors/{number % DEVICES}", json.dumps({"due": due, "text": TEXT}), qos=1)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


class _Service(asyncio.Protocol):
    """Answers each POST with a constant. GET /count: how many there were; GET /late: how late each was."""

    def __init__(self, late: list[float], counts: list[int]) -> None:
        self._late, self._counts = late, counts
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
            answer = b"1"
            if head.startswith(b"GET /late"):
                answer = json.dumps(self._late).encode()
            elif head.startswith(b"GET /count"):
                answer = b"%d" % self._counts[0]
            else:
                self._counts[0] += 1
                if body.startswith(b'{"due"'):
                    self._late.append(time.monotonic() - json.loads(body)["due"])
            self._transport.write(ANSWER % (len(answer), answer))


async def _serve(port: int) -> None:
    late, counts = [], [0]
    server = await asyncio.get_running_loop().create_server(lambda: _Service(late, counts), "127.0.0.1", port)
    await server.serve_forever()


def _device(port: int) -> None:
    """A lamp: it answers each command with what it was sent."""

    def answer(client, _, message) -> None:
        made = Properties(PacketTypes.PUBLISH)
        made.CorrelationData = message.properties.CorrelationData
        client.publish(message.properties.ResponseTopic, message.payload, 1, properties=made)

    def connected(client, *arguments) -> None:
        client.socket().setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else its answer waits for 40 ms
        client.subscribe("lamps/+/set", 1)

    client = Client(CallbackAPIVersion.VERSION2, "lamp", protocol=MQTTProtocolVersion.MQTTv5)
    client.on_message = answer
    client.on_subscribe = lambda *arguments: print("ready", flush=True)
    client.on_connect = connected
    client.connect("127.0.0.1", port)
    client.loop_forever()


if __name__ == "__main__":
    if sys.argv[1] == "target":
        asyncio.run(_serve(int(sys.argv[2])))
    elif sys.argv[1] == "device":
        _device(int(sys.argv[2]))
    else:
        made, numbers = Table(), [float(each) for each in sys.argv[2:]]
        {
            "bridged": lambda: bridged(made, int(numbers[0]), numbers[1]),
            "commands": lambda: commands(made, numbers[0]),
            "wear": lambda: wear(made, numbers[0]),
            "memory": lambda: memory(made, int(numbers[0])),
        }[sys.argv[1]]()

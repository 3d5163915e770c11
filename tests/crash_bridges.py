"""The crash test of a bridge: gateway, Mosquitto and target fail in turn, and no acknowledged message is lost.

    python -m tests.crash_bridges --rounds 200 [--seed N]

Devices publish with QoS 1, and repeat what was not confirmed. A proxy before Mosquitto notes what the gateway
acknowledges. At the end each acknowledged message is a request at least, each request has ended, once and well, and
what a device has sent has begun in its order. Mosquitto writes down what it has once a second: what it confirms to a
device and has forgotten when it is killed, the gateway never saw.

Each of the three is killed. Mosquitto also loses what it has written down, or is stopped with its connections open;
and another client takes the gateway's session over.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from tests.bridges.acknowledgements import AcknowledgementProxy
from tests.brokers import Mosquitto
from tests.crash import WORKING_SHARE, Broken, with_last_log_lines, works_again
from tests.servers import ROOT, Server, free_port

DEVICES = 4
PARTITIONS = "4"
WORKING = 20
STANDS_STILL = 60.0
PAUSE = 0.04


class Devices:
    """The devices: each publishes its own numbers, one after the other."""

    def __init__(self, port: int, seed: int) -> None:
        self.published = [0] * DEVICES
        self._stop = threading.Event()
        self._confirmed = [threading.Event() for _ in range(DEVICES)]
        self._clients = [self._connect(index, port) for index in range(DEVICES)]
        self._threads = [
            threading.Thread(target=self._publish, args=(index, random.Random(f"{seed} {index}")))
            for index in range(DEVICES)
        ]

    def _connect(self, index: int, port: int) -> Client:
        made = Client(
            CallbackAPIVersion.VERSION2, f"device{index}", clean_session=False, protocol=MQTTProtocolVersion.MQTTv311
        )
        made.reconnect_delay_set(1, 1)
        made.max_inflight_messages_set(1)  # else what it sends again would overtake what it sent since
        made.on_publish = lambda *arguments: self._confirmed[index].set()
        made.connect("127.0.0.1", port, keepalive=5)
        made.loop_start()
        return made

    def start(self) -> None:
        """Begin to publish."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Publish no more, and disconnect."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
        for client in self._clients:
            client.disconnect()
            client.loop_stop()

    def _publish(self, index: int, choose: random.Random) -> None:
        while not self._stop.is_set():
            number = self.published[index]
            confirmed = self._confirmed[index]
            confirmed.clear()
            # Without a connection, paho keeps it for the next one.
            self._clients[index].publish(f"devices/{index}/value", json.dumps({"device": index, "n": number}), qos=1)
            while not confirmed.wait(0.1):
                if self._stop.is_set():
                    return
            self.published[index] += 1
            time.sleep(choose.uniform(0, 2 * PAUSE))


class Target:
    """The HTTP service, in a process that can be killed."""

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        self.file = directory / "target"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; it need not listen yet."""
        module = [sys.executable, "-m", "tests.bridges.target", str(self.port), str(self.file)]
        self.process = subprocess.Popen(module, cwd=ROOT, stderr=subprocess.DEVNULL)

    def kill(self) -> None:
        """Send SIGKILL."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def seen(self) -> list[dict[str, int]]:
        """What it was sent; a line that a kill has cut off is none."""
        lines = self.file.read_bytes().split(b"\n")[:-1]
        return [json.loads(line) for line in lines if line.endswith(b"}")]


class Intruder:
    """Another client with the id of the gateway's, which acknowledges nothing."""

    def __init__(self, port: int) -> None:
        self._port = port

    def come(self) -> None:
        """Take the session over: the broker disconnects the gateway."""
        self._client = Client(
            CallbackAPIVersion.VERSION2, "openhqm/b", protocol=MQTTProtocolVersion.MQTTv5, manual_ack=True
        )
        self._client.connect("127.0.0.1", self._port, clean_start=False)
        self._client.loop_start()

    def go(self) -> None:
        """Leave the session to the gateway."""
        self._client.disconnect()
        self._client.loop_stop()


def settings(mosquitto: AcknowledgementProxy, target: Target) -> dict[str, str]:
    """The environment of the gateway."""
    bridge = {
        "name": "b",
        "from": {"broker": "plant", "topics": ["devices/+/value"]},
        "endpoint": "target",
        "partition_key": "{{ topic[1] }}",
        "most": 20,
        "replay": {"rate": 200},
    }
    endpoint = {"url": f"http://127.0.0.1:{target.port}/", "circuit_breaker": {"open_seconds": 0.2}}
    return {
        "OPENHQM_BROKERS": json.dumps({"plant": {"type": "mqtt", "host": "127.0.0.1", "port": mosquitto.port}}),
        "OPENHQM_BRIDGES": json.dumps([bridge]),
        "OPENHQM_PROXY__ENABLED": "true",
        "OPENHQM_PROXY__ENDPOINTS": json.dumps({"target": endpoint}),
        "OPENHQM_PARTITIONING__ENABLED": "true",
        "OPENHQM_PARTITIONING__PARTITION_COUNT": PARTITIONS,
        "OPENHQM_WORKER__MAX_RETRIES": "1000",
        "OPENHQM_WORKER__RETRY__BASE_SECONDS": "0.05",
        "OPENHQM_WORKER__RETRY__MAX_SECONDS": "0.5",
        "OPENHQM_QUEUE__LIMITS__REQUESTS": "100",
    }


def check(directory: Path, acknowledged: list[bytes], target: Target) -> dict[str, int]:
    """`Broken` unless each acknowledged message is a request, and each request has ended well."""
    with closing(sqlite3.connect(f"file:{directory / 'data' / 'openhqm.db'}?mode=ro", uri=True)) as database:
        bodies = {key: json.loads(body)["payload"] for key, body in database.execute("SELECT key, body FROM messages")}
        endings = {key: json.loads(reply) for key, reply in database.execute("SELECT key, reply FROM endings")}
        letters = database.execute("SELECT count(*) FROM dead_letters").fetchone()[0]
    requests = Counter((body["device"], body["n"]) for body in bodies.values())
    messages = {(body["device"], body["n"]) for body in map(json.loads, acknowledged)}
    missing = messages - set(requests)
    if missing:
        raise Broken(f"{len(missing)} messages were acknowledged and are no requests: {sorted(missing)[:5]}")
    if open_ := set(bodies) - set(endings):
        raise Broken(f"{len(open_)} requests have not ended")
    if wrong := [reply for reply in endings.values() if reply["status"] != "COMPLETED"]:
        raise Broken(f"{len(wrong)} requests ended wrongly: {wrong[0]}")
    if letters:
        raise Broken(f"{letters} dead letters")
    newest = [-1] * DEVICES
    begun: set[tuple[int, int]] = set()
    for body in target.seen():
        device, number = body["device"], body["n"]
        if (device, number) not in begun and number < newest[device]:
            raise Broken(f"message {number} of device {device} came after {newest[device]}")
        begun.add((device, number))
        newest[device] = max(newest[device], number)
    if unseen := set(requests) - begun:
        raise Broken(f"{len(unseen)} requests never came to the target: {sorted(unseen)[:5]}")
    return {"requests": sum(requests.values()), "twice": sum(requests.values()) - len(requests)}


def run(rounds: int, seed: int, say: Any = print, before: str = "") -> dict[str, int]:
    """Let one of the parts fail ``rounds`` times, and return what was done. `Broken`: a message was lost, or overtaken.

    ``before`` is Python that the gateway runs first.
    """
    choose = random.Random(seed)
    directory = Path(tempfile.mkdtemp(prefix="openhqm-crash-"))
    mosquitto = Mosquitto(max_queued_messages="100000").start()
    proxy = AcknowledgementProxy(mosquitto.port)
    target = Target(directory)
    server = Server(directory, before, **settings(proxy, target))
    target.start()
    server.start()
    devices = Devices(mosquitto.port, seed)
    devices.start()
    parts: dict[str, tuple[Any, Any]] = {
        "gateway": (server.kill, server.start),
        "mosquitto": (mosquitto.kill, mosquitto.start),
        "target": (target.kill, target.start),
    }
    if not before:
        intruder = Intruder(mosquitto.port)
        parts |= {
            "mosquitto's state": (mosquitto.lose_everything, lambda: None),
            "connections": (mosquitto.freeze, mosquitto.thaw),
            "session": (intruder.come, intruder.go),
        }
    try:
        try:
            for number in range(1, rounds + 1):
                pause = choose.uniform(0.05, 1.0)
                if choose.random() < WORKING_SHARE:
                    works_again(proxy.acknowledged, WORKING)
                time.sleep(pause)
                kill, start = parts[choose.choice(list(parts))]
                kill()
                time.sleep(choose.uniform(0, 0.5))
                start()
                if number % 20 == 0:
                    say(f"round {number}: {len(proxy.acknowledged)} messages acknowledged")
        finally:
            devices.stop()
        quiet(server, proxy, target)
        if (code := server.stop()) != 0:
            raise Broken(f"SIGTERM ended the gateway with {code}")
        done = check(directory, proxy.acknowledged, target)
    except Broken as broken:
        raise with_last_log_lines(broken, directory) from None
    finally:
        server.kill()
        target.kill()
        proxy.close()
        mosquitto.close()
    shutil.rmtree(directory)
    published = sum(devices.published)
    if done["requests"] < rounds or len(proxy.acknowledged) < rounds:
        raise Broken(f"too little was done to show anything: {done}")
    return {"rounds": rounds, "published": published, "acknowledged": len(proxy.acknowledged), **done}


def quiet(server: Server, proxy: AcknowledgementProxy, target: Target) -> None:
    """Wait until nothing comes any more, and all requests have ended. `Broken` where that does not go on."""
    deadline, before = time.monotonic() + STANDS_STILL, (-1, -1)
    while True:
        time.sleep(1.0)
        now = len(proxy.acknowledged), len(target.seen())
        _, _, text = server.ask("GET", "/metrics")
        open_ = next(float(line.split()[1]) for line in text.splitlines() if line.startswith(b"openhqm_requests_open"))
        if now == before and not open_:
            return
        if now != before:
            before, deadline = now, time.monotonic() + STANDS_STILL
        elif time.monotonic() > deadline:
            raise Broken(f"{open_:g} requests have not ended, and none has within {STANDS_STILL:g} s")


def main() -> int:
    """The program: 0 where nothing was lost."""
    parser = argparse.ArgumentParser(prog="tests.crash_bridges")
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**9))
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}")
    try:
        print(run(arguments.rounds, arguments.seed))
    except Broken as broken:
        print(f"BROKEN: {broken}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

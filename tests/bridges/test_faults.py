"""A gateway that much goes wrong for: a long backlog, a full disk, a clock that is set, certificates that are renewed.

``LONG_BACKLOG=100000 python -m tests tests.bridges.test_faults.AwayTests`` is the long form of one of them.
"""

from __future__ import annotations

import json
import os
import re
import signal
from collections import Counter
from pathlib import Path
from typing import Any

from tests.authorities import Authority
from tests.bridges.test_end_to_end import EdgeTestCase
from tests.brokers import Mosquitto
from tests.redis.test_intake import Target
from tests.servers import Server, free_port
from tests.small_disk import small_disk
from tests.test_time_steps import SETTABLE

DEVICES, PARTITIONS = 4, 8
MOST_MEMORY = 120.0
"""In MiB, whatever waits on the disk: with 100,000 messages it was 90."""
LONG = int(os.environ.get("LONG_BACKLOG", "1500"))


class FaultsCase(EdgeTestCase):
    """Messages with numbers, from four devices, to a target that may be away"""

    def gateway(self, **more: str) -> Server:
        self.port = free_port()
        bridge = {
            "name": "b",
            "from": {"broker": "plant", "topics": ["in/+"]},
            "endpoint": "away",
            "reply": "none",
            "partition_key": "{{ topic[1] }}",
            "replay": {"rate": 5000},
        }
        server = self.start(
            [bridge],
            {"away": {"url": f"http://127.0.0.1:{self.port}/"}},
            OPENHQM_PARTITIONING=json.dumps({"enabled": True, "partition_count": PARTITIONS}),
            OPENHQM_WORKER__MAX_RETRIES="1000",
            OPENHQM_WORKER__RETRY__MAX_SECONDS="1",
            **more,
        )
        self.devices = self.device()
        server.until(lambda: self.is_subscribed(server), "it did not subscribe")
        return server

    def is_subscribed(self, server: Server) -> bool:
        self.devices.publish("in/first", "[-1]")
        return self.metric(server, 'openhqm_bridged_messages_total{outcome="accepted"}') > 0

    def metric(self, server: Server, name: str) -> float:
        """What the gateway says of ``name`` now."""
        found = re.search(rf"^{re.escape(name)} (\S+)$", server.ask("GET", "/metrics")[2].decode(), re.MULTILINE)
        return 0.0 if found is None else float(found[1])

    def publish(self, first: int, last: int, size: int = 0) -> None:
        """The numbers from ``first`` to the one before ``last``, each from the device that it belongs to."""
        for number in range(first, last):
            self.devices.publish(f"in/{number % DEVICES}", json.dumps([number, "x" * size]), wait=number % 100 == 99)

    def come_back(self) -> None:
        """The target is there."""
        self.came_back = Target(self.port)
        self.addCleanup(self.came_back.close)
        self.numbers: list[int] = []
        self.read = 0

    def seen(self) -> list[int]:
        """What has come to the target, in its order. What was read once is not read again: it can be 100,000."""
        came = self.came_back.asked[self.read :]
        self.read += len(came)
        self.numbers += [number for _, body in came if (number := json.loads(body)[0]) >= 0]
        return self.numbers

    def all_came(self, server: Server, count: int, seconds: float = 60) -> None:
        """Each came once, and those of each device in their order."""
        asked = self.came_back.asked  # to read all of them with each look would take the time of the target
        server.until(lambda: len(asked) >= count and len(set(self.seen())) >= count, "not all came", seconds=seconds)
        server.until(lambda: not self.metric(server, "openhqm_requests_open"), "not all have ended")
        seen = self.seen()
        self.assertEqual([number for number, times in Counter(seen).items() if times > 1], [])
        for device in range(DEVICES):
            self.assertEqual([number for number in seen if number % DEVICES == device], list(range(device, count, 4)))


class AwayTests(FaultsCase):
    """The target is away for the whole of a long backlog"""

    def make_mosquitto(self) -> Mosquitto:
        return Mosquitto(max_queued_messages="0")

    def test_long(self) -> None:
        """All of it waits on the disk, over a kill, and then comes: each once, in order, and memory has a bound."""
        server = self.gateway()
        self.publish(0, LONG)
        accepted = 'openhqm_bridged_messages_total{outcome="accepted"}'
        server.until(lambda: self.metric(server, accepted) > LONG, "not all were accepted", seconds=60 + LONG / 100)
        self.assertLess(server.most_memory(), MOST_MEMORY)
        server.kill()
        server.start()
        self.come_back()
        self.all_came(server, LONG, seconds=60 + LONG / 20)
        self.assertLess(server.most_memory(), MOST_MEMORY)


class DiskTests(FaultsCase):
    """The disk of the queue has eight megabytes, and twelve come"""

    def test_full(self) -> None:
        """What has no room stays in the broker; once there is room, all of it comes."""
        grow = small_disk(self, self.directory / "data")
        server = self.gateway()
        self.publish(0, 1200, size=10_000)

        def waits() -> bool:
            return any("bridge b waits" in each for each in json.loads(server.ask("GET", "/health")[2])["warnings"])

        server.until(waits, "it does not say that the disk is full")
        grow("64m")
        self.come_back()
        self.all_came(server, 1200)


class ClockTests(FaultsCase):
    """The clock of the machine is set while messages come"""

    before = SETTABLE

    def steps(self, *signals: signal.Signals) -> None:
        server = self.gateway()
        assert server.process is not None
        count = 0
        for each in signals:
            self.publish(count, count + 100)
            server.process.send_signal(each)
            self.publish(count + 100, count + 200)
            count += 200
        self.come_back()
        self.publish(count, count + 100)
        server.process.send_signal(signals[0])
        self.publish(count + 100, count + 200)
        self.all_came(server, count + 200)

    def test_forward(self) -> None:
        """An hour forward, twice: nothing is lost, and each device keeps its order."""
        self.steps(signal.SIGUSR1)

    def test_back(self) -> None:
        """An hour back, twice."""
        self.steps(signal.SIGUSR2)

    def test_restarted(self) -> None:
        """A process that starts when the clock was set back goes on with what was accepted later, by that clock."""
        self.before = f"{SETTABLE}\n_step[0] = 3600\n"
        server = self.gateway()
        self.publish(0, 200)
        accepted = 'openhqm_bridged_messages_total{outcome="accepted"}'
        server.until(lambda: self.metric(server, accepted) > 200, "not all were accepted")
        server.kill()
        server.before = SETTABLE
        server.start()
        self.come_back()
        self.publish(200, 400)
        self.all_came(server, 400)


class CertificateTests(FaultsCase):
    """Mosquitto asks for a certificate"""

    def make_mosquitto(self) -> Mosquitto:
        directory = Path(self.mktemp()).absolute()
        directory.mkdir()
        self.authority, self.tls_port = Authority(directory), free_port()
        cert, key = self.authority.issue("server", "DNS:localhost")
        return Mosquitto(
            f"listener {self.tls_port} 127.0.0.1",
            f"cafile {self.authority.ca}",
            f"certfile {cert}",
            f"keyfile {key}",
            "require_certificate true",
            "use_identity_as_username true",
        )

    def plant(self) -> dict[str, Any]:
        self.cert, self.key = self.authority.issue("gateway", subject="CN=before", seconds=600)
        tls = {"enabled": True, "ca": str(self.authority.ca), "cert": str(self.cert), "key": str(self.key)}
        return {"type": "mqtt", "host": "localhost", "port": self.tls_port, "tls": tls}

    def names(self) -> list[str]:
        """The names in the certificates with which the bridge has connected."""
        log = (self.mosquitto.directory / "log").read_text()
        return re.findall(r"as openhqm/b \(.*u'(\w+)'", log)

    def test_renewed(self) -> None:
        """A renewed certificate drops no session; the next connection shows it, and nothing is lost on the way."""
        server = self.gateway()
        self.come_back()
        self.publish(0, 100)
        ends = f'openhqm_certificate_expiry_seconds{{file="{self.cert}"}}'
        self.assertLess(self.metric(server, ends), 601)
        self.authority.issue("gateway", subject="CN=after", seconds=7200)
        self.assertGreater(self.metric(server, ends), 7000)
        self.publish(100, 200)
        server.until(lambda: len(self.seen()) >= 200, "not all came")
        self.assertEqual(self.names(), ["before"])
        self.mosquitto.kill()
        self.mosquitto.start()
        server.until(lambda: self.names() == ["before", "after"], "it did not connect again")
        self.devices = self.device()
        self.publish(200, 300)
        self.all_came(server, 300)

    def test_expired(self) -> None:
        """A certificate that has expired is one of the warnings; with a new one, the bridge goes on by itself."""
        server = self.gateway()
        self.come_back()
        self.authority.issue("gateway", subject="CN=late", seconds=-60)
        self.mosquitto.kill()
        self.mosquitto.start()

        def warned() -> bool:
            return any("broker plant" in each for each in json.loads(server.ask("GET", "/health")[2])["warnings"])

        server.until(warned, "it does not say that it cannot connect")
        self.devices = self.device()
        self.publish(0, 100)
        self.authority.issue("gateway", subject="CN=renewed", seconds=600)
        self.all_came(server, 100)

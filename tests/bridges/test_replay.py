"""A target that comes back: the backlog goes at a rate of its own, and what comes now goes first."""

from __future__ import annotations

import json
import time
from datetime import datetime
from typing import Any

from openhqm.policy.queue_names import partition_of
from tests.bridges.test_end_to_end import EdgeTestCase
from tests.redis.test_intake import Target
from tests.servers import Server, free_port

KEPT, LIVE, RATE = 60, 10, 15.0
PARTITIONS = 8
A_DEVICE, ANOTHER = "0", next(name for name in "123456789" if partition_of(name, PARTITIONS) != partition_of("0", 8))
MARK, SUBMITTED = "openhqm-replayed", "openhqm-submitted-at"


class ReplayTests(EdgeTestCase):
    """60 messages come while the target is away; when it is back, 10 more come, and another target was never away"""

    def gateway(self, **bridge: Any) -> Server:
        """A gateway with a bridge to a target that is away, and one to a target that is well."""
        self.port = free_port()
        away = {"name": "b", "from": {"broker": "plant", "topics": ["in/#"]}, "endpoint": "away", "reply": "none"}
        well = {"name": "c", "from": {"broker": "plant", "topics": ["well/#"]}, "endpoint": "collector"}
        bridges: list[dict[str, Any]] = [{**away, "replay": {"rate": RATE}, **bridge}, well]
        return self.start(
            bridges,
            {"away": {"url": f"http://127.0.0.1:{self.port}/"}},
            OPENHQM_PARTITIONING=json.dumps({"enabled": True, "partition_count": PARTITIONS}),
            OPENHQM_WORKER__MAX_RETRIES="1000",
        )

    def accepted(self, server: Server) -> float:
        """How many messages have been accepted."""
        found = [
            line for line in server.ask("GET", "/metrics")[2].decode().splitlines() if 'outcome="accepted"' in line
        ]
        return sum(float(line.split()[1]) for line in found if line.startswith("openhqm_bridged"))

    def breaker_is_open(self, server: Server) -> bool:
        """Whether the gateway has noticed that the target is away."""
        text = server.ask("GET", "/metrics")[2].decode()
        return 'openhqm_breaker_state{endpoint="away",state="closed"} 0.0' in text

    def come(self, *, live: str, **bridge: Any) -> list[tuple[dict[str, str], bytes]]:
        """What came to the target, in its order. ``live`` is the device that speaks once the target is back."""
        server, device = self.gateway(**bridge), self.device()
        self.publish_until_taken(server, device, "well/first")
        device.publish(f"in/{A_DEVICE}", "-1")
        server.until(lambda: self.breaker_is_open(server), "it did not notice that the target is away")
        before = self.accepted(server)
        for number in range(KEPT):
            device.publish(f"in/{A_DEVICE}", str(number))
        server.until(lambda: self.accepted(server) >= before + KEPT, "not all were accepted")
        device.publish("well/now", b'"well"')
        server.until(lambda: b'"well"' in [body for _, body in self.asked()], "the dead target holds up another one")
        came_back = Target(self.port)
        self.addCleanup(came_back.close)
        server.until(lambda: not self.breaker_is_open(server), "it did not notice that the target is back")
        self.recovered = time.time()
        for number in range(KEPT, KEPT + LIVE):
            device.publish(f"in/{live}", str(number))
        server.until(lambda: len(came_back.asked) > KEPT + LIVE, "not all came", seconds=60)
        self.took = time.time() - self.recovered
        return came_back.asked

    def check_marks(self, came: list[tuple[dict[str, str], bytes]], *, live: bool) -> None:
        """The backlog is marked, has its original time, and went at its rate; what came later is as ever."""
        kept = {int(body): headers for headers, body in came if int(body) < KEPT}
        self.assertEqual(sorted(kept), list(range(-1, KEPT)))
        for headers in kept.values():
            self.assertEqual(headers[MARK], "true")
            self.assertLess(datetime.fromisoformat(headers[SUBMITTED]).timestamp(), self.recovered)
        for headers, body in came:
            if live and int(body) >= KEPT:
                self.assertNotIn(MARK, headers)
        self.assertGreater(self.took, 0.8 * KEPT / RATE)

    def check_live_first(self, came: list[tuple[dict[str, str], bytes]]) -> None:
        """All that came later was there before half of the backlog."""
        numbers = [int(body) for _, body in came]
        last = max(numbers.index(number) for number in range(KEPT, KEPT + LIVE))
        self.assertGreater(sum(number < KEPT for number in numbers[last:]), KEPT / 2, numbers)

    def test_none(self) -> None:
        """Without an order, what comes now goes first, also from the device that has a backlog."""
        came = self.come(order="none", live=A_DEVICE)
        self.check_live_first(came)
        self.check_marks(came, live=True)

    def test_per_key(self) -> None:
        """What comes now goes first where its partition has no backlog; the backlog keeps its order."""
        came = self.come(order="per_key", partition_key="{{ topic[1] }}", live=ANOTHER)
        self.check_live_first(came)
        self.check_marks(came, live=True)
        kept = [int(body) for _, body in came if int(body) < KEPT]
        self.assertEqual(kept, sorted(kept))

    def test_own_backlog(self) -> None:
        """What comes now of a device with a backlog keeps its place behind it."""
        came = [int(body) for _, body in self.come(order="per_key", partition_key="{{ topic[1] }}", live=A_DEVICE)]
        self.assertEqual(came, list(range(-1, KEPT + LIVE)))

    def test_strict(self) -> None:
        """All messages are one sequence, whatever device they are from."""
        came = self.come(order="strict", live=ANOTHER)
        self.assertEqual([int(body) for _, body in came], list(range(-1, KEPT + LIVE)))
        self.check_marks(came, live=False)

    def test_killed(self) -> None:
        """The backlog of a process that is killed is still the backlog of the next one."""
        server, device = self.gateway(order="none"), self.device()
        self.publish_until_taken(server, device, "well/first")
        device.publish("in/0", "-1")
        server.until(lambda: self.breaker_is_open(server), "it did not notice that the target is away")
        before = self.accepted(server)
        for number in range(KEPT):
            device.publish("in/0", str(number))
        server.until(lambda: self.accepted(server) >= before + KEPT, "not all were accepted")
        server.kill()
        came_back = Target(self.port)
        self.addCleanup(came_back.close)
        server.start()
        device.publish("in/0", str(KEPT))
        server.until(lambda: len(came_back.asked) >= KEPT + 2, "not all came", seconds=60)
        numbers = [int(body) for _, body in came_back.asked]
        self.assertEqual(sorted(numbers), list(range(-1, KEPT + 1)))
        self.assertGreater(sum(number < KEPT for number in numbers[numbers.index(KEPT) :]), 0, numbers)
        marks = {int(body): headers.get(MARK) for headers, body in came_back.asked}
        self.assertEqual(marks, {**dict.fromkeys(range(-1, KEPT), "true"), KEPT: None})

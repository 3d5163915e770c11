"""The dispatch gate of an endpoint: while it says no, requests are held, and spend no attempt."""

from __future__ import annotations

from typing import Any

from prometheus_client import generate_latest
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from openhqm.http1.calls import Fetched
from openhqm.messages import Status
from openhqm.policy.breaker import Breaker, BreakerPolicy, State
from openhqm.workers.dispatch_gate import ANSWER_SECONDS, DispatchGate
from openhqm.workers.gate import Gate
from tests.benches import MemoryBench
from tests.targets import Peer, Target, answer
from tests.workers.bench import WorkerBench
from tests.workers.test_pool import PoolCase, reactor

INTERVAL = 5.0


class Answers:
    """A client that answers each question with ``says``: a status, an error, or None for never."""

    def __init__(self, says: int | Exception | None) -> None:
        self.says = says
        self.asked: list[float] = []
        self.clock: Any = None

    def fetch(self, method: bytes, url: bytes, fields: Any, content: bytes | None, most: int) -> Deferred[Any]:
        assert (method, url, content) == (b"GET", b"http://gate.test/room", None)
        self.asked.append(self.clock.seconds())
        if self.says is None:
            return Deferred()
        return fail(self.says) if isinstance(self.says, Exception) else succeed(Fetched(self.says, (), b""))

    def connect(self, url: bytes) -> Deferred[None]:
        raise AssertionError("it has no breaker")

    def gate(self, clock: Any) -> DispatchGate:
        self.clock = clock
        return DispatchGate("billing", "http://gate.test/room", self, clock, INTERVAL, lambda: 0.5)


class AskingTests(SynchronousTestCase):
    """`DispatchGate`"""

    def asking(self, says: int | Exception | None) -> tuple[Answers, DispatchGate, Clock]:
        answers, clock = Answers(says), Clock()
        return answers, answers.gate(clock), clock

    def test_what_is_no(self) -> None:
        """Only a 2xx is a yes. Any other status, an error and silence are a no."""
        for says in (200, 204, 299):
            _, gate, clock = self.asking(says)
            self.assertEqual((gate.wait(clock.seconds()), gate.warning), (0.0, None))
        for refusal in (199, 300, 302, 404, 429, 500, 503, ConnectionRefusedError()):
            _, gate, clock = self.asking(refusal)
            self.assertEqual(gate.wait(clock.seconds()), INTERVAL)
            self.assertTrue(gate.is_closed)
            self.assertIn("endpoint billing: its gate", gate.warning or "")
        _, gate, clock = self.asking(None)
        self.assertIsNone(gate.wait(clock.seconds()))
        self.assertFalse(gate.is_closed)
        clock.advance(ANSWER_SECONDS)
        self.assertTrue(gate.is_closed)

    def test_how_often(self) -> None:
        """However many want to go, it is asked once in an interval, and never while nothing wants to."""
        answers, gate, clock = self.asking(200)
        for _ in range(100):
            gate.wait(clock.seconds())
            clock.advance(0.2)
        self.assertEqual(len(answers.asked), 4)
        clock.advance(1000)
        self.assertEqual(len(answers.asked), 4)

    def test_jitter(self) -> None:
        """Processes that began together do not go on to ask together: the interval is a tenth shorter or longer."""
        for random, expected in ((0.0, 0.9 * INTERVAL), (1.0, 1.1 * INTERVAL)):
            answers, clock = Answers(503), Clock()
            answers.clock = clock
            gate = DispatchGate("billing", "http://gate.test/room", answers, clock, INTERVAL, lambda r=random: r)
            self.assertAlmostEqual(gate.wait(0.0) or 0.0, expected)

    def test_old_yes(self) -> None:
        """A yes is good for two intervals, also while the next answer is awaited. After that the answer is awaited."""
        answers, gate, clock = self.asking(200)
        gate.wait(0.0)
        answers.says = None
        clock.advance(INTERVAL)
        self.assertEqual(gate.wait(clock.seconds()), 0.0)
        clock.advance(INTERVAL - 0.5)
        self.assertTrue(gate.is_closed or gate.wait(clock.seconds()) == 0.0)
        answers, gate, clock = self.asking(200)
        gate.wait(0.0)
        answers.says = None
        clock.advance(2 * INTERVAL + 1)
        self.assertIsNone(gate.wait(clock.seconds()))


class HoldingTests(SynchronousTestCase):
    """`Gate` with a dispatch gate"""

    def test_held(self) -> None:
        """While it says no nothing begins, nothing is counted as an attempt, and all goes on with the next yes."""
        backend, answers, done = MemoryBench(), Answers(503), []
        gate = Gate(backend.clock, Breaker(BreakerPolicy()), limit=2, dispatch=answers.gate(backend.clock))
        bench = WorkerBench(lambda work: done.append(work.attempt) or 1, backend=backend, gate=gate)
        ids = [bench.submit() for _ in range(20)]
        bench.pass_time(60)
        self.assertEqual(done, [])
        self.assertEqual({bench.record(each).status for each in ids}, {Status.PENDING})
        self.assertEqual((gate.state, gate.breaker_state), (State.OPEN, State.CLOSED))
        self.assertLessEqual(len(answers.asked), 14)
        answers.says = 200
        bench.pass_time(INTERVAL + 1)
        self.assertEqual(done, [1] * 20)
        self.assertEqual({bench.record(each).status for each in ids}, {Status.COMPLETED})

    def test_closes_under_way(self) -> None:
        """A request that a worker has received and not begun goes back when the gate closes, without an attempt."""
        backend, answers, done = MemoryBench(), Answers(200), []
        gate = Gate(backend.clock, Breaker(BreakerPolicy()), limit=2, dispatch=answers.gate(backend.clock))
        bench = WorkerBench(lambda work: done.append(work.attempt) or 1, backend=backend, gate=gate)
        bench.pass_time(100)  # it waits in the queue for a request, and what the gate said is long ago
        answers.says = 503
        id = bench.submit()
        bench.pass_time(30)
        self.assertEqual(done, [])
        answers.says = 200
        bench.pass_time(INTERVAL + 1)
        self.assertEqual((done, bench.record(id).status), ([1], Status.COMPLETED))


class PoolTests(PoolCase):
    """A gateway with two endpoints, of which one has a gate"""

    async def test_each_for_itself(self) -> None:
        """Requests for an endpoint whose gate says no are held, others go on; metrics and warnings say so."""
        room = [b"503 Busy"]

        def say(peer: Peer) -> None:
            answer(room[0], b"")(peer)

        gate, held, fine = Target(say), Target(), Target()
        url = f"http://127.0.0.1:{gate.listen(self, reactor)}/room"
        gateway = self.gateway(a=self.to(held, gate={"url": url, "interval": 0.1}), b=self.to(fine))
        waiting = [await gateway.submit(endpoint="a") for _ in range(20)]
        await self.until(lambda: gateway.pool.warnings)
        self.assertEqual((await gateway.reply(endpoint="b")).status, Status.COMPLETED)
        self.assertEqual(len(held.requests), 0)
        self.assertIn("endpoint a: its gate answers 503", gateway.pool.warnings[0])
        self.assertIn(b'openhqm_dispatch_gate_closed{endpoint="a"} 1.0', generate_latest(gateway.registry))
        self.assertIn(b'openhqm_breaker_state{endpoint="a",state="closed"} 1.0', generate_latest(gateway.registry))
        room[0] = b"204 Room"
        for each in waiting:
            reply = await gateway.ended(each)
            self.assertEqual((reply.status, reply.attempt), (Status.COMPLETED, 1))
        self.assertEqual(gateway.pool.warnings, [])

"""Rate limits that several processes keep together over a store, and each by itself while that is away."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from openhqm.config.limits import RateLimit, TenantLimits
from openhqm.config.tenants import Tenant
from openhqm.errors import NotDurable
from openhqm.ingress.common_limits import IDLE_SECONDS, TELL_SECONDS, CommonLimits
from openhqm.ingress.rate_limiting import RateLimiter, make_limiter
from openhqm.policy.api_keys import Caller, Role

BURST = 100
ROUND_TRIP = 0.003


class Shared:
    """What processes share: a count by one clock, as `openhqm.redis.taken` keeps it."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.due: dict[bytes, float] = {}
        self.processes: set[int] = set()
        self.away = False

    def count(self, process: int, taken: Sequence[tuple[bytes, float]]) -> Deferred[tuple[int, Sequence[float]]]:
        """`openhqm.queue.backend.CountTaken` for a process, half a round trip away."""
        if self.away:
            return fail(NotDurable("it is away"))
        answer: Deferred[tuple[int, Sequence[float]]] = Deferred()
        self.clock.callLater(ROUND_TRIP / 2, self._count, process, taken, answer)
        return answer

    def _count(self, process: int, taken: Sequence[tuple[bytes, float]], answer: Deferred[object]) -> None:
        self.processes.add(process)
        now, owed = self.clock.seconds(), []
        for name, seconds in taken:
            self.due[name] = max(self.due.get(name, now), now) + seconds
            owed.append(self.due[name] - now)
        self.clock.callLater(ROUND_TRIP / 2, answer.callback, (len(self.processes), owed))


class CommonLimitsTests(SynchronousTestCase):
    """Two processes"""

    def setUp(self) -> None:
        self.clock = Clock()
        self.shared = Shared(self.clock)
        self.limiters: list[RateLimiter] = []
        self.commons: list[CommonLimits] = []
        tenant = Tenant("acme", limits=TenantLimits(requests_per_second=BURST))
        for process in range(2):
            limiter = make_limiter(RateLimit(), (tenant,), self.clock, lambda tenant: None)
            assert limiter is not None
            count = lambda taken, process=process: self.shared.count(process, taken)  # noqa: E731
            common = CommonLimits(count, self.clock, limiter.limits)
            common.start()
            self.limiters.append(limiter)
            self.commons.append(common)
        self.pass_time(1.5 * IDLE_SECONDS)  # each knows of the other

    def taken(self, process: int, count: int = 1, key: str = "a") -> bool:
        """Whether a caller of the tenant is let pass."""
        refused, _ = self.limiters[process].take(Caller("acme", frozenset(Role), key), None, count)
        return refused is None

    def pass_time(self, seconds: float) -> None:
        self.clock.pump([0.001] * round(seconds * 1000))

    def test_together(self) -> None:
        """Under load without end, at any process, in no time more pass than the limit allows in it, and a share."""
        random = Random(1)
        passed: list[float] = []
        for _ in range(6000):
            process = 0 if self.clock.seconds() % 2 < 1 else random.randrange(2)  # one of them rests now and then
            passed += [self.clock.seconds()] * sum(self.taken(process) for _ in range(3))
            self.clock.advance(0.001)
        for begin, first in enumerate(passed):
            for end in range(begin, len(passed), 50):
                allowed = BURST + BURST * (passed[end] - first) + BURST / 2 + 2
                self.assertLessEqual(end - begin + 1, allowed, (first, passed[end]))
        self.assertGreater(len(passed), BURST * 6, "what the limit allows does pass")
        self.assertLess(len(passed), BURST * 7 + BURST / 2, "what was too much is waited for")

    def test_one_serves_all(self) -> None:
        """Where all come to one process, it lets pass what is left for all: it is told that none went elsewhere."""
        passed = 0
        for _ in range(200):
            passed += self.taken(0)
            self.clock.advance(0.001)
        self.assertGreaterEqual(passed, BURST)

    def test_at_once(self) -> None:
        """Before it knows what others have taken, a process lets its share pass; one submission more than that where
        the store says that there is room.
        """
        self.assertEqual(sum(self.taken(0) for _ in range(BURST)), BURST // 2)
        self.pass_time(0.02)
        self.assertTrue(self.taken(0))
        self.pass_time(2)
        self.assertTrue(self.taken(1, BURST), "a batch of all that is allowed at once")
        self.pass_time(0.02)
        self.assertEqual(sum(self.taken(0) for _ in range(BURST)), BURST // 2, "it did not know of the batch")
        self.pass_time(0.3)
        self.assertFalse(self.taken(0), "what was too much is waited for")

    def test_away(self) -> None:
        """While the store is away each process lets its share pass, and says so; afterwards they keep it together."""
        self.shared.away = True
        with capturedLogs() as said:
            self.taken(0)
            self.pass_time(IDLE_SECONDS)
            passed = [0, 0]
            for _ in range(3000):
                for process in (0, 1):
                    passed[process] += self.taken(process)
                self.clock.advance(0.001)
        for each in passed:
            self.assertAlmostEqual(each, BURST / 2 * 4, delta=5)
        self.assertIn("lets one in 2 of what they allow pass: it is away", self.commons[0].warnings[0])
        self.assertEqual(sum("lets one in 2" in each.get("text", "") for each in said), 2, "once for each process")
        self.shared.away = False
        self.pass_time(2 * IDLE_SECONDS)
        self.assertEqual(self.commons[0].warnings, ())
        self.test_one_serves_all()

    def test_stopped(self) -> None:
        """A process that stops tells the store nothing more."""
        for common in self.commons:
            common.stop()
        self.taken(0)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_callers(self) -> None:
        """The limit of each caller holds for all processes; that of an address, of which there is no end, for each."""
        shared = Shared(self.clock)
        limiters = []
        for process in range(2):
            limiter = make_limiter(RateLimit(2, 60.0), (), self.clock, lambda tenant: None)
            assert limiter is not None
            count = lambda taken, process=process: shared.count(process, taken)  # noqa: E731
            CommonLimits(count, self.clock, limiter.limits).start()
            limiters.append(limiter)
        self.pass_time(1.5 * IDLE_SECONDS)
        found: dict[str, list[bool]] = {}
        for who, caller in (("key", Caller("acme", frozenset(Role), "k")), ("address", None)):
            for process in (0, 1, 1, 0):
                found.setdefault(who, []).append(limiters[process].take(caller, Peer("192.0.2.1"))[0] is None)
                self.pass_time(2 * TELL_SECONDS)
        self.assertEqual(found, {"key": [True, True, False, True], "address": [True] * 4})
        for process in (0, 1):
            self.assertIsNotNone(limiters[process].take(Caller("acme", frozenset(Role), "k"), Peer("192.0.2.1"))[0])
        self.assertEqual(len(shared.due), 1)
        self.assertNotIn(b"acme", next(iter(shared.due)), "no name of a caller is in the store")


class Peer:
    """A connection"""

    def __init__(self, host: str) -> None:
        self.peer_host, self.counted_as = host, None

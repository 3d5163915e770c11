"""Many follow-ups that fall due in one second: a portion at a time, and new requests are accepted in between.

``MANY=1000000 python -m tests tests.queue.test_many_at_once`` does it with a million.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import pairwise
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.trial.unittest import TestCase

from openhqm.brokered.outbox import MOST_AT_ONCE
from openhqm.messages import Submission
from openhqm.redis.deadlines import SWEEP_ROWS as REDIS_ROWS
from openhqm.sqlite.file import MOST_IN_ONE_COMMIT
from openhqm.sqlite.results import SWEEP_ROWS
from openhqm.testing import REQUESTS
from tests.benches import BrokeredBench, SqliteBench
from tests.redis.bench import BrokeredRedisBench, RedisBench

MANY = int(os.environ.get("MANY", "1200"))
FOLLOW_UPS = f"{REQUESTS}.billing"
DEADLINE = 100.0
AT_ONCE = 200


class Due(TestCase):
    """So many parents pass their deadline in one second, and each has a follow-up."""

    timeout = 3600
    bench: Any

    async def do(self, deferred: Deferred[Any]) -> Any:
        return await self.bench.done(deferred)

    async def accept_all(self) -> None:
        start = self.bench.now()
        follow_ups = [Submission(b"2", endpoint="billing")]
        for _ in range(0, MANY, AT_ONCE):
            timeout = start + DEADLINE - self.bench.now()
            asked = [
                self.bench.queue.accept(Submission(b"1", timeout=timeout), None, follow_ups) for _ in range(AT_ONCE)
            ]
            await self.do(DeferredList(asked))
        await self.bench.pass_time(start + DEADLINE - 1 - self.bench.now())

    async def until_all_are_due(self) -> None:
        """A new request is accepted after each moment."""
        ready = 0
        for _ in range(MANY):
            await self.bench.pass_time(0.05)
            await self.do(self.bench.queue.accept(Submission(b"3"), None))
            ready, _ = await self.ready()
            if ready >= MANY:
                return
        self.fail(f"{ready} of {MANY} are due")

    async def ready(self) -> tuple[int, int]:
        depth = await self.do(self.bench.queue.depth(FOLLOW_UPS))
        return depth.ready, depth.delayed

    def recorded(self, owner: Any, name: str, size: Callable[[Any], int]) -> list[int]:
        """The sizes of what a method fires with from now on."""
        sizes: list[int] = []
        method = getattr(owner, name)

        def call(*values: Any) -> Any:
            def note(answer: Any) -> Any:
                sizes.append(size(answer))
                return answer

            return method(*values).addCallback(note)

        setattr(owner, name, call)
        return sizes


class FileTests(Due):
    """The embedded file"""

    def make(self) -> SqliteBench:
        return SqliteBench()

    async def test_follow_ups(self) -> None:
        """No commit has more than a portion of the endings, each with its follow-up."""
        self.bench = self.make()
        self.addCleanup(self.bench.close)
        await self.accept_all()
        self.bench.step = 0.01
        connection, commit = self.bench.file.connection, self.bench.run_commit
        changes: list[int] = []

        def counted(call: Any) -> Any:
            changes.append(connection.total_changes())
            return commit(call)

        ended: list[int] = [0]
        self.bench.store.on_ending.append(lambda key, status: ended.append(ended[-1] + 1))
        self.bench.run_commit = counted
        await self.until_all_are_due()
        self.assertEqual(ended[-1], MANY // AT_ONCE * AT_ONCE)
        # An ending with its follow-up is no more than a dozen changes, and others may be in the same commit.
        most = max(after - before for before, after in pairwise(changes))
        self.assertLessEqual(most, 12 * SWEEP_ROWS + MOST_IN_ONE_COMMIT)


class BrokeredFileTests(FileTests):
    """A broker, and the embedded file"""

    def make(self) -> SqliteBench:
        return BrokeredBench()

    async def test_published(self) -> None:
        """The outbox publishes them a portion at a time."""
        bench = self.bench = BrokeredBench()
        self.addCleanup(bench.close)
        await self.accept_all()
        bench.step = 0.01
        sizes = self.recorded(bench.ledger, "take_due", len)
        await self.until_all_are_due()
        self.assertGreaterEqual(sum(sizes), MANY)
        self.assertLessEqual(max(sizes), MOST_AT_ONCE)


class RedisTests(Due):
    """Redis"""

    def make(self) -> RedisBench:
        return RedisBench()

    async def test_follow_ups(self) -> None:
        """A look has no more than a portion, and each ending with its follow-up is a script of its own."""
        self.bench = self.make()
        await self.bench.open()
        self.addCleanup(self.bench.close)
        await self.accept_all()
        redis = self.bench.instance.redis
        sizes: list[int] = []
        run = redis.run

        def counted(script: str, *values: Any) -> Any:
            def note(answer: Any) -> Any:
                if script == "overdue":
                    sizes.append(len(answer[0]))
                if script == "ledger_take_due":
                    self.assertLessEqual(len(answer[0]), MOST_AT_ONCE)
                return answer

            return run(script, *values).addCallback(note)

        redis.run = counted
        await self.until_all_are_due()
        self.assertEqual(sum(sizes), MANY // AT_ONCE * AT_ONCE)
        self.assertLessEqual(max(sizes), REDIS_ROWS)


class BrokeredRedisTests(RedisTests):
    """A broker, and Redis"""

    def make(self) -> RedisBench:
        return BrokeredRedisBench()


del Due

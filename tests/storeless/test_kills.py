"""The listener, or a worker, is killed between any two of its steps, and each request still ends once.

A story is told once for every step in it: a commit of the file, or something that changes the broker. The process dies
before that step, or after it and before it has learnt of it. Another process goes on, and the promises hold.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred

from openhqm.messages import Status
from openhqm.testing import FORMS, REQUESTS
from tests.storeless.bench import IN_ORDER, StorelessCase, Worker

MOST_STEPS = 100


class Death:
    """A process dies at its ``last`` step: before that happened, or ``after``."""

    def __init__(self, last: int, after: bool) -> None:
        self.steps: list[str] = []
        self.dead = False
        self._last = last
        self._after = after

    def step(self, name: str, act: Callable[[], Deferred[Any]]) -> Deferred[Any]:
        """For `FakeBroker.step`."""
        if self.dead:
            return Deferred()
        self.steps.append(name)
        if len(self.steps) < self._last:
            return act()
        self.dead = True
        if self._after:
            act().addErrback(lambda failure: None)
        return Deferred()

    def __str__(self) -> str:
        return f"killed {'after' if self._after else 'before'} {self.steps}"


Story = Callable[["KillTests", Worker, str], Awaitable[None]]


async def receive(worker: Worker, queue: str) -> Any:
    (delivery,) = await worker.queue.receive(queue, 1, in_order=queue == IN_ORDER)
    return delivery


async def completed(case: KillTests, worker: Worker, queue: str) -> None:
    delivery = await receive(worker, queue)
    await delivery.progress({"step": 1})
    await delivery.settle(case.reply(delivery))


async def retried(case: KillTests, worker: Worker, queue: str) -> None:
    delivery = await receive(worker, queue)
    await delivery.progress({"step": 1})
    await delivery.retry(5, "no luck")
    await completed(case, worker, queue)


async def released(case: KillTests, worker: Worker, queue: str) -> None:
    await (await receive(worker, queue)).release()
    await completed(case, worker, queue)


async def dead_lettered(case: KillTests, worker: Worker, queue: str) -> None:
    delivery = await receive(worker, queue)
    await delivery.dead_letter("gave up", case.reply(delivery, Status.FAILED))


class KillTests(StorelessCase):
    """Over a broker that delivers again as soon as a connection ends"""

    def at_each_step(self, tell: Callable[[Death], bool]) -> None:
        """Tell the story with a death at each of its steps. ``tell`` says whether it came to its end without."""
        for last in range(1, MOST_STEPS):
            ended = False
            for after in (False, True):
                self.bench.close()
                self.open_bench()
                self.do(self.worker.queue.stop())
                ended = tell(Death(last, after))
            if ended:
                self.assertGreater(last, 2)
                return
        raise AssertionError(f"the story has more than {MOST_STEPS} steps")

    def ended_once(self, id: str, death: Death) -> None:
        """It has one ending, at the end of its history, and it is a dead letter if that is a failure."""
        types = self.types(id)
        endings = [type for type in types if type in ("completed", "failed")]
        self.assertEqual(endings, types[-1:], death)
        letters = [letter.request.correlation_id for letter in self.letters()]
        self.assertEqual(letters, [id] if endings == ["failed"] else [], death)
        self.nothing_is_left(str(death))

    # The listener

    def killed_listener(self, story: Story, types: list[str], queue: str = REQUESTS) -> None:
        """What is reported while it is down is written once it is back, in its order, and nothing twice."""

        def tell(death: Death) -> bool:
            id = self.accept(partition=0 if queue == IN_ORDER else None)
            self.bench.pass_time(2)
            commit = self.bench.run_commit
            self.bench.run_commit = lambda call: death.step("commit", lambda: commit(call))  # type: ignore[method-assign]
            self.bench.broker.step = death.step
            told = Deferred.fromCoroutine(story(self, self.new_worker(), queue))  # type: ignore[arg-type]
            self.bench.pass_time(10)
            del self.bench.run_commit
            self.restart_listener()
            self.bench.pass_time(40)
            self.successResultOf(told)
            self.work_for(self.new_worker(), 10, queue)  # a message may have been published twice
            self.assertEqual(self.types(id), types, death)
            self.ended_once(id, death)
            return not death.dead

        self.at_each_step(tell)

    def test_listener_completed(self) -> None:
        """A request that completes at once."""
        self.killed_listener(completed, ["pending", "processing", "progress", "completed"])

    def test_listener_retried(self) -> None:
        """A request that is retried, which the listener has to publish again."""
        types = ["pending", "processing", "progress", "retrying", "processing", "progress", "completed"]
        self.killed_listener(retried, types)

    def test_listener_retried_in_order(self) -> None:
        """The same in a partition."""
        types = ["pending", "processing", "progress", "retrying", "processing", "progress", "completed"]
        self.killed_listener(retried, types, IN_ORDER)

    def test_listener_released(self) -> None:
        """A request that is released, which the listener has to publish again."""
        self.killed_listener(released, ["pending", "processing", "processing", "progress", "completed"])

    def test_listener_dead_letter(self) -> None:
        """A request that becomes a dead letter, of which there is one."""
        self.killed_listener(dead_lettered, ["pending", "processing", "failed"])

    # A worker

    def killed_worker(self, story: Story, queue: str = REQUESTS) -> None:
        """Another one goes on with what it had, once its leases are over.

        It cannot know that a retry was reported, so it may work on the message before it, too. At most one attempt is
        counted that was never begun.
        """

        def tell(death: Death) -> bool:
            id = self.accept(partition=0 if queue == IN_ORDER else None)
            worker, other = self.new_worker(), self.new_worker()
            worker.broker.step = death.step
            told = Deferred.fromCoroutine(story(self, worker, queue))  # type: ignore[arg-type]
            self.bench.pass_time(10)
            told.addErrback(lambda failure: None)
            worker.kill()
            attempts = self.work_for(other, 120, queue)
            self.ended_once(id, death)
            begun = self.types(id).count("processing")
            self.assertLessEqual(max(attempts, default=0), begun + 1, death)
            return not death.dead

        self.at_each_step(tell)

    def work_for(self, worker: Worker, seconds: float, queue: str) -> list[int]:
        """Complete what comes in that time: the number of each attempt."""
        attempts: list[int] = []

        def work(found: Any) -> Deferred[Any]:
            (delivery,) = found
            attempts.append(delivery.attempt)
            delivery.settle(self.reply(delivery))
            return again()

        def again() -> Deferred[Any]:
            self.waiting = worker.queue.receive(queue, 1, in_order=queue == IN_ORDER)
            self.waiting.addCallbacks(work, lambda failure: failure.trap(CancelledError))
            return self.waiting

        again()
        self.bench.pass_time(seconds)
        self.waiting.cancel()
        self.do(worker.queue.stop())
        return attempts

    def test_worker_completed(self) -> None:
        """While it completes a request."""
        self.killed_worker(completed)

    def test_worker_retried(self) -> None:
        """While it retries one."""
        self.killed_worker(retried)

    def test_worker_retried_in_order(self) -> None:
        """The same in a partition."""
        self.killed_worker(retried, IN_ORDER)

    def test_worker_released(self) -> None:
        """While it releases one."""
        self.killed_worker(released)

    def test_worker_dead_letter(self) -> None:
        """While it makes a dead letter of one."""
        self.killed_worker(dead_lettered)


class SqsKillTests(KillTests):
    """Over a broker that leases each message"""

    traits = FORMS["sqs"]

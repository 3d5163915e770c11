"""Whatever happens in whatever order, every request ends once, and a partition is worked on one at a time, in order.

Queue and ledger run as they are, over a broker in memory and under a clock of the test's own. Everything that can
happen to them happens: messages are refused, doubled and lost, connections and processes end, the disk is full. What is
known from outside (which ids were given out, which deliveries came) is held against the promises.
"""

from __future__ import annotations

import gc
import sys
from typing import Any

import apsw
import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from twisted.internet.defer import CancelledError, fail
from twisted.trial.unittest import SynchronousTestCase

from openhqm.codec import decode_request
from openhqm.errors import OpenHQMError
from openhqm.interfaces import DepthKind
from openhqm.messages import IdempotencyClaim, Priority, Reply, Status, Submission
from openhqm.sqlite.sql import fetch_one
from openhqm.testing import FORMS, LEASE, REQUESTS, PublishResult
from tests import hypothesis_profile  # noqa: F401
from tests.benches import BrokeredBench

QUEUES = (REQUESTS, f"{REQUESTS}._0", f"{REQUESTS}._1")
TABLES = ("outbox", "generations", "line", "inflight")


class Promises(RuleBasedStateMachine):
    """One store and one broker, and processes that come and go, one at a time."""

    form = "amqp"

    def __init__(self) -> None:
        super().__init__()
        self.bench = BrokeredBench(FORMS[self.form], ttl=1e6)
        self.given: dict[str, Submission] = {}
        self.claims: dict[str, str] = {}
        self.endings: dict[str, Any] = {}
        self.first_begun: dict[str, list[str]] = {queue: [] for queue in QUEUES}
        self.attempts: dict[str, set[int]] = {}
        self.waiting: set[str] = set()
        self.out: list[Any] = []

    # What callers do

    @rule(
        partition=st.sampled_from([None, None, 0, 0, 1]),
        priority=st.sampled_from(Priority),
        delay=st.sampled_from([None, None, 3.0]),
        timeout=st.sampled_from([None, None, 20.0]),
        learned=st.booleans(),
    )
    def submit(
        self, partition: int | None, priority: Priority, delay: float | None, timeout: float | None, learned: bool
    ) -> None:
        """``learned``: the caller lives to see the answer. Partition 0 has no delays, so its order is known."""
        due = None if delay is None or partition == 0 else self.bench.now() + delay
        self._accept(
            Submission(b"1", partition=partition, priority=priority, not_before=due, timeout=timeout), None, learned
        )

    @rule(key=st.sampled_from("ab"), learned=st.booleans())
    def submit_with_key(self, key: str, learned: bool) -> None:
        accepted = self._accept(Submission(b"1"), IdempotencyClaim(key, key.encode(), lifetime=1e6), learned)
        if accepted is not None:
            assert self.claims.setdefault(key, accepted) == accepted, "one key, two ids"

    def _accept(self, submission: Submission, claim: IdempotencyClaim | None, learned: bool) -> str | None:
        answers: list[Any] = []
        self.bench.queue.accept(submission, claim).addCallbacks(answers.append, _expected)
        if learned:
            self.bench.turn()
        if not answers:
            return None
        correlation_id: str = answers[0].correlation_id
        self.given[correlation_id] = submission
        return correlation_id

    @precondition(lambda self: self.given)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        correlation_id = data.draw(st.sampled_from(list(self.given)))
        self.bench.store.cancel(correlation_id).addErrback(_expected)
        self.bench.turn()

    # What workers do

    @rule(queue=st.sampled_from(QUEUES))
    def ask(self, queue: str) -> None:
        if queue in self.waiting:
            return
        self.waiting.add(queue)
        process = self.bench.queue

        def received(deliveries: Any) -> None:
            assert self.bench.queue is process, "a killed process received"
            self.waiting.discard(queue)
            for delivery in deliveries:
                self._begun(queue, delivery)

        process.receive(queue, 2, in_order=queue != REQUESTS).addCallbacks(received, _expected)
        self.bench.turn()

    def _begun(self, queue: str, delivery: Any) -> None:
        correlation_id = delivery.request.correlation_id
        attempts = self.attempts.setdefault(correlation_id, set())
        assert delivery.attempt not in attempts, "two attempts with one number"
        attempts.add(delivery.attempt)
        if correlation_id not in self.first_begun[queue]:
            self.first_begun[queue].append(correlation_id)
        self.out.append(delivery)

    @precondition(lambda self: self.out)
    @rule(
        data=st.data(), how=st.sampled_from(["settle", "settle", "settle", "retry", "release", "dead letter", "forget"])
    )
    def work(self, data: st.DataObject, how: str) -> None:
        delivery = self.out.pop(data.draw(st.integers(0, len(self.out) - 1)))
        self._finish(delivery, how)
        self.bench.turn()

    def _finish(self, delivery: Any, how: str) -> None:
        reply = Reply(delivery.request.correlation_id, Status.COMPLETED, self.bench.now(), result=b"1")
        if how == "settle":
            delivery.settle(reply).addErrback(_expected)
        elif how == "retry":
            delivery.retry(2.0, "no luck").addErrback(_expected)
        elif how == "release":
            # The attempt does not count, and its number comes again; unless that was not stored.
            attempts = self.attempts[delivery.request.correlation_id]
            if delivery.is_open:
                attempts.discard(delivery.attempt)
            delivery.release().addErrback(_expected)
        elif how == "dead letter":
            failed = Reply(delivery.request.correlation_id, Status.FAILED, self.bench.now(), error="no use")
            delivery.dead_letter("no use", failed).addErrback(_expected)

    # What happens to the broker

    @rule(result=st.sampled_from(PublishResult))
    def publishing(self, result: PublishResult) -> None:
        self.bench.broker.publish_result = result

    @rule()
    def connection_lost(self) -> None:
        self.bench.broker.lose_connection()
        self.bench.turn()

    @rule()
    def connected(self) -> None:
        self.bench.broker.come_back()
        self.bench.turn()

    @rule(seconds=st.sampled_from([0.0, 0.5]))
    def reconnected(self, seconds: float) -> None:
        self.bench.broker.lose_connection()
        self.bench.pass_time(seconds)
        self.bench.broker.come_back()
        self.bench.turn()

    @precondition(lambda self: self.bench.server.channels)
    @rule(data=st.data())
    def doubled(self, data: st.DataObject) -> None:
        self.bench.server.duplicate(data.draw(st.sampled_from(sorted(self.bench.server.channels))))
        self.bench.turn()

    @precondition(lambda self: self.bench.server.channels and self.bench.traits.makes_channels)
    @rule(data=st.data())
    def deleted(self, data: st.DataObject) -> None:
        self.bench.server.delete(data.draw(st.sampled_from(sorted(self.bench.server.channels))))
        self.bench.turn()

    @precondition(lambda self: self.bench.traits.depth is DepthKind.EXACT and self.bench.server.channels)
    @rule(data=st.data())
    def purged(self, data: st.DataObject) -> None:
        self.bench.server.purge(data.draw(st.sampled_from(sorted(self.bench.server.channels))))

    @precondition(lambda self: self.bench.traits.makes_channels)
    @rule()
    def everything_lost(self) -> None:
        self.bench.server.lose_everything()
        self.bench.turn()

    # What happens to the process

    @rule(seconds=st.sampled_from([0.1, 2.0, 35.0, LEASE + 1]))
    def time_passes(self, seconds: float) -> None:
        self.bench.pass_time(seconds)

    @rule()
    def disk_full(self) -> None:
        full = apsw.FullError("the disk is full")
        self.bench.run_commit = lambda commit: fail(full)  # type: ignore[method-assign]

    @rule()
    def disk_mended(self) -> None:
        self._mend()
        self.bench.pass_time(2.0)

    def _mend(self) -> None:
        self.bench.__dict__.pop("run_commit", None)

    @rule(moment=st.sampled_from(["", "before", "after"]))
    def killed(self, moment: str) -> None:
        """Between two turns; or while a commit is on its way, before or after it has reached the file."""
        self.bench.stall = moment
        self.bench.turn()
        self._mend()
        self.bench.crash()
        self._started()

    @rule()
    def stopped(self) -> None:
        """In order. Nothing is left behind that would run on."""
        self._stop()
        self.bench.open()
        self._started()

    def _stop(self) -> None:
        self.bench.store.stop()
        stopped: list[Any] = []
        self.bench.queue.stop().addBoth(stopped.append)
        self.bench.turn()
        assert stopped == [None], stopped
        left = [str(call) for call in self.bench.clock.getDelayedCalls()]
        assert not left, f"left behind: {left}"

    def _started(self) -> None:
        self.waiting.clear()
        self.out.clear()
        self.bench.turn()

    # What must be true

    @invariant()
    def every_id_is_known(self) -> None:
        for correlation_id in self.given:
            record = self._record(correlation_id)
            assert record is not None, "an id was forgotten"
            if correlation_id in self.endings:
                assert record.reply == self.endings[correlation_id], "an ending changed"
            if record.reply is not None:
                self.endings[correlation_id] = record.reply

    @invariant()
    def one_at_a_time(self) -> None:
        """Of a request, and of a partition, at most one delivery is out that was not revoked."""
        out = [each for each in self.out if each.is_open and not each.revoked.called]
        ids = [each.request.correlation_id for each in out]
        assert len(set(ids)) == len(ids), "a request is worked on twice"
        partitions = [each.request.submission.partition for each in out]
        for partition in (0, 1):
            assert partitions.count(partition) <= 1, "two of a partition are worked on"

    @invariant()
    def one_in_the_broker(self) -> None:
        """A partition has the messages of at most one request in the broker, besides those that have ended."""
        found: dict[int, set[str]] = {}
        for channel in self.bench.server.channels:
            for message in self.bench.server.messages(channel):
                request = decode_request(message.body)
                record = self._record(request.correlation_id)
                if request.submission.partition is not None and record is not None and record.reply is None:
                    found.setdefault(request.submission.partition, set()).add(request.correlation_id)
        assert all(len(ids) <= 1 for ids in found.values()), found

    @invariant()
    def in_order(self) -> None:
        """In a partition without delays the requests are begun in the order in which they were accepted."""
        begun = [self.bench.file.ids.number(each) or 0 for each in self.first_begun[f"{REQUESTS}._0"]]
        assert begun == sorted(begun), begun

    def _record(self, correlation_id: str) -> Any:
        found: list[Any] = []
        self.bench.store.find(correlation_id).addCallbacks(found.append, _expected)
        return found[0] if found else None

    def teardown(self) -> None:
        try:
            if sys.exc_info()[0] is None:  # else it has failed before
                self._everything_ends()
        finally:
            self.bench.close()

    def _everything_ends(self) -> None:
        """Left in peace, each request ends, and nothing of it is left anywhere."""
        self._mend()
        self.bench.broker.publish_result = PublishResult.CONFIRMED
        self.bench.broker.come_back()
        for _ in range(60):
            for queue in QUEUES:
                self.ask(queue)
            self.bench.pass_time(2.0)
            while self.out:
                self._finish(self.out.pop(), "settle")
                self.bench.turn()
            self.one_in_the_broker()
            self.in_order()
        if any(self._record(each).reply is None for each in self.given):
            self.bench.pass_time(200.0)
            for _ in range(20):
                while self.out:
                    self._finish(self.out.pop(), "settle")
                    self.bench.turn()
                for queue in QUEUES:
                    self.ask(queue)
                self.bench.pass_time(2.0)
        self.every_id_is_known()
        for correlation_id in self.given:
            record = self._record(correlation_id)
            assert record.status.ended, f"never ended: {record}"
        self.bench.pass_time(LEASE)
        left = {name: self.bench.server.messages(name) for name in self.bench.server.channels}
        assert not any(left.values()), left
        for table in TABLES:
            (count,) = fetch_one(self.bench.file.reader, f"SELECT count(*) FROM {table}")
            assert count == 0, (table, count)
        self._stop()
        self.bench.open()


def _expected(failure: Any) -> None:
    failure.trap(OpenHQMError, CancelledError)


class PromisesTests(SynchronousTestCase):
    """The queue over the fake broker in its forms, with the ledger in the embedded file"""

    def run_form(self, form: str) -> None:
        machine = type(f"Promises over {form}", (Promises,), {"form": form})
        run_state_machine_as_test(machine, settings=settings(max_examples=100, stateful_step_count=40))
        gc.collect()
        self.assertEqual([each.getTraceback() for each in self.flushLoggedErrors()], [])

    def test_amqp(self) -> None:
        """Acknowledgements of single deliveries, without a lease."""
        self.run_form("amqp")

    def test_amqp_short_lease(self) -> None:
        """A lease of one second, and no more than ten with extensions."""
        self.run_form("amqp, short lease")

    def test_sqs(self) -> None:
        """Leases, and a depth that is not exact."""
        self.run_form("sqs")

    def test_pubsub_ordered(self) -> None:
        """One message of a key at a time, and no depth."""
        self.run_form("pubsub-ordered")

    def test_kafka(self) -> None:
        """Acknowledgements by prefix, and no requeueing."""
        self.run_form("kafka")

    def test_mqtt(self) -> None:
        """Acknowledgements in order, and no requeueing."""
        self.run_form("mqtt")

"""What is accepted over a broker in one turn of the reactor is one operation of the ledger in the embedded file."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from openhqm.codec import decode_request
from openhqm.errors import NotDurable
from openhqm.messages import Acceptance, Status, Submission
from openhqm.queue.ledger import CLAIM_SECONDS
from openhqm.testing import PublishResult
from tests.brokered.test_brokered import BrokeredCase


class EntriesTests(BrokeredCase):
    """The first request of a queue has its name noted, and is an operation of its own."""

    def setUp(self) -> None:
        super().setUp()
        self.settle_one()

    def settle_one(self) -> None:
        self.accepted()
        self.settle(self.one())
        self.bench.pass_time(2)

    def accept_some(self, count: int = 5, **fields: Any) -> list[Deferred[Acceptance]]:
        """Within one turn, which is not over."""
        return [self.bench.queue.accept(Submission(b"%d" % number, **fields), None) for number in range(count)]

    def payloads(self) -> list[bytes]:
        return [each.request.submission.payload for each in self.successResultOf(self.receive(most=10))]

    def test_one_operation(self) -> None:
        """All of them are written by one operation. Each is published, and its entry is there until it was begun."""
        asked = self.accept_some()
        self.assertEqual(len(self.bench.file.waiting._entries), 1)
        self.bench.turn()
        self.assertEqual(len({self.successResultOf(each).correlation_id for each in asked}), 5)
        self.assertEqual(self.rows("outbox"), 5)
        self.assertEqual(self.payloads(), [b"0", b"1", b"2", b"3", b"4"])
        self.assertEqual(self.rows("outbox"), 0)

    def test_killed(self) -> None:
        """What was written and not published is published by the next process."""
        self.broker.publish_result = PublishResult.STALLED
        asked = self.accept_some()
        self.bench.turn()
        self.assertEqual(self.rows("outbox"), 5)
        for each in asked:
            self.assertNoResult(each)
        self.bench.crash()
        self.bench.pass_time(2)
        self.assertEqual(sorted(self.payloads()), [b"0", b"1", b"2", b"3", b"4"])

    def test_withdrawn(self) -> None:
        """Of what the broker refuses nothing is left, and the others are accepted."""
        before = self.rows("messages")
        self.broker.publish_result = lambda channel, message: (
            PublishResult.REFUSED
            if decode_request(message.body).submission.payload == b"3"
            else PublishResult.CONFIRMED
        )
        asked = self.accept_some()
        refused = asked[3]
        self.bench.turn()
        self.bench.pass_time(1)
        self.failureResultOf(refused, NotDurable)
        self.assertEqual((self.rows("messages") - before, self.rows("outbox")), (4, 4))
        for each in asked[:3] + asked[4:]:
            self.successResultOf(each)
        self.assertEqual(self.payloads(), [b"0", b"1", b"2", b"4"])

    def test_not_written(self) -> None:
        """Where the disk is full each caller is told so, and nothing goes to the broker."""
        published = len(self.bench.server.published)
        self.break_the_disk()
        asked = self.accept_some()
        self.bench.turn()
        for each in asked:
            self.failureResultOf(each, NotDurable)
        self.mend_the_disk()
        self.bench.pass_time(CLAIM_SECONDS + 6)
        self.assertEqual(len(self.bench.server.published), published)
        self.settle_one()

    def test_beside_others(self) -> None:
        """What has a deadline, a delay or a partition, and what is alone in its queue, keeps that beside them."""
        now = self.bench.now()
        asked = [
            *self.accept_some(2),
            *self.accept_some(1, timeout=20.0),
            *self.accept_some(2),
            *self.accept_some(1, not_before=now + 10),
            *self.accept_some(2, partition=0),
            *self.accept_some(1, endpoint="billing"),
            *self.accept_some(2),
        ]
        self.bench.turn()
        accepted = [self.successResultOf(each) for each in asked]
        self.assertEqual(len(accepted), 11)
        self.assertEqual(len({each.correlation_id for each in accepted}), 11)
        self.assertEqual(self.left(), 9)  # one is delayed, and one waits behind another one of its partition
        self.bench.pass_time(12)
        self.assertEqual(self.left(), 10)
        self.bench.pass_time(10)
        self.assertEqual(self.status(accepted[2]), Status.TIMEOUT)

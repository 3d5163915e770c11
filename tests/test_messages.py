"""The invariants of `openhqm.messages`."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from openhqm.messages import Reply, Request, Status, Submission

ENDINGS = {"COMPLETED", "FAILED", "TIMEOUT", "CANCELLED"}


class MessagesTests(SynchronousTestCase):
    """`openhqm.messages`"""

    def test_endings(self) -> None:
        """Of the six statuses, PENDING and PROCESSING are not endings, and the other four are."""
        self.assertEqual({status.value for status in Status}, {"PENDING", "PROCESSING", *ENDINGS})
        self.assertEqual({status.value for status in Status if status.ended}, ENDINGS)

    def test_reply_needs_an_ending(self) -> None:
        """The status of a reply must be an ending."""
        for status in Status:
            if status.value in ENDINGS:
                self.assertIs(Reply("id", status, 0.0).status, status)
            else:
                self.assertRaises(ValueError, Reply, "id", status, 0.0)

    def test_deadline(self) -> None:
        """The timeout counts from the acceptance. Without one there is no deadline."""
        self.assertEqual(Request("id", 100.0, Submission(b"1", timeout=5.0)).deadline, 105.0)
        self.assertIsNone(Request("id", 100.0, Submission(b"1")).deadline)

    def test_frozen(self) -> None:
        """Messages cannot be changed, and two submissions do not share a default mapping."""
        submission = Submission(b"1")
        self.assertRaises(AttributeError, setattr, submission, "payload", b"2")
        self.assertIsNot(submission.metadata, Submission(b"1").metadata)
        self.assertIsNot(submission.headers, Submission(b"1").headers)

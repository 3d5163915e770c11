"""The closed set of reasons for which a request becomes a dead letter."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from openhqm.messages import DeadLetter, Reply, Request, Status, Submission
from openhqm.policy.reason_classes import ReasonClass, reason_class

ID = "5f4e4d30-cc28-426e-acda-b2a57900674d"


def letter(reason: str, named: str | None = None) -> DeadLetter:
    reply = Reply(ID, Status.FAILED, 2.0, reason_class=named)
    return DeadLetter(Request(ID, 1.0, Submission(b"1")), reason, reply, 2.0)


class ReasonClassTests(SynchronousTestCase):
    def test_named(self) -> None:
        """A letter whose reply names its class has that one, whatever its reason says."""
        for kind in ReasonClass:
            self.assertIs(reason_class(letter("poison", kind.value)), kind)

    def test_older_letters(self) -> None:
        """A letter of an earlier version has the class that its reason says."""
        for reason, kind in (
            ("rejected by the handler", ReasonClass.REJECTED),
            ("the answer is final", ReasonClass.FINAL_ANSWER),
            ("the attempt failed", ReasonClass.ATTEMPTS_EXHAUSTED),
            ("4 attempts failed", ReasonClass.ATTEMPTS_EXHAUSTED),
            ("unusable answer", ReasonClass.UNUSABLE_ANSWER),
            ("poison", ReasonClass.POISON),
            ("not a request: no JSON", ReasonClass.NOT_A_REQUEST),
            ("its id was not given out by this store", ReasonClass.FOREIGN),
        ):
            self.assertIs(reason_class(letter(reason)), kind, reason)

    def test_closed(self) -> None:
        """Whatever else a letter says belongs to the class for all others: the set is closed."""
        for reason, named in (("", None), ("the handler was poison", None), ("poison", "overflow"), ("no", "")):
            self.assertIs(reason_class(letter(reason, named)), ReasonClass.OTHER, (reason, named))

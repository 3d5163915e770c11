"""What a copy is worth."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from openhqm.policy.copies import NotYet, Standing, next_attempt


class NextAttempt(SynchronousTestCase):
    def test_first(self) -> None:
        """The first copy begins the first attempt."""
        self.assertEqual(next_attempt(Standing(), 0, 10.0), 1)

    def test_again(self) -> None:
        """A copy that is lent again after a crash begins the next one, however often."""
        self.assertEqual(next_attempt(Standing(attempt=1), 0, 10.0), 2)
        self.assertEqual(next_attempt(Standing(carried=2, attempt=5), 2, 10.0), 6)

    def test_stale(self) -> None:
        """A copy from before the last retry is worth nothing."""
        self.assertIsNone(next_attempt(Standing(carried=2, attempt=2), 1, 10.0))
        self.assertIsNone(next_attempt(Standing(carried=1, attempt=1, due=20.0), 0, 10.0))

    def test_not_yet(self) -> None:
        """Nothing begins before it is due, and whether it was tried before decides where it waits."""
        self.assertEqual(next_attempt(Standing(carried=1, attempt=1, due=20.0), 1, 10.0), NotYet(10.0, retry=True))
        self.assertEqual(next_attempt(Standing(due=20.0), 0, 12.0), NotYet(8.0, retry=False))
        self.assertEqual(next_attempt(Standing(carried=1, attempt=1, due=20.0), 1, 20.0), 2)

    def test_books_from_before(self) -> None:
        """A copy that knows of more attempts than the books (they were restored) is believed."""
        self.assertEqual(next_attempt(Standing(attempt=1), 4, 10.0), 5)

"""The bound on what waits for slow readers: who is cut off for whom, and who has to ask again."""

from __future__ import annotations

import attrs
from twisted.trial.unittest import SynchronousTestCase

from openhqm.http1.backpressure import LATE_SECONDS
from openhqm.http1.send_budget import SMALL, SendBudget


@attrs.define(eq=False)
class Connection:
    """A connection whose peer is behind by ``late`` seconds."""

    late: float = 0.0
    waiting: int = 0
    ended: bool = False

    def cut_off(self) -> None:
        self.ended = True


class SendBudgetTests(SynchronousTestCase):
    """`SendBudget`"""

    def test_room(self) -> None:
        """What exceeds the bound with what waits has no room, until others have received their part."""
        budget, reader = SendBudget(1_000_000), Connection()
        budget.count(reader, 900_000)
        self.assertTrue(budget.has_room(100_000))
        self.assertFalse(budget.has_room(100_001))
        budget.count(reader, 800_000)
        self.assertTrue(budget.has_room(200_000))
        self.assertEqual(budget.waiting, 800_000)
        budget.count(reader, 0)
        self.assertEqual((budget.waiting, reader.waiting), (0, 0))

    def test_always_sent(self) -> None:
        """A small response is always sent, and so is a large one where nothing waits."""
        budget = SendBudget(1_000_000)
        self.assertTrue(budget.has_room(5_000_000))
        budget.count(Connection(), 5_000_000)
        self.assertTrue(budget.has_room(SMALL))
        self.assertFalse(budget.has_room(SMALL + 1))

    def test_late_readers(self) -> None:
        """The latest readers are cut off first, and no more of them than is needed; one in time never is."""
        budget = SendBudget(1_000_000)
        readers = [Connection(late) for late in (LATE_SECONDS - 1, LATE_SECONDS + 2, LATE_SECONDS + 1)]
        for reader in readers:
            budget.count(reader, 300_000)
        self.assertTrue(budget.has_room(300_000))
        self.assertEqual([reader.ended for reader in readers], [False, True, False])
        self.assertTrue(budget.has_room(700_000))
        self.assertEqual([reader.ended for reader in readers], [False, True, True])
        self.assertFalse(budget.has_room(800_000))
        self.assertEqual((budget.waiting, readers[0].ended), (300_000, False))

    def test_without_asking(self) -> None:
        """What exceeds the bound without having been asked for ends late readers, too."""
        budget, late = SendBudget(1_000_000), Connection(LATE_SECONDS)
        budget.count(late, 600_000)
        budget.count(Connection(), 600_000)
        self.assertEqual((late.ended, budget.waiting), (True, 600_000))

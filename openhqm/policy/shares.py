# -*- test-case-name: tests.policy.test_shares -*-
"""Which of several lines goes next: the first that has something, and now and then the last, so that none starves."""

from __future__ import annotations

from collections.abc import Sequence

LAST_ONE_IN = 10


class Shares:
    """For ``count`` lines, the most urgent first."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._turn = 0

    def choose(self, filled: Sequence[bool]) -> int | None:
        """The line to take from, of those that are filled; None where none is.

        One turn in `LAST_ONE_IN` in which there is a choice goes to the least urgent one.
        """
        found = [index for index in range(self._count) if filled[index]]
        if not found:
            return None
        if len(found) == 1:
            return found[0]
        self._turn += 1
        return found[-1] if self._turn % LAST_ONE_IN == 0 else found[0]

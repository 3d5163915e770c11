# -*- test-case-name: tests.policy.test_shares -*-
"""Which of several lines goes next: the first that has something, and now and then another, so that none starves."""

from __future__ import annotations

from collections.abc import Sequence

ONE_IN = 10


class Shares:
    """For ``count`` lines, the most urgent first."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._turn = 0

    def choose(self, filled: Sequence[bool]) -> int | None:
        """The line to take from, of those that are filled; None where none is.

        Of the turns in which there is a choice, each less urgent line has one in `ONE_IN`, and the first has the rest.
        """
        found = [index for index in range(self._count) if filled[index]]
        if not found:
            return None
        if len(found) == 1:
            return found[0]
        self._turn += 1
        from_last = -self._turn % ONE_IN  # 0 in every tenth turn, 1 in the turn before it
        return found[-1 - from_last] if from_last < len(found) - 1 else found[0]

# -*- test-case-name: tests.policy.test_shares -*-
"""Which of several lines goes next: the first that has something, and now and then another, so that none starves."""

from __future__ import annotations

from collections import Counter
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

    def divide(self, filled: Sequence[bool], most: int) -> list[tuple[int, int]]:
        """What to take: pairs of a line and how many of it at most, in this order, until there are ``most``.

        The first pairs are what each filled line has of the next ``most`` turns; then each may have what others left.
        """
        found = [index for index in range(self._count) if filled[index]]
        if len(found) < 2:
            return [(index, most) for index in found]
        turns = Counter(self.choose(filled) for _ in range(most))
        return [(index, turns[index]) for index in found if turns[index]] + [(index, most) for index in found]

# -*- test-case-name: tests.queue.test_contracts -*-
"""The dead letters in memory, numbered from 1; no number is given out twice."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

from openhqm.errors import UnknownRequest
from openhqm.messages import DeadLetter, Depth


class DeadLetters:
    """Those of this process."""

    def __init__(self) -> None:
        self._letters: dict[int, DeadLetter] = {}
        self._numbers = count(1)

    def add(self, letter: DeadLetter) -> None:
        """Add one."""
        self._letters[next(self._numbers)] = letter

    def take(self, number: int) -> None:
        """Remove one."""
        del self._letters[number]

    def listed(self, after: int, most: int) -> Sequence[tuple[int, DeadLetter]]:
        """Up to ``most`` of those numbered above ``after``, in order."""
        return [entry for entry in self._letters.items() if entry[0] > after][:most]

    def find(self, number: int) -> DeadLetter:
        """The one with this number; `UnknownRequest`."""
        letter = self._letters.get(number)
        if letter is None:
            raise UnknownRequest(f"dead letter {number}")
        return letter

    def depth(self) -> Depth:
        """How many there are, and since when the oldest is there."""
        return Depth(len(self._letters), 0, 0, min((letter.at for letter in self._letters.values()), default=None))

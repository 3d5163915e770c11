# -*- test-case-name: tests.queue.test_contracts -*-
"""The dead letters in memory, numbered from 1; no number is given out twice."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.interfaces import IReactorTime

from openhqm.errors import UnknownRequest
from openhqm.interfaces import DEAD_LETTER_PAGE_BYTES
from openhqm.messages import DeadLetter, Depth
from openhqm.policy.limits import NO_LIMITS, Limits


class DeadLetters:
    """Those of this process; ``limits`` says how many are kept, and for how long. It may be changed.

    ``last`` is the highest number that one was given.
    """

    def __init__(self, clock: IReactorTime, limits: Limits = NO_LIMITS) -> None:
        self._clock = clock
        self.limits = limits
        self._letters: dict[int, DeadLetter] = {}
        self.last = 0

    def add(self, letter: DeadLetter) -> None:
        """Add one."""
        self.last += 1
        self._letters[self.last] = letter
        self._trim()

    def take(self, number: int) -> None:
        """Remove one."""
        if self._letters.pop(number, None) is None:
            raise _unknown(number)

    def listed(self, after: int, most: int) -> Sequence[tuple[int, DeadLetter]]:
        """Those numbered above ``after``, in order: see `IMessageQueue.dead_letters`."""
        self._trim()
        found: list[tuple[int, DeadLetter]] = []
        size = 0
        for number, letter in self._letters.items():
            if len(found) >= most or size >= DEAD_LETTER_PAGE_BYTES:
                break
            if number > after:
                found.append((number, letter))
                size += _size(letter)
        return found

    def find(self, number: int) -> DeadLetter:
        """The one with this number; `UnknownRequest`."""
        letter = self._letters.get(number)
        if letter is None:
            raise _unknown(number)
        return letter

    def depth(self) -> Depth:
        """How many there are, and since when the oldest is there."""
        self._trim()
        return Depth(len(self._letters), 0, 0, min((letter.at for letter in self._letters.values()), default=None))

    def _trim(self) -> None:
        most, seconds = self.limits.dead_letters, self.limits.dead_letter_seconds
        while self._letters:
            number, oldest = next(iter(self._letters.items()))
            too_many = most is not None and len(self._letters) > most
            too_old = seconds is not None and oldest.at + seconds <= self._clock.seconds()
            if not too_many and not too_old:
                return
            del self._letters[number]


def _size(letter: DeadLetter) -> int:
    submission, reply = letter.request.submission, letter.reply
    return sum(len(part or b"") for part in (submission.payload, submission.body, reply.result, reply.body))


def _unknown(number: int) -> UnknownRequest:
    return UnknownRequest(f"dead letter {number}")

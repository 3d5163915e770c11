# -*- test-case-name: tests.bridges.test_bridge -*-
"""A message of a bridge from its arrival to its acknowledgement."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from openhqm.bridges.reading import Reading
from openhqm.interfaces import IBrokerDelivery
from openhqm.messages import DeadLetter
from openhqm.policy.queue_names import BACKLOG

Line = tuple[str | None, int]
"""The endpoint and the partition of requests that are accepted one after the other."""


@attrs.define(eq=False)
class Entry:
    """A delivery that is not acknowledged: what was read in it, or the dead letter that it makes.

    ``maybe_accepted``: the queue was asked to accept it, and did not answer.
    """

    delivery: IBrokerDelivery
    reading: Reading | None
    letter: DeadLetter | None
    revoked: bool = False
    maybe_accepted: bool = False
    watch: Watch | None = None

    @property
    def line(self) -> Line | None:
        """The partition in which it has to keep its place."""
        submission = None if self.reading is None else self.reading.submission
        if submission is None or submission.partition in (None, BACKLOG):
            return None
        return submission.endpoint, submission.partition


class Watch:
    """What a delivery knows of the entry that is made of it, until that is `over`.

    A delivery that went on to know it would wait for the garbage collector with all that was read in it.
    """

    __slots__ = ("_entry", "_tell")

    def __init__(self, entry: Entry, tell: Callable[[str, Entry], None]) -> None:
        self._entry: Entry | None = entry
        self._tell = tell

    def revoked(self, reason: str) -> None:
        """The delivery was revoked."""
        if self._entry is not None:
            self._tell(reason, self._entry)

    def over(self) -> None:
        """The delivery was acknowledged."""
        self._entry = None

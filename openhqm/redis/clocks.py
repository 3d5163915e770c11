# -*- test-case-name: tests.redis.test_clocks -*-
"""How far the clock of this process is from that of Redis, whose time decides.

Redis keeps deadlines, delays and leases by its own clock, so processes whose clocks differ agree. What a process
compares with its own clock (the deadline of a delivery, a delay that a caller asked for) is converted where the two
differ by more than a second.
"""

from __future__ import annotations

from twisted.logger import Logger

TOLERATED_SECONDS = 1.0


class ClockDifference:
    """``seconds``: how far Redis is ahead of this process; 0.0 where it is not known, or tolerated."""

    _log = Logger()

    def __init__(self) -> None:
        self.seconds = 0.0

    def note(self, asked: float, answered: float, told: float) -> None:
        """Redis said that it was ``told``, between ``asked`` and ``answered`` on our clock: at least so far apart."""
        least = told - min(max(told, asked), answered)
        differed = self.seconds != 0.0
        self.seconds = least if abs(least) > TOLERATED_SECONDS else 0.0
        if self.seconds and not differed:
            self._log.warn("{text}", text=self.warnings[0])
        elif differed and not self.seconds:
            self._log.info("the clocks of this process and of Redis agree again")

    @property
    def warnings(self) -> tuple[str, ...]:
        """What an operator should know of it."""
        if not self.seconds:
            return ()
        which = "behind" if self.seconds > 0 else "ahead of"
        return (
            f"the clock of this process is {abs(self.seconds):.0f} s {which} that of Redis, whose time decides: "
            "synchronise both (NTP)",
        )

    def to_ours(self, moment: float) -> float:
        """A moment of Redis's time, by our clock."""
        return moment - self.seconds

    def to_theirs(self, moment: float) -> float:
        """A moment of our time, by Redis's clock."""
        return moment + self.seconds

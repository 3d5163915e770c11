# -*- test-case-name: tests.policy.test_copies -*-
"""What a copy of a request's message is worth, where a broker holds copies and a ledger elsewhere keeps the books.

A copy carries how many attempts there had been when it was published. A retry publishes a new one that carries more:
from then on older ones are stale, however often the broker lends them.
"""

from __future__ import annotations

import attrs

from openhqm.messages import Request

NOTE_SECONDS = 1.0
"""Within that time it is in the books what the broker has taken."""


@attrs.frozen
class Copy:
    """What is to be published: the request, its envelope, the attempts it carries, and seconds to wait before."""

    number: int
    request: Request
    body: bytes
    attempts: int = 0
    delay: float = 0.0


@attrs.frozen
class Loan:
    """An attempt that was counted. ``token`` tells it from every other one, also from one of the same number."""

    number: int
    attempt: int
    token: str


@attrs.frozen
class NotYet:
    """It is not to begin before ``delay`` seconds have passed. ``retry``: there was an attempt before."""

    delay: float
    retry: bool


@attrs.frozen
class Recovered:
    """What became of requests whose copies the broker has lost: marked to be published anew, or ended as FAILED."""

    marked: int = 0
    ended: int = 0

    def __bool__(self) -> bool:
        return bool(self.marked or self.ended)

    def __add__(self, other: Recovered) -> Recovered:
        return Recovered(self.marked + other.marked, self.ended + other.ended)


@attrs.frozen
class Standing:
    """What the books say of a request that has not ended.

    ``carried`` is what the copy that counts carries, ``attempt`` the last one that was counted, ``due`` a time before
    which there is to be no other.
    """

    carried: int = 0
    attempt: int = 0
    due: float | None = None


def next_attempt(standing: Standing, carried: int, now: float) -> int | NotYet | None:
    """Which attempt begins with a copy that carries ``carried``. None: the copy is stale."""
    if carried < standing.carried:
        return None
    if standing.due is not None and standing.due > now:
        return NotYet(standing.due - now, retry=standing.attempt > 0)
    return max(standing.attempt, carried) + 1

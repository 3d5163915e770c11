"""A store in which something happens at a chosen moment: before it is asked for something, or before it answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred

from openhqm.runtime.deferreds import deferred

_ASKED = ("bounds", "find", "history", "keep", "read")


class Moments:
    """``act`` is called at the moment ``at``, counted from 1; ``passed`` is how many there were.

    ``waits``: what was asked goes on once ``act`` is done. Else it goes on beside it.
    """

    def __init__(self, at: int, act: Callable[[], Deferred[Any]], *, waits: bool) -> None:
        self.passed = 0
        self._at = at
        self._act = act
        self._waits = waits

    def has_passed(self) -> bool:
        """Whether there was that moment. ``act`` is not called any more."""
        at, self._at = self._at, 0
        return self.passed >= at

    async def one_more(self) -> None:
        """A moment."""
        self.passed += 1
        if self.passed == self._at:
            acting = self._act()
            if self._waits:
                await acting


class Watched:
    """``subject``, with a moment before and behind all that is asked of it."""

    def __init__(self, subject: Any, moments: Moments) -> None:
        self._subject = subject
        self._moments = moments

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._subject, name)
        if name not in _ASKED:
            return found

        @deferred
        async def asked(*args: Any) -> Any:
            await self._moments.one_more()
            answer = await found(*args)
            await self._moments.one_more()
            return answer

        return asked

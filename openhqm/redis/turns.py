# -*- test-case-name: tests.redis.test_turns,tests.redis.test_contract -*-
"""One script for all that ask for it in one turn of the reactor: one command, and one answer."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from openhqm.errors import NotDurable
from openhqm.redis.connection import Redis

MOST = 100
"""So many are one step at most: Redis does nothing else while a script runs."""
MANY_BYTES = 1024 * 1024
_Asked = list[tuple[tuple[Any, ...], Deferred[Any]]]


class TurnScript:
    """Runs ``script`` in ``redis`` at the end of the turn for all that have asked for it, as one step, in their order.

    Where none of it is being run, it is run at once: one that is alone waits for no other.

    ``repeatable``: asked for again, it finds out what it has done. Where Redis refuses to do it for several, each is
    then asked for by itself: one that Redis cannot do keeps no other from being done. ``last`` stands behind the values
    of each where there are several.
    """

    def __init__(self, redis: Redis, script: str, *, repeatable: bool = False, last: tuple[str, ...] = ()) -> None:
        self._redis = redis
        self._script = script
        self._repeatable = repeatable
        self._last = last
        self._asked: _Asked = []
        self._size = 0
        self._under_way = 0

    def run(self, size: int, *values: Any) -> Deferred[Any]:
        """The answer of the script for ``values``, of about ``size`` bytes; fails as `Redis.run` does."""
        answer: Deferred[Any] = Deferred()
        if not self._asked:
            if not self._under_way:
                self._run_each([(values, answer)])
                return answer
            self._redis.at_end_of_turn(self.flush)
        self._asked.append((values, answer))
        self._size += size
        if len(self._asked) >= MOST or self._size >= MANY_BYTES:
            self.flush()
        return answer

    def flush(self) -> None:
        """Run it now for all that have asked."""
        asked, self._asked, self._size = self._asked, [], 0
        if len(asked) <= 1:
            self._run_each(asked)
            return
        values: list[Any] = []
        for own, _ in asked:
            values += (len(own) + len(self._last), *own, *self._last)
        running = self._begun(self._redis.run(f"{self._script}_many", *values))
        running.addCallbacks(_answered, self._refused, (asked,), errbackArgs=(asked,))

    def _run_each(self, asked: _Asked) -> None:
        for values, answer in asked:
            self._begun(self._redis.run(self._script, *values)).chainDeferred(answer)

    def _begun(self, running: Deferred[Any]) -> Deferred[Any]:
        self._under_way += 1
        return running.addBoth(self._ended)

    def _ended(self, result: Any) -> Any:
        self._under_way -= 1
        return result

    def _refused(self, failure: Failure, asked: _Asked) -> None:
        error = failure.value
        if self._repeatable and isinstance(error, NotDurable) and not error.maybe_done:
            self._run_each(asked)
            return
        for _, answer in asked:
            answer.errback(failure)


def _answered(answers: list[Any], asked: _Asked) -> None:
    for (_, answer), found in zip(asked, answers, strict=True):
        answer.callback(found)

# -*- test-case-name: tests.brokered.test_losses -*-
"""What a broker has lost, by the ledger in Redis: published again while its content is here, ended where it is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from openhqm.codec import encode_reply
from openhqm.errors import NotDurable
from openhqm.messages import Reply, Status
from openhqm.queue.ledger import LossUncertain, Recovered
from openhqm.redis.connection import Redis
from openhqm.runtime.deferreds import deferred

MOST_RECOVERED = 500
TURN_SECONDS = 30
TURN_WAIT_SECONDS = 5.0
LOST_STATUS = 502  # what was behind this server failed (RFC 9110, section 15.6.3)
LOST_TEXT = "the broker has lost the request, and its content was kept nowhere else: send it again"


class LedgerLosses:
    """``ttl`` is how long the ending of a lost request is kept, in seconds.

    ``lost_after`` is how long a broker has to have nothing of ours before that is believed. ``fell_due`` is called when
    something is to be published again.
    """

    def __init__(self, redis: Redis, ttl: float, lost_after: float, fell_due: Callable[[], None]) -> None:
        self._redis = redis
        self._ttl = ttl
        self._lost_after = lost_after
        self._fell_due = fell_due
        self._suspected: dict[str, float] = {}

    @deferred
    async def recover(
        self,
        channel: str,
        is_lost: Callable[[], Deferred[bool]],
        make: Callable[[], Deferred[None]] | None,
        sure: bool,
    ) -> Recovered:
        """See `openhqm.queue.ledger.Ledger.recover`."""
        token = await self._take_turn()
        recovering: Deferred[Any] = self._recover_in_turn(token, channel, is_lost, make, sure)
        recovered: Recovered = await recovering.addBoth(self._end_turn, token)
        return recovered

    @deferred
    async def _recover_in_turn(
        self,
        token: str,
        channel: str,
        is_lost: Callable[[], Deferred[bool]],
        make: Callable[[], Deferred[None]] | None,
        sure: bool,
    ) -> Recovered:
        found = Recovered()
        if await is_lost():
            found = await self._recover(token, channel, make is not None, sure)
            if make is not None:
                await make()
        self._suspected.pop(channel, None)
        return found

    def _end_turn(self, result: Any, token: str) -> Deferred[Any]:
        """``result``, once the turn is another process's. A turn that cannot be given back ends by itself."""
        ended = self._redis.run("ledger_turn", token).addErrback(lambda failure: failure.trap(NotDurable))
        return ended.addCallback(lambda _: result)

    async def _take_turn(self) -> str:
        """This process's turn at finding out what was lost; `NotDurable` where another one is at it for long."""
        key, token = f"{self._redis.prefix}recovering", self._redis.new_token()
        until = self._redis.clock.seconds() + TURN_WAIT_SECONDS
        while await self._redis.command("SET", key, token, "NX", "EX", TURN_SECONDS) is None:
            if self._redis.clock.seconds() >= until:
                raise NotDurable("another process is finding out what the broker has lost")
            await deferLater(self._redis.clock, 0.1)
        return token

    async def _recover(self, token: str, channel: str, begun: bool, sure: bool) -> Recovered:
        found, first = Recovered(), True
        while True:
            answer = await self._redis.run(
                "ledger_recover", token, channel, MOST_RECOVERED, "1" if begun else "", "1" if first else ""
            )
            if answer == b"over":
                raise NotDurable("another process is finding out what the broker has lost")
            published, rest, looked_at = answer
            if rest:
                self._hesitate(channel, len(rest), sure)
            ended = [await self._end_lost(int(number)) for number in rest]
            found, first = found + Recovered(int(published), sum(ended)), False
            if not looked_at:
                break
        if found.published:
            self._fell_due()
        return found

    def _hesitate(self, channel: str, count: int, sure: bool) -> None:
        """`LossUncertain` for a while: this may not be the right broker, and no ending can be undone."""
        now = self._redis.clock.seconds()
        since = self._suspected.setdefault(channel, now)
        if not sure and now - since < self._lost_after:
            raise LossUncertain(
                f"the broker has no channel {channel}, but {count} or more open requests wait in it: check host, "
                f"virtual host and prefix. They end as FAILED {self._lost_after:g} s after this was seen first"
            )

    async def _end_lost(self, number: int) -> bool:
        """Whether it had not ended yet."""
        now, id = self._redis.clock_now(), self._redis.ids.issue(number)
        reply = Reply(id, Status.FAILED, now, status_code=LOST_STATUS, error=LOST_TEXT)
        answer = await self._redis.run("end", number, reply.status.value, encode_reply(reply), self._ttl)
        first = bool(answer.startswith(b"1"))
        if first:
            self._redis.tell_ending(number, reply.status.value)
        return first

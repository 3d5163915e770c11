# -*- test-case-name: tests.redis.test_contract,tests.queue.test_chain_kills -*-
"""Requests that consist of steps, in Redis: what follows from the ending of a step is found out here.

The script that ends a step notes its reply in the record of its request, and that this is to be looked at (``ripe``).
One process looks, by a claim, and does what `openhqm.policy.children` says, in scripts each of which may run again: the
first ending wins, and a step begins once. Where it is killed, another one goes on when the claim is over.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import attrs
import msgspec
from msgspec.structs import replace
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from openhqm.codec import decode_reply, encode_reply
from openhqm.errors import NotDurable
from openhqm.messages import ChildState, Reply, Status
from openhqm.policy import children as policy
from openhqm.policy.children import places_of
from openhqm.redis.connection import Redis
from openhqm.runtime.deferreds import deferred

CLAIM_SECONDS = 5.0
MOST_AT_ONCE = 50
HELD = b"HELD"
End = Callable[[int, Reply], Deferred[bool]]


@attrs.frozen
class _Looked:
    """A request that consists of steps, as it was when it was claimed."""

    number: int
    now: float
    at: float
    deadline: float | None
    ended: str
    count: bytes
    numbers: Sequence[int]
    attempts: Sequence[int]
    states: Sequence[ChildState]
    timeouts: Sequence[float | None]


class RedisChildren:
    """``end`` ends a request by its number, unless it has ended."""

    _log = Logger()

    def __init__(self, redis: Redis, end: End) -> None:
        self._redis = redis
        self._end = end
        self._looking: Deferred[Any] | None = None
        self._again = False
        self._unlisten: Callable[[], None] = lambda: None
        self._running = False

    def start(self) -> None:
        """Begin to look, whenever there is something to look at."""
        self._running = True
        channel = f"{self._redis.prefix}signals:ripe"
        self._unlisten = self._redis.listen(channel, lambda message: self._look(), self._look)

    def stop(self) -> None:
        """Look no more."""
        self._running = False
        self._unlisten()

    def sweep(self) -> Deferred[bool]:
        """Look now, in case a signal got lost. Another look does what is left."""
        self._look()
        return succeed(False)

    def _look(self) -> None:
        if self._looking is not None:
            self._again = True
        elif self._running:
            self._again = False
            looking = self._looking = self._look_at_some()
            looking.addCallbacks(self._looked, self._could_not_look)

    def _looked(self, more: bool) -> None:
        self._looking = None
        if more or self._again:
            self._look()

    def _could_not_look(self, failure: Failure) -> None:
        """The next sweep does, or another process."""
        self._looking = None
        if not failure.check(NotDurable):
            self._log.failure("looking after steps broke down", failure)

    @deferred
    async def _look_at_some(self) -> bool:
        for _ in range(MOST_AT_ONCE):
            found = await self._redis.run("children_take", CLAIM_SECONDS)
            if not found:
                return False
            looked = self._read(found)
            await self._go_on(looked)
            await self._redis.run("children_done", looked.number, looked.count)
        return True

    def _read(self, found: Sequence[bytes]) -> _Looked:
        number, now, at, deadline, ended, count, plan, *rest = found
        numbers, statuses, attempts, sizes = rest[::4], rest[1::4], rest[2::4], rest[3::4]
        states = self.states(plan, numbers, statuses)
        return _Looked(
            int(number),
            float(now),
            float(at),
            float(deadline) if deadline else None,
            ended.decode(),
            count,
            [int(each) for each in numbers],
            [int(each) for each in attempts],
            [replace(state, size=int(size)) for state, size in zip(states, sizes, strict=True)],
            [timeout for *_, timeout in msgspec.json.decode(plan)],
        )

    def states(self, plan: bytes, numbers: Sequence[bytes], statuses: Sequence[bytes]) -> tuple[ChildState, ...]:
        """What a record says of the steps of its request."""
        found = []
        planned = msgspec.json.decode(plan)
        for (stage, name, joined, _), number, text in zip(planned, numbers, statuses, strict=True):
            status = Status.PENDING if text == HELD else Status(text.decode())
            found.append(ChildState(self._redis.ids.issue(int(number)), stage, name, status, joined, text != HELD))
        return tuple(found)

    async def _go_on(self, looked: _Looked) -> None:
        states, id, now = looked.states, self._redis.ids.issue(looked.number), self._redis.clock_now()
        if looked.ended:
            for number, attempt, state in zip(looked.numbers, looked.attempts, states, strict=True):
                if not state.status.ended:
                    ended = Status(looked.ended)
                    reply = policy.ended_with_parent(state.correlation_id, id, ended, now, attempt)
                    await self._end(number, reply)
            return
        following = policy.what_is_next(states)
        if following.failed is not None:
            (reply,) = await self._replies(looked.number, [following.failed])
            ending = policy.failed(id, self._at(looked), states, following.failed, reply, now)
            await self._end(looked.number, ending)
        elif following.too_large is not None:
            await self._too_large(looked, following.too_large)
        elif following.completed:
            last = await self._outcome(looked, states[-1].stage, 1)
            if last is not None:
                await self._end(looked.number, policy.completed(id, self._at(looked), last, now))
        elif following.begin:
            stage = states[following.begin[0]].stage
            before = await self._outcome(looked, stage - 1, len(following.begin)) if stage > 1 else None
            if stage == 1 or before is not None:
                await self._begin(looked, following.begin, stage, before)

    def _at(self, looked: _Looked) -> float:
        """When the request was accepted, by our clock."""
        return self._redis.clocks.to_ours(looked.at)

    async def _outcome(self, looked: _Looked, stage: int, copies: int) -> Reply | None:
        """What a stage has resulted in. None: that is too much, and the request has ended with it."""
        id, now = self._redis.ids.issue(looked.number), self._redis.clock_now()
        replies = await self._replies(looked.number, places_of(looked.states, stage))
        reply = policy.outcome(id, looked.states, stage, replies, now)
        if not policy.is_too_large(reply, copies):
            return reply
        await self._too_large(looked, stage)
        return None

    async def _too_large(self, looked: _Looked, stage: int) -> None:
        id, now = self._redis.ids.issue(looked.number), self._redis.clock_now()
        await self._end(looked.number, policy.too_large(id, self._at(looked), looked.states, stage, now))

    async def _begin(self, looked: _Looked, begin: Sequence[int], stage: int, before: Reply | None) -> None:
        more = b"" if before is None else b',"parent_reply":' + encode_reply(before)
        behind: tuple[Any, Any] = ("", "")
        if stage > 1:
            places = places_of(looked.states, stage - 1)
            behind = places[0], places[-1]
        steps = chain.from_iterable((place, self._timeout(looked, place)) for place in begin)
        await self._redis.run("children_begin", looked.number, more, *behind, *steps)

    def _timeout(self, looked: _Looked, place: int) -> str:
        timeout = policy.time_left(looked.timeouts[place], looked.deadline, looked.now)
        return "" if timeout is None else repr(timeout)

    async def _replies(self, number: int, places: Sequence[int]) -> list[Reply]:
        key = f"{self._redis.prefix}r:{number}"
        found = await self._redis.command("HMGET", key, *(f"p{place}" for place in places))
        if None in found:  # another process was faster, and has told
            raise NotDurable("the step before was looked at by another process")
        return [decode_reply(text) for text in found]

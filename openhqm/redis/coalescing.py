# -*- test-case-name: tests.redis.test_contract,tests.brokered.test_forms -*-
"""Coalesce keys in Redis: see ``part_coalescing.lua``."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

from twisted.internet.defer import Deferred

from openhqm.codec import encode_reply
from openhqm.messages import Coalescing, Status, Submission
from openhqm.queue.endings import superseded
from openhqm.redis.connection import Redis
from openhqm.runtime.deferreds import deferred


class CoalesceKeys:
    """Those in ``redis``. The ending of a request whose place was taken is kept for ``ttl`` seconds."""

    def __init__(self, redis: Redis, ttl: float) -> None:
        self._redis = redis
        self._ttl = ttl

    def run(self, script: str, submission: Submission, *values: Any) -> Deferred[Any]:
        """The answer of ``script``, which accepts ``submission``, with or without a coalesce key."""
        if submission.coalescing is None:
            return self._redis.run(script, *values)
        return self._run(f"{script}_coalesced", submission.coalescing, values)

    @deferred
    async def _run(self, script: str, coalescing: Coalescing, values: Sequence[Any]) -> Any:
        # The reply to the other request has the id of this one, and a script cannot make an id of a number. A number
        # that is not used after all is that of an id which was never told.
        number = int(await self._redis.command("INCR", f"{self._redis.prefix}number"))
        self._redis.saw(number)
        id = self._redis.ids.issue(number)
        digest = blake2b(f"{coalescing.scope} {coalescing.key}".encode(), digest_size=16).hexdigest()
        reply = encode_reply(superseded("", self._redis.clock_now(), id))
        times = repr(coalescing.window), repr(coalescing.most)
        answer = await self._redis.run(script, *values, digest, *times, number, id, reply, self._ttl)
        if answer[0] != b"new":
            return answer
        *answer, earlier = answer
        if earlier:
            self._redis.tell_ending(int(earlier), Status.CANCELLED.value)
        return answer if answer[-1] else answer[:-1]

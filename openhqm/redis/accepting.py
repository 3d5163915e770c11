# -*- test-case-name: tests.redis.test_contract,tests.brokered.test_forms -*-
"""Running a script that accepts requests: for one, for one with a coalesce key, for many in one step, or for steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from itertools import chain
from typing import Any

import msgspec
from msgspec.structs import replace
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from openhqm.codec import encode_reply, encode_submission
from openhqm.errors import IdempotencyConflict, QueueFull
from openhqm.messages import Acceptance, Child, ChildState, Coalescing, IdempotencyClaim, Status, Submission
from openhqm.policy import children as policy
from openhqm.queue.endings import superseded
from openhqm.queue.limits import no_repeat
from openhqm.redis.claims import claim_arguments
from openhqm.redis.connection import Redis
from openhqm.redis.ending_log import log_mark
from openhqm.redis.load import RedisLoad
from openhqm.redis.turns import TurnScript
from openhqm.runtime.deferreds import deferred

NO_KEY = ("",)
"""In place of what a coalesce key needs."""
Where = Callable[[Submission], tuple[str, str, str, str]]
"""Queue, priority, channel and line of a submission, for the scripts."""
_Bundle = list[tuple[Coalescing | None, tuple[Any, ...], Deferred[Any]]]


def refused(answer: Sequence[bytes], claim: IdempotencyClaim | None, load: RedisLoad) -> QueueFull | None:
    """What keeps a script from accepting, of all those that accept: there is no room; None: nothing does.

    `QueueFull` where only a repeat was to be accepted and it is none; `IdempotencyConflict`.
    """
    outcome = answer[0]
    if outcome == b"no repeat":
        raise no_repeat()
    if outcome == b"conflict":
        raise IdempotencyConflict(claim.key if claim is not None else "")
    return load.refusal(answer) if outcome == b"full" else None


class AcceptScript:
    """Runs ``script`` in ``redis``. The ending of a request whose place was taken is kept for ``ttl`` seconds.

    All requests of one turn of the reactor that have no coalesce key are one step. What such a key needs is in
    ``part_coalescing.lua``.
    """

    def __init__(self, redis: Redis, ttl: float, script: str) -> None:
        self._redis = redis
        self._ttl = ttl
        self._script = script
        self._bundle: _Bundle | None = None
        self._plain = TurnScript(redis, script, last=NO_KEY)
        self.flush = self._plain.flush

    def run(self, submission: Submission, *values: Any) -> Deferred[Any]:
        """The answer of the script, for a request with ``values``."""
        if self._bundle is not None:
            answer: Deferred[Any] = Deferred()
            self._bundle.append((submission.coalescing, values, answer))
            return answer
        if submission.coalescing is None:
            return self._plain.run(len(submission.payload) + len(submission.body or b""), *values)
        return self._run(submission.coalescing, values)

    @contextmanager
    def together(self) -> Iterator[None]:
        """What is run within is one script, and so one step."""
        bundle = self._bundle = []
        try:
            yield
        finally:
            self._bundle = None
            if bundle:
                self._run_all(bundle)

    @deferred
    async def _run(self, coalescing: Coalescing, values: Sequence[Any]) -> Any:
        (number,) = await self._numbers(1)
        return self._told(await self._redis.run(f"{self._script}_coalesced", *values, *self._place(coalescing, number)))

    @deferred
    async def _run_all(self, bundle: _Bundle) -> None:
        try:
            numbers = iter(await self._numbers(sum(coalescing is not None for coalescing, _, _ in bundle)))
            values: list[Any] = []
            for coalescing, own, _ in bundle:
                place = NO_KEY if coalescing is None else self._place(coalescing, next(numbers))
                values += (len(own) + len(place), *own, *place)
            answers = await self._redis.run(f"{self._script}_many", *values)
        except Exception:
            failure = Failure()
            for _, _, asked in bundle:
                asked.errback(failure)
            return
        for (coalescing, _, asked), answer in zip(bundle, answers, strict=True):
            asked.callback(answer if coalescing is None else self._told(answer))

    async def _numbers(self, count: int) -> Sequence[int]:
        """Numbers of requests that have a coalesce key, in order.

        The reply to another request has the id of the new one, and a script cannot make an id of a number. A number
        that is not used after all is that of an id which was never told.
        """
        if not count:
            return ()
        last = int(await self._redis.command("INCRBY", f"{self._redis.prefix}number", count))
        self._redis.saw(last)
        return range(last - count + 1, last + 1)

    def _place(self, coalescing: Coalescing, number: int) -> tuple[Any, ...]:
        id = self._redis.ids.issue(number)
        digest = blake2b(f"{coalescing.scope} {coalescing.key}".encode(), digest_size=16).hexdigest()
        reply = encode_reply(superseded("", self._redis.clock_now(), id))
        return digest, repr(coalescing.window), repr(coalescing.most), number, id, reply, self._ttl

    def _told(self, answer: list[Any]) -> list[Any]:
        """The answer as it is without a coalesce key; the ending of the other request is told."""
        if answer[0] != b"new":
            return answer
        *answer, earlier = answer
        if earlier:
            self._redis.tell_ending(int(earlier), Status.CANCELLED.value)
        return answer if answer[-1] else answer[:-1]


class AcceptSteps:
    """Accepts requests that consist of steps. ``where`` says where a submission waits."""

    def __init__(self, redis: Redis, load: RedisLoad, requests: str, where: Where) -> None:
        self._redis = redis
        self._load = load
        self._requests = requests
        self._where = where

    @deferred
    async def accept(
        self,
        submission: Submission,
        claim: IdempotencyClaim | None,
        children: Sequence[Child],
        follow_ups: Sequence[Any],
    ) -> Acceptance | QueueFull:
        """``follow_ups`` are the values of `hold_back`. `IdempotencyConflict`, `NotDurable`."""
        redis = self._redis
        last = int(await redis.command("INCRBY", f"{redis.prefix}number", len(children) + 1))
        redis.saw(last)
        number, numbers = last - len(children), range(last - len(children) + 1, last + 1)
        states = [
            ChildState(redis.ids.issue(each), child.stage, child.name, joined=child.joined)
            for each, child in zip(numbers, children, strict=True)
        ]
        due, timeout = redis.due(submission), submission.timeout
        answer = await redis.run(
            "children_accept",
            number,
            self._requests,
            encode_submission(submission),
            "" if due is None else repr(due),
            "" if timeout is None else repr(timeout),
            *claim_arguments(claim),
            *self._load.values,
            log_mark(submission),
            msgspec.json.encode([(each.stage, each.name, each.joined, each.submission.timeout) for each in children]),
            len(children),
            *chain.from_iterable(
                (each, *self._where(child.submission), *self._step(child.submission, states, place))
                for place, (each, child) in enumerate(zip(numbers, children, strict=True))
            ),
            *follow_ups,
        )
        full = refused(answer, claim, self._load)
        if full is not None:
            return full
        if answer[0] == b"repeat":
            return Acceptance(redis.ids.issue(int(answer[1])), float(answer[2]), replayed=True)
        held = redis.issue_all(answer[2]) if answer[2] else ()
        return Acceptance(redis.ids.issue(number), float(answer[1]), follow_ups=held)

    def _step(self, submission: Submission, states: Sequence[ChildState], place: int) -> tuple[Any, ...]:
        plain = replace(submission, not_before=None, timeout=None)
        named = msgspec.json.encode(policy.about(states, place)).removesuffix(b"}")
        return encode_submission(plain), log_mark(submission), named

# -*- test-case-name: tests.redis.test_contract,tests.redis.test_several_processes -*-
"""The queue in Redis Streams: each promise is one script, kept for as many processes as there are.

A request is a record (a hash), and its number stands in exactly one key of its queue: the stream of its priority, the
leases, or one of two sets ordered by when it is due. `docs/redis.md` lists the keys.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, cast

import attrs
from twisted.internet.defer import Deferred, gatherResults, succeed
from zope.interface import implementer

from openhqm.codec import encode_dead_letter, encode_request, size_with
from openhqm.errors import QueueFull, UnknownRequest
from openhqm.interfaces import IDelivery, IMessageQueue, IShares, QueueTraits
from openhqm.messages import (
    Acceptance,
    Child,
    DeadLetter,
    Depth,
    IdempotencyClaim,
    Priority,
    Request,
    Submission,
    Waiting,
)
from openhqm.policy.foreign import MESSAGE_ID, reply_fields
from openhqm.policy.limits import NO_LIMITS, Limits
from openhqm.policy.queue_names import MOST_QUEUES, priority_of, queue_of
from openhqm.policy.redrive import redriven
from openhqm.queue.sharing import SharedQueues
from openhqm.redis.accepting import AcceptScript, AcceptSteps, refused
from openhqm.redis.claims import claim_arguments
from openhqm.redis.connection import Redis
from openhqm.redis.dead_letters import DeadLetters
from openhqm.redis.ending_log import log_mark
from openhqm.redis.held import held_values
from openhqm.redis.load import RedisLoad
from openhqm.redis.local_queue import LocalQueue
from openhqm.redis.turns import TurnScript
from openhqm.runtime.deferreds import deferred

NO_SOURCE = ("", "")
"""Where a request stood before, and is deleted in the step that accepts it: nowhere."""
LARGEST_BYTES = 512 * 1024 * 1024  # a string in Redis holds no more (proto-max-bulk-len)
TRAITS = QueueTraits(durable=True, ordered=True, atomic_settle=True, largest_message=LARGEST_BYTES)
NOT_DURABLE = attrs.evolve(TRAITS, durable=False)


@implementer(IMessageQueue)
class RedisQueue:
    """The queues in ``redis``.

    A delivery that is not extended for ``lease`` seconds is lost, and its request delivered again, in any process.
    ``ttl`` is how long an ending is kept that is settled here, in seconds.
    """

    def __init__(
        self,
        redis: Redis,
        *,
        requests: str,
        dead_letters: str,
        ttl: float,
        lease: float = 60.0,
        limits: Limits = NO_LIMITS,
    ) -> None:
        self._redis = redis
        self._requests = requests
        self._dead_letters = dead_letters
        self._letters = DeadLetters(redis, dead_letters, limits)
        self._ttl = ttl
        self._lease = lease
        self._queues: dict[str, LocalQueue] = {}
        self._shared = SharedQueues(redis.clock, lambda name: self._queue(name).waiters)
        self._load = RedisLoad(redis, ttl, limits)
        self._children = AcceptSteps(redis, self._load, requests, self._where)
        self._accepting = AcceptScript(redis, ttl, "accept")
        self._settling = TurnScript(redis, "settle", repeatable=True)
        self.together = self._accepting.together
        self.load = self._load.read
        self.sweeps = (self._letters.trim, self._load.end_some)

    @property
    def traits(self) -> QueueTraits:
        """Not durable before Redis's own settings were read, nor where they lose what was accepted."""
        return TRAITS if self._redis.promises.durable else NOT_DURABLE

    @property
    def unavailable_reason(self) -> str | None:
        """Why nothing can be accepted now, or None."""
        return self._redis.unavailable_reason

    @property
    def warnings(self) -> Sequence[str]:
        """What this Redis cannot promise."""
        return (*self._redis.warnings, *self._load.warnings)

    def start(self) -> Deferred[None]:
        self._redis.start()
        return succeed(None)

    @deferred
    async def stop(self) -> None:
        # Each answer comes or fails within the link's time, so this ends.
        await self._shared.stop()
        await gatherResults([queue.stop() for queue in self._queues.values()])
        self._settling.flush()
        self._accepting.flush()
        await self._redis.stop()

    def limit(self, limits: Limits) -> None:
        """Other limits hold from now on."""
        self._letters.limits = limits
        self._load.limit(limits)

    def accept(
        self,
        submission: Submission,
        claim: IdempotencyClaim | None,
        follow_ups: Sequence[Submission] = (),
        children: Sequence[Child] = (),
    ) -> Deferred[Acceptance]:
        if not children and not self._load.limits.any:
            return cast(Deferred[Acceptance], self._accept(submission, claim, NO_SOURCE, follow_ups, self._load.values))
        accept = partial(self._accept, submission, claim, NO_SOURCE, follow_ups, self._load.values)
        if children:
            held = [value for each in follow_ups for value in self._held_back(each)]
            accept = partial(self._children.accept, submission, claim, children, held)
        if not self._load.limits.any:
            return cast(Deferred[Acceptance], accept())
        return self._load.accept(size_with(submission, children), accept)

    def _accept(
        self,
        submission: Submission,
        claim: IdempotencyClaim | None,
        source: tuple[str, str],
        follow_ups: Sequence[Submission] = (),
        limits: tuple[str, ...] | None = None,
    ) -> Deferred[Acceptance | QueueFull]:
        # Number and time are Redis's to give; they stand in the record, above what the envelope says.
        body = encode_request(Request("", self._redis.clock_now(), submission))
        asked = self._accepting.run(
            submission,
            queue_of(self._requests, submission),
            priority_of(submission).value,
            body,
            _optional(self._redis.due(submission)),
            _optional(submission.timeout),
            *claim_arguments(claim),
            *source,
            submission.reply_to or "",
            about(submission),
            *(limits or self._load.exempt),
            log_mark(submission),
            *(value for each in follow_ups for value in self._held_back(each)),
        )
        return asked.addCallback(self._accepted, claim, source)

    def _accepted(self, answer: Any, claim: IdempotencyClaim | None, source: tuple[str, str]) -> Acceptance | QueueFull:
        full = refused(answer, claim, self._load)
        if full is not None:
            return full
        outcome = answer[0]
        if outcome == b"unknown":
            raise UnknownRequest(" ".join(source))
        number = int(answer[1])
        self._redis.saw(number)
        if outcome == b"repeat":
            return Acceptance(self._redis.ids.issue(number), float(answer[2]), replayed=True)
        id = self._redis.ids.issue(number)
        if len(answer) == 3:
            return Acceptance(id, float(answer[2]))
        return Acceptance(id, float(answer[2]), follow_ups=self._redis.issue_all(answer[3]))

    def _held_back(self, submission: Submission) -> tuple[Any, ...]:
        """A follow-up, for the scripts."""
        return *self._where(submission), *held_values(submission)

    def _where(self, submission: Submission) -> tuple[str, str, str, str]:
        return queue_of(self._requests, submission), priority_of(submission).value, "", ""

    def receive(
        self, queue: str, most: int, *, in_order: bool = False, shares: IShares | None = None
    ) -> Deferred[Sequence[IDelivery]]:
        if shares is not None:
            return self._shared.receive(queue, most, shares)
        return self._queue(queue).receive(most, in_order)

    @deferred
    async def queues(self) -> Sequence[str]:
        return sorted(name.decode() for name in await self._redis.command("SMEMBERS", f"{self._redis.prefix}queues"))

    @deferred
    async def waiting(self, queue: str) -> Mapping[Priority, Waiting]:
        to_ours = self._redis.clocks.to_ours
        return {
            Priority(priority.decode()): Waiting(int(count), to_ours(float(since)) if since else None)
            for priority, count, since in await self._redis.run("fresh", queue)
        }

    @deferred
    async def depth(self, queue: str) -> Depth:
        if queue == self._dead_letters:
            return await self._letters.depth()
        ready, delayed, in_flight, oldest = await self._redis.run("depth", queue)
        return Depth(ready, delayed, in_flight, float(oldest) if oldest else None)

    def dead_letters(self, after: int, most: int) -> Deferred[Sequence[tuple[int, DeadLetter]]]:
        return self._letters.listed(after, most)

    @deferred
    async def reject(self, letter: DeadLetter) -> None:
        reply, submission = letter.reply, letter.request.submission
        asked = (submission.reply_to, about(submission), *reply_fields(reply)) if submission.reply_to else ()
        answer = await self._redis.run("dead_letter", self._letters.key, encode_dead_letter(letter), *asked)
        self._redis.not_answered(answer, reply.correlation_id)

    def last_dead_letter(self) -> Deferred[int]:
        return self._letters.last()

    def drop_dead_letter(self, number: int) -> Deferred[None]:
        return self._letters.drop(number)

    @deferred
    async def redrive(self, number: int) -> Acceptance:
        letter, where = await self._letters.find(number)
        accepted = await self._accept(redriven(letter), None, where)
        assert isinstance(accepted, Acceptance), "without limits it is never full"
        return accepted

    def _queue(self, name: str) -> LocalQueue:
        queue = self._queues.get(name)
        if queue is None:
            if len(self._queues) >= MOST_QUEUES:
                raise ValueError(f"more than {MOST_QUEUES} queues")
            queue = LocalQueue(self._redis, name, self._lease, self._ttl, self._letters.key, self._settling)
            self._queues[name] = queue
        return queue


def about(submission: Submission) -> str:
    """The id of the message that a reply is for, where one is asked for."""
    return str(submission.metadata.get(MESSAGE_ID, "")) if submission.reply_to is not None else ""


def _optional(seconds: float | None) -> str:
    return "" if seconds is None else repr(seconds)

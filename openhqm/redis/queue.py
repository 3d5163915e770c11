# -*- test-case-name: tests.redis.test_redis -*-
"""The queue in Redis Streams: each promise is one script, kept for as many processes as there are.

A message is a record (a hash), and stands in exactly one line: the stream of its queue and priority, the loans, or
one of two sets ordered by when it is due. `docs/redis.md` lists the keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred, gatherResults, succeed
from zope.interface import implementer

from openhqm.codec import encode_dead_letter, encode_request
from openhqm.errors import IdempotencyConflict, UnknownRequest
from openhqm.interfaces import IDelivery, IMessageQueue, QueueTraits
from openhqm.messages import (
    Acceptance,
    DeadLetter,
    Depth,
    IdempotencyClaim,
    Priority,
    Request,
    Submission,
)
from openhqm.policy.foreign import reply_fields
from openhqm.policy.queue_names import MOST_QUEUES, holds_requests, queue_of
from openhqm.policy.redrive import redriven
from openhqm.redis.claims import NO_CLAIM, claim_words
from openhqm.redis.connection import Redis
from openhqm.redis.dead_letters import DeadLetters
from openhqm.redis.local_queue import Place
from openhqm.runtime.deferreds import deferred

NOWHERE = ("", "")
MESSAGE_ID = "message_id"
LARGEST_BYTES = 512 * 1024 * 1024  # a string in Redis holds no more (proto-max-bulk-len)


@implementer(IMessageQueue)
class RedisQueue:
    """The queues in ``redis``. A loan that is not extended for ``lease`` seconds is lent anew, by any process.

    ``ttl`` is how long an ending that is settled here is kept.
    """

    def __init__(self, redis: Redis, *, requests: str, dead_letters: str, ttl: float, lease: float = 60.0) -> None:
        self._redis = redis
        self._requests = requests
        self._dead_letters = dead_letters
        self._letters = DeadLetters(redis, dead_letters)
        self._ttl = ttl
        self._lease = lease
        self._places: dict[str, Place] = {}

    @property
    def traits(self) -> QueueTraits:
        """Not durable before Redis's own settings were read, nor where they lose what was accepted."""
        return QueueTraits(
            durable=self._redis.promises.durable,
            ordered=True,
            native_priority=True,
            atomic_settle=True,
            largest_message=LARGEST_BYTES,
        )

    @property
    def unavailable_reason(self) -> str | None:
        """Why nothing can be accepted now, or None."""
        return self._redis.unavailable_reason

    @property
    def warnings(self) -> Sequence[str]:
        """What this Redis cannot promise."""
        return self._redis.warnings

    def start(self) -> Deferred[None]:
        self._redis.start()
        return succeed(None)

    @deferred
    async def stop(self) -> None:
        # Each answer comes or fails within the link's time, so this ends.
        await gatherResults([place.stop() for place in self._places.values()])
        await self._redis.stop()

    def accept(self, submission: Submission, claim: IdempotencyClaim | None) -> Deferred[Acceptance]:
        return self._accept(submission, claim, NOWHERE)

    def adopt(self, submission: Submission, source: str, entry: str) -> Deferred[Acceptance]:
        """Accept what stands as ``entry`` in the stream ``source``, and delete it there, in one step.

        `UnknownRequest` where it is gone: somebody was quicker.
        """
        return self._accept(submission, None, (source, entry))

    @deferred
    async def refuse(self, letter: DeadLetter, source: str, entry: str) -> bool:
        """Make what stands as ``entry`` in ``source`` a dead letter, in one step. False where it is gone."""
        reply, submission = letter.reply, letter.request.submission
        asked = (submission.reply_to or "", about(submission), *reply_fields(reply))
        answer = await self._redis.run("refuse", source, entry, self._letters.key, encode_dead_letter(letter), *asked)
        self._redis.not_answered(answer, reply.correlation_id)
        return bool(answer != b"0")

    def _accept(
        self, submission: Submission, claim: IdempotencyClaim | None, source: tuple[str, str]
    ) -> Deferred[Acceptance]:
        # Number and time are Redis's to give; they stand in the record, above what the envelope says.
        body = encode_request(Request("", self._redis.clock_now(), submission))
        asked = self._redis.run(
            "accept",
            queue_of(self._requests, submission),
            # Within a partition the oldest goes first, whatever its priority.
            (Priority.NORMAL if submission.partition is not None else submission.priority).value,
            body,
            _optional(submission.not_before),
            "",
            _optional(submission.timeout),
            "1",
            *claim_words(claim),
            *source,
            submission.reply_to or "",
            about(submission),
        )
        return asked.addCallback(self._accepted, claim, source)

    def _accepted(self, answer: Any, claim: IdempotencyClaim | None, source: tuple[str, str]) -> Acceptance:
        outcome = answer[0]
        if outcome == b"conflict":
            raise IdempotencyConflict(claim.key if claim is not None else "")
        if outcome == b"unknown":
            raise UnknownRequest(" ".join(source))
        number = int(answer[1])
        self._redis.saw(number)
        return Acceptance(self._redis.ids.issue(number), float(answer[2]), replayed=outcome == b"repeat")

    @deferred
    async def publish(self, queue: str, message: Request, *, priority: Priority, delay: float) -> None:
        body = encode_request(message)
        no_deadline, unrecorded = "", ""
        answer = await self._redis.run(
            "accept",
            queue,
            priority.value,
            body,
            "",
            repr(float(delay)),
            no_deadline,
            unrecorded,
            *NO_CLAIM,
            *NOWHERE,
            *NOWHERE,
        )
        self._redis.saw(int(answer[1]))

    def receive(self, queue: str, most: int, *, in_order: bool = False) -> Deferred[Sequence[IDelivery]]:
        return self._place(queue).receive(most, in_order)

    @deferred
    async def queues(self) -> Sequence[str]:
        return sorted(name.decode() for name in await self._redis.command("SMEMBERS", f"{self._redis.prefix}queues"))

    @deferred
    async def depth(self, queue: str) -> Depth:
        if queue == self._dead_letters:
            return await self._letters.depth()
        ready, delayed, on_loan, oldest = await self._redis.run("depth", queue)
        return Depth(ready, delayed, on_loan, float(oldest) if oldest else None)

    def dead_letters(self, after: int, most: int) -> Deferred[Sequence[tuple[int, DeadLetter]]]:
        return self._letters.listed(after, most)

    @deferred
    async def redrive(self, number: int) -> Acceptance:
        letter, where = await self._letters.find(number)
        return await self._accept(redriven(letter), None, where)

    def _place(self, queue: str) -> Place:
        place = self._places.get(queue)
        if place is None:
            if len(self._places) >= MOST_QUEUES:
                raise ValueError(f"more than {MOST_QUEUES} queues")
            recorded = holds_requests(self._requests, queue)
            place = Place(self._redis, queue, recorded, self._lease, self._ttl, self._letters.key)
            self._places[queue] = place
        return place


def about(submission: Submission) -> str:
    """The id under which whoever asks for a reply knows their message."""
    return str(submission.metadata.get(MESSAGE_ID, "")) if submission.reply_to is not None else ""


def _optional(seconds: float | None) -> str:
    return "" if seconds is None else repr(seconds)

# -*- test-case-name: tests.brokered.test_redis_ledger -*-
"""The books in Redis for a queue elsewhere: see `brokered/ledger.py` for what each step means.

A request's record is the same hash as that of a request that waits in Redis, without a line to stand in. Whose copy
nobody has published yet stands in ``unpublished``; any process may publish what has stood there for a while.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from attrs import evolve
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import deferLater

from openhqm.codec import decode_request, encode_dead_letter, encode_reply, encode_request
from openhqm.errors import DeliveryClosed, IdempotencyConflict, NotDurable, UnknownRequest
from openhqm.messages import (
    Acceptance,
    DeadLetter,
    Depth,
    IdempotencyClaim,
    Priority,
    Reply,
    Request,
    Status,
    Submission,
)
from openhqm.policy.copies import NOTE_SECONDS, Copy, Loan, NotYet, Recovered
from openhqm.policy.history import MOST_EVENTS, check_progress
from openhqm.policy.queue_names import priority_of, queue_of
from openhqm.policy.redrive import redriven
from openhqm.redis.claims import claim_words
from openhqm.redis.connection import Redis
from openhqm.redis.dead_letters import DeadLetters
from openhqm.runtime.deferreds import deferred

MARK_SECONDS = 60.0
MOST_LOOKED_AT = 500
FORGIVEN_SECONDS = 30.0
"""A broker that was not empty for so long counts as empty for the first time: it is looked at far more often."""
LOST_STATUS = 502  # what was behind this server failed (RFC 9110, section 15.6.3)
LOST_WORDS = "the broker has lost it; nothing of it was kept elsewhere, so it has to be sent again"
ELSEWHERE = ""
NOWHERE = ("", "")


class RedisLedger:
    """``ttl`` is how long an ending that is settled here is kept.

    ``lost_after`` is how long a broker has to have nothing of ours before that is believed, in seconds.
    """

    complete = True
    counts_returns = False

    def __init__(self, redis: Redis, *, requests: str, dead_letters: str, ttl: float, lost_after: float = 60.0) -> None:
        self._lost_after = lost_after
        self._suspected = (float("-inf"), float("-inf"))  # since when that is so, and when it was seen last
        self._redis = redis
        self._requests = requests
        self._letters = DeadLetters(redis, dead_letters)
        self._ttl = ttl
        self._unlisten: list[Callable[[], None]] = []
        self.on_ending: list[Callable[[int, str], None]] = []
        redis.on_ending.append(self._ended)

    @property
    def durable(self) -> bool:
        """Not before Redis's own settings were read, nor where they lose what was accepted."""
        return self._redis.promises.durable

    @property
    def unavailable_reason(self) -> str | None:
        """Why nothing can be written now, or None."""
        return self._redis.unavailable_reason

    @property
    def warnings(self) -> Sequence[str]:
        """What this Redis cannot promise."""
        return self._redis.warnings

    def start(self) -> Deferred[None]:
        self._redis.start()
        return succeed(None)

    def when_probed(self) -> Deferred[None]:
        return self._redis.when_probed()

    def stop(self) -> Deferred[None]:
        for unlisten in self._unlisten:
            unlisten()
        return self._redis.stop()

    def follow(self, queue: str, look: Callable[[], None]) -> None:
        self._unlisten.append(self._redis.listen(f"{self._redis.prefix}said:{queue}", self._heard, look))

    def _heard(self, message: bytes) -> None:
        word, _, rest = message.partition(b" ")
        if word == b"ended":
            number, _, status = rest.partition(b" ")
            self._ended(int(number), status.decode())

    def _ended(self, number: int, status: str) -> None:
        for call in self.on_ending:
            call(number, status)

    def number(self, correlation_id: str) -> int | None:
        return self._redis.ids.number(correlation_id)

    # Accepting

    def record(self, submission: Submission, claim: IdempotencyClaim | None) -> Deferred[Copy | Acceptance]:
        return self._record(submission, claim, NOWHERE)

    @deferred
    async def _record(
        self, submission: Submission, claim: IdempotencyClaim | None, source: tuple[str, str]
    ) -> Copy | Acceptance:
        # Number and time are Redis's to give; they stand in the record, above what the envelope says.
        envelope = encode_request(Request("", self._redis.clock_now(), submission))
        not_before, timeout = (_optional(each) for each in (submission.not_before, submission.timeout))
        no_delay, recorded, queue = "", "1", queue_of(self._requests, submission)
        answer = await self._redis.run(
            "accept",
            queue,
            ELSEWHERE,
            envelope,
            not_before,
            no_delay,
            timeout,
            recorded,
            *claim_words(claim),
            *source,
            *NOWHERE,
            priority_of(submission).value,
        )
        outcome = answer[0]
        if outcome == b"conflict":
            raise IdempotencyConflict(claim.key if claim is not None else "")
        if outcome == b"unknown":
            raise UnknownRequest(" ".join(source))
        number, at = int(answer[1]), float(answer[2])
        self._redis.saw(number)
        id = self._redis.ids.issue(number)
        if outcome == b"repeat":
            return Acceptance(id, at, replayed=True)
        delay = max(0.0, submission.not_before - at) if submission.not_before is not None else 0.0
        request = Request(id, at, submission)
        return Copy(number, request, encode_request(request), delay=delay)

    @deferred
    async def withdraw(self, copy: Copy, claim: IdempotencyClaim | None) -> bool:
        answer = await self._redis.run("withdraw", copy.number, claim_words(claim)[0])
        return bool(answer == b"1")

    def note_published(self, copies: Sequence[tuple[int, int]]) -> Deferred[None]:
        words = [word for copy in copies for word in copy]
        return self._redis.run("published", *words).addCallback(lambda answer: None)

    @deferred
    async def unpublished(self, most: int) -> Sequence[Copy]:
        copies = []
        for number, at, attempts, delay, body in await self._redis.run("unpublished", most, MARK_SECONDS):
            id = self._redis.ids.issue(int(number))
            request = evolve(decode_request(body), correlation_id=id, submitted_at=float(at))
            copies.append(Copy(int(number), request, encode_request(request), int(attempts), float(delay)))
        return copies

    @deferred
    async def queues(self) -> Sequence[str]:
        return sorted(name.decode() for name in await self._redis.command("SMEMBERS", f"{self._redis.prefix}queues"))

    @deferred
    async def recover(self, queue: str | None, priority: Priority | None) -> Recovered:
        if queue is None:
            await self._hesitate()
        found = await self._recover(queue, priority)
        if found:
            # What other processes had published a moment ago, they have noted by then.
            await deferLater(self._redis.clock, 2 * NOTE_SECONDS)
            found += await self._recover(queue, priority)
        return found

    async def _hesitate(self) -> None:
        """`NotDurable` for a while: maybe this is not the broker that has what is open, and no ending can be undone."""
        count = int(await self._redis.command("ZCARD", f"{self._redis.prefix}elsewhere"))
        now = self._redis.clock.seconds()
        since, last = self._suspected
        if now - last > FORGIVEN_SECONDS:
            since = now
        self._suspected = since, now
        if count and now - since < self._lost_after:
            raise NotDurable(
                f"nothing of ours is there, and {count} requests are open. Is it the right one? What is kept nowhere "
                f"else ends as FAILED {self._lost_after:g} s after this was seen first"
            )

    async def _recover(self, queue: str | None, priority: Priority | None) -> Recovered:
        after, found = b"0", Recovered()
        while after:
            asked = (queue or "", "" if priority is None else priority.value)
            after, marked, lost = await self._redis.run("lost", after, MOST_LOOKED_AT, *asked)
            ends = [await self._end_lost(int(number)) for number in lost]
            found += Recovered(marked, sum(ends))
        return found

    async def _end_lost(self, number: int) -> bool:
        """Whether it had not ended yet."""
        now, id = self._redis.clock_now(), self._redis.ids.issue(number)
        reply = Reply(id, Status.FAILED, now, status_code=LOST_STATUS, error=LOST_WORDS)
        answer = await self._redis.run("end", number, reply.status.value, encode_reply(reply), self._ttl)
        first = bool(answer.startswith(b"1"))
        if first:
            for call in self._redis.on_ending:
                call(number, reply.status.value)
        return first

    # Lending

    @deferred
    async def begin(self, copy: Copy, returned: int) -> Loan | NotYet | None:
        token = self._redis.new_token()
        answer = await self._redis.run("begin", copy.number, copy.attempts, token)
        if not answer:
            return None
        if answer[0] == b"wait":
            return NotYet(float(answer[1]), retry=int(answer[2]) > 0)
        return Loan(copy.number, int(answer[1]), token)

    @deferred
    async def ending(self, number: int) -> str | None:
        status = await self._redis.command("HGET", f"{self._redis.prefix}r:{number}", "ended")
        return None if status is None else status.decode()

    def note_progress(self, loan: Loan, detail: dict[str, Any]) -> Deferred[None]:
        text = msgspec.json.encode(detail)
        try:
            check_progress(1, text)
        except ValueError:
            return fail()
        return self._run("progress", loan, text, MOST_EVENTS).addCallback(_reported)

    # Settling

    @deferred
    async def release(self, loan: Loan) -> Copy | None:
        await self._run("release", loan, "back", "", "", "")
        return None

    @deferred
    async def hold(self, loan: Loan, delay: float, reason: str) -> bool:
        answer = await self._run("release", loan, "hold", repr(float(delay)), msgspec.json.encode(reason), "")
        return bool(answer == b"1")

    @deferred
    async def renew(self, loan: Loan, request: Request, body: bytes, delay: float, reason: str) -> Copy | None:
        answer = await self._run("release", loan, "renew", repr(float(delay)), msgspec.json.encode(reason), body)
        return Copy(loan.number, request, body, loan.attempt, delay) if answer == b"1" else None

    @deferred
    async def end(self, loan: Loan, reply: Reply, letter: DeadLetter | None) -> bool:
        text = b"" if letter is None else encode_dead_letter(letter)
        status = reply.status.value
        answer = await self._run("settle", loan, status, encode_reply(reply), self._ttl, self._letters.key, text)
        first = bool(answer.startswith(b"1"))
        if first:
            for call in self._redis.on_ending:
                call(loan.number, status)
        return first

    @deferred
    async def let_go(self, loan: Loan) -> None:
        answer = await self._run("settle", loan, "", b"", self._ttl, self._letters.key, b"")
        if answer == b"open":
            raise DeliveryClosed(self._redis.ids.issue(loan.number), "it has not ended after all")

    @deferred
    async def _run(self, script: str, loan: Loan, *words: Any) -> Any:
        answer = await self._redis.run(script, loan.number, loan.token, *words)
        if answer == b"lost":
            raise DeliveryClosed(self._redis.ids.issue(loan.number), "a later attempt has begun")
        return answer

    # Dead letters

    def bury(self, letter: DeadLetter) -> Deferred[None]:
        return self._redis.run("bury", self._letters.key, encode_dead_letter(letter)).addCallback(lambda answer: None)

    def dead_letters(self, after: int, most: int) -> Deferred[Sequence[tuple[int, DeadLetter]]]:
        return self._letters.listed(after, most)

    @deferred
    async def redrive(self, number: int) -> Copy:
        letter, where = await self._letters.find(number)
        copy = await self._record(redriven(letter), None, where)
        assert isinstance(copy, Copy), "without a claim there is no repeat"
        return copy

    def letters_depth(self) -> Deferred[Depth]:
        return self._letters.depth()


def _reported(answer: bytes) -> None:
    if answer == b"full":
        check_progress(MOST_EVENTS + 1, b"")


def _optional(seconds: float | None) -> str:
    return "" if seconds is None else repr(seconds)

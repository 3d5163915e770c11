# -*- test-case-name: tests.brokered.test_forms -*-
"""The ledger in Redis, for a queue over a broker: see `openhqm.queue.ledger` for what each step means.

A request's record is the same hash as that of a request that waits in Redis, without a stream to wait in. Redis holds
its body only while something of it waits in the outbox. Any process publishes what another one has left there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, cast

import msgspec
from msgspec.structs import replace
from twisted.internet.defer import Deferred, fail, succeed

from openhqm.codec import (
    address,
    decode_request,
    encode_dead_letter,
    encode_reply,
    encode_submission,
    size_with,
)
from openhqm.errors import LeaseLost, QueueFull, UnknownRequest
from openhqm.messages import Acceptance, Child, DeadLetter, Depth, IdempotencyClaim, Reply, Request, Submission
from openhqm.policy.channels import Channels, group_of
from openhqm.policy.history import MOST_EVENTS, check_progress
from openhqm.policy.limits import NO_LIMITS, Limits
from openhqm.policy.queue_names import queue_of
from openhqm.policy.redrive import redriven
from openhqm.queue.ledger import CLAIM_SECONDS, Attempt, Incoming, Outgoing, Recovered, pause_for_room
from openhqm.redis.accepting import AcceptScript, AcceptSteps, refused
from openhqm.redis.claims import claim_arguments
from openhqm.redis.connection import Redis
from openhqm.redis.dead_letters import DeadLetters
from openhqm.redis.ending_log import log_mark
from openhqm.redis.held import held_values
from openhqm.redis.ledger_losses import LedgerLosses
from openhqm.redis.load import RedisLoad
from openhqm.runtime.deferreds import deferred

NOWHERE = ("", "")


class RedisLedger:
    """``ttl`` is how long an ending that is settled here is kept.

    ``lost_after`` is how long a broker has to have nothing of ours before that is believed, in seconds. ``window`` is
    how many messages that were not begun a channel may have; None: as many as come. Where it is a number, bodies are
    kept until the ending.
    """

    complete = True
    counts_redeliveries = False
    keeps_unbegun = alone = False

    def __init__(
        self,
        redis: Redis,
        *,
        channels: Channels,
        dead_letters: str,
        ttl: float,
        lost_after: float = 60.0,
        limits: Limits = NO_LIMITS,
        window: int | None = None,
    ) -> None:
        self._redis = redis
        self._channels = channels
        self.to_ours = redis.clocks.to_ours
        self._letters = DeadLetters(redis, dead_letters, limits)
        self._ttl = ttl
        self._window = "" if window is None else str(window)
        self._pause = 0.0 if window is None else pause_for_room(window)
        self._losses = LedgerLosses(redis, ttl, lost_after, lambda: self._fell_due(0.0))
        self._load = RedisLoad(redis, ttl, limits)
        self._children = AcceptSteps(redis, self._load, channels.requests, self._where)
        self._accepting = AcceptScript(redis, ttl, "ledger_record")
        self.together = self._accepting.together
        self.load = self._load.read
        self.sweeps = (self._letters.trim, self._load.end_some)
        self._unlisten: list[Callable[[], None]] = []
        self.on_ending: list[Callable[[int, str], None]] = []
        self.on_due: list[Callable[[float], None]] = []
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
        return (*self._redis.warnings, *self._load.warnings)

    def start(self) -> Deferred[None]:
        self._listen("outbox", lambda message: self._fell_due(0.0), lambda: self._fell_due(0.0))
        self._redis.start()
        return succeed(None)

    def when_probed(self) -> Deferred[None]:
        return self._redis.when_probed()

    def stop(self) -> Deferred[None]:
        for unlisten in self._unlisten:
            unlisten()
        self._accepting.flush()
        return self._redis.stop()

    def follow(self, queue: str, missed: Callable[[], None]) -> None:
        self._listen(queue, self._heard, missed)

    def _listen(self, name: str, heard: Callable[[bytes], None], opened: Callable[[], None]) -> None:
        self._unlisten.append(self._redis.listen(f"{self._redis.prefix}signals:{name}", heard, opened))

    def _heard(self, message: bytes) -> None:
        kind, _, rest = message.partition(b" ")
        if kind == b"ended":
            number, _, status = rest.partition(b" ")
            self._ended(int(number), status.decode())

    def _ended(self, number: int, status: str) -> None:
        for call in self.on_ending:
            call(number, status)

    def _fell_due(self, delay: float) -> None:
        for call in self.on_due:
            call(self._redis.clock.seconds() + delay)

    def number(self, correlation_id: str) -> int | None:
        return self._redis.ids.number(correlation_id)

    # Accepting

    def record(
        self,
        submission: Submission,
        claim: IdempotencyClaim | None,
        follow_ups: Sequence[Submission] = (),
        children: Sequence[Child] = (),
        *,
        at_once: bool = True,
    ) -> Deferred[Outgoing | Acceptance]:
        record: Any = partial(self._record, submission, claim, NOWHERE, follow_ups, at_once, self._load.values)
        if children:
            held = [value for each in follow_ups for value in self._held_back(each)]
            record = partial(self._children.accept, submission, claim, children, held)
        if not self._load.limits.any:
            return cast(Deferred[Outgoing | Acceptance], record())
        return self._load.accept(size_with(submission, children), record)

    def limit(self, limits: Limits) -> None:
        self._letters.limits = limits
        self._load.limit(limits)

    @deferred
    async def _record(
        self,
        submission: Submission,
        claim: IdempotencyClaim | None,
        source: tuple[str, str],
        follow_ups: Sequence[Submission] = (),
        at_once: bool = True,
        limits: tuple[str, ...] | None = None,
    ) -> Outgoing | Acceptance | QueueFull:
        # Number and time are Redis's to give.
        due = self._redis.due(submission)
        envelope, channel = encode_submission(submission), self._channels.of(submission)
        at_once = at_once and submission.coalescing is None
        answer = await self._accepting.run(
            submission,
            queue_of(self._channels.requests, submission),
            channel,
            self._channels.line(submission) or "",
            envelope,
            _optional(due),
            _optional(submission.timeout),
            *claim_arguments(claim),
            *source,
            CLAIM_SECONDS if at_once else "",
            *(limits or self._load.exempt),
            self._window,
            log_mark(submission),
            *(value for each in follow_ups for value in self._held_back(each)),
        )
        full = refused(answer, claim, self._load)
        if full is not None:
            return full
        outcome = answer[0]
        if outcome == b"unknown":
            raise UnknownRequest(" ".join(source))
        number, at = int(answer[1]), float(answer[2])
        self._redis.saw(number)
        id = self._redis.ids.issue(number)
        if outcome == b"repeat":
            return Acceptance(id, at, replayed=True)
        waits = answer[3] == b"1"
        if waits and (due is not None or not at_once):
            self._fell_due(max(0.0, (due or at) - at))
        ids = self._redis.issue_all(answer[4]) if len(answer) > 4 else ()
        request = Request(id, at, submission)
        return Outgoing(number, request, channel, address(envelope, id, at), waits=waits, follow_ups=ids)

    def _held_back(self, submission: Submission) -> tuple[Any, ...]:
        """A follow-up, for the scripts."""
        return *self._where(submission), *held_values(submission)

    def _where(self, submission: Submission) -> tuple[str, str, str, str]:
        channels = self._channels
        queue, channel = queue_of(channels.requests, submission), channels.of(submission)
        return queue, "", channel, channels.line(submission) or ""

    @deferred
    async def withdraw(self, outgoing: Outgoing, claim: IdempotencyClaim | None) -> bool:
        answer = await self._redis.run("ledger_withdraw", outgoing.number, claim_arguments(claim)[0])
        return bool(answer == b"1")

    @deferred
    async def redrive(self, number: int) -> Outgoing:
        letter, where = await self._letters.find(number)
        outgoing = await self._record(redriven(letter), None, where)
        assert isinstance(outgoing, Outgoing), "without a claim there is no repeat, and without limits it is never full"
        return outgoing

    @deferred
    async def queues(self) -> Sequence[str]:
        return sorted(name.decode() for name in await self._redis.command("SMEMBERS", f"{self._redis.prefix}queues"))

    # The outbox

    def published(self, entries: Sequence[tuple[int, int]]) -> Deferred[None]:
        values = [value for entry in entries for value in entry]
        return self._redis.run("ledger_published", self._window, *values).addCallback(lambda answer: None)

    def not_published(self, entries: Sequence[tuple[int, int]]) -> Deferred[None]:
        values = [value for entry in entries for value in entry]
        return self._redis.run("ledger_not_published", *values).addCallback(lambda answer: None)

    @deferred
    async def take_due(self, most: int) -> Sequence[Outgoing]:
        entries = []
        rows, _ = await self._redis.run("ledger_take_due", most, CLAIM_SECONDS, self._window)
        for number, at, channel, generation, attempts, body in rows:
            id, at = self._redis.ids.issue(int(number)), float(at)
            request = replace(decode_request(body), correlation_id=id, submitted_at=at)
            envelope = _addressed(body, request)
            entries.append(Outgoing(int(number), request, channel.decode(), envelope, int(generation), int(attempts)))
        return entries

    @deferred
    async def next_due(self) -> float | None:
        _, next_due = await self._redis.run("ledger_take_due", 0, CLAIM_SECONDS, self._window)
        return float(next_due) if next_due else None

    @deferred
    async def postpone(self, incoming: Incoming, delay: float) -> bool:
        values = (incoming.number, incoming.generation, incoming.body, repr(float(delay)))
        answer = await self._redis.run("ledger_postpone", *values)
        if answer == b"1":
            self._fell_due(delay)
        return bool(answer == b"1")

    @deferred
    async def count(self, queue: str) -> tuple[int, int]:
        name = "" if group_of(queue) == queue else queue
        published, waiting = await self._redis.run("ledger_count", name, *self._channels.names(queue))
        return int(published), int(waiting)

    # Working

    @deferred
    async def begin(self, incoming: Incoming) -> Attempt | None:
        token = self._redis.new_token()
        channel = self._channels.of(incoming.request.submission) if self._window else ""
        values = (incoming.number, incoming.generation, token, self._window, channel)
        attempt, makes_room = await self._redis.run("ledger_begin", *values) or (0, 0)
        if makes_room:
            self._fell_due(self._pause)
        return Attempt(incoming.number, int(attempt), token) if attempt else None

    @deferred
    async def ending(self, number: int) -> str | None:
        status = await self._redis.command("HGET", f"{self._redis.prefix}r:{number}", "ended")
        return None if status is None else status.decode()

    def note_progress(self, attempt: Attempt, detail: dict[str, Any]) -> Deferred[None]:
        text = msgspec.json.encode(detail)
        try:
            check_progress(1, text)
        except ValueError:
            return fail()
        return self._step("progress", attempt, text, MOST_EVENTS).addCallback(_reported)

    # Settling

    @deferred
    async def release(self, attempt: Attempt) -> bool:
        await self._step("ledger_return", attempt, "")
        return True

    @deferred
    async def retry(self, attempt: Attempt, body: bytes, delay: float, reason: str) -> None:
        text = msgspec.json.encode(reason)
        if await self._step("ledger_retry", attempt, body, repr(float(delay)), text) == b"1":
            self._fell_due(delay)

    @deferred
    async def end(self, attempt: Attempt, reply: Reply, letter: DeadLetter | None) -> bool:
        text = b"" if letter is None else encode_dead_letter(letter)
        status = reply.status.value
        answer = await self._step(
            "ledger_end", attempt, status, encode_reply(reply), self._ttl, self._letters.key, text
        )
        if answer == b"1":
            self._redis.tell_ending(attempt.number, status)
        return bool(answer == b"1")

    @deferred
    async def let_go(self, attempt: Attempt) -> None:
        answer = await self._step("ledger_end", attempt, "", b"", self._ttl, self._letters.key, b"")
        if answer == b"open":
            raise LeaseLost(self._redis.ids.issue(attempt.number), "it has not ended after all")

    @deferred
    async def _step(self, script: str, attempt: Attempt, *values: Any) -> Any:
        answer = await self._redis.run(script, attempt.number, attempt.token, *values)
        if answer == b"lost":
            raise LeaseLost(self._redis.ids.issue(attempt.number), "a later attempt has begun")
        return answer

    # What the broker has lost

    def returned(self, attempt: Attempt) -> None:
        self._redis.run("ledger_return", attempt.number, attempt.token, "1").addErrback(lambda failure: None)

    @deferred
    async def open_channels(self) -> Mapping[str, float]:
        return {channel.decode(): float(oldest) for channel, oldest in await self._redis.run("ledger_channels")}

    def recover(
        self,
        channel: str,
        is_lost: Callable[[], Deferred[bool]],
        make: Callable[[], Deferred[None]] | None,
        sure: bool,
    ) -> Deferred[Recovered]:
        return self._losses.recover(channel, is_lost, make, sure)

    # Dead letters

    def reject(self, letter: DeadLetter) -> Deferred[None]:
        return self._redis.run("dead_letter", self._letters.key, encode_dead_letter(letter)).addCallback(
            lambda answer: None
        )

    def dead_letters(self, after: int, most: int) -> Deferred[Sequence[tuple[int, DeadLetter]]]:
        return self._letters.listed(after, most)

    def last_dead_letter(self) -> Deferred[int]:
        return self._letters.last()

    def drop_dead_letter(self, number: int) -> Deferred[None]:
        return self._letters.drop(number)

    def dead_letters_depth(self) -> Deferred[Depth]:
        return self._letters.depth()


def _addressed(body: bytes, request: Request) -> bytes:
    """The envelope with its id: as it was recorded without one, or as a worker has sent it back."""
    id = request.correlation_id
    return body if body.find(id.encode(), 0, 80) >= 0 else address(body, id, request.submitted_at)


def _reported(answer: bytes) -> None:
    if answer == b"full":
        check_progress(MOST_EVENTS + 1, b"")


def _optional(seconds: float | None) -> str:
    return "" if seconds is None else repr(seconds)

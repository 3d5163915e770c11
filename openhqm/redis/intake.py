# -*- test-case-name: tests.redis.test_intake -*-
"""Messages of other programs: read from the inbox, a stream with a plain name, and adopted as requests.

There is no consumer group: a message is deleted in the step that adopts it, so the oldest that is left is always read.
Several processes may read the same message. One adopts it; the others find it gone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from openhqm.codec import decode_request
from openhqm.errors import InvalidRequest, MalformedJSON, MessageTooLarge, NotDurable, UnknownRequest, UnreadableMessage
from openhqm.messages import DeadLetter, Reply, Request, Status, Submission
from openhqm.policy.addressing import Addressing
from openhqm.policy.foreign import (
    Fields,
    check_reply_to,
    is_envelope,
    read_content,
    read_headers,
    take_apart,
)
from openhqm.policy.reason_classes import ReasonClass
from openhqm.redis.connection import Redis
from openhqm.redis.driver import is_refusal
from openhqm.redis.errors import refusal
from openhqm.redis.queue import MESSAGE_ID, RedisQueue
from openhqm.runtime.deferreds import deferred

BLOCK_SECONDS = 1.0
MOST_ENTRIES = 100
MANY_BYTES = 1024 * 1024
FIRST_PAUSE = 0.05
LONGEST_PAUSE = 5.0
REFUSED_STATUS = 422
Check = Callable[[Submission, float], None]


@attrs.define
class Draft:
    """What of a message could be read: what is refused is kept with it."""

    metadata: dict[str, Any]
    headers: dict[str, str] = attrs.field(factory=dict)
    body: bytes | None = None
    reply_to: str | None = None


class RedisIntake:
    """Adopts the messages in the stream ``inbox``.

    ``check`` refuses an envelope as the door would: `InvalidRequest`. Messages of more than ``most_bytes`` are refused.
    ``answers`` is the stream for the replies to messages that name none. `addressing` can be exchanged.
    """

    _log = Logger()

    def __init__(
        self,
        redis: Redis,
        queue: RedisQueue,
        inbox: str,
        format: str,
        addressing: Addressing,
        check: Check,
        most_bytes: int,
        answers: str | None = None,
    ) -> None:
        self._answers = answers
        self._redis = redis
        self._queue = queue
        self._inbox = inbox
        self._format = format
        self.addressing = addressing
        self._check = check
        self._most_bytes = most_bytes
        self._most_entries = 1
        self._link = redis.own_link(BLOCK_SECONDS)
        self._running: Deferred[None] | None = None
        self._stopped = False
        self._failing: str | None = None

    def start(self) -> None:
        """Begin to read; it never fails."""
        self._link.start()
        self._running = self._run()

    @deferred
    async def stop(self) -> None:
        """Read no more. Messages that were not adopted stay in the inbox."""
        self._stopped = True
        if self._running is not None:
            self._running.cancel()
            await self._running
        await self._link.stop()

    @deferred
    async def _run(self) -> None:
        pause = FIRST_PAUSE
        try:
            # Without both there is nothing to read, and there are no ids. They log themselves what they wait for.
            await self._redis.link.when_up()
            await self._link.when_up()
            while not self._stopped:
                reason = await self._turn()
                if reason is None:
                    pause, self._failing = FIRST_PAUSE, None
                    continue
                if reason != self._failing:
                    self._log.error(
                        "messages cannot be adopted from {inbox}: {reason}", inbox=self._inbox, reason=reason
                    )
                self._failing = reason
                await deferLater(self._redis.clock, pause * (0.5 + self._redis.random()))
                pause = min(2 * pause, LONGEST_PAUSE)
        except CancelledError:
            pass  # by stop()

    async def _turn(self) -> str | None:
        """Adopt the messages that there are, or wait a moment for one. Returns why that failed, or None."""
        try:
            entries = await self._read()
            outcomes = await DeferredList([self._take(id, fields) for id, fields in entries], consumeErrors=True)
        except CancelledError:
            raise
        except NotDurable as error:
            return error.reason
        except Exception as error:
            if is_refusal(error):
                return refusal(str(error)).reason
            self._log.failure("reading {inbox} broke down", inbox=self._inbox)
            return f"{type(error).__name__}: {error}"
        failures: list[Any] = [result for success, result in outcomes if not success]
        if not failures or self._stopped:
            return None
        for failure in failures:
            if not failure.check(NotDurable):
                self._log.failure("adopting from {inbox} broke down", failure, inbox=self._inbox)
        return str(failures[0].getErrorMessage())

    async def _read(self) -> list[tuple[str, list[tuple[bytes, bytes]]]]:
        """The oldest entries, as many as are likely to fit into a little memory together."""
        block = int(BLOCK_SECONDS * 1000)
        answer: Any = await self._link.ask(
            "XREAD", "COUNT", self._most_entries, "BLOCK", block, "STREAMS", self._inbox, "0-0"
        )
        found = [
            (id.decode("ascii"), list(zip(flat[::2], flat[1::2], strict=True)))
            for id, flat in (answer[0][1] if answer else [])
        ]
        read = sum(len(name) + len(value) for _, fields in found for name, value in fields)
        if read > MANY_BYTES:
            self._most_entries = max(1, self._most_entries // 4)
        elif len(found) == self._most_entries:
            self._most_entries = min(MOST_ENTRIES, 2 * self._most_entries)
        return found

    def _take(self, entry: str, fields: Fields) -> Deferred[Any]:
        """Adopt one message, or make it a dead letter; `NotDurable`."""
        draft = Draft(metadata={MESSAGE_ID: entry})
        try:
            submission = self._read_message(draft, fields)
        except (UnreadableMessage, InvalidRequest, MalformedJSON) as error:
            return self._refuse(draft, str(error), fields, entry)
        except Exception as error:  # read again, it would fail again
            self._log.failure("message {entry} of {inbox} broke its reading", entry=entry, inbox=self._inbox)
            return self._refuse(draft, f"{type(error).__name__}: {error}", fields, entry)
        # No coroutine, for this is done for each message.
        return self._queue.adopt(submission, self._inbox, entry).addErrback(self._not_adopted, draft, fields, entry)

    def _not_adopted(self, failure: Failure, draft: Draft, fields: Fields, entry: str) -> Deferred[None] | None:
        if failure.check(UnknownRequest):  # another process was quicker
            return None
        if failure.check(MessageTooLarge):  # there will never be room for it
            return self._refuse(draft, str(failure.value), fields, entry)
        failure.raiseException()
        return None

    def _read_message(self, draft: Draft, fields: Fields) -> Submission:
        """The submission of a message, as far as it can be read in ``draft``.

        `UnreadableMessage`, `InvalidRequest`, `MalformedJSON`.
        """
        content, reply_to, others = take_apart(fields)
        draft.body = content
        if reply_to is not None:
            check_reply_to(reply_to, self._inbox, self._redis.prefix)
            draft.reply_to = reply_to
        draft.headers = read_headers(others)
        if content is None:
            raise UnreadableMessage("it has no field payload, body or data")
        if len(content) > self._most_bytes:
            raise UnreadableMessage(f"it has more than {self._most_bytes} bytes")
        return self.addressing.addressed(self._submission(content, draft))

    def _submission(self, content: bytes, draft: Draft) -> Submission:
        """The submission, without its queue. `UnreadableMessage`, `InvalidRequest`, `MalformedJSON`."""
        if self._format != "envelope" and not (self._format == "auto" and is_envelope(content)):
            payload, body = read_content(content, self._format)
            reply_to = draft.reply_to or self._answers
            return Submission(payload, draft.headers, draft.metadata, body=body, reply_to=reply_to)
        found = decode_request(content).submission
        self._check(found, self._redis.clock_now())
        reply_to = draft.reply_to or found.reply_to
        if reply_to is not None:
            check_reply_to(reply_to, self._inbox, self._redis.prefix)
        return attrs.evolve(
            found,
            headers={**draft.headers, **found.headers},
            metadata={**found.metadata, **draft.metadata},
            endpoint=None,  # an envelope does not decide in which queue it waits
            partition=None,
            reply_to=reply_to or self._answers,
        )

    @deferred
    async def _refuse(self, draft: Draft, reason: str, fields: Fields, entry: str) -> None:
        body, metadata = draft.body, draft.metadata
        if body is None:  # none of its fields is its content: keep all of them
            body = b"\n".join(b"%b: %b" % field for field in fields)
        elif not draft.headers:  # a field that cannot be a header is kept as text, where it is not sent on
            kept = {_text(name): _text(value) for name, value in take_apart(fields)[2].items()}
            metadata = {**metadata, "fields": kept} if kept else metadata
        refused = Submission(b"null", draft.headers, metadata, body=body, reply_to=draft.reply_to or self._answers)
        # A number, and so an id, of its own: the receiver of the reply may quote it.
        number = int(await self._redis.command("INCR", f"{self._redis.prefix}number"))
        self._redis.saw(number)
        now = self._redis.clock_now()
        id = self._redis.ids.issue(number)
        kind = ReasonClass.NOT_A_REQUEST.value
        reply = Reply(id, Status.FAILED, now, status_code=REFUSED_STATUS, error=reason, reason_class=kind)
        letter = DeadLetter(Request(id, now, refused), f"not a request: {reason}", reply, now)
        if await self._queue.refuse(letter, self._inbox, entry):
            self._log.warn(
                "message {entry} of {inbox} is a dead letter: {reason}", entry=entry, inbox=self._inbox, reason=reason
            )


def _text(content: bytes) -> str:
    return content.decode("utf-8", "backslashreplace")

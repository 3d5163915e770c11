# -*- test-case-name: tests.ingress.test_http,tests.ingress.test_fast_path -*-
"""The door: for each route, from a body and header fields to an `Answer`.

This module knows no web framework. The routes of Klein and the fast path both call it.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from openhqm.delivery.documents import acceptance_document, response_document, status_document
from openhqm.delivery.long_polling import LongPolls
from openhqm.delivery.tenant_records import TenantRecords
from openhqm.errors import NotDurable, OpenHQMError
from openhqm.http1.messages import Answer, Fields
from openhqm.http1.send_budget import SENDING
from openhqm.ingress.answers import HTTPProblem, field, problem
from openhqm.ingress.metrics import DoorMetrics
from openhqm.ingress.preferences import (
    cancels_on_disconnect,
    check_encoding,
    check_json_type,
    claim_of,
    prefer_wait,
)
from openhqm.ingress.submission import read_submission
from openhqm.ingress.taking import Taking
from openhqm.interfaces import IMessageQueue, IResultStore
from openhqm.messages import Acceptance, Event, IdempotencyClaim, Record, Reply, Status, Submission
from openhqm.policy.addressing import Addressing
from openhqm.policy.field_text import field_bytes
from openhqm.policy.places import UNLIMITED, TenantPlaces
from openhqm.queue.shedding import Accepts
from openhqm.runtime.deferreds import Running
from openhqm.runtime.steady_time import never_ahead

T = TypeVar("T")
HeaderField = Callable[[bytes], bytes | None]
"""The value of a header field of the request, by its name in lower case, or None."""

SUBMIT = "/api/v1/submit"
CARRIED = (b"traceparent", b"tracestate")
STREAM_FIELDS: Fields = (
    (b"Content-Type", b"text/event-stream"),
    (b"Cache-Control", b"no-store"),
    (b"X-Content-Type-Options", b"nosniff"),
    (b"X-Accel-Buffering", b"no"),  # else nginx buffers the events (proxy_buffering)
)
# The header fields that a handler may set on the body of its reply. The gateway sets all others.
REPLY_FIELDS = frozenset(
    (
        "content-type",
        "content-encoding",
        "content-language",
        "content-disposition",
        "cache-control",
        "etag",
        "last-modified",
        "expires",
    )
)


class Door(Taking):
    """Submits, reads and cancels requests, over any queue and any store.

    The methods are coroutines, which the caller has to await: a request needs only one Deferred, made by the router.
    ``longest_wait`` is the limit of a long poll in seconds. ``ahead`` says how far the time of day is ahead of the
    times in the store, and ``has_room`` whether so many bytes of an answer can be sent now.
    Requests are accepted through ``admission``; None: the queue takes each.
    """

    def __init__(
        self,
        queue: IMessageQueue,
        store: IResultStore,
        waiting: LongPolls,
        clock: IReactorTime,
        metrics: DoorMetrics,
        *,
        longest_wait: float,
        addressing: Addressing | None = None,
        ahead: Callable[[], float] = never_ahead,
        has_room: Callable[[int], bool] = lambda size: True,
        places: TenantPlaces = UNLIMITED,
        admission: Accepts | None = None,
    ) -> None:
        super().__init__(queue, clock, metrics, addressing, admission)
        self.store = store
        self._records = TenantRecords(store, clock)
        self.longest_wait = longest_wait
        self._has_room = has_room
        self._waits, self.streams = places.waits, places.streams
        self.ahead = ahead
        self._waiting = waiting

    @property
    def now(self) -> float:
        """The time, in seconds, as the store has it."""
        return self._clock.seconds()

    def accept(
        self, body: bytes, fields: HeaderField, tenant: str | None = None, *, streams: bool = False
    ) -> Coroutine[Any, Any, Acceptance]:
        """Read a submission, and have the queue accept it. The errors of `read_submission`, and those of `take`;
        `TooManyOpen` where its answer is one of the ``streams`` of its tenant, and there are too many.
        """

        def received() -> int:
            if fields(CARRIED[0]) is None:
                return len(body)
            return len(body) + sum(len(fields(name) or b"") for name in CARRIED)

        read = partial(self._read, body, fields)
        if streams:
            return self.streams.held(tenant, lambda: self.take(read, received, tenant))
        return self.take(read, received, tenant)

    def _read(self, body: bytes, fields: HeaderField, now: float) -> tuple[Submission, IdempotencyClaim | None]:
        check_json_type(field(fields, b"content-type"))
        check_encoding(field(fields, b"content-encoding"))
        claim = claim_of(field(fields, b"idempotency-key"), SUBMIT, body)
        return read_submission(body, now, carried(fields)), claim

    async def submit(self, body: bytes, fields: HeaderField, tenant: str | None = None, told: Fields = ()) -> Answer:
        """Submit: the 202, or with ``Prefer: wait`` the response where the request ends in time, and can be sent.

        ``told`` are further fields of the answer.

        See `while_connected` for a caller that hangs up.
        """
        prefer = field(fields, b"prefer")
        wait = prefer_wait(prefer, self.longest_wait)
        acceptance = await self.accept(body, fields, tenant)
        headers = acceptance_fields(acceptance)
        if told:
            headers += told
        if wait is not None and self._waits.has_room(tenant):
            ending = self._waits.held(tenant, lambda: self.ended(acceptance, wait))
            record = await self.while_connected(acceptance, fields, ending)
            if record is not None and record.reply is not None and self.can_send(record.reply):
                return self._response(record, (*without_retry(headers), _applied(wait)))
        elif prefer is not None and "respond-async" in prefer.lower():
            headers = (*headers, (b"Preference-Applied", b"respond-async"))
        return Answer(202, acceptance_document(acceptance, self.ahead()), fields=headers)

    async def while_connected(
        self, acceptance: Acceptance, fields: HeaderField, answering: Coroutine[Any, Any, T]
    ) -> T:
        """What ``answering``, which waits for a request that was just accepted, returns.

        With ``OpenHQM-Cancel-On-Disconnect`` a request that waits in the queue is cancelled when its caller hangs up,
        unless an earlier caller has submitted it under the same key: that one may be waiting for it still.
        """
        try:
            return await answering
        except CancelledError:  # the connection has ended
            asked = cancels_on_disconnect(field(fields, b"openhqm-cancel-on-disconnect"))
            if asked and not self.closed and not acceptance.replayed:
                Running(self._cancel_queued(acceptance.correlation_id), lambda _: None, _give_up)
            raise

    async def _cancel_queued(self, correlation_id: str) -> None:
        record = await self.store.find(correlation_id)
        if record.status is Status.PENDING:
            await self.store.cancel(correlation_id)

    async def status(self, correlation_id: str, tenant: str | None = None) -> Answer:
        """The status document. `UnknownRequest`, `ExpiredRequest`, `NotDurable`.

        A request of another ``tenant`` is unknown, here and below; None: the caller may read all requests.
        """
        return Answer(200, status_document(await self._find(correlation_id, None, tenant), self.ahead()))

    async def response(
        self, correlation_id: str, wait: float | None, fields: HeaderField, tenant: str | None = None
    ) -> Answer:
        """The response document, or a 202 with the status where the request has not ended after ``wait`` seconds.

        ``wait`` is that of the query, which has precedence over ``Prefer``. The errors of `body`.
        """
        preferred = prefer_wait(field(fields, b"prefer"), self.longest_wait) if wait is None else None
        record = self._sendable(await self._find(correlation_id, wait if wait is not None else preferred, tenant))
        if record.reply is None:
            return self._not_yet(record)
        return self._response(record, () if preferred is None else (_applied(preferred),))

    async def body(self, correlation_id: str, wait: float | None, tenant: str | None = None) -> Answer:
        """The reply with its own status, header fields and bytes, or a 202 where the request has not ended.

        The errors of `status`; `HTTPProblem` 503 where the reply cannot be sent now.
        """
        record = self._sendable(await self._find(correlation_id, wait, tenant))
        reply = record.reply
        if reply is None:
            return self._not_yet(record)
        if reply.status is not Status.COMPLETED and reply.result is None and reply.body is None:
            return problem(
                reply.status_code,
                reply.error or reply.status.value,
                correlation_id=correlation_id,
                request_status=reply.status.value,
            )
        allowed = {name.lower(): value for name, value in reply.headers.items() if name.lower() in REPLY_FIELDS}
        content_type = allowed.pop(
            "content-type", "application/json" if reply.body is None else "application/octet-stream"
        )
        return Answer(
            reply.status_code,
            reply.body if reply.body is not None else reply.result or b"null",
            field_bytes(content_type),
            (
                *((name.encode(), field_bytes(value)) for name, value in allowed.items()),
                # A browser must not run the body of a handler as a page of this server.
                (b"X-Content-Type-Options", b"nosniff"),
                (b"Content-Security-Policy", b"sandbox"),
            ),
        )

    async def ended(self, acceptance: Acceptance, wait: float) -> Record | None:
        """The record of a request that was just accepted, once it has ended or ``wait`` seconds have passed.

        None where the store cannot be read: the request is accepted all the same, and its caller may ask later.
        """
        try:
            return await self._waiting.wait_for_ending(acceptance.correlation_id, wait)
        except NotDurable:
            return None

    async def first_events(self, acceptance: Acceptance) -> list[Event]:
        """The first events of a request that was just accepted; none where the store cannot be read."""
        try:
            return list(await self.store.history(acceptance.correlation_id, 0))
        except NotDurable:
            return []

    async def events(
        self, correlation_id: str, after: int, tenant: str | None = None
    ) -> tuple[int, list[Event]] | None:
        """The next events behind number ``after``, and the number that they follow. None: it has ended, without any.

        A number beyond the last event counts as that of the last event: it comes from outside, and a stream that waited
        for it would never end.
        """
        if tenant is not None:
            self.streams.check(tenant)
            await self._find(correlation_id, None, tenant)
        events = list(await self.store.history(correlation_id, after))
        if tenant is not None:  # others may have taken what was free before it was read
            self.streams.check(tenant)
        if events or not after:
            return after, events
        last = await self._last_event(correlation_id, after)
        if last.number > after:  # it has gone on since the first read
            return after, []
        return None if last.reply is not None else (last.number, [])

    async def _last_event(self, correlation_id: str, after: int) -> Event:
        """The last event, where there was none above ``after``. The history may be too long to be read to its end."""
        found = await self.store.history(correlation_id, after - 1)
        if found:
            return found[-1]
        found = await self.store.history(correlation_id, 0)
        last, highest = found[-1], after - 1
        while last.number < highest and last.reply is None:  # the numbers have no gap
            above = min(2 * last.number, (last.number + highest) // 2)
            found = await self.store.history(correlation_id, above)
            if found:
                last = found[-1]
            else:
                highest = above
        return last

    async def cancel(self, correlation_id: str, tenant: str | None = None) -> Answer:
        """Cancel a request: 200 where it had not begun, 202 where its handler is told to stop.

        `AlreadyEnded`, and the errors of `status`.
        """
        if tenant is not None:
            await self._find(correlation_id, None, tenant)
        before = await self.store.cancel(correlation_id)
        record = await self.store.find(correlation_id)
        return Answer(200 if before.status is Status.PENDING else 202, status_document(record, self.ahead()))

    def _response(self, record: Record, fields: Fields) -> Answer:
        assert record.reply is not None, "it has ended"
        return Answer(200, response_document(record.reply, record.expires_at, self.ahead()), fields=fields)

    def _not_yet(self, record: Record) -> Answer:
        return Answer(202, status_document(record, self.ahead()), fields=((b"Retry-After", b"1"),))

    def can_send(self, reply: Reply) -> bool:
        """Whether the server has the memory to send ``reply`` now, also where its reader is slow."""
        return self._has_room(len(reply.result or b"") + len(reply.body or b""))

    def _sendable(self, record: Record) -> Record:
        if record.reply is not None and not self.can_send(record.reply):
            raise HTTPProblem(503, SENDING, ((b"Retry-After", b"1"),))
        return record

    async def _find(self, correlation_id: str, wait: float | None, tenant: str | None) -> Record:
        if tenant is None:
            return await self._look(correlation_id, wait)
        record = await self._records.find(correlation_id, tenant)
        return record if wait is None else await self._waits.held(tenant, lambda: self._look(correlation_id, wait))

    def _look(self, correlation_id: str, wait: float | None) -> Deferred[Record]:
        return self.store.find(correlation_id) if wait is None else self._waiting.wait_for_ending(correlation_id, wait)


def _give_up(failure: Failure) -> None:
    """A request that cannot be cancelled now is done like any other."""
    failure.trap(OpenHQMError)


def carried(fields: HeaderField) -> dict[str, str] | None:
    """The header fields of the trace context (W3C Trace Context, section 3), or None where there is none."""
    if fields(CARRIED[0]) is None:
        return None
    return {name.decode(): value for name in CARRIED if (value := field(fields, name))}


def acceptance_fields(acceptance: Acceptance) -> Fields:
    """The header fields of a 202: where the answer will be, where the events are, and when to ask."""
    correlation_id = acceptance.correlation_id.encode()
    fields: Fields = (
        (b"Location", b"/api/v1/response/" + correlation_id),
        (b"Link", b'</api/v1/events/%b>; rel="monitor"' % correlation_id),
        (b"Retry-After", b"1"),
    )
    return (*fields, (b"Idempotency-Replayed", b"true")) if acceptance.replayed else fields


def without_retry(fields: Fields) -> Fields:
    """``fields`` without ``Retry-After``, for an answer that needs no second request."""
    return tuple(field for field in fields if field[0] != b"Retry-After")


def _applied(wait: float) -> tuple[bytes, bytes]:
    return b"Preference-Applied", b"wait=%d" % wait

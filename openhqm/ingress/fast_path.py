# -*- test-case-name: tests.ingress.test_fast_path -*-
"""The fast path: the most used routes, matched by exact path and served by `Door` without a web request."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from twisted.internet.defer import CancelledError
from twisted.logger import Logger
from twisted.web.http import parse_qs

from openhqm.delivery.ending_streams import EndingStreams
from openhqm.delivery.streams import EventStreams
from openhqm.errors import OpenHQMError
from openhqm.http1.admission import HeadRefused
from openhqm.http1.messages import Answer, Fields, FullRequest, StreamedAnswer
from openhqm.http1.rules import METHODS, Refusal
from openhqm.ingress.access import OPEN, Access, role_for
from openhqm.ingress.answers import INTERNAL_ERROR, field, problem, problem_for
from openhqm.ingress.door import STREAM_FIELDS, SUBMIT, Door
from openhqm.ingress.preferences import last_event_id
from openhqm.ingress.rate_limiting import RateLimiter
from openhqm.ingress.stream_query import EVENTS, read_last_event_id, read_selection
from openhqm.policy.api_keys import Role
from openhqm.policy.cors import Cors

_SUBMIT = SUBMIT.encode()
_STATUS = b"/api/v1/status/"
_RESPONSE = b"/api/v1/response/"
_EVENTS = b"/api/v1/events/"
_ALL_EVENTS = EVENTS.encode()
_ID_LENGTH = 36
_log = Logger()


class FastPath:
    """Serves submit, status, response and events where the request has no unusual form.

    Streams over many requests have a query, and the others none.
    """

    def __init__(
        self,
        door: Door,
        streams: EventStreams,
        access: Access | None = None,
        cors: Cors | None = None,
        limiter: RateLimiter | None = None,
        ending_streams: EndingStreams | None = None,
    ) -> None:
        self._ending_streams = ending_streams
        self._door = door
        self._streams = streams
        self._access = access
        self._cors = cors
        self._limiter = limiter

    def __call__(self, message: FullRequest) -> Coroutine[Any, Any, Answer | StreamedAnswer] | None:
        """A coroutine that serves ``message``, or None where the routes have to serve it."""
        target, method = message.head.target, message.head.method
        caller = None
        if self._access is not None:
            role = Role.SUBMIT if method == b"POST" and target == _SUBMIT else Role.READ
            refusal, caller = self._access.check(
                role, target, message.head.credentials, message.connection, count=False
            )
            if refusal is not None:  # before a coroutine is made; the routes ask again, and answer
                return None if refusal.status != 429 or role_for(method, target) is OPEN else _with(refusal)
        tenant = None if caller is None else caller.tenant
        if self._cors is not None and message.field(b"origin") is not None:
            return None  # the routes know what pages of other origins are told
        if method == b"POST":
            if target == _SUBMIT and b"text/event-stream" not in (message.field(b"accept") or b""):
                told: Fields = ()
                if self._limiter is not None:
                    refused, told = self._limiter.take(
                        caller, message.connection, 1, len(message.body), None, message.admitted
                    )
                    if refused is not None:
                        return _with(refused.answer())
                return served(self._door.submit(message.body, message.field, tenant, told), target, told)
        elif method == b"GET":
            # A target of exactly this length has neither a query nor a longer path.
            if len(target) == len(_STATUS) + _ID_LENGTH and target.startswith(_STATUS):
                return served(self._door.status(_id(target), tenant), target)
            if len(target) == len(_RESPONSE) + _ID_LENGTH and target.startswith(_RESPONSE):
                return served(self._door.response(_id(target), None, message.field, tenant), target)
            if len(target) == len(_EVENTS) + _ID_LENGTH and target.startswith(_EVENTS):
                return served(self._events(_id(target), message, tenant), target)
            if target.startswith(_ALL_EVENTS) and self._ending_streams is not None:
                path, _, query = target.partition(b"?")
                if path == _ALL_EVENTS:
                    return served(self._endings(self._ending_streams, query, message, tenant), target)
        return None

    async def _events(self, correlation_id: str, message: FullRequest, tenant: str | None) -> Answer | StreamedAnswer:
        after = last_event_id(field(message.field, b"last-event-id"), [])
        found = await self._door.events(correlation_id, after, tenant)
        if found is None:
            return Answer(204)
        after, history = found
        begin = lambda outlet: self._streams.open(correlation_id, after, history, outlet, tenant)  # noqa: E731
        return StreamedAnswer(STREAM_FIELDS, begin)

    async def _endings(
        self, streams: EndingStreams, query: bytes, message: FullRequest, tenant: str | None
    ) -> Answer | StreamedAnswer:
        asked = parse_qs(query, True)
        selection = read_selection(asked, tenant)
        seen = read_last_event_id(field(message.field, b"last-event-id"), asked)
        beginning = await streams.prepare(selection, seen)
        if beginning is None:
            return Answer(204)
        return StreamedAnswer(STREAM_FIELDS, lambda outlet: streams.open(selection, beginning, outlet))


async def _with(answer: Answer) -> Answer | StreamedAnswer:
    return answer


async def served(
    work: Coroutine[Any, Any, Answer | StreamedAnswer], target: bytes, told: Fields = ()
) -> Answer | StreamedAnswer:
    """The answer of ``work``, or a problem document for its error. It raises only `CancelledError`.

    ``told`` are further fields of a problem document; other answers have them from ``work``.
    """
    try:
        return await work
    except CancelledError:
        raise
    except OpenHQMError as error:
        answer = problem_for(error, instance(target))
        if answer.status == 500:
            _log.failure("unhandled error in a request", path=instance(target))
    except Exception:  # a bug of ours
        _log.failure("unhandled error in a request", path=instance(target))
        answer = problem(500, INTERNAL_ERROR, instance=instance(target))
    if not told:
        return answer
    return Answer(answer.status, answer.body, answer.content_type, (*answer.fields, *told))


def instance(target: bytes) -> str:
    """The ``instance`` of a problem document: the target without its query, which may hold a secret, cut after 512."""
    return target.partition(b"?")[0].decode("ascii", "replace")[:512]


def refused(refusal: Refusal) -> Answer:
    """The answer to bytes that are not a valid request, or to a request that is refused for its head."""
    if isinstance(refusal, HeadRefused):
        return refusal.answer
    fields: Fields = ()
    if refusal.status == 503:
        fields = ((b"Retry-After", b"1"),)
    elif refusal.status == 405:  # RFC 9110, section 15.5.6; no path allows TRACE or CONNECT
        fields = ((b"Allow", b", ".join(METHODS)),)
    return problem(refusal.status, refusal.reason, fields=fields)


def _id(target: bytes) -> str:
    return target[-_ID_LENGTH:].decode("ascii")

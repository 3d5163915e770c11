# -*- test-case-name: tests.ingress.test_fast_path -*-
"""The hot routes, chosen by their exact path and served without a web request: by the same functions as ever."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from twisted.internet.defer import CancelledError
from twisted.logger import Logger

from openhqm.delivery.streams import Streams
from openhqm.errors import OpenHQMError
from openhqm.http1.messages import Answer, Message, Streaming
from openhqm.http1.rules import Refusal
from openhqm.ingress.answers import field, problem, problem_for
from openhqm.ingress.door import STREAM_FIELDS, SUBMIT, Door
from openhqm.ingress.preferences import last_event_id

_SUBMIT = SUBMIT.encode()
_STATUS = b"/api/v1/status/"
_RESPONSE = b"/api/v1/response/"
_EVENTS = b"/api/v1/events/"
_ID_LENGTH = 36
_log = Logger()


class FastPath:
    """Serves submit, status, response and events where nothing about the request is out of the ordinary."""

    def __init__(self, door: Door, streams: Streams) -> None:
        self._door = door
        self._streams = streams

    def __call__(self, message: Message) -> Coroutine[Any, Any, Answer | Streaming] | None:
        """The coroutine that serves ``message``, or None: it belongs to the routes."""
        target, method = message.head.target, message.head.method
        if method == b"POST":
            if target == _SUBMIT and b"text/event-stream" not in (message.field(b"accept") or b""):
                return served(self._door.submit(message.body, message.field), target)
        elif method == b"GET":
            # An id of the usual length has no query behind it and no path below it.
            if len(target) == len(_STATUS) + _ID_LENGTH and target.startswith(_STATUS):
                return served(self._door.status(_id(target)), target)
            if len(target) == len(_RESPONSE) + _ID_LENGTH and target.startswith(_RESPONSE):
                return served(self._door.response(_id(target), None, message.field), target)
            if len(target) == len(_EVENTS) + _ID_LENGTH and target.startswith(_EVENTS):
                return served(self._events(_id(target), message), target)
        return None

    async def _events(self, correlation_id: str, message: Message) -> Answer | Streaming:
        after = last_event_id(field(message.field, b"last-event-id"), [])
        history = await self._door.events(correlation_id, after)
        if history is None:
            return Answer(204)
        return Streaming(STREAM_FIELDS, lambda outlet: self._streams.open(correlation_id, after, history, outlet))


async def served(work: Coroutine[Any, Any, Answer | Streaming], target: bytes) -> Answer | Streaming:
    """What ``work`` answers, or the problem that its error is. It raises nothing but `CancelledError`."""
    try:
        return await work
    except CancelledError:
        raise
    except OpenHQMError as error:
        answer = problem_for(error, instance(target))
        if answer.status == 500:
            _log.failure("a request broke down", path=instance(target))
        return answer
    except Exception:  # a bug: the caller is told so, and the log says which
        _log.failure("a request broke down", path=instance(target))
        return problem(500, "something broke on our side; the log says what", instance=instance(target))


def instance(target: bytes) -> str:
    """What a problem says it is about: the target, within bounds."""
    return target.decode("ascii", "replace")[:512]


def refused(refusal: Refusal) -> Answer:
    """The answer to what was never a request."""
    fields = ((b"Retry-After", b"1"),) if refusal.status == 503 else ()
    return problem(refusal.status, refusal.reason, fields=fields)


def _id(target: bytes) -> str:
    return target[-_ID_LENGTH:].decode("ascii")

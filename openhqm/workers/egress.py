# -*- test-case-name: tests.workers.test_egress -*-
"""Forwarding: an attempt at a request is one call of a target, and what it answers is the reply."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IResponse

from openhqm.errors import DestinationRefused, Reject, RetryLater, TransformFailed
from openhqm.http1.client import (
    AnswerTooLong,
    content_producer,
    first_reason,
    read_body,
    reason_of,
    was_cancelled,
)
from openhqm.policy.fields import Document
from openhqm.policy.forwarding import Target, TargetRequest, reply_fields, target_request
from openhqm.policy.outcome import Verdict, judge
from openhqm.policy.routing import RouteTable
from openhqm.runtime.times import rfc3339
from openhqm.workers.credentials import Credentials
from openhqm.workers.handlers import Response, TimeIsUp, Work

_RAW = msgspec.json.Decoder(msgspec.Raw)


class Egress:
    """Forwards to one target: a `Handler`. ``most_body`` bounds an answer's body, in bytes."""

    _log = Logger()

    def __init__(
        self,
        target: Target,
        agent: IAgent,
        credentials: Credentials,
        routes: RouteTable,
        clock: IReactorTime,
        most_body: int,
    ) -> None:
        self._target = target
        self._agent = agent
        self._credentials = credentials
        self._routes = routes
        self._clock = clock
        self._most_body = most_body

    async def __call__(self, work: Work) -> Response:
        """The target's answer. `RetryLater` where it is worth another attempt, `Reject` where it is not."""
        document = Document(work.request.submission, work.correlation_id)
        route = self._routes.choose_for(document)
        if route is not None and route.endpoint not in (None, self._target.name):
            route = None  # the request named another endpoint than its route, and is not shaped for that one
        credentials = await self._credentials.fields()
        seconds = work.time_left
        if route is not None and route.timeout is not None:
            seconds = min(seconds, route.timeout)
        about = _about(work, self._clock.seconds() + seconds)
        try:
            call = target_request(self._target, work.request, route, document, about=about, credentials=credentials)
        except TransformFailed as error:
            raise Reject(str(error)) from None
        calling = Deferred.fromCoroutine(self._call(call))
        late = False

        def give_up() -> None:
            nonlocal late
            late = True
            calling.cancel()

        timer = self._clock.callLater(seconds, give_up)
        try:
            response, body = await calling
        except Exception as error:  # whatever a connection, a name, a certificate or a parser has against it
            reason = first_reason(error)
            if isinstance(reason, AnswerTooLong):
                raise Reject(str(reason)) from None
            if isinstance(reason, DestinationRefused):  # why, is for the operator and nobody else
                self._log.warn("refused to call: {reason}", reason=reason.reason, correlation_id=work.correlation_id)
            if late:
                raise TimeIsUp(f"no answer within {round(seconds, 3):.12g} s") from None
            if was_cancelled(error):
                raise CancelledError() from None
            raise RetryLater(None, f"{self._target.name} could not be asked: {reason_of(error)}") from None
        finally:
            if timer.active():
                timer.cancel()
        return self._judged(response, body, credentials)

    async def _call(self, call: TargetRequest) -> tuple[IResponse, bytes]:
        headers = Headers()
        for name, value in call.headers.items():
            headers.addRawHeader(name, value.encode("utf-8"))
        producer = None if call.content is None else content_producer(call.content)
        response: Any = await self._agent.request(call.method.encode(), call.url.encode("ascii"), headers, producer)
        return response, await read_body(response, self._most_body)

    def _judged(self, response: Any, body: bytes, credentials: Mapping[str, str]) -> Response:
        fields = response.headers
        words = f"{self._target.name} answered {response.code}"
        if not 200 <= response.code <= 599:
            raise RetryLater(None, f"{words}, which is no status")

        def field(name: str) -> str | None:
            found = fields.getRawHeaders(name)
            return found[-1] if found else None

        answer = as_response(response.code, reply_fields(list(fields.getAllRawHeaders())), body)
        outcome = judge(
            response.code,
            self._target.retry_on,
            field("Retry-After"),
            field("OpenHQM-Retry"),
            self._clock.seconds(),
        )
        if outcome.verdict is Verdict.DONE:
            return answer
        never = (field("OpenHQM-Retry") or "").strip().lower() == "never"
        if response.code == 401 and self._credentials.refused(credentials) and not never:
            raise RetryLater(None, words, answer)
        if outcome.verdict is Verdict.RETRY:
            raise RetryLater(None, words, answer, at_least=outcome.not_before)
        raise Reject(words, answer)


def as_response(status: int, fields: dict[str, str], body: bytes) -> Response:
    """An answer as a handler's: JSON is kept as JSON, in its own bytes, and everything else as bytes."""
    kind = next((value for name, value in fields.items() if name.lower() == "content-type"), "")
    kind = kind.partition(";")[0].strip().lower()
    encoded = any(name.lower() == "content-encoding" for name in fields)
    if (kind == "application/json" or kind.endswith("+json")) and not encoded and _is_json(body):
        return Response(result=msgspec.Raw(body), status_code=status, headers=fields)
    return Response(body=body, status_code=status, headers=fields)


def _is_json(body: bytes) -> bool:
    try:
        _RAW.decode(body)
        body.decode("utf-8")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return body.strip() != b"null"  # no result at all, and a result of null, are told apart by their bytes


def _about(work: Work, deadline: float) -> dict[str, str]:
    """What the target is told about this attempt."""
    return {
        "OpenHQM-Correlation-Id": work.correlation_id,
        "OpenHQM-Attempt": str(work.attempt),
        "OpenHQM-Max-Attempts": str(work.max_attempts),
        "OpenHQM-Deadline": rfc3339(deadline),
        "Idempotency-Key": work.correlation_id,
    }

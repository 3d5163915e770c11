# -*- test-case-name: tests.workers.test_egress -*-
"""The handler that forwards: one attempt is one HTTP call of a target, and its answer is the reply."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from openhqm.errors import Reject, RetryLater, TransformFailed
from openhqm.http1.calls import Fetched
from openhqm.http1.client import IFetch
from openhqm.http1.failures import NotConnected, of_tls
from openhqm.policy.fields import Document
from openhqm.policy.finishing import COMPLETION, LATER_STATUS, finishes_later
from openhqm.policy.forwarding import IDEMPOTENCY_KEY, Target, TargetRequest, is_plain, reply_fields, target_request
from openhqm.policy.outcome import Verdict, judge
from openhqm.policy.redrive import first_id
from openhqm.policy.routing import RouteTable
from openhqm.runtime.deferreds import deferred
from openhqm.runtime.steady_time import ahead_of
from openhqm.runtime.time_limits import TimeLimits
from openhqm.runtime.times import rfc3339
from openhqm.workers.credentials import Credentials
from openhqm.workers.handlers import CheckedResponse, FinishedLater, TokenOf, Unreachable, Work, no_token
from openhqm.workers.outgoing import Outgoing
from openhqm.workers.plain_requests import PlainRequest, PlainRequests

_RAW = msgspec.json.Decoder(msgspec.Raw)


class Egress:
    """A `Handler` that calls one target. ``most_body`` is the largest body of an answer, in bytes.

    ``token_of`` returns what the target is given to finish a request later, by its id; None: it cannot.

    Its answer comes within `Work.time_left`.
    """

    keeps_time = True

    def __init__(
        self,
        target: Target,
        client: IFetch,
        credentials: Credentials,
        routes: RouteTable,
        clock: IReactorTime,
        most_body: int,
        token_of: TokenOf = no_token,
    ) -> None:
        self._target = target
        self._client = client
        self._credentials = credentials
        self._routes = routes
        self._clock = clock
        self._most_body = most_body
        self._token_of = token_of
        self._plain = PlainRequests(target)
        self._limits = TimeLimits(clock)

    def __call__(self, work: Work) -> Deferred[CheckedResponse]:
        """Call the target. Fires with its answer where that is a success.

        `Unreachable`: there was no connection. `RetryLater`: the call failed, or `policy.outcome` says that the answer
        is worth another attempt. `Reject`: it is not, or the request cannot be sent. `AttemptTimedOut`: no answer came
        in time.
        """
        document = Document(work.request.submission, work.correlation_id)
        route = self._routes.choose_for(document)
        if route is not None and route.endpoint not in (None, self._target.name):
            route = None  # the request names another endpoint than the route, whose transform is not for it
        seconds = limit = work.time_left
        if route is not None and route.timeout is not None:
            seconds = min(seconds, route.timeout)
        forwarding: Outgoing[CheckedResponse] = Outgoing(self._target.name, work.correlation_id, seconds, self._limits)
        about = _about(work, work.deadline if seconds == limit else self._now() + seconds)
        token = self._token_of(work.correlation_id)
        if token is not None:
            about[COMPLETION] = token
        plain = is_plain(work.request.submission, self._target, route) and not work.replayed

        def call(credentials: Mapping[str, str]) -> Deferred[CheckedResponse]:
            made = self._plain.of(work.request, about, credentials) if plain else None
            try:
                if made is not None:
                    method, answered = made.method, self._send(work, made, about)
                else:
                    method, answered = self._call(
                        target_request(
                            self._target, work.request, route, document, about=about, credentials=credentials
                        )
                    )
            except TransformFailed as error:
                raise Reject(str(error)) from None
            except UnicodeError as error:
                raise Reject(f"the request cannot be sent to {self._target.name}: {error}") from None
            judging = method, credentials, about
            return answered.addCallbacks(self._judged, forwarding.explain, judging)

        # No coroutine, for this is done for each request.
        credentials = self._credentials.at_hand()
        if credentials is not None:
            answer = call(credentials)
        else:
            answer = self._credentials.fields().addErrback(forwarding.explain).addCallback(call)
        return forwarding.within_limit(answer)

    @deferred
    async def probe(self) -> None:
        """Fires where the target can be reached, and the server of its tokens. Nothing is sent to the target.

        What else may be wrong with them is for the next attempt to find.
        """
        try:
            await self._credentials.fields()
            await self._client.connect((self._target.url or "").encode("ascii"))
        except (Unreachable, NotConnected) as error:
            if not of_tls(error):
                raise
        except RetryLater:
            pass

    def _send(self, work: Work, made: PlainRequest, about: Mapping[str, str]) -> Deferred[Fetched]:
        content = made.content(work.request.submission)
        return self._client.fetch(made.raw_method, made.url, made.fields(about), content, self._most_body)

    def _call(self, call: TargetRequest) -> tuple[str, Deferred[Fetched]]:
        fields = [(name.encode("ascii"), value) for name, value in call.raw_headers()]
        url = call.url.encode("ascii")
        return call.method, self._client.fetch(call.method.encode(), url, fields, call.content, self._most_body)

    def _now(self) -> float:
        """The time of day: targets are told by it, and answer by it."""
        return self._clock.seconds() + ahead_of(self._clock)()

    def _judged(
        self, fetched: Fetched, method: str, credentials: Mapping[str, str], told: Mapping[str, str]
    ) -> CheckedResponse:
        status = fetched.status
        answer = as_response(fetched, method == "HEAD" or status == 304)
        if 200 <= status < 300:
            if status == LATER_STATUS and COMPLETION in told and finishes_later(fetched.field(b"openhqm-finish")):
                return FinishedLater(status, {})
            return answer
        summary = f"{self._target.name} answered {status}"

        def field(name: bytes) -> str | None:
            value = fetched.field(name)
            return None if value is None else value.decode("latin-1")  # what is no ASCII there, is as if absent

        outcome = judge(
            status,
            self._target.retry_on,
            field(b"retry-after"),
            field(b"openhqm-retry"),
            self._now(),
            self._target.failures,
        )
        never = (field(b"openhqm-retry") or "").strip().lower() == "never"
        if status == 401 and self._credentials.refused(credentials) and not never:
            raise RetryLater(None, summary, answer)
        if outcome.verdict is Verdict.DONE:
            return answer
        if outcome.verdict is Verdict.RETRY:
            raise RetryLater(None, summary, answer, at_least=outcome.not_before)
        raise Reject(summary, answer)


def as_response(fetched: Fetched, bodiless: bool) -> CheckedResponse:
    """A target's answer with the fields that are kept: JSON as a result with the same bytes, any other as a body."""
    kept, body = reply_fields(fetched.fields, bodiless=bodiless), fetched.body
    if kept.json and _is_json(body):
        return CheckedResponse(fetched.status, kept, text=body)
    return CheckedResponse(fetched.status, kept, body=body)


def _is_json(body: bytes) -> bool:
    try:
        _RAW.decode(body)
        body.decode("utf-8")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return body.strip() != b"null"  # kept as a body: a result of null would read like no result


def _about(work: Work, deadline: float) -> dict[str, str]:
    """The header fields that tell the target about this attempt."""
    about = {
        "OpenHQM-Correlation-Id": work.correlation_id,
        "OpenHQM-Attempt": str(work.attempt),
        "OpenHQM-Max-Attempts": str(work.max_attempts),
        "OpenHQM-Last-Attempt": "true" if work.attempt >= work.max_attempts else "false",
        "OpenHQM-Deadline": rfc3339(deadline),
        IDEMPOTENCY_KEY: first_id(work.request),
    }
    if work.replayed:
        about["OpenHQM-Replayed"] = "true"
        about["OpenHQM-Submitted-At"] = rfc3339(work.submitted_at)
    return about

# -*- test-case-name: tests.ingress.test_http,tests.ingress.test_fast_path -*-
"""The routes as a Klein application. The work is done by `Door` and `Health`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from klein import Klein
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.iweb import IRequest
from twisted.web.resource import Resource
from werkzeug.exceptions import HTTPException

from openhqm.delivery.documents import acceptance_document
from openhqm.delivery.ending_stream import EndingStream
from openhqm.delivery.ending_streams import EndingStreams
from openhqm.delivery.streams import EventStream, EventStreams
from openhqm.errors import OpenHQMError
from openhqm.http1.messages import SERVER, Answer
from openhqm.http1.rules import credentials_in
from openhqm.ingress.access import Access, role_for
from openhqm.ingress.answers import INTERNAL_ERROR, HTTPProblem, field, problem, problem_for
from openhqm.ingress.batch import BATCH, submit_batch
from openhqm.ingress.dead_letter_queries import read_drop, read_query, read_redrive
from openhqm.ingress.dead_letters import DeadLetters
from openhqm.ingress.door import STREAM_FIELDS, Door, acceptance_fields, without_retry
from openhqm.ingress.fast_path import instance
from openhqm.ingress.finishing import complete, progress
from openhqm.ingress.health import Health
from openhqm.ingress.hooks import Hooks
from openhqm.ingress.local_access import why_not_local
from openhqm.ingress.openapi import document
from openhqm.ingress.preferences import check_encoding, check_json_type, last_event_id, query_wait, wants_events
from openhqm.ingress.rate_limiting import RateLimiter
from openhqm.ingress.sending import WebStreamSink, send
from openhqm.ingress.stream_query import EVENTS, NO_LOG, read_last_event_id, read_selection
from openhqm.messages import Acceptance, Event
from openhqm.policy.cors import Cors
from openhqm.policy.own_paths import ROOT, OwnPaths
from openhqm.runtime.deferreds import deferred

_NO_PATH = "no such path; GET {}/openapi.json lists all paths"


class _Exact(Resource):
    """Answers paths that begin with two slashes, which Klein would strip before it matches a route.

    The paths for operators are matched without the prefix of ``own_paths``.
    """

    isLeaf = True

    def __init__(
        self, routes: Any, own_paths: OwnPaths, access: Access | None, cors: Cors | None, hsts: int | None
    ) -> None:
        super().__init__()
        self._hsts = hsts
        self._access = access
        self._cors = cors
        self._routes = routes
        self._own_paths = own_paths
        self._skipped = own_paths.prefix.count("/")

    def render(self, request: Any) -> Any:
        route = self._own_paths.unprefixed(request.path)
        if self._cors is not None:
            if request.method == b"OPTIONS" and (fields := self._cors.preflight(request.getHeader)) is not None:
                return send(request, Answer(204, fields=fields))  # a browser sends no credential with this
            for name, value in self._cors.fields(request.getHeader(b"origin")):
                request.responseHeaders.setRawHeaders(name, [value])
        if self._hsts is not None and request.isSecure():
            request.responseHeaders.setRawHeaders(b"strict-transport-security", [b"max-age=%d" % self._hsts])
        request.caller = None
        if self._access is not None:
            role = role_for(request.method, route or b"")
            refusal, request.caller = self._access.check(
                role, request.uri, credentials_in(_fields(request)), request.connection
            )
            if refusal is not None:
                return send(request, refusal)
        if route is None or route.startswith(b"//"):
            detail = _NO_PATH.format(self._own_paths.prefix)
            return send(request, problem(404, detail, instance=instance(request.uri)))
        if route is not request.path:
            del request.postpath[: self._skipped]
        return self._routes.render(request)


class Routes:
    """The public API as a Klein application: ``Routes(...).resource()``.

    ``dead_letters`` is None where the routes for operators are switched off, ``access`` where everybody may use the
    others, ``cors`` where pages of other origins may use none, and ``ending_streams`` where the store keeps no log.
    """

    app = Klein()
    app.url_map.merge_slashes = False  # no redirect to another path
    _log = Logger()

    def __init__(
        self,
        door: Door,
        streams: EventStreams,
        health: Health,
        dead_letters: DeadLetters | None,
        own_paths: OwnPaths = ROOT,
        access: Access | None = None,
        cors: Cors | None = None,
        limiter: RateLimiter | None = None,
        hooks: Hooks | None = None,
        ending_streams: EndingStreams | None = None,
    ) -> None:
        self._ending_streams = ending_streams
        self._hooks = hooks
        self._limiter = limiter
        self._door = door
        self._streams = streams
        self._health = health
        self._dead_letters = dead_letters
        self._own_paths = own_paths
        self._access = access
        self._cors = cors

    def resource(self, hsts: int | None = None) -> Resource:
        """The root resource for ``twisted.web``. ``hsts``: how long browsers are to use https, in seconds."""
        return _Exact(self.app.resource(), self._own_paths, self._access, self._cors, hsts)

    @app.route("/api/v1/submit", methods=["POST"])
    @deferred
    async def submit(self, request: IRequest) -> bytes:
        """Accept a request, and answer with its id, its response, or its events."""
        body = request.content.read()
        self._limit(request, 1, len(body))
        if wants_events(field(request.getHeader, b"accept")):
            acceptance = await self._door.accept(body, request.getHeader, _tenant(request), streams=True)
            history = await self._door.first_events(acceptance)
            streaming = self._stream(request, acceptance.correlation_id, 0, history, acceptance)
            return await self._door.while_connected(acceptance, request.getHeader, streaming)
        return send(request, await self._door.submit(body, request.getHeader, _tenant(request)))

    @app.route(BATCH, methods=["POST"])
    @deferred
    async def batch(self, request: IRequest) -> bytes:
        """Accept many requests."""
        body, tenant = request.content.read(), _tenant(request)
        answer = await submit_batch(
            self._door, body, request.getHeader, lambda count: self._limit(request, count, len(body)), tenant
        )
        return send(request, answer)

    @app.route("/api/v1/status/<correlation_id>", methods=["GET"])
    @deferred
    async def status(self, request: IRequest, correlation_id: str) -> bytes:
        """The status of a request."""
        return send(request, await self._door.status(correlation_id, _tenant(request)))

    @app.route("/api/v1/response/<correlation_id>", methods=["GET"])
    @deferred
    async def response(self, request: IRequest, correlation_id: str) -> bytes:
        """The response of a request."""
        wait, tenant = self._wait(request), _tenant(request)
        return send(request, await self._door.response(correlation_id, wait, request.getHeader, tenant))

    @app.route("/api/v1/response/<correlation_id>/body", methods=["GET"])
    @deferred
    async def body(self, request: IRequest, correlation_id: str) -> bytes:
        """The reply with its own status, header fields and bytes."""
        return send(request, await self._door.body(correlation_id, self._wait(request), _tenant(request)))

    @app.route("/api/v1/cancel/<correlation_id>", methods=["POST"])
    @deferred
    async def cancel(self, request: IRequest, correlation_id: str) -> bytes:
        """Cancel a request."""
        return send(request, await self._door.cancel(correlation_id, _tenant(request)))

    @app.route("/api/v1/complete/<correlation_id>", methods=["POST"])
    @app.route("/api/v1/progress/<correlation_id>", methods=["POST"])
    @deferred
    async def finish(self, request: IRequest, correlation_id: str) -> bytes:
        """End a request that its target finishes later, or report its progress."""
        finish = complete if request.path.startswith(b"/api/v1/complete/") else progress
        return send(request, await finish(self._door, correlation_id, request.content.read(), request.getHeader))

    @app.route("/api/v1/events/<correlation_id>", methods=["GET"])
    @deferred
    async def events(self, request: IRequest, correlation_id: str) -> bytes:
        """The events of a request, live until it ends."""
        after = last_event_id(field(request.getHeader, b"last-event-id"), request.args.get(b"last_event_id", []))
        found = await self._door.events(correlation_id, after, _tenant(request))
        if found is None:
            return send(request, Answer(204))  # on which an EventSource does not reconnect
        return await self._stream(request, correlation_id, *found, None)

    @app.route("/api/v1/ws", methods=["GET"])
    def web_socket(self, request: IRequest) -> bytes:
        """Begin a WebSocket. `WebSockets` does that for each request that asks for one, before it comes here."""
        raise HTTPProblem(
            426, "this path speaks WebSocket alone", ((b"Upgrade", b"websocket"), (b"Connection", b"Upgrade"))
        )

    @app.route(EVENTS, methods=["GET"])
    @deferred
    async def endings(self, request: IRequest) -> bytes:
        """The endings of some requests, of some tags, or of all, live."""
        streams = self._ending_streams
        if streams is None:
            raise HTTPProblem(501, NO_LOG)
        selection = read_selection(request.args, _tenant(request))
        seen = read_last_event_id(field(request.getHeader, b"last-event-id"), request.args)
        beginning = await streams.prepare(selection, seen)
        if beginning is None:
            return send(request, Answer(204))
        return await self._streamed(request, lambda sink: streams.open(selection, beginning, sink))

    @app.route("/api/v1/dead-letters", methods=["GET"])
    @deferred
    async def list_dead_letters(self, request: IRequest) -> bytes:
        """The dead letters that match."""
        letters = self._letters(request)
        return send(request, await letters.page(read_query(request.args)))

    @app.route("/api/v1/dead-letters/<number>", methods=["GET"])
    @deferred
    async def show_dead_letter(self, request: IRequest, number: str) -> bytes:
        """A dead letter, whole."""
        letters = self._letters(request)
        return send(request, await letters.show(number))

    @app.route("/api/v1/dead-letters/redrive", methods=["POST"])
    @deferred
    async def redrive_dead_letters(self, request: IRequest) -> bytes:
        """Redrive those that match."""
        letters = self._letters(request)
        _check_json(request)
        return send(request, await letters.redrive(read_redrive(request.content.read())))

    @app.route("/api/v1/dead-letters/<number>/redrive", methods=["POST"])
    @deferred
    async def redrive_dead_letter(self, request: IRequest, number: str) -> bytes:
        """Redrive a dead letter."""
        letters = self._letters(request)
        _check_json(request)
        return send(request, await letters.redrive_one(number))

    @app.route("/api/v1/dead-letters", methods=["DELETE"])
    @deferred
    async def drop_dead_letters(self, request: IRequest) -> bytes:
        """Drop those that match."""
        letters = self._letters(request)
        return send(request, await letters.drop(read_drop(request.args)))

    @app.route("/api/v1/dead-letters/<number>", methods=["DELETE"])
    @deferred
    async def drop_dead_letter(self, request: IRequest, number: str) -> bytes:
        """Drop a dead letter."""
        letters = self._letters(request)
        return send(request, await letters.drop_one(number))

    @app.route("/hooks/<name>", methods=["POST"])
    @deferred
    async def hook(self, request: Any, name: str) -> bytes:
        """Accept the webhook of a sender whose signature holds."""
        if self._hooks is None:
            raise HTTPProblem(404, "there is no such hook")
        body, fields = request.content.read(), tuple(_fields(request))
        self._limit(request, 1, len(body), self._hooks.tenant(name))
        query = request.uri.partition(b"?")[2]
        return send(request, await self._hooks.accept(name, body, fields, request.connection, query))

    @app.route("/health", methods=["GET"])
    @deferred
    async def health(self, request: IRequest) -> bytes:
        """The health of the service."""
        return send(request, await self._health.overview())

    @app.route("/health/live", methods=["GET"])
    @deferred
    async def live(self, request: IRequest) -> bytes:
        """Whether a restart is not needed."""
        return send(request, await self._health.live())

    @app.route("/health/ready", methods=["GET"])
    @deferred
    async def ready(self, request: IRequest) -> bytes:
        """Whether requests can be accepted."""
        return send(request, await self._health.ready())

    @app.route("/metrics", methods=["GET"])
    @deferred
    async def metrics(self, request: IRequest) -> bytes:
        """Metrics for Prometheus."""
        return send(request, await self._health.metrics())

    @app.route("/openapi.json", methods=["GET"])
    def openapi(self, request: IRequest) -> bytes:
        """The OpenAPI description."""
        return send(request, Answer(200, document(self._own_paths.prefix)))

    @app.handle_errors(HTTPException)
    def unrouted(self, request: IRequest, failure: Failure) -> bytes:
        """Answer a request that no route matches."""
        error: Any = failure.value
        status = error.code if error.code in (404, 405) else 400
        methods = getattr(error, "valid_methods", None)
        fields = ((b"Allow", ", ".join(sorted(methods)).encode()),) if methods else ()
        detail = _NO_PATH.format(self._own_paths.prefix) if status == 404 else error.description
        return send(request, problem(status, detail, instance=instance(request.uri), fields=fields))

    @app.handle_errors(OpenHQMError)
    def refused(self, request: IRequest, failure: Failure) -> bytes:
        """Answer an error of the door, the queue or the store."""
        error: Any = failure.value
        answer = problem_for(error, instance(request.uri))
        if answer.status == 500:
            self._log.failure("unhandled error in a request", failure, path=instance(request.uri))
        return send(request, answer)

    @app.handle_errors(Exception)
    def broken(self, request: IRequest, failure: Failure) -> bytes:
        """Answer 500 for a bug, and log it."""
        if not failure.check(CancelledError):
            self._log.failure("unhandled error in a request", failure, path=instance(request.uri))
        return send(request, problem(500, INTERNAL_ERROR, instance=instance(request.uri)))

    def _wait(self, request: IRequest) -> float | None:
        return query_wait(request.args.get(b"wait", []), self._door.longest_wait)

    def _limit(self, request: Any, count: int, size: int, tenant: str | None = None) -> None:
        """Count so many submissions of the caller, and tell it what is left. `HTTPProblem` 429 where it is too many."""
        if self._limiter is None:
            return
        refusal, told = self._limiter.take(request.caller, request.connection, count, size, tenant, request.admitted)
        if refusal is not None:
            raise refusal.error()
        for name, value in told:
            request.responseHeaders.setRawHeaders(name, [value])

    def _letters(self, request: IRequest) -> DeadLetters:
        """The dead letters, for a program on this host. `HTTPProblem` 404 where they are switched off, and 403."""
        if self._dead_letters is None:
            raise HTTPProblem(404, "the routes for operators are switched off: admin.enabled is false")
        _check_local(request)
        return self._dead_letters

    async def _stream(
        self, request: IRequest, correlation_id: str, after: int, history: list[Event], acceptance: Acceptance | None
    ) -> bytes:
        accepted = b""
        if acceptance is not None:
            for name, value in without_retry(acceptance_fields(acceptance)):
                request.responseHeaders.setRawHeaders(name, [value])
            accepted = b"event: accepted\ndata: %b\n\n" % acceptance_document(acceptance, self._door.ahead())

        def begin(sink: WebStreamSink) -> EventStream:
            if accepted:
                sink.write(accepted)
            return self._streams.open(correlation_id, after, history, sink, _tenant(request))

        return await self._streamed(request, begin)

    async def _streamed(self, request: IRequest, begin: Callable[[WebStreamSink], EventStream | EndingStream]) -> bytes:
        """Send the head of a stream, and what ``begin`` opens, to its end."""
        headers = request.responseHeaders
        request.setResponseCode(200)
        for name, value in ((b"Server", SERVER), *STREAM_FIELDS):
            headers.setRawHeaders(name, [value])
        if request.method == b"HEAD":
            return b""
        finished: Deferred[bytes] = Deferred()
        stream = begin(WebStreamSink(request, finished))
        try:
            return await finished
        finally:
            stream.lost()


def _check_json(request: Any) -> None:
    """`HTTPProblem` 415 for other content. A page of another origin can send only that unasked (Fetch standard)."""
    check_json_type(field(request.getHeader, b"content-type"))
    check_encoding(field(request.getHeader, b"content-encoding"))


def _check_local(request: Any) -> None:
    """`HTTPProblem` 403 unless a program on this host has sent ``request``."""
    reason = why_not_local(request.getClientAddress(), request.clientproto, _fields(request))
    if reason is not None:
        raise HTTPProblem(403, reason)


def _tenant(request: Any) -> str | None:
    """On whose behalf the caller asks; None: callers need no key."""
    return None if request.caller is None else request.caller.tenant


def _fields(request: Any) -> list[tuple[bytes, bytes]]:
    """The header fields of a request, with names in lower case."""
    return [(name.lower(), value) for name, values in request.requestHeaders.getAllRawHeaders() for value in values]

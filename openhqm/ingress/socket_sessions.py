# -*- test-case-name: tests.ingress.test_web_sockets -*-
"""What is said over a WebSocket: a caller submits, and listens to requests by their ids or tags, on one connection.

Each message is a JSON object. What a subscription tells are the events of the streams at ``/api/v1/events``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec
from twisted.logger import Logger

from openhqm.delivery.documents import acceptance_document
from openhqm.delivery.ending_streams import EndingStreams
from openhqm.delivery.selection import MOST_IDS, Selection
from openhqm.delivery.streams import EventStreams
from openhqm.errors import InvalidRequest, OpenHQMError
from openhqm.http1.messages import Answer
from openhqm.http1.web_socket import WebSocket
from openhqm.ingress.answers import INTERNAL_ERROR, HTTPProblem, problem, problem_for
from openhqm.ingress.door import Door
from openhqm.ingress.preferences import last_event_id
from openhqm.ingress.socket_events import SocketSink, message
from openhqm.ingress.stream_query import NO_LOG
from openhqm.policy.api_keys import Caller, Role
from openhqm.policy.tags import MOST_TAG_CHARACTERS, MOST_TAGS, is_tag
from openhqm.runtime.deferreds import deferred

SOCKET = "/api/v1/ws"
MOST_SUBSCRIPTIONS = 100
MOST_UNDER_WAY = 100
"""So many messages of one client may be without an answer."""
MOST_UNANSWERED = 4
"""A client that was asked so often whether it is there, and has sent nothing since, is gone."""
MOST_REF = 128
GOING_AWAY, POLICY_VIOLATION = 1001, 1008  # RFC 6455, section 7.4.1
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
Ref = str | int


class _Command(msgspec.Struct, forbid_unknown_fields=True):
    ref: Ref | None = None
    subscribe: list[str] | None = None
    last_event_id: str = ""
    unsubscribe: Ref | None = None
    submit: msgspec.Raw = msgspec.Raw()
    idempotency_key: str | None = None


_decode = msgspec.json.Decoder(_Command).decode
_ONE = "must be one of subscribe, unsubscribe and submit"


class Calls(Protocol):
    """What the sessions of a process share."""

    door: Door
    streams: EventStreams
    ending_streams: EndingStreams | None

    def ended(self, session: SocketSession) -> object:
        """A session is over."""


class SocketSession:
    """One client. ``admit`` is asked for each message who it is; its refusal is the answer."""

    _log = Logger()

    def __init__(
        self,
        calls: Calls,
        socket: WebSocket,
        admit: Callable[[Role], Caller | None],
        limit: Callable[[Caller | None, int], object],
    ) -> None:
        self._calls = calls
        self._socket = socket
        self._admit = admit
        self._limit = limit
        self._open: dict[Ref, set[SocketSink]] = {}
        self._under_way = 0
        self._paused = self._over = False

    # From the client

    def message(self, text: str) -> None:
        """See `Session`."""
        ref: Ref | None = None
        try:
            command = _read(text)
            ref = command.ref
            if self._under_way >= MOST_UNDER_WAY:
                raise HTTPProblem(429, f"{MOST_UNDER_WAY} messages have no answer yet: wait for some")
        except OpenHQMError as error:
            self._tell(ref, problem=_problem(error))
            return
        self._under_way += 1
        self._obey(command)

    @deferred
    async def _obey(self, command: _Command) -> None:
        try:
            if bytes(command.submit):
                await self._submit(command, bytes(command.submit))
            elif command.subscribe is not None:
                await self._subscribe(command, command.subscribe)
            else:
                self._unsubscribe(command)
        except OpenHQMError as error:
            self._tell(command.ref, problem=_problem(error))
        except Exception:  # a bug of ours
            self._log.failure("unhandled error in a message of a WebSocket")
            self._tell(command.ref, problem=problem(500, INTERNAL_ERROR, instance=SOCKET))
        finally:
            self._under_way -= 1

    async def _submit(self, command: _Command, body: bytes) -> None:
        caller = self._admit(Role.SUBMIT)
        self._limit(caller, len(body))
        key = command.idempotency_key
        fields = {b"content-type": b"application/json"}
        if key is not None:
            fields[b"idempotency-key"] = key.encode()
        acceptance = await self._calls.door.accept(body, fields.get, _tenant(caller))
        self._tell(command.ref, accepted=acceptance_document(acceptance, self._calls.door.ahead()))

    async def _subscribe(self, command: _Command, wanted: Sequence[str]) -> None:
        caller = self._admit(Role.READ)
        ref = command.ref
        if ref is None:
            raise InvalidRequest("ref", "is missing: the events of a subscription name it")
        if ref in self._open:
            raise InvalidRequest("ref", "names another subscription of this connection")
        if len(self._open) >= MOST_SUBSCRIPTIONS:
            raise InvalidRequest("subscribe", f"a connection has at most {MOST_SUBSCRIPTIONS} subscriptions")
        selection = _selection(wanted, _tenant(caller))
        sinks = self._open[ref] = set()
        try:
            if selection.ids:
                await self._listen(ref, sinks, selection, command.last_event_id)
            else:
                await self._listen_to_endings(ref, sinks, selection, command.last_event_id)
        except BaseException:
            if self._open.get(ref) is sinks:
                self._close(ref)
            raise

    async def _listen(self, ref: Ref, sinks: set[SocketSink], selection: Selection, seen: str) -> None:
        """To all events of each of some requests."""
        if seen and len(selection.ids) > 1:
            raise InvalidRequest("last_event_id", "is that of one request: subscribe to each by itself")
        after = last_event_id(seen or None, [])
        found = [(id, await self._calls.door.events(id, after, selection.tenant)) for id in selection.ids]
        self._calls.door.streams.check(selection.tenant, sum(events is not None for _, events in found))
        self._tell(ref, subscribed=msgspec.json.encode(list(selection.ids)))
        for id, events in found:
            if events is not None and self._listens(ref, sinks):
                sink = self._sink(ref, sinks)
                sink.stream = self._calls.streams.open(id, *events, sink, selection.tenant)
        self._end_if_done(ref, sinks)

    async def _listen_to_endings(self, ref: Ref, sinks: set[SocketSink], selection: Selection, seen: str) -> None:
        streams = self._calls.ending_streams
        if streams is None:
            raise InvalidRequest("subscribe", NO_LOG)
        beginning = await streams.prepare(selection, seen)
        self._tell(ref, subscribed=msgspec.json.encode(list(selection.tags)))
        if beginning is not None and self._listens(ref, sinks):
            sink = self._sink(ref, sinks)
            sink.stream = streams.open(selection, beginning, sink)
        self._end_if_done(ref, sinks)

    def _listens(self, ref: Ref, sinks: set[SocketSink]) -> bool:
        """Whether the client still listens: it may have gone, or have unsubscribed."""
        return not self._over and self._open.get(ref) is sinks

    def _sink(self, ref: Ref, sinks: set[SocketSink]) -> SocketSink:
        def finished(sink: SocketSink) -> None:
            sinks.discard(sink)
            self._end_if_done(ref, sinks)

        sink = SocketSink(ref, self._socket.send, finished)
        sink.paused = self._paused
        sinks.add(sink)
        return sink

    def _end_if_done(self, ref: Ref, sinks: set[SocketSink]) -> None:
        if not sinks and self._listens(ref, sinks):
            del self._open[ref]
            self._tell(ref, ended=b"true")

    def _unsubscribe(self, command: _Command) -> None:
        wanted = command.unsubscribe
        if wanted is None or wanted not in self._open:
            raise InvalidRequest("unsubscribe", "names no subscription of this connection")
        self._close(wanted)
        self._tell(command.ref, unsubscribed=msgspec.json.encode(wanted))

    def _close(self, ref: Ref) -> None:
        for sink in self._open.pop(ref):
            sink.leave()

    def _tell(self, ref: Ref | None, **what: bytes | Answer) -> None:
        for name, value in what.items():
            self._socket.send(message(ref, name, value.body if isinstance(value, Answer) else value))

    # From the connection, and the process

    def paused(self) -> None:
        """See `Session`."""
        self._paused = True
        for sink in self._sinks():
            sink.pause()

    def resumed(self) -> None:
        """See `Session`."""
        self._paused = False
        for sink in self._sinks():
            sink.resume()

    def ended(self) -> None:
        """See `Session`."""
        if not self._over:
            self._over = True
            for ref in list(self._open):
                self._close(ref)
            self._calls.ended(self)

    def _sinks(self) -> list[SocketSink]:
        return [sink for sinks in self._open.values() for sink in sinks]

    def keep_alive(self) -> None:
        """Ask whether the client is there, and whether it may still be."""
        try:
            self._admit(Role.READ)
        except HTTPProblem:
            self._socket.close(POLICY_VIOLATION, "the credential is no longer good")
            return
        if self._socket.ping() > MOST_UNANSWERED:
            self._socket.close(GOING_AWAY, "no answer to a ping")

    def stop(self) -> None:
        """The process stops."""
        self._socket.close(GOING_AWAY, "the process stops: connect again")


def _read(text: str) -> _Command:
    try:
        command = _decode(text)
    except msgspec.DecodeError as error:
        raise InvalidRequest("message", str(error)) from None
    if (command.subscribe is not None) + (command.unsubscribe is not None) + bool(bytes(command.submit)) != 1:
        raise InvalidRequest("message", _ONE)
    if isinstance(command.ref, str) and len(command.ref) > MOST_REF:
        command.ref = None
        raise InvalidRequest("ref", f"must have at most {MOST_REF} characters")
    return command


def _selection(wanted: Sequence[str], tenant: str | None) -> Selection:
    """What is listened to: requests where all are ids, else tags; all requests where there are none."""
    ids = [each.lower() for each in wanted if _UUID.fullmatch(each) is not None]
    if ids and len(ids) != len(wanted):
        raise InvalidRequest("subscribe", "must be ids or tags, not both: subscribe to each by itself")
    if len(ids) > MOST_IDS:
        raise InvalidRequest("subscribe", f"must be at most {MOST_IDS} ids")
    if ids:
        return Selection(ids=tuple(dict.fromkeys(ids)), tenant=tenant)
    if len(wanted) > MOST_TAGS or not all(map(is_tag, wanted)):
        raise InvalidRequest("subscribe", f"must be at most {MOST_TAGS} tags of 1 to {MOST_TAG_CHARACTERS} characters")
    return Selection(tags=tuple(dict.fromkeys(wanted)), tenant=tenant)


def _tenant(caller: Caller | None) -> str | None:
    return None if caller is None else caller.tenant


def _problem(error: OpenHQMError) -> Answer:
    return problem_for(error, SOCKET)

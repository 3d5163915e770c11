# -*- test-case-name: tests.ingress.test_sidecar -*-
"""In front of an application: what is not the gateway's own goes straight through to it, or waits in the queue."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from openhqm.http1.messages import Answer, FastPath, Message, Streaming
from openhqm.http1.pass_through import RequestSink
from openhqm.http1.rules import Head
from openhqm.http1.upstreams import Upstreams
from openhqm.ingress.fast_path import served
from openhqm.ingress.pass_through import PassThrough, Refusing
from openhqm.ingress.preferences import MOST_PREFER, prefer_wait, prefers_async
from openhqm.policy.sidecar_rules import Queued, Rule, decide, is_own

Queueing = Callable[[Message, float | None], Coroutine[Any, Any, Answer | Streaming]]
"""Takes a request that is to wait in the queue, and for how many seconds its caller waits (None: a 202 at once). It
answers, or raises what the door raises."""


class Sidecar:
    """Decides where a request goes, by its head alone. Two hooks of the HTTP front are its doors.

    ``name`` is how this process calls itself in ``Via``: no other may have it, for it tells a request that comes
    around again. ``queue`` is None where nothing waits: then every request goes straight through.
    """

    def __init__(
        self,
        upstreams: Upstreams,
        *,
        name: bytes,
        rules: Sequence[Rule] = (),
        queue: Queueing | None = None,
        timeout: float = 300.0,
        longest_wait: float = 60.0,
        trusts: Callable[[str | None], bool] = lambda peer: False,
    ) -> None:
        self.upstreams = upstreams
        self.name = name
        self.timeout = timeout
        self.trusts = trusts
        self._rules = rules
        self._queue = queue
        self._longest_wait = longest_wait

    def passage(self, head: Head) -> RequestSink | None:
        """The front's ``passage``: takes what goes straight through. The rest is collected, and comes by the lane."""
        path = head.target.partition(b"?")[0]
        if is_own(path):
            return None
        if _wants_websocket(head):
            return Refusing(501, "WebSocket is not passed through here: connect to the application itself", head)
        if any(name == b"via" and self.name in value for name, value in head.headers):
            return Refusing(508, "the request has been here before: the upstream leads back to this gateway", head)
        if self._decide(head, path) is not None:
            return None
        return PassThrough(self, head)

    def lane(self, inner: FastPath) -> FastPath:
        """The front's short lane: ``inner`` for the gateway's own paths, and the queue for what waits in it."""

        def lane(message: Message) -> Coroutine[Any, Any, Answer | Streaming] | None:
            head = message.head
            path = head.target.partition(b"?")[0]
            if is_own(path):
                return inner(message)
            decision = self._decide(head, path)
            if decision is None or self._queue is None:
                return inner(message)
            asked = prefer_wait(_prefer(head), self._longest_wait)
            wait = asked if asked is not None else decision.wait
            return served(self._queue(message, wait), head.target)

        return lane

    def stop(self) -> None:
        """Hang up on the application; what is still under way is cut off."""
        self.upstreams.stop()

    def _decide(self, head: Head, path: bytes) -> Queued | None:
        if self._queue is None:
            return None
        return decide(self._rules, head.method, path, head.headers, prefers_async(_prefer(head)))


def _prefer(head: Head) -> str | None:
    """All that the client prefers, in one line (RFC 7240, section 2)."""
    values = [value for name, value in head.headers if name == b"prefer"]
    return b", ".join(values).decode("latin-1")[: MOST_PREFER + 1] if values else None


def _wants_websocket(head: Head) -> bool:
    """RFC 6455, section 4.1. Any other upgrade is ignored (RFC 9110, section 7.8): the client goes on without."""
    return any(name == b"upgrade" and b"websocket" in value.lower() for name, value in head.headers)

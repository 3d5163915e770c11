# -*- test-case-name: tests.ingress.test_sidecar -*-
"""The sidecar in front of an application: it queues some requests, and passes the others through."""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from prometheus_client import CollectorRegistry

from openhqm.config.model import Settings
from openhqm.http1.messages import Answer, FastPath, FullRequest, StreamedAnswer
from openhqm.http1.pass_through import RequestSink
from openhqm.http1.rules import Head, IsOwn
from openhqm.http1.upstream_pool import UpstreamPool, endpoint_for
from openhqm.ingress.door import Door
from openhqm.ingress.fast_path import served
from openhqm.ingress.metrics import StraightMetrics
from openhqm.ingress.pass_through import PassThrough, RefusalSink
from openhqm.ingress.preferences import MOST_PREFER, prefer_wait, prefers_async
from openhqm.ingress.proxied import Proxied
from openhqm.policy.proxying import NO_PROXIES, TrustedProxies
from openhqm.policy.sidecar_rules import Queued, Rule, decide

WEBSOCKET = b"websocket"
Queueing = Callable[[FullRequest, float | None], Coroutine[Any, Any, Answer | StreamedAnswer]]
"""Queues a request. The number is how many seconds its caller waits for the answer; None: a 202 at once.

It raises the errors of the door.
"""


class Sidecar:
    """Decides by the head alone where a request goes. `select_sink` and `fast_path` are hooks of the HTTP server.

    ``name`` is the name of this process in ``Via``. It must be unique, because a request that has it already is a loop.
    ``queue`` is None where no request is queued: then all are passed through. ``timeout`` is that of the application,
    and ``longest_wait`` that of a long poll, in seconds. ``trusts`` says whether the forwarding fields of a peer are
    kept. ``is_own`` says which paths are not the application's. ``metrics`` counts what is passed through.
    """

    def __init__(
        self,
        upstreams: UpstreamPool,
        *,
        name: bytes,
        is_own: IsOwn,
        rules: Sequence[Rule] = (),
        queue: Queueing | None = None,
        timeout: float = 300.0,
        longest_wait: float = 60.0,
        trusts: Callable[[str | None], bool] = NO_PROXIES,
        metrics: StraightMetrics | None = None,
    ) -> None:
        self.upstreams = upstreams
        self.name = name
        self.timeout = timeout
        self.trusts = trusts
        self.is_own = is_own
        self.metrics = metrics
        self._rules = rules
        self._queue = queue
        self._longest_wait = longest_wait

    def select_sink(self, head: Head) -> RequestSink | None:
        """The sink of a request that is passed through or refused. None: it is read whole, and given to `fast_path`."""
        path = head.target.partition(b"?")[0]
        if self.is_own(path):
            return None
        if any(name == b"via" and self.name in value for name, value in head.headers):
            return RefusalSink(508, "loop detected: the upstream of this gateway leads back to it", head)
        if _wants_websocket(head):
            return PassThrough(self, head, WEBSOCKET)
        if self._decide(head, path) is not None:
            return None
        return PassThrough(self, head)

    def fast_path(self, inner: FastPath) -> FastPath:
        """A fast path that queues the requests which the rules say, and gives all others to ``inner``."""

        def path(message: FullRequest) -> Coroutine[Any, Any, Answer | StreamedAnswer] | None:
            head = message.head
            path = head.target.partition(b"?")[0]
            if self.is_own(path):
                return inner(message)
            decision = self._decide(head, path)
            if decision is None or self._queue is None:
                return inner(message)
            asked = prefer_wait(_prefer(head), self._longest_wait)
            wait = asked if asked is not None else decision.wait
            return served(self._queue(message, wait), head.target)

        return path

    def stop(self) -> None:
        """Close the connections to the application, and cut off the requests that are under way."""
        self.upstreams.stop()

    def _decide(self, head: Head, path: bytes) -> Queued | None:
        if self._queue is None:
            return None
        return decide(self._rules, head.method, path, head.headers, prefers_async(_prefer(head)))


def make_sidecar(
    settings: Settings, reactor: Any, door: Door, is_own: IsOwn, registry: CollectorRegistry
) -> Sidecar | None:
    """What ``proxy.sidecar`` asks for; None: there is no application behind this process."""
    config = settings.proxy.sidecar
    if not config.enabled:
        return None
    name = b"openhqm-%b" % os.urandom(4).hex().encode()
    trusts = TrustedProxies(settings.server.trusted_proxies)
    return Sidecar(
        UpstreamPool(endpoint_for(config.upstream or "", reactor), reactor),
        name=name,
        rules=[each.rule for each in config.async_rules],
        queue=Proxied(door, name, trusts),
        timeout=config.timeout,
        longest_wait=settings.server.max_wait_seconds,
        trusts=trusts,
        is_own=is_own,
        metrics=StraightMetrics(registry, reactor),
    )


def _prefer(head: Head) -> str | None:
    """All preferences of the client in one line (RFC 7240, section 2)."""
    values = [value for name, value in head.headers if name == b"prefer"]
    return b", ".join(values).decode("latin-1")[: MOST_PREFER + 1] if values else None


def _wants_websocket(head: Head) -> bool:
    """Whether the client asks for WebSocket as RFC 6455 has it in section 4.1.

    Other upgrades are ignored (RFC 9110, section 7.8): the requests of HTTP/2, for example, would pass unseen.
    """
    if head.method != b"GET" or head.version != b"HTTP/1.1" or head.length != 0:
        return False
    asked = {b"upgrade": set[bytes](), b"connection": set[bytes]()}
    for name, value in head.headers:
        if name in asked:
            asked[name].update(token.strip().lower() for token in value.split(b","))
    return asked[b"upgrade"] == {WEBSOCKET} and b"upgrade" in asked[b"connection"]

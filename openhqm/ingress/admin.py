# -*- test-case-name: tests.ingress.test_admin -*-
"""The listener for operators, in every role: health, metrics, and how much work waits, for autoscalers."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

import msgspec
from twisted.internet.interfaces import IListeningPort
from twisted.web.resource import Resource

from openhqm.config.model import Admin, Settings
from openhqm.http1.messages import Answer, FullRequest
from openhqm.http1.site import HTTP1Site
from openhqm.ingress.answers import HTTPProblem, problem
from openhqm.ingress.fast_path import instance, refused, served
from openhqm.ingress.health import Health
from openhqm.ingress.securing import with_tls
from openhqm.interfaces import IMessageQueue
from openhqm.messages import Depth
from openhqm.policy.addressing import Addressing
from openhqm.policy.queue_names import queue_name, share_of
from openhqm.runtime.deferreds import deferred
from openhqm.runtime.listening import listen, stop_listening

SCALER = b"/admin/api/v1/scaler/"
OPEN = (b"/health/live", b"/health/ready")
"""Paths without a key: those who probe have none."""
MOST_BODY = 64 * 1024
_UNAUTHORIZED = problem(
    401, "this needs admin.key: Authorization: Bearer ...", fields=((b"WWW-Authenticate", b'Bearer realm="openhqm"'),)
)
ScaledQueues = Mapping[str, Sequence[str]]
"""The queues that workers are scaled by, each with the names of its partitions."""


def scaled_queues(settings: Settings, addressing: Addressing, *, shares: bool = True) -> ScaledQueues:
    """The queue of each endpoint, and that of the handlers. ``shares``: with the queues of tenants beside it."""
    found: dict[str, list[str]] = {}
    for in_name, _, partition in addressing.lanes():
        base = queue_name(settings.queue.request_queue, in_name, None)
        name = queue_name(settings.queue.request_queue, in_name, partition)
        beside = addressing.shares if shares and partition is None else ()
        found.setdefault(base, []).extend([name, *(share_of(name, each) for each in beside)])
    return found


class AdminListener:
    """Answers at ``admin.host`` and ``admin.port``; with ``admin.port`` null it does not listen."""

    def __init__(
        self, admin: Admin, reactor: Any, health: Health, queue: IMessageQueue, queues: Callable[[], ScaledQueues]
    ) -> None:
        self._admin = admin
        self._reactor = reactor
        self._health = health
        self._queue = queue
        self._queues = queues
        self._site = HTTP1Site(Resource(), reactor, self._serve, refused, MOST_BODY)
        self._factory = with_tls(admin.tls, "admin.tls", self._site, reactor)
        self._ports: list[IListeningPort] = []

    @deferred
    async def start(self) -> None:
        """Listen. `CannotStart` where that cannot be done."""
        if self._admin.enabled and self._admin.port is not None:
            self._ports = await listen(self._reactor, self._factory, self._admin.host, self._admin.port, [])

    @deferred
    async def stop(self) -> None:
        """Listen no more, and close what is open."""
        for port in self._ports:
            await stop_listening(self._reactor, port)
        self._site.stop()

    def _serve(self, message: FullRequest) -> Coroutine[Any, Any, Any]:
        return served(self.answer(message), message.head.target)

    async def answer(self, message: FullRequest) -> Answer:
        """The answer to a request."""
        path, target = message.head.target.partition(b"?")[0], message.head.target
        if path not in OPEN and not self._may(message.field(b"authorization")):
            return _UNAUTHORIZED
        routes: Mapping[bytes, Callable[[], Any]] = {
            b"/health": self._health.overview,
            b"/health/live": self._health.live,
            b"/health/ready": self._health.ready,
            b"/metrics": self._health.metrics,
        }
        if path not in routes and not path.startswith(SCALER):
            return problem(
                404, "no such path here: /health, /metrics, /admin/api/v1/scaler/QUEUE", instance=instance(target)
            )
        if message.head.method not in (b"GET", b"HEAD"):
            return problem(405, "only GET is for this path", fields=((b"Allow", b"GET, HEAD"),))
        if path in routes:
            found: Answer = await routes[path]()
            return found
        return await self._scaler(path.removeprefix(SCALER).decode("utf-8", "replace"))

    async def _scaler(self, name: str) -> Answer:
        """How much there is to do in a queue and its partitions now. What is scheduled for later is left out."""
        queues = self._queues()
        if name not in queues:
            raise HTTPProblem(404, f"no workers are for a queue {name[:80]!r}; there are {', '.join(queues)}"[:1000])
        depths: list[Depth] = [await self._queue.depth(each) for each in queues[name]]
        oldest = [each.oldest for each in depths if each.oldest is not None]
        age = max(0.0, self._reactor.seconds() - min(oldest)) if oldest else 0.0
        document = {
            "backlog": sum(each.ready for each in depths),
            "in_flight": sum(each.in_flight for each in depths),
            "oldest_age_seconds": round(age, 3) if oldest or self._queue.traits.tells_oldest else None,
        }
        return Answer(200, msgspec.json.encode(document))

    def _may(self, authorization: bytes | None) -> bool:
        key = self._admin.key
        if key is None:
            return True
        scheme, _, said = (authorization or b"").partition(b" ")
        return hmac.compare_digest(said.strip(), key.encode()) and scheme.lower() == b"bearer"

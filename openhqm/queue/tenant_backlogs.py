# -*- test-case-name: tests.queue.test_tenant_backlogs -*-
"""How much of each tenant waits, and how much may (`tenants[].limits.queued`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import attrs
from msgspec.structs import replace
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from openhqm.config.model import Settings
from openhqm.config.tenants import queued_of
from openhqm.errors import NotDurable, QueueFull, TooMuchQueued
from openhqm.interfaces import IMessageQueue
from openhqm.messages import Acceptance, Child, IdempotencyClaim, Submission
from openhqm.policy.addressing import Addressing
from openhqm.policy.queue_names import priority_of, share_of
from openhqm.queue.backlogs import LOOK_SECONDS, STALE_SECONDS, Backlogs, Look
from openhqm.queue.shedding import Accepts
from openhqm.runtime.deferreds import deferred

Name = str | None


@attrs.define(eq=False)
class Room:
    """How many requests of ``name`` may wait, and what is known of those that do; ``looks`` is that of each queue."""

    name: Name
    limit: int
    looks: Sequence[Look] = ()
    version: object = attrs.field(factory=object)


class TenantBacklogs:
    """Accepts into ``inner`` what is within the limit of its tenant.

    ``limits`` has each tenant with a share, and None for all others together: the most requests of it that may wait for
    their first attempt; None: any number. ``queues`` returns the queues that these shares are beside, the same ones as
    long as ``version`` returns the same object. What waits in a partition waits in none of them, and does not count.

    A repeat is answered all the same, and a follow-up is never kept out. How much waits is known from a second ago, and
    counted on by what this process has accepted since.
    """

    def __init__(
        self,
        queue: IMessageQueue,
        inner: Accepts,
        clock: IReactorTime,
        queues: Callable[[], Sequence[str]],
        limits: Mapping[Name, int | None],
        version: Callable[[], object] = lambda: None,
    ) -> None:
        self._queue = queue
        self._version = version
        self._inner = inner
        self._clock = clock
        self._queues = queues
        self._limits = limits
        self._backlogs = Backlogs(queue, clock)
        rooms = {name: None if limit is None else Room(name, limit) for name, limit in limits.items()}
        self._others, self._rooms = rooms.pop(None, None), rooms
        self.accept = self._accept_within if self._others or any(rooms.values()) else inner.accept

    def _accept_within(
        self,
        submission: Submission,
        claim: IdempotencyClaim | None,
        follow_ups: Sequence[Submission] = (),
        children: Sequence[Child] = (),
    ) -> Deferred[Acceptance]:
        tenant = submission.tenant
        room = None if tenant is None else self._rooms.get(tenant, self._others)
        if room is None:
            return self._inner.accept(submission, claim, follow_ups, children)
        version, now, waiting = self._version(), self._clock.seconds(), 0
        if version is not room.version:
            room.looks = [self._backlogs.of(share_of(queue, room.name)) for queue in self._queues()]
            room.version = version
        for look in room.looks:
            if now - look.asked_at >= LOOK_SECONDS:
                self._backlogs.refresh(look, now)
            if now - look.at <= STALE_SECONDS:
                waiting += look.waiting
        if waiting < room.limit:
            room.looks[0].accept(priority_of(submission))  # wherever it will wait: all are asked again together
            return self._inner.accept(submission, claim, follow_ups, children)
        if claim is None:
            return fail(TooMuchQueued(room.limit))
        repeated = self._inner.accept(submission, replace(claim, repeats_only=True), follow_ups, children)
        return repeated.addErrback(_not_repeated, room.limit)

    @deferred
    async def read(self) -> Mapping[str, Mapping[str, int | None]]:
        """How much of each waits now, and may; ``*``: of all that have no share. `NotDurable`."""
        found = {}
        for name, limit in self._limits.items():
            count = 0
            for queue in self._queues():
                waiting = await self._queue.waiting(share_of(queue, name))
                count += sum(each.count for each in waiting.values())
            found[name or "*"] = {"queued": count, "limit": limit}
        return found


def _not_repeated(failure: Failure, limit: int) -> Failure:
    failure.trap(QueueFull)
    return Failure(TooMuchQueued(limit))


async def described(backlogs: TenantBacklogs | None) -> Mapping[str, object]:
    """What `/health` says of tenants; nothing where it is not known."""
    if backlogs is None:
        return {}
    try:
        return {"tenants": await backlogs.read()}
    except NotDurable:
        return {}


def make_tenant_backlogs(
    settings: Settings,
    queue: IMessageQueue,
    inner: Accepts,
    clock: IReactorTime,
    addressing: Callable[[], Addressing],
) -> TenantBacklogs | None:
    """What ``settings`` ask for. None: there are no rows, or the queue does not tell whose requests wait."""
    if not settings.tenants or not queue.traits.tells_shares:
        return None
    requests = settings.queue.request_queue
    limits = queued_of(settings.tenants)
    queues = lambda: addressing().shared_queues(requests)  # noqa: E731
    return TenantBacklogs(queue, inner, clock, queues, limits, addressing)

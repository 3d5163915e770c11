# -*- test-case-name: tests.queue.test_tenant_backlogs -*-
"""How much of each tenant waits, and how much may (`tenants[].limits.queued`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

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
from openhqm.queue.backlogs import Backlogs, Look
from openhqm.queue.shedding import Accepts
from openhqm.runtime.deferreds import deferred

Name = str | None


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
        self._looks: dict[Name, list[Look]] = {}
        self._looks_for: object = None
        self._inner = inner
        self._clock = clock
        self._queues = queues
        self._limits = limits
        self._backlogs = Backlogs(queue, clock)
        limited = any(limit is not None for limit in limits.values())
        self.accept = self._accept_within if limited else inner.accept

    def _accept_within(
        self,
        submission: Submission,
        claim: IdempotencyClaim | None,
        follow_ups: Sequence[Submission] = (),
        children: Sequence[Child] = (),
    ) -> Deferred[Acceptance]:
        name = submission.tenant if submission.tenant in self._limits else None
        limit = self._limits.get(name)
        if submission.tenant is None or limit is None:
            return self._inner.accept(submission, claim, follow_ups, children)
        now = self._clock.seconds()
        looks = self._looks_of(name)
        waiting = 0
        for look in looks:
            self._backlogs.refresh(look, now)
            if look.is_known(now):
                waiting += look.waiting
        if waiting < limit:
            looks[0].accept(priority_of(submission))  # wherever it will wait: all are asked again together
            return self._inner.accept(submission, claim, follow_ups, children)
        if claim is None:
            return fail(TooMuchQueued(limit))
        repeated = self._inner.accept(submission, replace(claim, repeats_only=True), follow_ups, children)
        return repeated.addErrback(_not_repeated, limit)

    def _looks_of(self, name: Name) -> list[Look]:
        """What is known of each queue of ``name``, found once for each list of queues."""
        version = self._version()
        if version is not self._looks_for:
            self._looks, self._looks_for = {}, version
        looks = self._looks.get(name)
        if looks is None:
            looks = self._looks[name] = [self._backlogs.of(share_of(queue, name)) for queue in self._queues()]
        return looks

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

# -*- test-case-name: tests.delivery.test_tenant_records -*-
"""Finds a record on behalf of a tenant, for whom those of all others do not exist, also by the time that it takes.

An id that was never given out is known by its digits, without a look into the store; one of another tenant is not. So
both wait until the same time has passed since they were asked for, and both for a look into the store, which may take
longer than that.
"""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from openhqm.errors import ExpiredRequest, UnknownRequest
from openhqm.interfaces import IResultStore
from openhqm.messages import Record

UNKNOWN_SECONDS = 0.01
"""How long it takes to say that there is no such request, unless the store takes longer."""


class TenantRecords:
    """The records in ``store``, for one tenant each time."""

    def __init__(self, store: IResultStore, clock: IReactorTime) -> None:
        self._store = store
        self._clock = clock
        self._known: str | None = None
        """The id of a request that there is, or was: of the last one that was found."""

    async def find(self, correlation_id: str, tenant: str) -> Record:
        """The record. `NotDurable`; `UnknownRequest`, also where it is of another tenant, and where it has expired: it
        is not known any more whose it was.
        """
        began = self._clock.seconds()
        try:
            record = await self._store.find(correlation_id)
            self._known = record.correlation_id
            if record.tenant == tenant:
                return record
        except ExpiredRequest:
            pass
        except UnknownRequest:
            await self._look()
        rest = began + UNKNOWN_SECONDS - self._clock.seconds()
        if rest > 0:
            await deferLater(self._clock, rest, lambda: None)  # type: ignore[arg-type]
        raise UnknownRequest(correlation_id)

    async def _look(self) -> None:
        """What a look takes that finds a request of another tenant."""
        if self._known is not None:
            try:
                await self._store.find(self._known)
            except (ExpiredRequest, UnknownRequest):
                self._known = None

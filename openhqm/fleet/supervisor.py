# -*- test-case-name: tests.fleet.test_parts,tests.fleet.test_fleet -*-
"""The supervisor: it keeps one process in each slot, and starts another where one dies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
from twisted.internet.defer import DeferredList
from twisted.logger import Logger

from openhqm.fleet.child import Child
from openhqm.fleet.fleet_metrics import FleetMetrics
from openhqm.fleet.inheritance import Source
from openhqm.fleet.protocol import FleetStatus, ProcessStatus, StatusRequest
from openhqm.policy.retry import RetryPolicy
from openhqm.runtime.deferreds import deferred

START_SECONDS = 60.0
EARLY_EXIT_SECONDS = 10.0
BACK_OFF = RetryPolicy(base_seconds=0.5, factor=2.0, max_seconds=30.0, jitter=0.2)
"""The pauses before the next process in a slot where one after the other ends within `EARLY_EXIT_SECONDS`."""


@attrs.define(eq=False)
class Slot:
    """Room for one process. ``restart`` is the delayed call that will start the next process, or None."""

    child: Child | None = None
    early_exits: int = 0
    restart: Any = None


class Supervisor:
    """The processes of the fleet.

    ``source`` is the configuration of processes that replace dead ones. ``spawn`` starts a process; it raises OSError
    where the system cannot. ``random`` returns numbers in [0, 1) for the jitter of the pauses.
    """

    _log = Logger()

    def __init__(
        self, source: Source, clock: Any, random: Callable[[], float], spawn: Callable[[Child, Source], object]
    ) -> None:
        self.source = source
        self.slots: list[Slot] = []
        self.running: set[Child] = set()
        self._clock = clock
        self._random = random
        self._spawn = spawn
        self._closed = False
        self._metrics = FleetMetrics(lambda: self.running)

    def new_child(self, source: Source) -> Child:
        """Start a process that is in no slot: it is not replaced when it ends."""
        child = Child(self._clock, source.settings.server.drain_seconds, self._status, self._ended)
        self._spawn(child, source)
        self.running.add(child)
        return child

    @deferred
    async def fill(self, slot: Slot) -> bool:
        """Start a process under `source` in ``slot``. Fires with whether it serves."""
        slot.restart = None
        try:
            slot.child = child = self.new_child(self.source)
        except OSError as error:  # no memory, or the limit of processes is reached
            self._log.error("a process cannot be started: {error}", error=error)
            self._restart_later(slot)
            return False
        if await child.wait_for_report(START_SECONDS) and await child.serve(START_SECONDS):
            return True
        if not child.exited and not child.leaving:
            self._log.error(
                "process {pid} did not begin to serve within {seconds:g} s, and is killed",
                pid=child.pid,
                seconds=START_SECONDS,
            )
            child.kill()
        return False

    def put(self, child: Child, slot: Slot) -> Child | None:
        """Put ``child`` into ``slot``, and return the process that was there, or None."""
        self._cancel_restart(slot)
        if slot not in self.slots:
            self.slots.append(slot)
        before, slot.child, slot.early_exits = slot.child, child, 0
        return before

    def remove(self, slot: Slot) -> Child | None:
        """Remove ``slot``, and return the process that is there, or None."""
        self._cancel_restart(slot)
        self.slots.remove(slot)
        return slot.child

    def close(self) -> None:
        """Replace no process from now on."""
        self._closed = True
        for slot in self.slots:
            self._cancel_restart(slot)

    @deferred
    async def stop(self) -> None:
        """Tell all processes to stop. Fires when they have ended."""
        self.close()
        await DeferredList([child.stop() for child in list(self.running)])

    def _cancel_restart(self, slot: Slot) -> None:
        if slot.restart is not None:
            slot.restart.cancel()
            slot.restart = None

    def _ended(self, child: Child) -> None:
        self.running.discard(child)
        self._metrics.ended(child)
        slot = next((slot for slot in self.slots if slot.child is child), None)
        if slot is None:
            return
        slot.child = None
        if self._closed:
            return
        self._log.error(
            "process {pid} ended unexpectedly, {how}, after {uptime:.1f} s",
            pid=child.pid,
            how=child.exit_description,
            uptime=child.uptime,
        )
        if child.uptime >= EARLY_EXIT_SECONDS:
            slot.early_exits = 0
            self.fill(slot)
        else:
            self._restart_later(slot)

    def _restart_later(self, slot: Slot) -> None:
        slot.early_exits += 1
        delay = BACK_OFF.delay(slot.early_exits, self._random)
        self._log.info("the next process is started in {seconds:.1f} s", seconds=delay)
        slot.restart = self._clock.callLater(delay, self.fill, slot)

    def _status(self, request: StatusRequest) -> FleetStatus:
        processes = [ProcessStatus(child.pid, child.state, child.health) for child in self.running]
        missing = max(0, len(self.slots) - sum(process.state != "leaving" for process in processes))
        metrics = self._metrics.collect() if request.with_metrics else None
        return FleetStatus(request.number, processes, missing, metrics)

# -*- test-case-name: tests.workers.test_gate -*-
"""The gate before a target: circuit breaker, rate and concurrency limit decide when a call may begin."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Any

import attrs
import msgspec
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from openhqm.messages import Request
from openhqm.policy.breaker import Breaker, State
from openhqm.policy.pacing import AdaptiveLimit, Pace
from openhqm.policy.queue_names import BACKLOG
from openhqm.workers.dispatch_gate import DispatchGate

PROBE_SECONDS = 5.0
BRIDGE = "bridge"
"""The metadata of a bridged request that names its bridge."""
AT_ONCE = 1e9
_MARKED = None  # no bridge has this name


class GateClosed(Exception):
    """The breaker opened while this call waited for its turn."""


class Call(msgspec.Struct, frozen=True, eq=False):
    """A call that the gate has admitted. The caller has to call `end` exactly once.

    ``replayed``: it is for a request of the backlog, which was accepted before the target recovered.
    """

    _gate: Gate
    _period: int
    replayed: bool = False

    def end(self, success: bool | None, *, reached: bool = True) -> None:
        """The call has ended. ``success`` says whether the target is well; None: the outcome says nothing about it.

        Not ``reached``: it failed for want of a connection.
        """
        self._gate.ended(self._period, success, reached)


@attrs.frozen(eq=False)
class _Replay:
    """The backlog of one bridge: at which rate it goes, and the calls that wait for their turn, in order."""

    pace: Pace
    waiting: deque[Deferred[Call]] = attrs.field(factory=deque)


class Gate:
    """Admits calls to one target in the order in which they asked, when breaker, pace and limit allow it.

    ``limit`` is the largest number of calls at once (None: no limit). ``adaptive`` replaces it by a limit that follows
    the target's answers. ``ended_calls`` counts the calls that ended, by their ``success``.

    ``probe``, where there is one, finds out whether the target can be reached: then its Deferred fires. While the
    breaker is open for want of a connection, the gate probes, and admits no call before that has succeeded.

    ``dispatch`` is asked whether the target can take more. While it says no, no call begins, as with an open breaker.

    ``replay_rates`` has the bridges whose backlog goes at a rate of its own, in requests a second: what waits apart,
    and what was accepted in a partition before the target recovered, or before this gate was made. All other calls go
    first. What was accepted in no partition shares its queue with what comes now. It is marked, and has no rate.

    ``name`` is that of the endpoint. Without one nothing is said of the breaker.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        breaker: Breaker,
        *,
        limit: int | None = None,
        pace: Pace | None = None,
        adaptive: AdaptiveLimit | None = None,
        replay_rates: Mapping[str, float] = MappingProxyType({}),
        dispatch: DispatchGate | None = None,
        name: str | None = None,
    ) -> None:
        self._name = name
        self._clock = clock
        self._breaker = breaker
        self._limit = limit
        self._pace = pace
        self._adaptive = adaptive
        self._under_way = 0
        self.ended_calls: dict[bool | None, int] = {True: 0, False: 0, None: 0}
        self._entering: deque[Deferred[Call]] = deque()
        self._awaiting_breaker: deque[Deferred[None]] = deque()
        rates: dict[str | None, float] = {_MARKED: AT_ONCE} if replay_rates else {}
        rates.update(replay_rates)
        self._replays = {bridge: _Replay(Pace(rate, 1.0)) for bridge, rate in rates.items()}
        self._recovered_at = clock.seconds()
        self._is_away = False
        self._timer: Any = None
        self.probe: Callable[[], Deferred[Any]] | None = None
        self._admitting = self._admit_again = False
        self.dispatch = dispatch
        if dispatch is not None:
            dispatch.answered = self._reconsider

    @property
    def state(self) -> State:
        """Whether calls may begin: the state of the breaker, and OPEN while the dispatch gate says no."""
        if self.dispatch is not None and self.dispatch.is_closed:
            return State.OPEN
        return self.breaker_state

    @property
    def breaker_state(self) -> State:
        """The state of the breaker."""
        return self._breaker.state(self._clock.seconds())

    @property
    def warnings(self) -> list[str]:
        """Why requests of the endpoint are held."""
        found = [] if self.dispatch is None or self.dispatch.warning is None else [self.dispatch.warning]
        since = self._breaker.opened_at
        if since is not None and self._name is not None:
            seconds = self._clock.seconds() - since
            found.append(f"endpoint {self._name}: {self._breaker_reason}, for {seconds:.0f} s now. {self._way_out}")
        return found

    @property
    def under_way(self) -> int:
        """How many calls have begun and not ended."""
        return self._under_way

    def passable(self) -> Deferred[None]:
        """Fires once the breaker would admit a call. Before that a consumer leaves requests in the queue.

        Cancelling the Deferred stops the waiting.
        """
        if self._closed_for(self._clock.seconds()) == 0.0:
            return succeed(None)
        waiter: Deferred[None] = Deferred(lambda waiter: self._remove(self._awaiting_breaker, waiter))
        self._awaiting_breaker.append(waiter)
        self._reconsider()
        return waiter

    def enter(self, request: Request | None = None) -> Deferred[Call]:
        """Fires with a `Call` once one for ``request`` may begin, or fails with `GateClosed` when the breaker opens
        before.

        Cancelling the Deferred gives up the place in the order.
        """
        call = self.enter_now(request)
        if call is not None:
            return succeed(call)
        replay = self._replay_of(request, self._clock.seconds())
        waiters = self._entering if replay is None else replay.waiting
        waiter: Deferred[Call] = Deferred(lambda waiter: self._remove(waiters, waiter))
        waiters.append(waiter)
        self._reconsider()
        return waiter

    def enter_now(self, request: Request | None = None) -> Call | None:
        """A `Call` for ``request``, where one may begin now and no other waits for its turn."""
        if self._entering:
            return None
        now = self._clock.seconds()
        replay = self._replay_of(request, now)
        if replay is not None:
            return self._begin(now, replay) if not replay.waiting and self._replay_wait(now, replay) == 0.0 else None
        return self._begin(now) if self._wait(now) == 0.0 else None

    def ended(self, period: int, success: bool | None, reached: bool = True) -> None:
        """A call that began in ``period`` of the breaker has ended; see `Call.end`."""
        now = self._clock.seconds()
        self._under_way -= 1
        self.ended_calls[success] += 1
        self._end(now, period, success, reached)
        if self._adaptive is not None:
            self._adaptive.end(now, success)
        self._look(now)
        self._reconsider()

    def _end(self, now: float, period: int, success: bool | None, reached: bool) -> None:
        was = self._breaker.opened_at
        self._breaker.end(now, period, success, reached=reached)
        since = self._breaker.opened_at
        if self._name is None or (was is None) == (since is None):
            return
        if was is None:
            why, then = self._breaker_reason, self._way_out
            self._log.warn("the breaker of endpoint {name} opened: {why}. {then}", name=self._name, why=why, then=then)
        else:
            seconds = f"{self._clock.seconds() - was:.0f}"
            text = "the breaker of endpoint {name} is closed again: it was open for {seconds} s"
            self._log.info(text, name=self._name, seconds=seconds)

    @property
    def _breaker_reason(self) -> str:
        return "there is no connection to it" if self._breaker.unreachable else "too many of its calls failed"

    @property
    def _way_out(self) -> str:
        again = "OpenHQM tries to connect" if self._probes_first else "One call tries it again"
        return f"{again} after a pause. What else is for it waits, and spends no attempt"

    def _begin(self, now: float, replay: _Replay | None = None) -> Call:
        self._under_way += 1
        if self._pace is not None:
            self._pace.begin(now)
        if replay is not None:
            replay.pace.begin(now)
        return Call(self, self._breaker.begin(now), replay is not None)

    def _replay_of(self, request: Request | None, now: float) -> _Replay | None:
        """The backlog that ``request`` belongs to, or None. While the target is away, all that waits is."""
        if not self._replays or request is None:
            return None
        bridge = request.submission.metadata.get(BRIDGE)  # a caller may have put anything there
        replay = self._replays.get(bridge) if isinstance(bridge, str) else None
        if replay is None:
            return None
        self._look(now)
        partition = request.submission.partition
        if partition != BACKLOG and not self._is_away and request.submitted_at >= self._recovered_at:
            return None
        return self._replays[_MARKED] if partition is None else replay

    def _look(self, now: float) -> None:
        """Notice that the target went away, or that it recovered."""
        if self._replays:
            was_away, self._is_away = self._is_away, self.state is not State.CLOSED
            if was_away and not self._is_away:
                self._recovered_at = now

    def _replay_wait(self, now: float, replay: _Replay) -> float | None:
        wait = self._wait(now)
        return None if wait is None else max(wait, replay.pace.wait(now))

    def _wait(self, now: float) -> float | None:
        """Seconds until a call may begin, or None: when a call that is under way has ended."""
        limit = self._limit if self._adaptive is None else self._adaptive.limit
        closed = self._closed_for(now)
        if closed is None or (limit is not None and self._under_way >= limit):
            return None
        return max(closed, self._pace.wait(now) if self._pace is not None else 0.0)

    def _closed_for(self, now: float) -> float | None:
        """Seconds until the breaker lets a call begin, or None: when a call or a probe that is under way has ended."""
        wait = self._breaker.wait(now)
        if wait == 0.0 and self._probes_first:
            return None
        return self.dispatch.wait(now) if wait == 0.0 and self.dispatch is not None else wait

    @property
    def _probes_first(self) -> bool:
        return self.probe is not None and self._breaker.unreachable

    def _start_probe(self, probe: Callable[[], Deferred[Any]]) -> None:
        # The next probe is due so long after the beginning of this one: a host that drops packets takes all its time.
        began = self._clock.seconds()
        period = self._breaker.begin(began)

        def done(reached: bool) -> None:
            self._end(began, period, reached, reached)
            self._look(self._clock.seconds())
            self._reconsider()

        probing = maybeDeferred(probe).addTimeout(PROBE_SECONDS, self._clock)
        probing.addCallbacks(lambda result: done(True), lambda failure: done(False))

    def _reconsider(self) -> None:
        if not self._entering and not self._awaiting_breaker and self._timer is None and not self._replays_wait:
            return
        # An admitted call may end at once and so come back here. Then the outer run repeats its loop. Recursion would
        # need a deep stack, with a timer on each level, for a long queue before a target that refuses at once.
        self._admit_again = True
        if self._admitting:
            return
        self._admitting = True
        try:
            while self._admit_again:
                self._admit_again = False
                self._admit()
        finally:
            self._admitting = False
        self._set_timer()

    def _admit(self) -> None:
        if self.state is State.OPEN:
            self._close()
        self._look(self._clock.seconds())
        waiting = self._entering or self._awaiting_breaker or self._replays_wait
        if (
            waiting
            and self.probe is not None
            and self._probes_first
            and self._breaker.wait(self._clock.seconds()) == 0.0
        ):
            self._start_probe(self.probe)
        now = self._clock.seconds()
        while self._entering and self._wait(now) == 0.0:
            self._entering.popleft().callback(self._begin(now))
            now = self._clock.seconds()
        for replay in self._replays.values():
            while replay.waiting and not self._entering and self._replay_wait(now, replay) == 0.0:
                replay.waiting.popleft().callback(self._begin(now, replay))
                now = self._clock.seconds()
        while self._awaiting_breaker and self._closed_for(now) == 0.0:
            self._awaiting_breaker.popleft().callback(None)

    def _set_timer(self) -> None:
        if self._timer is not None:
            timer, self._timer = self._timer, None
            timer.cancel()
        now = self._clock.seconds()
        waits = [
            wait
            for wait, waiters in (
                (self._wait(now), self._entering),
                (self._closed_for(now), self._awaiting_breaker),
                *((self._replay_wait(now, each), each.waiting) for each in self._replays.values()),
            )
            if waiters and wait  # None: the next call that ends leads to `_reconsider`
        ]
        if waits:
            self._timer = self._clock.callLater(min(waits), self._timer_fired)

    def _close(self) -> None:
        closed = list(self._entering)
        self._entering.clear()
        for replay in self._replays.values():
            closed += replay.waiting
            replay.waiting.clear()
        for waiter in closed:
            waiter.errback(GateClosed())

    @property
    def _replays_wait(self) -> bool:
        return bool(self._replays) and any(each.waiting for each in self._replays.values())

    def _timer_fired(self) -> None:
        self._timer = None
        self._reconsider()

    def _remove(self, waiters: deque[Any], waiter: Deferred[Any]) -> None:
        with suppress(ValueError):  # `_close` has taken it out already
            waiters.remove(waiter)
        self._reconsider()  # stops the timer where no other waits

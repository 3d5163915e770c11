# -*- test-case-name: tests.redis.test_recovery -*-
"""What queue and store share of a Redis: running scripts, listening to channels, and why it is unavailable.

One connection carries every command of the process, so that they happen in the order in which they were asked for;
another one listens. Both reconnect by themselves.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NoReturn

from twisted.internet.defer import Deferred, DeferredList, fail, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from openhqm.errors import NotDurable
from openhqm.messages import Submission
from openhqm.policy.ids import CorrelationIds
from openhqm.redis.address import Address
from openhqm.redis.clocks import ClockDifference
from openhqm.redis.connecting import ask
from openhqm.redis.driver import factory, is_refusal
from openhqm.redis.errors import refusal
from openhqm.redis.listening import Listening
from openhqm.redis.promises import Promises, promises, read_info
from openhqm.redis.reconnecting import Reconnecting
from openhqm.redis.scripts import Script, load_scripts
from openhqm.runtime.deferreds import deferred

PROBE_SECONDS = 1.0
MOST_LOSSES = 3
FORGOTTEN = (
    "Redis has forgotten everything since this process began: its data were lost or flushed. The requests accepted "
    "before are gone. Restart every openhqm process to go on with the data that are there now"
)


class Redis:
    """The Redis at ``address``; all keys begin with ``prefix``.

    ``seconds`` is how long an answer may take before the connection is closed. ``clock`` keeps the timers, and with
    ``own_time`` (for tests) it stands in for Redis's own time.
    """

    _log = Logger()

    def __init__(
        self,
        address: Address,
        prefix: str,
        reactor: Any,
        random: Callable[[], float],
        *,
        seconds: float,
        clock: IReactorTime | None = None,
        own_time: bool = False,
    ) -> None:
        self.address = address
        self.prefix = prefix
        self.clock: IReactorTime = clock if clock is not None else reactor
        self.random = random
        self.promises = Promises(False, ())
        self.clocks = ClockDifference()
        self.on_ending: list[Callable[[int, str], None]] = []
        self.on_up: list[Callable[[], object]] = []
        """Called whenever Redis can be asked again, and for the first time when it can be at all."""
        self.process = os.urandom(6).hex()
        self._own_time = own_time
        self._reactor = reactor
        self._seconds = seconds
        self._scripts = load_scripts()
        self._ids: CorrelationIds | None = None
        self._secret: bytes | None = None
        self._witness = b""
        self._seen = 0
        self._deliveries = 0
        self._refused: str | None = None
        self._forgotten = False
        self._lost: tuple[str, ...] = ()
        self._probe: Any = None
        self._stopped = False
        self.link = Reconnecting(
            address,
            reactor,
            factory(None, reactor),
            random,
            seconds=seconds,
            prepare=self._greet,
            up=self._up,
            down=lambda: None,
        )
        self.listening = Listening(address, reactor, random, seconds, self._say_nothing)
        self.listen = self.listening.listen

    @property
    def unavailable_reason(self) -> str | None:
        """Why nothing can be accepted now, or None."""
        return FORGOTTEN if self._forgotten else self.link.unavailable_reason or self._refused

    @property
    def warnings(self) -> tuple[str, ...]:
        """What an operator should know although everything works."""
        return (*self.promises.warnings, *self._lost, *self.clocks.warnings)

    @property
    def ids(self) -> CorrelationIds:
        """The ids under the secret that Redis keeps; `NotDurable` before it was ever reached."""
        if self._ids is None:
            raise NotDurable(self.unavailable_reason or "Redis was not reached yet")
        return self._ids

    def start(self) -> None:
        """Begin to connect; it never fails and never ends."""
        self.link.start()
        self.listening.link.start()

    def when_probed(self) -> Deferred[None]:
        """Fires once the first attempt to connect is over; `unavailable_reason` says how it went."""
        return self.link.when_probed()

    def _up(self) -> None:
        for call in [*self.on_up]:
            call()

    @deferred
    async def stop(self) -> None:
        """Close both connections."""
        self._stopped = True
        if self._probe is not None and self._probe.active():
            self._probe.cancel()
        await gatherResults([self.listening.stop(), self.link.stop()])

    def due(self, submission: Submission) -> float | None:
        """When ``submission`` may be delivered, by Redis's clock; None: at once."""
        return None if submission.not_before is None else self.clocks.to_theirs(submission.not_before)

    def clock_now(self) -> float:
        """This process's time, for the time that an ending carries. Every decision by time is Redis's."""
        return self.clock.seconds()

    def own_link(self, seconds: float) -> Reconnecting:
        """One more connection, not yet started, for commands that block for up to ``seconds``."""
        return Reconnecting(
            self.address,
            self._reactor,
            factory(None, self._reactor),
            self.random,
            seconds=self._seconds + seconds,
            prepare=self._say_nothing,
            up=lambda: None,
            down=lambda: None,
        )

    def new_token(self) -> str:
        """What tells one delivery from every other, in all processes."""
        self._deliveries += 1
        return f"{self.process}.{self._deliveries}"

    def tell_ending(self, number: int, status: str) -> None:
        """Call those who count endings in this process."""
        for call in self.on_ending:
            call(number, status)

    def saw(self, number: int) -> None:
        """Redis gave out ``number``: it must never know a lower one as its last."""
        self._seen = max(self._seen, number)

    def issue_all(self, numbers: Sequence[bytes]) -> tuple[str, ...]:
        """The ids of numbers that Redis has just given out."""
        self.saw(int(numbers[-1]))
        return tuple(self.ids.issue(int(number)) for number in numbers)

    def run(self, name: str, *values: Any) -> Deferred[Any]:
        """The script's answer. `NotDurable` where Redis refuses it, or does not answer: then it may have run.

        Cancelling does not take the script back.
        """
        if self._forgotten:
            return fail(NotDurable(FORGOTTEN))
        script = self._scripts[name]
        now = repr(self.clock.seconds()) if self._own_time else ""
        arguments = (2, self.prefix, self._witness, now, *values)
        refused = partial(self._not_run, script, arguments)
        return self.link.ask("EVALSHA", script.digest, *arguments, refused=refused)

    def at_end_of_turn(self, call: Callable[[], object]) -> None:
        """Call ``call`` when all that has come in this turn of the reactor was seen to."""
        self._reactor.callLater(0, call)

    def command(self, *arguments: Any) -> Deferred[Any]:
        """The answer to a plain command; `NotDurable`."""
        return self.link.ask(*arguments, refused=self._refusal)

    def not_answered(self, answer: bytes, correlation_id: str) -> None:
        """Log the reason behind a script's ``1``, if there is one: the reply could not be put into its stream."""
        reason = answer.partition(b" ")[2].decode("utf-8", "replace")
        if reason:
            self._log.error(
                "the reply of {correlation_id} is kept, and could not be put into its stream: {reason}",
                correlation_id=correlation_id,
                reason=reason,
            )

    def _not_run(self, script: Script, arguments: tuple[Any, ...], failure: Failure) -> Any:
        """Send the whole script where Redis does not know it, as after a restart; else explain."""
        if failure.getErrorMessage().startswith("NOSCRIPT"):
            return self.link.ask("EVAL", script.source, *arguments, refused=self._refusal)
        return self._refusal(failure)

    def _refusal(self, failure: Failure) -> NoReturn:
        """Raise `NotDurable` with the reason, which is remembered, and probed until it is over."""
        error = failure.value
        if "FORGOTTEN" in str(error):
            self._forget_all()
            raise NotDurable(FORGOTTEN)
        refused = refusal(str(error))
        if refused.elsewhere:
            self.link.reconnect(refused.reason)
        elif not self._stopped:
            if self._refused is None:
                self._log.error("{reason}", reason=refused.reason, error=str(error))
            self._refused = refused.reason
            if self._probe is None or not self._probe.active():
                self._probe = self._reactor.callLater(PROBE_SECONDS, self._try_again)
        raise NotDurable(refused.reason)

    def _try_again(self) -> None:
        self.run("probe").addCallbacks(self._better, lambda failure: failure.trap(NotDurable))

    def _better(self, answer: Any) -> None:
        self._log.info("Redis takes writes again", unavailable_reason=self._refused)
        self._refused = None

    async def _say_nothing(self, protocol: Any) -> None:
        """A connection that only listens or reads needs no first commands."""

    async def _greet(self, protocol: Any) -> None:
        """Before anything else on a new connection: load the scripts, read the secret, look at Redis's own settings."""

        def say(*arguments: Any) -> Deferred[Any]:
            return ask(protocol, self._reactor, self._seconds, *arguments)

        info = read_info(await say("INFO"))
        if not self._own_time:
            asked = self.clock.seconds()
            seconds, microseconds = await say("TIME")
            self.clocks.note(asked, self.clock.seconds(), int(seconds) + int(microseconds) / 1_000_000)
        # All in one go: one after the other, they would cost the time of the way there and back many times.
        loading = [say("SCRIPT", "LOAD", script.source) for script in self._scripts.values()]
        for loaded, result in await DeferredList(loading, consumeErrors=True):
            if not loaded:
                result.raiseException()
        digest = self._scripts["greet"].digest
        run_id = info.get("run_id", "")
        secret, number, witness = await say(
            "EVALSHA", digest, 1, self.prefix, "", run_id, os.urandom(32), str(self._seen)
        )
        if secret == b"layout":
            raise NotDurable(
                f"the keys below {self.prefix} have layout {number.decode()}, and this OpenHQM reads layout "
                f"{witness.decode()}: start the OpenHQM that wrote them, or use another prefix or database"
            )
        self._recognise(secret, int(number), witness)
        found = promises(info, await self._appendfsync(say))
        for warning in found.warnings:
            if warning not in self.promises.warnings:
                self._log.warn("{address}: {reason}", address=str(self.address), reason=warning)
        self.promises = found
        self._refused = None

    def _recognise(self, secret: bytes, number: int, witness: bytes) -> None:
        if self._secret is None:
            self._secret, self._ids, self._witness = secret, CorrelationIds(secret), witness
        elif secret != self._secret:
            self._forget_all()
        elif number < self._seen:
            loss = f"Redis has lost what it took last: it knows number {number}, and {self._seen} was given out"
            self._log.critical("{loss}", loss=loss)
            self._lost = (*self._lost, loss)[-MOST_LOSSES:]

    def _forget_all(self) -> None:
        if not self._forgotten:
            self._forgotten = True
            self._log.critical("{reason}", reason=FORGOTTEN)

    async def _appendfsync(self, say: Callable[..., Deferred[Any]]) -> str | None:
        """None where CONFIG is refused, as managed services do."""
        try:
            answer = await say("CONFIG", "GET", "appendfsync")
        except Exception as error:
            if not is_refusal(error):
                raise
            return None
        return answer[1].decode() if len(answer) > 1 else None

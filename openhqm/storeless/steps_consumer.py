# -*- test-case-name: tests.storeless.test_steps_consumer,tests.storeless.test_workers -*-
"""Writing down what workers without a store report, for as long as the process that accepted the requests runs.

A step is acknowledged once it is in the ledger. What comes again after a kill is known there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from openhqm.brokered.put_aside import PutAside
from openhqm.brokered.rejects import unreadable
from openhqm.brokered.source import Recovery, Source
from openhqm.codec import decode_step
from openhqm.errors import NotDurable, UnknownRequest, UnreadableMessage
from openhqm.interfaces import IBroker, IBrokerDelivery
from openhqm.policy.steps import PROGRESS
from openhqm.queue.backend import StepLog
from openhqm.runtime.deferreds import deferred

MOST_STEPS = 100
RETRY_SECONDS = 1.0
MOST_ASIDE = 1000
"""So many steps of another store are kept for a while; of more, no others come until those have gone back."""


class StepsConsumer:
    """``channel`` is the reply channel of this process's requests. ``steps`` writes down what is reported in it."""

    _log = Logger()

    def __init__(self, broker: IBroker, steps: StepLog, clock: IReactorTime, channel: str) -> None:
        self.channel = channel
        self._broker = broker
        self._steps = steps
        self._clock = clock
        self._source: Source | None = None
        self._waiting: deque[IBrokerDelivery] = deque()
        self._writing: Deferred[Any] | None = None
        self._pause: Any = None
        self._aside = PutAside(clock)
        self._stopped = self._warned = False

    @property
    def warnings(self) -> Sequence[str]:
        """Why no steps come although there is a connection; what in the channel is of another store."""
        found = (self._aside.warning, None if self._source is None else self._source.warning)
        return [warning for warning in found if warning is not None]

    def start(self, losses: Recovery) -> None:
        """Begin to consume. ``losses`` makes the channel where it is missing, and makes good what was lost with it."""
        self._source = Source(self._broker, self._clock, self.channel, self._received, losses, self._consume)
        self._consume()

    @deferred
    async def stop(self) -> None:
        """Finish what is being written down, and consume no more. What was received besides goes back."""
        self._stopped = True
        if self._pause is not None:
            self._pause.cancel()
        source = self._source
        if source is not None:
            await source.stop()
        if self._writing is not None:
            await self._writing
        self._aside.stop()
        if source is not None:
            for delivery in self._waiting if source.requeues else ():
                source.requeue(delivery)
            source.close()

    def _consume(self) -> None:
        """Let so many steps come, and those of another store besides: they hold up no others."""
        if self._source is not None and not self._stopped:
            self._source.allow(MOST_STEPS + min(len(self._aside), MOST_ASIDE))

    def _received(self, delivery: IBrokerDelivery, source: Source) -> None:
        self._waiting.append(delivery)
        self._write_soon()

    def _write_soon(self) -> None:
        if self._writing is None and self._pause is None and self._waiting and not self._stopped:
            self._writing = self._write_all()
            if self._writing.called:
                self._writing = None

    @deferred
    async def _write_all(self) -> None:
        """In their order: asked for at once, most of them are written with one sync."""
        while self._waiting and not self._stopped:
            batch = [self._waiting.popleft() for _ in range(min(MOST_STEPS, len(self._waiting)))]
            written = await gatherResults([self._write(delivery) for delivery in batch])
            failed = [delivery for delivery, done in zip(batch, written, strict=True) if not done]
            if failed:
                self._waiting.extendleft(reversed(failed))
                self._pause = self._clock.callLater(RETRY_SECONDS, self._go_on)
                break
        self._writing = None

    def _go_on(self) -> None:
        self._pause = None
        self._write_soon()

    @deferred
    async def _write(self, delivery: IBrokerDelivery) -> bool:
        """Whether the delivery is done with. False: its step could not be stored, and is written again."""
        source = self._source
        assert source is not None, "it was started"
        if not source.is_out(delivery):
            return True  # the broker delivers it again
        try:
            if await self._note(delivery, source):
                source.done(delivery)
        except Exception as error:
            if not self._warned and isinstance(error, NotDurable):
                self._log.error("steps of workers cannot be written down: {reason}", reason=error.reason)
            elif not self._warned:
                self._log.failure("writing down steps of workers broke down")
            self._warned = True
            return False
        self._warned = False
        return True

    async def _note(self, delivery: IBrokerDelivery, source: Source) -> bool:
        """Write the step down, or make a dead letter of what will never be read. False: it is put aside."""
        body = delivery.message.body
        try:
            step = decode_step(body)
        except UnreadableMessage as error:
            await self._reject(body, error.reason)
            return True
        try:
            await (self._steps.note(step) if step.letter is None else self._steps.reject(step.letter))
        except (NotDurable, CancelledError):
            raise  # it is written again
        except UnknownRequest:
            self._aside.add(delivery, source, delivery.message, step.correlation_id)
            self._consume()
            return False
        except Exception as error:
            if step.type == PROGRESS and isinstance(error, ValueError):
                text = "progress of {id} is not in its history: {reason}"
                self._log.warn(text, id=step.correlation_id, reason=str(error))
                return True
            # Written again it would break again.
            self._log.failure("writing down a step of {id} broke down", id=step.correlation_id)
            await self._reject(body, f"{type(error).__name__}: {error}")
        return True

    async def _reject(self, body: bytes, reason: str) -> None:
        letter = unreadable(body, f"{self.channel}: {reason}", self._clock.seconds())
        await self._steps.reject(letter)
        text = "a message in {channel} is a dead letter: {reason}"
        self._log.warn(text, channel=self.channel, reason=reason, id=letter.request.correlation_id)

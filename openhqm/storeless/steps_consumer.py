# -*- test-case-name: tests.storeless.test_following -*-
"""Following what workers without a store tell, for as long as the process that keeps the books runs.

A step is acknowledged once it is in the books. What comes again after a kill is known there.
"""

from __future__ import annotations

from typing import Any, Protocol

from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from openhqm.brokered.rejects import unreadable
from openhqm.codec import decode_step
from openhqm.errors import NotDurable, UnknownRequest, UnreadableMessage
from openhqm.interfaces.legacy import IBroker, IBrokerDelivery
from openhqm.messages import DeadLetter
from openhqm.policy.steps import ENDED, Step
from openhqm.runtime.deferreds import deferred

MOST_STEPS = 100
RETRY_SECONDS = 1.0


class Books(Protocol):
    """Where the steps are written down. `NotDurable`."""

    def note(self, step: Step) -> Deferred[None]:
        """Write one down, once; `UnknownRequest`, `ValueError` past the limits of a history."""

    def bury(self, letter: DeadLetter) -> Deferred[None]:
        """Add a dead letter."""


class Following:
    """``queue`` is where the steps are told, in their order. Nobody else may receive from it."""

    _log = Logger()

    def __init__(self, broker: IBroker, books: Books, clock: IReactorTime, queue: str) -> None:
        self._broker = broker
        self._books = books
        self._clock = clock
        self.queue = queue
        self._resting: Deferred[Any] | None = None
        self._running: Deferred[None] | None = None
        self._stopped = self._told = False

    def start(self) -> None:
        """Begin to follow; it never fails."""
        self._running = self._run()

    @deferred
    async def stop(self) -> None:
        """Finish what was received, and receive no more."""
        self._stopped = True
        if self._resting is not None:
            self._resting.cancel()
        if self._running is not None:
            await self._running

    @deferred
    async def _run(self) -> None:
        while not self._stopped:
            try:
                if not await self._turn():
                    await self._rest(deferLater(self._clock, RETRY_SECONDS))
            except CancelledError:
                return  # told to stop, or the broker was

    async def _rest(self, until: Deferred[Any]) -> Any:
        self._resting = until
        try:
            return await until
        finally:
            self._resting = None

    async def _turn(self) -> bool:
        """Take in some of what was told. False: some of it could not be, and it is worth waiting for a moment."""
        try:
            deliveries = await self._rest(self._broker.receive(self.queue, MOST_STEPS))
        except CancelledError:
            raise
        except Exception:  # whatever it is, the books are not kept while nobody follows
            self._log.failure("receiving from {queue} broke down", queue=self.queue)
            return False
        # Asked for at once, they are written in their order, most of them with one sync.
        taken = await gatherResults([self._take(delivery) for delivery in deliveries])
        return all(taken)

    @deferred
    async def _take(self, delivery: IBrokerDelivery) -> bool:
        try:
            await self._write(delivery.body)
        except NotDurable as error:
            if not self._told:
                self._told = True
                self._log.error("what workers tell cannot be written down: {reason}", reason=error.reason)
            delivery.release().addErrback(_comes_again)
            return False
        self._told = False
        delivery.ack().addErrback(_comes_again)
        return True

    async def _write(self, body: bytes) -> None:
        """Into the books with it, or into the dead letters what will never be read. `NotDurable`."""
        try:
            step = decode_step(body)
        except UnreadableMessage as error:
            await self._bury(body, error.reason)
            return
        try:
            await (self._books.note(step) if step.letter is None else self._books.bury(step.letter))
        except (NotDurable, CancelledError):
            raise  # it comes again
        except UnknownRequest:
            words = "{queue} tells of {id}, which was not given out by this store"
            self._log.warn(words, queue=self.queue, id=step.correlation_id, type=step.type)
            if step.type == ENDED:  # there is an answer in it
                await self._bury(body, f"{step.correlation_id} was not given out by this store")
        except ValueError as error:
            words = "a {type} of {id} is not in its history: {reason}"
            self._log.warn(words, type=step.type, id=step.correlation_id, reason=str(error))
        except Exception as error:  # taken in once more it would break once more
            self._log.failure("a step of {id} broke its reading", id=step.correlation_id)
            await self._bury(body, f"{type(error).__name__}: {error}")

    async def _bury(self, body: bytes, reason: str) -> None:
        letter = unreadable(body, f"{self.queue}: {reason}", self._clock.seconds())
        await self._books.bury(letter)
        words = "a message of {queue} is a dead letter: {reason}"
        self._log.warn(words, queue=self.queue, reason=reason, id=letter.request.correlation_id)


def _comes_again(failure: Failure) -> None:
    """The broker was not told. The step comes again, and the books know it."""
    failure.trap(NotDurable)

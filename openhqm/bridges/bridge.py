# -*- test-case-name: tests.bridges.test_bridge -*-
"""One bridge: the messages of a foreign channel are accepted as requests, and then acknowledged to their broker.

A kill between the two leaves a message that is accepted and not acknowledged. Its broker delivers it again, and the
claim that it was accepted with tells that it is there already, where the product gives a message an identity.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from openhqm.bridges.entries import Entry, Line, Watch
from openhqm.bridges.failures import failed_message
from openhqm.bridges.following import tell_accepted
from openhqm.bridges.held_claims import HeldClaims
from openhqm.bridges.reading import Reader, Reading, size_of
from openhqm.brokered.acks import AckTracker
from openhqm.errors import (
    IdempotencyConflict,
    InvalidRequest,
    MalformedJSON,
    MessageTooLarge,
    NotDurable,
    PayloadRefused,
    TransformFailed,
    UnreadableMessage,
)
from openhqm.interfaces import Acks, IBrokerDelivery, IForeignBroker, IMessageQueue, IReceiver, ISubscription, Message
from openhqm.messages import Acceptance, Reply, Status
from openhqm.policy.reason_classes import ReasonClass
from openhqm.queue.message_size import check_size, may_exceed
from openhqm.queue.shedding import Accepts
from openhqm.runtime.counting import Counts
from openhqm.runtime.deferreds import Running, deferred
from openhqm.runtime.logs import is_debug

FIRST_PAUSE = 0.05
LONGEST_PAUSE = 5.0
SUBSCRIBE_AGAIN_SECONDS = 5.0
ACCEPTED, REPEATED, REJECTED, DROPPED = "accepted", "repeated", "dead_letter", "dropped"
OUTCOMES = (ACCEPTED, REPEATED, REJECTED, DROPPED)


class Endings(Protocol):
    """What knows when a request has ended."""

    def when_ended(self, correlation_id: str) -> Deferred[Reply | None]:
        """Fires with its reply once it has ended, or with None where it is not known any more. It does not fail."""


@implementer(IReceiver)
class Bridge:
    """Makes requests in ``queue`` of what comes in ``channels`` of ``broker``.

    ``client_id`` is what the broker knows it by. At most ``most`` messages are neither accepted nor acknowledged: while
    the queue takes none, no further ones are asked for. ``endings``: a message is acknowledged when its request has
    ended; None: when it is accepted. With ``endings``, a message that fails for good is published into the channel
    ``failures`` before it is acknowledged; None: its dead letter here is enough. Messages of one partition are accepted
    one after the other. They are accepted through ``admission``; None: the queue takes each. ``claims`` are those that
    they are accepted under.
    """

    _log = Logger()

    def __init__(
        self,
        name: str,
        broker: IForeignBroker,
        channels: Sequence[str],
        client_id: str,
        reader: Reader,
        queue: IMessageQueue,
        clock: IReactorTime,
        random: Callable[[], float],
        counts: Counts,
        claims: HeldClaims,
        *,
        most: int,
        endings: Endings | None = None,
        failures: str | None = None,
        admission: Accepts | None = None,
    ) -> None:
        self.reader = reader
        self.name = name
        self._broker = broker
        self._channels = channels
        self._client_id = client_id
        self._queue = queue
        self._admission: Accepts = admission or queue
        self._clock = clock
        self._random = random
        self._counts = counts
        self._claims = claims
        self._most = most
        self._endings = endings
        self._failures = failures
        self._subscription: ISubscription | None = None
        self._acks = AckTracker(broker.acks, self._ack)
        self._lines: dict[Line, deque[Entry]] = {}
        self._waiting: list[Deferred[None]] = []
        self._under_way = 0
        self._idle: Deferred[None] | None = None
        self._pause = FIRST_PAUSE
        self._timer: Any = None
        self._looking: Any = None
        self._stopped = False
        self.warning: str | None = None

    def start(self) -> None:
        """Begin to receive."""
        self._subscription = self._broker.subscribe(self._client_id, self._channels, self._most, self)
        self._subscription.credit(self._most)

    @deferred
    async def stop(self) -> None:
        """Receive no more, and wait for what is being accepted. What waits for room is delivered again later."""
        self._stopped = True
        for timer in (self._timer, self._looking):
            if timer is not None and timer.active():
                timer.cancel()
        if self._subscription is not None:
            await self._subscription.stop()
        self._wake()
        if self._under_way:
            self._idle = Deferred()
            await self._idle
        await self._claims.stop()

    # What the broker says

    def received(self, delivery: IBrokerDelivery) -> None:
        if self._stopped:
            return
        self._acks.arrived(delivery)
        entry = self._read(delivery)
        entry.watch = Watch(entry, self._revoked)
        delivery.revoked.addCallback(entry.watch.revoked)
        line = entry.line
        if line is None:
            self._take_now(entry)
        elif line in self._lines:
            self._lines[line].append(entry)
        else:
            self._lines[line] = deque([entry])
            self._run(self._take_line(line))

    def lost(self, reason: str) -> None:
        self.warning = f"bridge {self.name}: {reason}"
        self._log.error("bridge {name} has lost its channel, and looks for it: {reason}", name=self.name, reason=reason)
        self._subscription = None
        if not self._stopped:
            self._looking = self._clock.callLater(SUBSCRIBE_AGAIN_SECONDS, self._subscribe_again)

    def dropped(self, count: int) -> None:
        self._counts.inc(DROPPED, count)

    def _subscribe_again(self) -> None:
        self.warning = None
        self.start()

    def _revoked(self, reason: str, entry: Entry) -> None:
        """It comes again. What is being accepted goes on: its claim recognises it then."""
        entry.revoked = True
        self._claims.revoked(entry.delivery)
        self._acks.revoked(entry.delivery)

    # Accepting

    def _read(self, delivery: IBrokerDelivery) -> Entry:
        message, now = delivery.message, self._clock.seconds()
        try:
            return Entry(delivery, self.reader.read(message, now), None)
        except PayloadRefused as error:
            return Entry(delivery, None, self.reader.letter(message, str(error), now, ReasonClass.SCHEMA))
        except (UnreadableMessage, MalformedJSON, InvalidRequest, TransformFailed) as error:
            reason = str(error)
        except Exception as error:  # read again, it would fail again
            self._log.failure("a message broke its reading", bridge=self.name)
            reason = f"{type(error).__name__}: {error}"
        return Entry(delivery, None, self.reader.letter(message, reason, now))

    def _run(self, taking: Coroutine[Any, Any, None]) -> None:
        self._under_way += 1
        Running(taking, self._ran, self._broke_down)

    def _ran(self, result: None) -> None:
        self._under_way -= 1
        if self._idle is not None and not self._under_way:
            idle, self._idle = self._idle, None
            idle.callback(None)

    def _broke_down(self, failure: Failure) -> None:
        self._log.failure("bridge {name} broke down over a message", failure, name=self.name)
        self._ran(None)

    def _take_now(self, entry: Entry) -> None:
        """Accept it. Nearly all are accepted at the first try, which needs no coroutine: each would pay for that."""
        if entry.reading is None or self._timer is not None or self._may_be_too_long(entry.delivery.message):
            self._run(self._take(entry))
            return
        self._under_way += 1
        try:
            accepting = self._admission.accept(entry.reading.submission, entry.reading.claim, entry.reading.follow_ups)
        except Exception:
            self._not_accepted(Failure(), entry)
            return
        accepting.addCallbacks(self._accepted, self._not_accepted, (entry,), errbackArgs=(entry,))

    def _may_be_too_long(self, message: Message) -> bool:
        largest = self._queue.traits.largest_message
        return largest is not None and may_exceed(size_of(message), largest)

    def _accepted(self, accepted: Acceptance, entry: Entry) -> None:
        if accepted.replayed and not entry.revoked:
            self._run(self._take(entry))  # which is told the same again, and finds out what it means
        else:
            self._taken(entry, accepted)
        self._ran(None)

    def _not_accepted(self, failure: Failure, entry: Entry) -> None:
        error = failure.value
        if isinstance(error, NotDurable):
            entry.maybe_accepted |= error.maybe_done
            self._wait(error.reason)
        self._run(self._take(entry))  # whatever else it was, that finds again
        self._ran(None)

    async def _take_line(self, line: Line) -> None:
        """Take the messages of one partition, one after the other."""
        entries = self._lines[line]
        while entries:
            await self._take(entries[0])
            entries.popleft()
        del self._lines[line]

    async def _take(self, entry: Entry) -> None:
        """Accept it, however long that takes, unless it is revoked before."""
        while not entry.revoked and not self._stopped:
            if self._timer is not None:
                self._waiting.append(Deferred())
                await self._waiting[-1]
                continue
            try:
                accepted = None if entry.reading is None else await self._accept(entry, entry.reading)
                if entry.letter is not None:
                    await self._queue.reject(entry.letter)
            except NotDurable as error:
                entry.maybe_accepted |= error.maybe_done
                self._wait(error.reason)
            except Exception as error:  # of the queue: nothing is known of the message, so it is tried again
                self._log.failure("accepting a message broke down", bridge=self.name)
                self._wait(f"{type(error).__name__}: {error}")
            else:
                self._taken(entry, accepted)
                return

    async def _accept(self, entry: Entry, reading: Reading) -> Acceptance | None:
        """None: the queue will never take it, and it is a dead letter."""
        accept, submission, follow_ups = self._admission.accept, reading.submission, reading.follow_ups
        properties = entry.delivery.message.properties
        is_new = properties is not None and properties.duplicate is False and not reading.certain
        largest = self._queue.traits.largest_message
        try:
            if largest is not None:  # the broker of the queue would refuse it, and for ever
                check_size(submission, size_of(entry.delivery.message), largest)
            try:
                accepted = await accept(submission, reading.claim, follow_ups)
            except IdempotencyConflict:  # another message has the same identity
                accepted = await accept(submission, None, follow_ups)
            known = entry.revoked or entry.maybe_accepted  # it may be the one that was accepted under its identity
            if accepted.replayed and is_new and not known:  # else its identity was that of another message before
                accepted = await accept(submission, None, follow_ups)
            return accepted
        except MessageTooLarge as error:  # there will never be room for it
            reason = str(error)
        except (ValueError, TypeError, RecursionError) as error:  # of what is in it: it would fail again, for ever
            self._log.failure("a message cannot be stored", bridge=self.name)
            reason = f"{type(error).__name__}: {error}"
        entry.letter = self.reader.letter(entry.delivery.message, reason, self._clock.seconds())
        return None

    def _taken(self, entry: Entry, accepted: Acceptance | None) -> None:
        self._pause = FIRST_PAUSE  # a queue that is full and being worked off takes some each time
        if entry.letter is not None:
            reason = entry.letter.reason
            self._log.warn("a message to bridge {name} is a dead letter: {reason}", name=self.name, reason=reason)
        self._counts.inc(REJECTED if accepted is None else REPEATED if accepted.replayed else ACCEPTED)
        if accepted is not None and is_debug():
            tell_accepted(self.name, entry.delivery.message, accepted)
        if accepted is None:
            self._end(entry, None if entry.letter is None else entry.letter.reason)
        elif self._endings is None:
            self._done(entry)
        else:
            self._endings.when_ended(accepted.correlation_id).addCallback(self._ended, entry)
        self._go_on()

    def _ended(self, reply: Reply | None, entry: Entry) -> None:
        if reply is not None and reply.status is Status.FAILED:
            self._end(entry, reply.error or reply.status.value, reply.correlation_id)
        else:
            self._end(entry, None)

    def _end(self, entry: Entry, failure: str | None, correlation_id: str | None = None) -> None:
        """Nothing is left to do for it but to keep what has failed, where that has a channel."""
        if failure is None or self._failures is None:
            self._done(entry)
        else:
            failed = failed_message(self.name, entry.delivery.message, failure, correlation_id)
            self._run(self._keep(entry, failed, self._failures))

    async def _keep(self, entry: Entry, failed: Message, channel: str) -> None:
        """Publish it, however long that takes: it is acknowledged after that, and comes again where it is revoked."""
        pause = FIRST_PAUSE
        while not entry.revoked and not self._stopped:
            try:
                await self._broker.publish(channel, failed)
            except NotDurable as error:
                self.warning = f"bridge {self.name} cannot publish what has failed to {channel}: {error.reason}"
                await deferLater(self._clock, pause)  # type: ignore[arg-type]
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                self._done(entry)
                self._go_on()
                return

    def _done(self, entry: Entry) -> None:
        """Nothing is left to do for it."""
        watch, entry.watch = entry.watch, None  # or they would know each other until a garbage collection
        if entry.reading is not None and entry.reading.certain and entry.reading.claim is not None:
            self._claims.hold(entry.delivery, entry.reading.claim)
        self._acks.done(entry.delivery)
        if self._broker.acks is Acks.EACH and watch is not None:  # else it may be revoked before it is its turn
            watch.over()

    def _ack(self, delivery: IBrokerDelivery) -> None:
        acknowledging = delivery.ack()
        acknowledging.addCallbacks(self._acknowledged, self._not_acknowledged, (delivery,), errbackArgs=(delivery,))

    def _acknowledged(self, result: None, delivery: IBrokerDelivery) -> None:
        self._claims.acknowledged(delivery)

    def _not_acknowledged(self, failure: Failure, delivery: IBrokerDelivery) -> None:
        failure.trap(NotDurable)
        self._claims.revoked(delivery)
        reason = failure.getErrorMessage()
        self._log.debug("bridge {name} could not acknowledge a message: {reason}", name=self.name, reason=reason)

    # While the queue takes none

    def _wait(self, reason: str) -> None:
        """Accept nothing for a while, and ask for nothing more."""
        if self._stopped:
            return
        warning = f"bridge {self.name} waits for the queue to take more: {reason}"
        if self.warning != warning:
            self._log.warn("bridge {name} waits for the queue to take more: {reason}", name=self.name, reason=reason)
        self.warning = warning
        if self._subscription is not None:
            self._subscription.credit(0)
        if self._timer is None:
            self._timer = self._clock.callLater(self._pause * (0.5 + self._random()), self._retry)
            self._pause = min(2 * self._pause, LONGEST_PAUSE)

    def _retry(self) -> None:
        self._timer = None
        self._wake()
        if not self._under_way:  # what waited was revoked
            self._go_on()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for each in waiting:  # in their order, so that they are accepted in it
            each.callback(None)

    def _go_on(self) -> None:
        """Ask for more, where nothing waits."""
        if self._waiting or self._timer is not None or self.warning is None or self._subscription is None:
            return
        self.warning = None
        self._subscription.credit(self._most)

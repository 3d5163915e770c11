# -*- test-case-name: tests.sqs.test_contract,tests.sqs.test_broker -*-
"""SQS as a product that is pulled: the eight functions. Each runs in the reactor's thread and returns a Deferred."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, cast
from uuid import uuid4

from twisted.internet.defer import Deferred, DeferredList, fail, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from openhqm.errors import NotDurable
from openhqm.interfaces import ChannelMissing, Message
from openhqm.pulled.product import Taken
from openhqm.runtime.deferreds import deferred, shielded
from openhqm.sqs.batches import MOST_ENTRIES, Batches
from openhqm.sqs.calls import Calls, Poll
from openhqm.sqs.errors import CLOCK_SECONDS, clock_warning, skew
from openhqm.sqs.messages import DEDUPLICATION, GROUP, Unsendable, from_sqs, to_entry
from openhqm.sqs.names import is_fifo, is_url

RETENTION_SECONDS = 14 * 86400
"""For a queue that is made: as long as SQS keeps a message."""
SHORTEST_RETENTION = 86400
PROBED = "openhqm-probe"
"""A name that is asked for to see whether SQS answers, and that no queue needs to have."""
ATTRIBUTES = ("ApproximateNumberOfMessages", "MessageRetentionPeriod", "RedrivePolicy")
MOST_URLS = 1000
"""How many URLs are remembered: messages of other programs name queues for their replies."""
SENDS = 4
"""How many batches of one queue are under way at a time; of a FIFO queue one, which keeps their order."""


class Receipt(NamedTuple):
    """What SQS knows a delivery by: the channel, and the handle of this very delivery."""

    channel: str
    handle: str


class SqsProduct:
    """The queues that ``url_of`` and the names of channels lead to.

    ``queue_of`` makes the name of a queue of that of a channel. ``urls`` has the URL of a channel where that is known.
    ``lease`` is for how many seconds a message is taken. ``makes``: `make` makes a queue that is missing. ``probed`` is
    the channel that is asked for to see whether SQS answers, where it has not answered anything for ``fresh`` seconds.
    ``time`` is that of the wall.
    """

    def __init__(
        self,
        calls: Calls,
        clock: IReactorTime,
        *,
        queue_of: Callable[[str], str],
        urls: Mapping[str, str],
        lease: float,
        makes: bool,
        probed: str = PROBED,
        fresh: float = 0.0,
        time: Callable[[], float],
    ) -> None:
        self.warnings: list[str] = []
        self._calls = calls
        self._clock = clock
        self._queue_of = queue_of
        self._known = dict(urls)
        self._urls: dict[str, str] = {}
        self._looking: dict[str, list[Deferred[str]]] = {}
        self._lease = visibility(lease)
        self._makes = makes
        self._probed = probed
        self._fresh = fresh
        self._time = time
        self._batches: dict[tuple[str, str], Batches] = {}
        self._warned: dict[str, Sequence[str]] = {}
        self._polls: dict[str, Poll] = {}
        self._skewed: str | None = None

    # Reaching it

    @deferred
    async def probe(self) -> None:
        heard = self._calls.heard
        if heard is not None and self._clock.seconds() - heard < self._fresh:
            return  # it has answered something else: each request costs
        self._polls.clear()  # those of a connection that is gone answer no other caller
        try:
            if self._probed in self._known:
                await self._attributes(self._probed)
            else:
                answer = await self._calls.call("get_queue_url", QueueName=self._queue_of(self._probed))
                self._look_at_the_clock(answer)
        except ChannelMissing:
            pass  # SQS has answered

    def _look_at_the_clock(self, answer: Mapping[str, Any]) -> None:
        headers = answer.get("ResponseMetadata", {}).get("HTTPHeaders") or {}
        ahead = skew(headers.get("date"), self._time())
        self._skewed = None
        if ahead is not None and abs(ahead) > CLOCK_SECONDS / 2:
            self._skewed = f"{clock_warning(ahead)}: beyond five minutes it refuses every request"
        self._tell_warnings()

    def url(self, channel: str) -> Deferred[str]:
        """The URL of the channel's queue. `ChannelMissing`. Callers of one channel hear in their order."""
        known = channel if is_url(channel) else self._known.get(channel) or self._urls.get(channel)
        if known is not None:
            return succeed(known)
        waiting: Deferred[str] = Deferred()
        if channel in self._looking:
            self._looking[channel].append(waiting)
        else:
            self._looking[channel] = [waiting]
            looking = self._calls.call("get_queue_url", channel, QueueName=self._queue_of(channel))
            looking.addBoth(self._found, channel)
        return waiting

    def _found(self, result: Any, channel: str) -> None:
        if not isinstance(result, Failure):
            self._urls[channel] = result = result["QueueUrl"]
            if len(self._urls) > MOST_URLS:
                del self._urls[next(iter(self._urls))]
        for waiting in self._looking.pop(channel):
            if not waiting.called:
                waiting.callback(result)

    def _forget(self, failure: Failure, channel: str) -> Failure:
        if failure.check(ChannelMissing):
            self._urls.pop(channel, None)
        return failure

    @deferred
    async def _about(self, operation: str, channel: str, **arguments: Any) -> Any:
        url = await self.url(channel)
        asked = self._calls.call(operation, channel, QueueUrl=url, **arguments)
        return await asked.addErrback(self._forget, channel)

    # Publishing

    @deferred
    async def publish(self, channel: str, messages: Sequence[Message]) -> Sequence[NotDurable | None]:
        await self.url(channel)
        sending = [self._send(channel, message) for message in messages]
        try:
            results = await DeferredList(sending, consumeErrors=True)
        finally:
            for each in sending:
                each.cancel()  # where the caller has given up: what was not sent is not sent later
        return [None if success else _not_durable(cast(Failure, result)) for success, result in results]

    def _send(self, channel: str, message: Message) -> Deferred[None]:
        try:
            entry, size = to_entry(message)
        except Unsendable as error:
            return fail(NotDurable(str(error)))
        if is_fifo(self._known.get(channel) or self._queue_of(channel)):
            # The id of one decision to publish, kept while it is repeated here. That of the request would not do: what
            # is handed back is published again unchanged, and SQS would confirm and drop it for five minutes.
            entry.setdefault(DEDUPLICATION, uuid4().hex)
            if message.properties is not None and GROUP not in entry:
                return fail(NotDurable(f"{channel} is a FIFO queue, which takes no message without a key"))
            if message.properties is None:
                entry[GROUP] = group_of(message.key) if message.key is not None else entry[DEDUPLICATION]
        elif message.properties is None:
            entry.pop(GROUP, None)
        return self._add("send_message_batch", channel, entry, size)

    def _add(self, operation: str, channel: str, entry: dict[str, Any], size: int = 0) -> Deferred[None]:
        batches = self._batches.get((operation, channel))
        if batches is None:
            ordered = operation == "send_message_batch" and is_fifo(self._known.get(channel) or self._queue_of(channel))
            most = 1 if ordered else SENDS
            batches = self._batches[operation, channel] = Batches(
                channel,
                lambda entries: shielded(_awaited(self._about(operation, channel, Entries=entries))),
                self._clock,
                most,
                lambda: self._batches.pop((operation, channel), None),
            )
        return batches.add(entry, size)

    # Consuming

    @deferred
    async def take(self, channel: str, most: int) -> Sequence[Taken]:
        url = await self.url(channel)
        poll = self._polls.pop(channel, None)
        if poll is None or poll.over or poll.most > most:
            poll = Poll(min(most, MOST_ENTRIES))
            answer = self._wait_for(poll, channel)
            self._calls.poll(poll, channel, url, self._lease)
        else:
            poll.given_up.clear()
            answer = self._wait_for(poll, channel)
        found = await answer.addErrback(self._forget, channel)
        return [self._taken(channel, each) for each in found]

    def _wait_for(self, poll: Poll, channel: str) -> Deferred[Any]:
        def give_up(_: Deferred[Any]) -> None:
            poll.answer = None
            poll.given_up.set()
            self._polls[channel] = poll

        poll.answer = Deferred(give_up)
        return poll.answer

    def _taken(self, channel: str, found: Mapping[str, Any]) -> Taken:
        count = int((found.get("Attributes") or {}).get("ApproximateReceiveCount") or 1) - 1
        receipt = Receipt(channel, found["ReceiptHandle"])
        return Taken(receipt, from_sqs(found), max(0, count), found.get("MessageId"))

    def ack(self, receipt: Receipt) -> Deferred[None]:
        return self._add("delete_message_batch", receipt.channel, {"ReceiptHandle": receipt.handle})

    def requeue(self, receipt: Receipt) -> Deferred[None]:
        return self._change(receipt, 0)

    def extend(self, receipt: Receipt, seconds: float) -> Deferred[Receipt]:
        return self._change(receipt, visibility(seconds)).addCallback(lambda _: receipt)

    def _change(self, receipt: Receipt, seconds: int) -> Deferred[None]:
        entry = {"ReceiptHandle": receipt.handle, "VisibilityTimeout": seconds}
        return self._add("change_message_visibility_batch", receipt.channel, entry)

    # Channels

    @deferred
    async def make(self, channel: str) -> None:
        try:
            await self._attributes(channel)
            return
        except ChannelMissing:
            if not self._makes or channel in self._known:
                raise NotDurable(f"SQS has no queue {self._queue_of(channel)}, and no prefix to make it with") from None
        name = self._queue_of(channel)
        attributes = {"MessageRetentionPeriod": str(RETENTION_SECONDS)}
        if is_fifo(name):
            attributes["FifoQueue"] = "true"
        answer = await self._calls.call("create_queue", channel, QueueName=name, Attributes=attributes)
        self._urls[channel] = answer["QueueUrl"]

    @deferred
    async def depth(self, channel: str) -> int | None:
        return int((await self._attributes(channel)).get("ApproximateNumberOfMessages") or 0)

    async def _attributes(self, channel: str) -> Mapping[str, str]:
        answer = await self._about("get_queue_attributes", channel, AttributeNames=list(ATTRIBUTES))
        found: Mapping[str, str] = answer.get("Attributes") or {}
        self._look_at_the_clock(answer)
        self._warned[channel] = settings_warnings(channel, found)
        self._tell_warnings()
        return found

    def _tell_warnings(self) -> None:
        skewed = [] if self._skewed is None else [self._skewed]
        self.warnings[:] = [*(each for found in self._warned.values() for each in found), *skewed]


def settings_warnings(channel: str, attributes: Mapping[str, str]) -> Sequence[str]:
    """What of a queue's own settings breaks a promise."""
    found = []
    retention = int(attributes.get("MessageRetentionPeriod") or RETENTION_SECONDS)
    if retention < SHORTEST_RETENTION:
        found.append(f"{channel}: SQS deletes what has waited for {retention} s (MessageRetentionPeriod)")
    policy = attributes.get("RedrivePolicy")
    if policy:
        try:
            most = int(json.loads(policy).get("maxReceiveCount"))
        except (ValueError, TypeError, AttributeError):
            return found
        found.append(f"{channel}: SQS moves a message away at its delivery {most + 1} (RedrivePolicy)")
    return found


def visibility(seconds: float) -> int:
    """A visibility timeout, in whole seconds, that ends after our own lease does: we count from the arrival."""
    return int(seconds) + 1


def group_of(key: str) -> str:
    """The group of a key: up to 128 characters of ASCII without a space (``SendMessage``). Others get a digest."""
    if 0 < len(key) <= 128 and key.isascii() and key.isprintable() and " " not in key:
        return key
    from hashlib import blake2b

    return blake2b(key.encode(errors="surrogatepass"), digest_size=32).hexdigest()


async def _awaited(waiting: Deferred[Any]) -> Any:
    return await waiting


def _not_durable(failure: Failure) -> NotDurable:
    error = failure.value
    return error if isinstance(error, NotDurable) else NotDurable(f"SQS: {failure.getErrorMessage()}", maybe_done=True)

# -*- test-case-name: tests.sqs.test_broker -*-
"""Calls of SQS by boto3, in threads of their own: what is asked for waits in others than what is sent."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.internet.task import deferLater
from twisted.logger import Logger

from openhqm.errors import NotDurable
from openhqm.pulled.product import Unreachable
from openhqm.runtime.deferreds import shielded
from openhqm.runtime.threads import Threads
from openhqm.sqs.errors import ConnectionClosed, CredentialsRefused, Throttled, translate

CALLS = 8
"""How many threads send, delete and extend."""
POLLS = 16
"""How many threads wait for messages. More queues than that take turns."""
LONGEST_POLL = 20
"""Seconds: the longest wait that SQS knows."""
SHORTEST_POLL = 1
CONNECT_SECONDS = 2.0
GRACE_SECONDS = 5.0
"""How much longer than it was asked to wait the answer to a question may take."""
FIRST_PAUSE = 0.1

_making = threading.Lock()
"""Clients of one session are made one after the other (boto3's guide on sessions and threads)."""

MakeSession = Callable[[], Any]
"""Makes a ``boto3.session.Session``: it looks for credentials, and reads their files."""


def default_session() -> Any:
    """Credentials by boto3's own chain."""
    import boto3

    return boto3.session.Session()


class Poll:
    """A question that waits in a thread for messages. It cannot be interrupted: where it is given up, another caller
    may have its answer, and else what it finds goes back.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.answer: Deferred[list[dict[str, Any]]] | None = None
        self.given_up = threading.Event()
        self.over = False


class Calls:
    """The client of one process. ``seconds`` is how long an answer may take, ``wait`` how long a question for messages.

    ``random`` is as `random.random`. No function of it is called before `start`. ``heard`` is when SQS answered last,
    by ``reactor``; None: not since a call has failed as calls do where it cannot be reached.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        random: Callable[[], float],
        *,
        region: str | None,
        endpoint_url: str | None,
        seconds: float,
        wait: int = LONGEST_POLL,
        make_session: MakeSession = default_session,
    ) -> None:
        self.wait = wait
        self._reactor = reactor
        self._random = random
        self._place = {"region_name": region, "endpoint_url": endpoint_url}
        self._seconds = seconds
        self._make_session = make_session
        self._calls = Threads(reactor, "sqs", CALLS)
        self._polls = Threads(reactor, "sqs-polls", POLLS)
        self._turns = DeferredSemaphore(POLLS)
        self._pollers = 0
        self.heard: float | None = None
        self._clients: tuple[Any, Any] | None = None
        self.looks_for_credentials = False
        self.stopped = threading.Event()

    def start(self) -> None:
        """Start the threads."""
        self._calls.start()
        self._polls.start()

    def stop(self) -> None:
        """Let what is under way end by itself: no thread keeps the process."""
        self.stopped.set()
        self._calls.stop()
        self._polls.stop()

    def call(self, operation: str, channel: str | None = None, **arguments: Any) -> Deferred[Any]:
        """The answer of SQS. `NotDurable`, or one of its kinds in `openhqm.sqs.errors`.

        What is throttled is repeated, with a pause that grows, for half of the time that an answer may take; what met a
        connection that was closed, once. Cancelled, it fails at once, and the thread goes on.
        """
        return shielded(self._call(operation, channel, arguments))

    async def _call(self, operation: str, channel: str | None, arguments: dict[str, Any]) -> Any:
        began, pause, closed = self._reactor.seconds(), FIRST_PAUSE, False
        while True:
            try:
                answer = await self._calls.run(partial(self._ask, 0, operation, channel, arguments))
                self.heard = self._reactor.seconds()
                return answer
            except ConnectionClosed:
                if closed:
                    self.heard = None
                    raise
                closed = True
            except Throttled:
                if self._reactor.seconds() + pause - began > self._seconds / 2:
                    raise
                await deferLater(self._reactor, pause * (0.5 + self._random()))
                pause *= 2
            except NotDurable as error:
                self.heard = None if isinstance(error, Unreachable) else self._reactor.seconds()
                raise

    def poll(self, poll: Poll, channel: str, url: str, lease: int) -> None:
        """Ask for messages, up to ``poll.most``, each leased for so many seconds. ``poll.answer`` fires in the end."""
        shielded(self._poll(poll, channel, url, lease)).addBoth(self._answered, poll)

    async def _poll(self, poll: Poll, channel: str, url: str, lease: int) -> list[dict[str, Any]]:
        self._pollers += 1
        await self._turns.acquire()
        try:
            if poll.given_up.is_set():
                return []
            wait = self.wait if self._pollers <= POLLS else max(SHORTEST_POLL, self.wait * POLLS // self._pollers)
            found: list[dict[str, Any]] = await self._polls.run(
                partial(self._receive, poll, channel, url, min(wait, self.wait), lease)
            )
            self.heard = self._reactor.seconds()
        except Unreachable:
            self.heard = None
            raise
        finally:
            self._pollers -= 1
            self._turns.release()
        if found and poll.given_up.is_set():  # since the thread has looked
            await self._calls.run(partial(self._hand_back, channel, url, found))
            return []
        return found

    def _answered(self, result: Any, poll: Poll) -> None:
        poll.over = True
        answer, poll.answer = poll.answer, None
        if answer is not None and not answer.called:
            answer.callback(result)

    def _receive(self, poll: Poll, channel: str, url: str, wait: int, lease: int) -> list[dict[str, Any]]:
        """In a thread."""
        arguments = {
            "QueueUrl": url,
            "MaxNumberOfMessages": poll.most,
            "WaitTimeSeconds": wait,
            "VisibilityTimeout": lease,
            "AttributeNames": ["ApproximateReceiveCount", "MessageGroupId"],
            "MessageAttributeNames": ["All"],
        }
        found: list[dict[str, Any]] = self._ask(1, "receive_message", channel, arguments).get("Messages") or []
        if found and poll.given_up.is_set():
            self._hand_back(channel, url, found)
            return []
        return found

    def _hand_back(self, channel: str, url: str, found: Sequence[Mapping[str, Any]]) -> None:
        """In a thread: let messages that no caller wants be received at once, and not after their lease."""
        entries = [
            {"Id": str(number), "ReceiptHandle": each["ReceiptHandle"], "VisibilityTimeout": 0}
            for number, each in enumerate(found)
        ]
        self._ask(0, "change_message_visibility_batch", channel, {"QueueUrl": url, "Entries": entries})

    def _ask(self, kind: int, operation: str, channel: str | None, arguments: dict[str, Any]) -> Any:
        """In a thread: call boto3."""
        clients = None
        try:
            clients = self._connect()
            return getattr(clients[kind], operation)(**arguments)
        except Exception as error:
            known = translate(error, channel)
            if isinstance(known, CredentialsRefused):
                self._forget(clients)
            raise known from None

    def _connect(self) -> tuple[Any, Any]:
        with _making:
            if self._clients is None:
                from botocore.config import Config

                session = self._find_credentials()
                common = Config(retries={"total_max_attempts": 1}, tcp_keepalive=True, connect_timeout=CONNECT_SECONDS)
                short = common.merge(Config(read_timeout=self._seconds, max_pool_connections=CALLS))
                long = common.merge(Config(read_timeout=self.wait + GRACE_SECONDS, max_pool_connections=POLLS))
                made = [session.client("sqs", config=config, **self._place) for config in (short, long)]
                self._clients = (made[0], made[1])
            return self._clients

    def _find_credentials(self) -> Any:
        """A session that has them at hand: a service that gives them out may take minutes, or never answer."""
        self.looks_for_credentials = True
        try:
            session = self._make_session()
            found = session.get_credentials()
            if found is not None:
                found.get_frozen_credentials()
            return session
        finally:
            self.looks_for_credentials = False

    def _forget(self, clients: tuple[Any, Any] | None) -> None:
        """Look for credentials again: a file of them may have been exchanged."""
        with _making:
            if self._clients is clients:
                self._clients = None

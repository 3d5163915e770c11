# -*- test-case-name: tests.storeless.test_second_store -*-
"""Messages of another store that uses the same broker and prefix: they go back for the process that has that store."""

from __future__ import annotations

from typing import Any
from zlib import crc32

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from openhqm.brokered.source import Source
from openhqm.interfaces import IBrokerDelivery, Message

FOREIGN_SECONDS = 30.0
"""How long a message of another store is kept on average, so that it does not come again at once."""


class PutAside:
    """Keeps deliveries for about `FOREIGN_SECONDS`, and puts each message into its channel again.

    It is logged once, and stays in ``warning`` until no such message has come for twice as long.
    """

    _log = Logger()

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._calls: set[Any] = set()
        self._said: str | None = None
        self._said_until = 0.0

    def __len__(self) -> int:
        return len(self._calls)

    @property
    def warning(self) -> str | None:
        """That another store uses this broker, or None."""
        return self._said if self._clock.seconds() < self._said_until else None

    def add(self, delivery: IBrokerDelivery, source: Source, message: Message, correlation_id: str) -> None:
        """Keep the delivery. ``message`` is what goes back in its place."""
        text = (
            "{channel} has {id}, which this store has not given out: does another process with a store of its own use "
            "this broker and prefix, or was the data directory removed?"
        )
        if self.warning is None:
            self._log.error(text, channel=source.channel, id=correlation_id)
            self._said = text.format(channel=source.channel, id=correlation_id)
        self._said_until = self._clock.seconds() + 2 * FOREIGN_SECONDS

        def put_back() -> None:
            self._calls.discard(call)
            source.republish(delivery, message)

        call = self._clock.callLater(self._seconds(correlation_id), put_back)
        self._calls.add(call)

    def _seconds(self, correlation_id: str) -> float:
        """From half to one and a half of `FOREIGN_SECONDS`, and another time each time.

        A broker may deliver to two processes in turn. Two messages that went back at the same times would each come to
        the wrong process again, for ever.
        """
        return FOREIGN_SECONDS * (0.5 + crc32(f"{correlation_id} {self._clock.seconds()}".encode()) / 2**32)

    def stop(self) -> None:
        """Put nothing back any more: what is kept is delivered again when the connection or the lease ends."""
        for call in self._calls:
            call.cancel()
        self._calls.clear()

# -*- test-case-name: tests.redis.test_foreign -*-
"""A stream of our own in which other programs answer what was added to theirs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger

from openhqm.errors import NotDurable
from openhqm.interfaces import Message
from openhqm.redis.driver import is_refusal
from openhqm.redis.reconnecting import FIRST_PAUSE, LONGEST_PAUSE, Reconnecting
from openhqm.redis.streams import BLOCK_SECONDS, Command, entries_of, read
from openhqm.runtime.answers import Answers
from openhqm.runtime.deferreds import deferred

MOST_ENTRIES = 100
LEFT_SECONDS = 3600
"""How long the stream of a process that was killed is kept."""


class StreamAnswers:
    """The answers in the stream ``name``, which this process alone reads and deletes.

    It reads over ``link``, and asks for everything else by ``command``. An answer that comes while there is no
    connection is read with the next one. ``random`` is as `random.random`.
    """

    _log = Logger()

    def __init__(
        self, name: str, link: Reconnecting, command: Command, clock: Any, random: Callable[[], float]
    ) -> None:
        self.name = name
        self._link = link
        self._command = command
        self._clock = clock
        self._random = random
        self._answers = Answers()
        self._after = "0-0"
        self._running: Deferred[None] | None = None

    def expect(self, correlation: bytes) -> Deferred[Message]:
        """Fires with the answer. Cancel it to give it up."""
        if self._running is None:
            self._link.start()
            self._running = self._run()
        return self._answers.expect(correlation)

    @deferred
    async def stop(self) -> None:
        """Read no more, and delete the stream where Redis can be reached. It does not fail."""
        if self._running is None:
            return
        self._running.cancel()
        await self._link.stop()
        try:
            await self._command("DEL", self.name)
        except NotDurable as error:
            self._log.debug("{stream} is left until it expires: {reason}", stream=self.name, reason=error.reason)

    @deferred
    async def _run(self) -> None:
        pause = FIRST_PAUSE
        try:
            while True:
                await self._link.when_up()
                try:
                    await self._read()
                    pause = FIRST_PAUSE
                    continue
                except NotDurable as error:
                    reason = error.reason
                except Exception as error:
                    if isinstance(error, CancelledError):
                        raise
                    if not is_refusal(error):
                        self._log.failure("reading {stream} broke down", stream=self.name)
                    reason = str(error)
                self._log.error("{stream} cannot be read: {reason}", stream=self.name, reason=reason)
                await deferLater(self._clock, pause * (0.5 + self._random()))
                pause = min(2 * pause, LONGEST_PAUSE)
        except CancelledError:
            pass  # by `stop`

    async def _read(self) -> None:
        block = int(BLOCK_SECONDS * 1000)
        found: Any = await self._link.ask(
            "XREAD", "COUNT", MOST_ENTRIES, "BLOCK", block, "STREAMS", self.name, self._after
        )
        entries = entries_of(found[0][1]) if found else []
        if not entries:
            return
        self._after = entries[-1][0]
        for id, fields in entries:
            self._answers.received(read(id, fields, self.name))
        await self._command("XDEL", self.name, *(id for id, _ in entries))
        await self._command("EXPIRE", self.name, LEFT_SECONDS)

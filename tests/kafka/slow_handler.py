"""A handler that takes its time, for tests that look at work in the middle of it."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor
from twisted.internet.task import deferLater

from openhqm.workers.handlers import Work

SECONDS = 0.1


async def handle(work: Work) -> Any:
    """The payload, after a while."""
    await deferLater(reactor, SECONDS)  # type: ignore[arg-type]
    return work.payload

"""Handlers for the benchmark of a slow key: 200 ms for each request, and two seconds for those of one key."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor
from twisted.internet.task import deferLater

from openhqm.workers.handlers import Work

USUAL, SLOW = 0.2, 2.0


async def handle(work: Work) -> Any:
    """The payload, after a while."""
    await deferLater(reactor, SLOW if work.payload["slow"] else USUAL)  # type: ignore[arg-type]
    return work.payload

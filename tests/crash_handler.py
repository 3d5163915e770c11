"""The handler of the crash test: a pure function of the payload, in no hurry, so that kills meet it at work."""

from __future__ import annotations

import random
from typing import Any

from twisted.internet.task import deferLater

from openhqm.workers.handlers import Work


async def handle(work: Work) -> Any:
    """The square."""
    from twisted.internet import reactor

    await deferLater(reactor, random.uniform(0, 0.03))  # type: ignore[arg-type]
    return {"n": work.payload["n"], "square": work.payload["n"] ** 2}

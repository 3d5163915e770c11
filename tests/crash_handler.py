"""The handlers of the crash tests. They take some time, so that kills meet them at work."""

from __future__ import annotations

import random
from typing import Any

from twisted.internet.task import deferLater

from openhqm.workers.handlers import Work


async def handle(work: Work) -> Any:
    """Return the square after up to 0.03 s, after as many failures as are asked for."""
    if "follows" in work.payload:
        return {"follows": work.payload["follows"]}
    if work.attempt <= work.payload.get("fails", 0):
        raise RuntimeError("no luck yet")
    return await _square(work, 0.03)


async def slowly(work: Work) -> Any:
    """Return the square after up to 0.6 s, so that a long poll is open when processes are replaced."""
    return await _square(work, 0.6)


async def _square(work: Work, seconds: float) -> Any:
    from twisted.internet import reactor

    await deferLater(reactor, random.uniform(0, seconds))  # type: ignore[arg-type]
    return {"n": work.payload["n"], "square": work.payload["n"] ** 2}

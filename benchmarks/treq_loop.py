"""The yardstick of forwarding: treq alone, 64 calls at once: python -m benchmarks.treq_loop URL SECONDS"""

from __future__ import annotations

import sys
import time

import treq
from twisted.internet.defer import gatherResults
from twisted.internet.task import react
from twisted.web.client import Agent, HTTPConnectionPool

from benchmarks.running import BODY
from openhqm.runtime.deferreds import deferred

UNDER_WAY = 64


async def main(reactor, url: str, seconds: str) -> None:
    """Print the calls per second."""
    pool = HTTPConnectionPool(reactor)
    pool.maxPersistentPerHost = UNDER_WAY
    client = treq.client.HTTPClient(Agent(reactor, pool=pool))
    ends = time.perf_counter() + float(seconds)
    calls = 0

    @deferred
    async def loop() -> None:
        nonlocal calls
        while time.perf_counter() < ends:
            response = await client.post(url, data=BODY, headers={"Content-Type": "application/json"})
            await response.content()
            calls += 1

    started = time.perf_counter()
    await gatherResults([loop() for _ in range(UNDER_WAY)])
    print(calls / (time.perf_counter() - started))


if __name__ == "__main__":
    react(main, sys.argv[1:])

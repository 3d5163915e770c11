"""The yardsticks of forwarding: a client alone, 64 calls at once.

    python -m benchmarks.client_loop ours|treq URL CALLS [rate]

Prints the microseconds of CPU for each call, or how many calls a second there were.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from twisted.internet.defer import gatherResults
from twisted.internet.task import react

from benchmarks.running import BODY
from openhqm.http1.client import make_client
from openhqm.runtime.deferreds import deferred

UNDER_WAY = 64
FIELDS = [(b"Content-Type", b"application/json"), *((b"X-Field-%d" % number, b"x" * 36) for number in range(5))]


def ours(reactor, url: str) -> Callable[[], Awaitable[object]]:
    """A call by `Client.fetch`, with as many header fields as a forwarded request has."""
    client = make_client(reactor, kept=UNDER_WAY)
    return lambda: client.fetch(b"POST", url.encode(), FIELDS, BODY, 1 << 20)


def by_treq(reactor, url: str) -> Callable[[], Awaitable[object]]:
    """A call by treq over Twisted's Agent."""
    from treq.client import HTTPClient
    from twisted.web.client import Agent, HTTPConnectionPool

    pool = HTTPConnectionPool(reactor)
    pool.maxPersistentPerHost = UNDER_WAY
    client = HTTPClient(Agent(reactor, pool=pool))
    headers = dict(FIELDS)

    async def call() -> None:
        response = await client.post(url, data=BODY, headers=headers)
        await response.content()

    return call


async def main(reactor, which: str, url: str, calls: str, figure: str = "cpu") -> None:
    """Make the calls twice, and print what the second time cost, or its rate: the first one warms up."""
    call = ours(reactor, url) if which == "ours" else by_treq(reactor, url)
    left = 0

    @deferred
    async def loop() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            await call()

    for count in (int(calls) // 4, int(calls)):
        left, started, began = count, time.process_time(), time.perf_counter()
        await gatherResults([loop() for _ in range(UNDER_WAY)])
        spent, took = time.process_time() - started, time.perf_counter() - began
    print(int(calls) / took if figure == "rate" else spent / int(calls) * 1e6)


if __name__ == "__main__":
    import sys

    react(main, sys.argv[1:])

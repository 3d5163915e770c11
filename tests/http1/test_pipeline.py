"""Pipelined requests: what they cost in memory while they wait, and that all of them are answered."""

from __future__ import annotations

import gc
import tracemalloc

from twisted.trial.unittest import SynchronousTestCase

from openhqm.http1.pipeline import MOST_PIPELINED
from openhqm.http1.request_reader import HEAD_SECONDS
from tests.http1.memory_server import READ, MemoryServer

HELD = b"GET /hold HTTP/1.1\r\nHost: x\r\n\r\n"
SMALLEST = b"GET / HTTP/1.1\r\nHost:\r\n\r\n"


def with_fields(count: int) -> bytes:
    """A request with so many fields of a few bytes."""
    fields = b"".join(b"X-%d: y\r\n" % number for number in range(count))
    return b"GET / HTTP/1.1\r\nHost: x\r\n%b\r\n" % fields


class PipelineTests(SynchronousTestCase):
    """Many requests in one read"""

    def test_memory(self) -> None:
        """They take a fraction of a MiB on each connection, most of them as they came; and the site counts it."""
        for request in (SMALLEST, with_fields(10), with_fields(99)):
            server = MemoryServer()
            server.send(HELD)
            read = (request * 3000)[:READ]
            gc.collect()
            tracemalloc.start()
            try:
                before = tracemalloc.get_traced_memory()[0]
                server.protocol.dataReceived(read)
                gc.collect()
                grown = tracemalloc.get_traced_memory()[0] - before
            finally:
                tracemalloc.stop()
            self.assertLess(grown, 600_000)
            self.assertLess(server.site.buffered, 600_000)
            self.assertLess(abs(grown - server.site.buffered), 0.5 * grown)
            server.hang_up()
            self.assertEqual(server.site.buffered, 0)

    def test_answered(self) -> None:
        """All are answered in order, whether or not the first one keeps them waiting, also by a site that relays."""
        for relays in (False, True):
            for first in (HELD, SMALLEST):
                server = MemoryServer()
                if relays:
                    server.site.select_sink = lambda head: None
                count = READ // len(SMALLEST) - 10
                requests = [b"GET /%d HTTP/1.1\r\nHost:\r\n\r\n" % number for number in range(count)]
                answer = server.send(first + b"".join(requests))
                for request in server.application.held:
                    request.finish()
                while more := server.take():
                    answer += more
                targets = [b"/%d" % number for number in range(count)]
                self.assertEqual([seen.target for seen in server.seen[1:]], targets)
                self.assertEqual(server.statuses(answer), [200] * (count + 1))
                self.assertEqual((server.transport.producerState, server.site.buffered), ("producing", 0))

    def test_half_a_request_behind(self) -> None:
        """The time of a request that is not read, because others wait before it, does not run."""
        server = MemoryServer()
        server.send(HELD + SMALLEST * MOST_PIPELINED + SMALLEST[:5])
        server.clock.pump([1.0] * int(HEAD_SECONDS * 3))
        server.application.held[0].finish()
        answer = server.take()
        answer += server.send(SMALLEST[5:])
        self.assertEqual(server.statuses(answer), [200] * (MOST_PIPELINED + 2))
        server.send(SMALLEST[:5])
        server.clock.pump([1.0] * int(HEAD_SECONDS + 2))
        self.assertEqual(server.statuses(server.take()), [408])

    def test_closed_behind(self) -> None:
        """Requests behind one that ends the connection are dropped, also where they were not read yet."""
        server = MemoryServer()
        close = b"GET /close HTTP/1.1\r\nHost:\r\nConnection: close\r\n\r\n"
        server.send(HELD + SMALLEST * 100 + close + SMALLEST * 100)
        server.application.held[0].finish()
        answer = b""
        while more := server.take():
            answer += more
        self.assertEqual(server.statuses(answer), [200] * 102)
        self.assertEqual((server.transport.closed, server.site.buffered), (True, 0))

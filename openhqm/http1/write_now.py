# -*- test-case-name: tests.http1.test_write_now -*-
"""Writing to a connection in this turn of the reactor, where that can be done without a copy of it in a buffer."""

from __future__ import annotations

from typing import Any

from twisted.internet.tcp import Client


def write_now(transport: Any, data: bytes) -> None:
    """Write ``data`` as ``transport.write`` does, and give it to the kernel at once where nothing waits before it.

    Twisted asks the kernel first whether it would take anything, and writes in the next turn. For a small request on an
    idle connection that is two system calls and one turn too many. What the kernel does not take waits as usual, and so
    does a lost connection, which the transport then notices itself. TLS writes in its own way.
    """
    # As in `send_backlog`: what waits is in one of these two.
    waiting = getattr(transport, "dataBuffer", b"x") or getattr(transport, "_tempDataBuffer", b"x")
    plain = type(transport) is Client and not transport.TLS
    if plain and not waiting and transport.connected and not transport.disconnecting:
        sent = transport.writeSomeData(data)
        if isinstance(sent, int) and sent > 0:
            data = data[sent:]
    if data:
        transport.write(data)

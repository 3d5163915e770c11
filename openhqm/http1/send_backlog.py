# -*- test-case-name: tests.http1.test_send_backlog -*-
"""The bytes written to a connection that the peer has not received yet.

While they decrease, the peer is slow; where they do not, it is dead.
"""

from __future__ import annotations

import struct
from contextlib import suppress
from typing import Any

try:
    import fcntl
    import termios
except ImportError:  # not on every system: the kernel's buffer then counts as received
    _OUTQ = None
else:
    _OUTQ = getattr(termios, "TIOCOUTQ", None)


def waiting_bytes(transport: Any) -> int:
    """The bytes in the transport's buffer: those that this process has in memory."""
    waiting = len(getattr(transport, "dataBuffer", b"")) - getattr(transport, "offset", 0)
    return int(waiting + getattr(transport, "_tempDataLen", 0))


def send_backlog(transport: Any) -> int:
    """The bytes in the transport's buffer and, on Linux, those in the kernel's that the peer has not acknowledged.

    The kernel's buffer must count: the kernel takes more from the transport only once a third of its buffer is free,
    and with a slow peer that can take minutes, during which the transport's own buffer does not change.
    """
    backlog = waiting_bytes(transport)
    if _OUTQ is not None and hasattr(transport, "fileno"):
        with suppress(OSError, ValueError):  # the socket was closed, or the transport has none
            backlog += int(struct.unpack("i", fcntl.ioctl(transport.fileno(), _OUTQ, b"\0" * 4))[0])
    return backlog

# -*- test-case-name: tests.http1.test_send_backlog -*-
"""How much of what was written to a peer has not arrived: whether it falls tells a slow one from a dead one."""

from __future__ import annotations

import struct
from contextlib import suppress
from typing import Any

try:
    import fcntl
    import termios
except ImportError:  # not on every system; then what the kernel holds counts as arrived
    _OUTQ = None
else:
    _OUTQ = getattr(termios, "TIOCOUTQ", None)


def unsent(transport: Any) -> int:
    """The bytes in the transport's buffer, and (on Linux) those in the kernel's that the peer has not acknowledged.

    The kernel's are a part of it, for it takes nothing more before a third of its own buffer is free. With a peer that
    reads slowly that can be minutes.
    """
    held = len(getattr(transport, "dataBuffer", b"")) - getattr(transport, "offset", 0)
    held += getattr(transport, "_tempDataLen", 0)
    if _OUTQ is not None and hasattr(transport, "fileno"):
        with suppress(OSError, ValueError):  # it was closed, or is no socket
            held += struct.unpack("i", fcntl.ioctl(transport.fileno(), _OUTQ, b"\0" * 4))[0]
    return int(held)

# -*- test-case-name: tests.queue.test_contracts -*-
"""How much a request's history holds, wherever it rests."""

from __future__ import annotations

MOST_EVENTS = 1000
MOST_DETAIL_BYTES = 16 * 1024


def check_progress(number: int, detail: bytes) -> None:
    """`ValueError` where a progress event would not fit into the history."""
    if number > MOST_EVENTS:
        raise ValueError(f"a request's history holds {MOST_EVENTS} events; report progress less often")
    if len(detail) > MOST_DETAIL_BYTES:
        raise ValueError(f"a progress event holds {MOST_DETAIL_BYTES} bytes; put large results into the reply")

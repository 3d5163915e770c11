# -*- test-case-name: tests.queue.test_contracts -*-
"""Limits of a request's history, the same in every result store."""

from __future__ import annotations

MOST_EVENTS = 1000
MOST_DETAIL_BYTES = 16 * 1024
# A history is read in pieces, so that no read holds the reactor for long.
PIECE_EVENTS = 32
PIECE_BYTES = 64 * 1024  # of the details; the event that reaches them is the last of its piece


def check_progress(number: int, detail: bytes) -> None:
    """Raise `ValueError` where a progress event with this number and ``detail`` exceeds the limits."""
    if number > MOST_EVENTS:
        raise ValueError(f"the history of a request holds {MOST_EVENTS} events: report progress less often")
    if len(detail) > MOST_DETAIL_BYTES:
        raise ValueError(f"a progress event holds {MOST_DETAIL_BYTES} bytes: put large results into the reply")

# -*- test-case-name: tests.test_contracts -*-
"""What every result store does alike: the limits of a history, and the endings that it makes itself."""

from __future__ import annotations

from openhqm.messages import Reply, Status

MOST_EVENTS = 1000
MOST_DETAIL_BYTES = 16 * 1024


def check_progress(number: int, detail: bytes) -> None:
    """`ValueError` where a progress event would not fit into the history."""
    if number > MOST_EVENTS:
        raise ValueError(f"a request's history holds {MOST_EVENTS} events; report progress less often")
    if len(detail) > MOST_DETAIL_BYTES:
        raise ValueError(f"a progress event holds {MOST_DETAIL_BYTES} bytes; put large results into the reply")


def past_deadline(correlation_id: str, now: float, attempt: int) -> Reply:
    """The ending of a request whose deadline passed."""
    when = f"during attempt {attempt}" if attempt else "before the first attempt"
    return Reply(
        correlation_id, Status.TIMEOUT, now, error=f"the deadline passed {when}", status_code=504, attempt=attempt
    )


def cancelled(correlation_id: str, now: float, attempt: int) -> Reply:
    """The ending of a request that its caller cancelled."""
    return Reply(
        correlation_id, Status.CANCELLED, now, error="cancelled by the caller", status_code=409, attempt=attempt
    )

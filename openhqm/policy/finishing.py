# -*- test-case-name: tests.workers.test_finishing -*-
"""The words in which a target says that it ends a request later, and proves that it may."""

from __future__ import annotations

COMPLETION = "OpenHQM-Complete-Token"
"""The header field with the token, from the gateway to the target and back."""
_LATER = b"later"


def finishes_later(status: int, finish: bytes | None) -> bool:
    """Whether an answer says so: 202, with ``OpenHQM-Finish: later``."""
    return status == 202 and finish is not None and finish.strip().lower() == _LATER

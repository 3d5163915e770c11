# -*- test-case-name: tests.workers.test_finishing -*-
"""The words in which a target says that it ends a request later, and proves that it may."""

from __future__ import annotations

COMPLETION = "OpenHQM-Complete-Token"
"""The header field with the token, from the gateway to the target and back."""
LATER_STATUS = 202
_LATER = b"later"


def finishes_later(finish: bytes | None) -> bool:
    """Whether an answer with `LATER_STATUS` says so: by ``OpenHQM-Finish: later``, whose value this is."""
    return finish is not None and finish.strip().lower() == _LATER

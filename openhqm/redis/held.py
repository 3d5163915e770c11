# -*- test-case-name: tests.redis.test_contract -*-
"""Follow-ups in Redis: see ``hold_back`` in ``part_accepting.lua``."""

from __future__ import annotations

from msgspec.structs import replace

from openhqm.codec import encode_submission
from openhqm.messages import Submission
from openhqm.redis.ending_log import log_mark


def held_values(submission: Submission) -> tuple[str, bytes, bytes | str]:
    """The timeout of a follow-up, its envelope, and what the log of endings is told of it, as the scripts take them."""
    timeout = submission.timeout
    envelope = encode_submission(replace(submission, not_before=None))
    return "" if timeout is None else repr(timeout), envelope, log_mark(submission)

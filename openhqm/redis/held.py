# -*- test-case-name: tests.redis.test_contract -*-
"""Follow-ups in Redis: see ``hold_back`` in ``part_accepting.lua``."""

from __future__ import annotations

import attrs

from openhqm.codec import encode_submission
from openhqm.messages import Submission


def held_values(submission: Submission) -> tuple[str, bytes]:
    """The timeout of a follow-up, and its envelope, as the scripts take them."""
    timeout = submission.timeout
    return "" if timeout is None else repr(timeout), encode_submission(attrs.evolve(submission, not_before=None))

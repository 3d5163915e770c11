# -*- test-case-name: tests.queue.test_contracts -*-
"""What becomes of a dead letter that is tried anew."""

from __future__ import annotations

from attrs import evolve

from openhqm.messages import DeadLetter, Submission


def redriven(letter: DeadLetter) -> Submission:
    """The same submission at once, with ``metadata.redriven_from`` naming the request that failed."""
    old = letter.request
    metadata = {**old.submission.metadata, "redriven_from": old.correlation_id}
    return evolve(old.submission, metadata=metadata, not_before=None)

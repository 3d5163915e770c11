# -*- test-case-name: tests.queue.test_contracts -*-
"""The submission of a dead letter that is redriven."""

from __future__ import annotations

from attrs import evolve

from openhqm.messages import DeadLetter, Submission


def redriven(letter: DeadLetter) -> Submission:
    """The submission of the dead letter, to be handled at once. ``metadata.redriven_from`` names the failed request."""
    old = letter.request
    metadata = {**old.submission.metadata, "redriven_from": old.correlation_id}
    return evolve(old.submission, metadata=metadata, not_before=None)

# -*- test-case-name: tests.queue.test_contracts -*-
"""The submission of a dead letter that is redriven."""

from __future__ import annotations

from msgspec.structs import replace

from openhqm.messages import DeadLetter, Request, Submission

REDRIVEN_FROM = "redriven_from"
"""The metadata with the id of the request that failed."""
FIRST_ID = "redriven_first"
"""The metadata with the id of the request that failed first, where a redriven one has failed, too."""
OWN_METADATA = frozenset({REDRIVEN_FROM, FIRST_ID})
"""No submission may have them: a target knows a request again by what they say."""


def redriven(letter: DeadLetter) -> Submission:
    """The submission of the dead letter, to be handled at once. ``metadata.redriven_from`` names the failed request."""
    old = letter.request
    metadata = {**old.submission.metadata, REDRIVEN_FROM: old.correlation_id}
    if REDRIVEN_FROM in old.submission.metadata:
        metadata[FIRST_ID] = first_id(old)
    # The time of a step was what was left of its request's, which has ended.
    timeout = old.submission.timeout if old.submission.transform is None else None
    return replace(old.submission, metadata=metadata, timeout=timeout, not_before=None, coalescing=None)


def first_id(request: Request) -> str:
    """The id that the work of ``request`` had first: the same over all attempts and redrives."""
    metadata = request.submission.metadata
    if not metadata:
        return request.correlation_id
    return str(metadata.get(FIRST_ID) or metadata.get(REDRIVEN_FROM) or request.correlation_id)

# -*- test-case-name: tests.policy.test_callbacks -*-
"""Callbacks: what a request that names a URL leaves to be done once it has ended."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from openhqm.errors import DestinationRefused, InvalidRequest
from openhqm.messages import Submission

CALLBACKS = "callbacks"
"""The endpoint that they wait for, in a queue of their own. No submission can name it."""
CALLBACK_URL = "callback_url"
"""The metadata with the URL: of the request, and of its callback."""
_FIELD = f"metadata.{CALLBACK_URL}"


@attrs.frozen
class Callbacks:
    """``check`` raises `DestinationRefused` for a URL that must not be called."""

    check: Callable[[str], object]

    def of(self, submission: Submission) -> tuple[Submission, ...]:
        """The callback that ``submission`` asks for, as its follow-up. `InvalidRequest` where it cannot be made."""
        url = submission.metadata.get(CALLBACK_URL)
        if url is None:
            return ()
        try:
            self.check(str(url))
        except DestinationRefused as error:
            raise InvalidRequest(_FIELD, str(error)) from None
        callback = Submission(
            b"null",
            metadata={CALLBACK_URL: url},
            endpoint=CALLBACKS,
            tenant=submission.tenant,
            keeps_result=False,
        )
        return (callback,)


def refuse(submission: Submission) -> tuple[Submission, ...]:
    """In place of `Callbacks.of` where none are sent."""
    if CALLBACK_URL in submission.metadata:
        raise InvalidRequest(_FIELD, "cannot be called: this gateway has no callbacks.secrets to sign with")
    return ()

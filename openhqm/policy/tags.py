# -*- test-case-name: tests.policy.test_tags -*-
"""The tags of a request, which a stream of endings selects by; and how long the log of endings goes back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from openhqm.messages import Submission

TAGS = "tags"
"""The metadata that has them."""
MOST_TAGS = 20
MOST_TAG_CHARACTERS = 128
KEPT_SECONDS = 3600.0
"""How long an ending stays in the log, and for how long endings are written down behind the last reader."""
MOST_KEPT = 100_000
"""How many endings the log has at most. The oldest are dropped."""


def is_tag(value: Any) -> bool:
    """Whether a request may have ``value`` as a tag."""
    return isinstance(value, str) and 0 < len(value) <= MOST_TAG_CHARACTERS


def tags_in(metadata: Mapping[str, Any]) -> tuple[str, ...]:
    """The tags that ``metadata`` names; none where they are not what a caller may give."""
    found = metadata.get(TAGS)
    if not isinstance(found, list | tuple) or len(found) > MOST_TAGS or not all(is_tag(tag) for tag in found):
        return ()
    return tuple(found)


def logged_tags(submission: Submission) -> tuple[str, ...] | None:
    """The tags with which the ending of ``submission`` is written down. None: it is not, for no caller asks for it."""
    return tags_in(submission.metadata) if submission.keeps_result else None

# -*- test-case-name: tests.workers.test_plain_requests -*-
"""What the requests to a target have in common where each has only its content, and its attempt, to itself."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from openhqm.http1.field_lines import FieldLines, FieldTemplate
from openhqm.messages import Request, Submission
from openhqm.policy.fields import Document
from openhqm.policy.forwarding import Target, target_request


@attrs.frozen
class PlainRequest:
    """All of such a request but its content and the fields about its attempt, whose ``names`` are in their order."""

    method: str
    raw_method: bytes
    url: bytes
    has_content: bool
    template: FieldTemplate
    names: tuple[str, ...]
    credentials: Mapping[str, str]

    def fields(self, about: Mapping[str, str]) -> FieldLines:
        """The fields with those ``about`` an attempt. `ValueError` where one cannot be sent."""
        return self.template.fill([about[name].encode("ascii") for name in self.names])

    def content(self, submission: Submission) -> bytes | None:
        """The content of the request."""
        if not self.has_content:
            return None
        return submission.payload if submission.body is None else submission.body


class PlainRequests:
    """Makes them for ``target``, once for each kind of content, and again where the credentials have changed."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._made: dict[bool, PlainRequest | None] = {}

    def of(self, request: Request, about: Mapping[str, str], credentials: Mapping[str, str]) -> PlainRequest | None:
        """The one for ``request``, for which `is_plain` holds. None: it cannot be written without looking at it."""
        kind = request.submission.body is None
        found = self._made.get(kind)
        if found is None and kind in self._made:
            return None
        if found is None or found.credentials != credentials:
            try:
                found = self._make(request, about, credentials)
            except ValueError:  # it is no request that can be sent: the request itself will say why
                found = None
            self._made[kind] = found
        return found

    def _make(self, request: Request, about: Mapping[str, str], credentials: Mapping[str, str]) -> PlainRequest:
        made = target_request(
            self._target, request, None, Document(request.submission), about=about, credentials=credentials
        )
        fields = [
            (name.encode("ascii"), None if name in about else value.encode("utf-8"))
            for name, value in made.headers.items()
        ]
        return PlainRequest(
            made.method,
            made.method.encode(),
            made.url.encode("ascii"),
            made.content is not None,
            FieldTemplate(fields),
            tuple(name for name in made.headers if name in about),
            credentials,
        )

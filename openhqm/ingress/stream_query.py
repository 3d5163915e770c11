# -*- test-case-name: tests.ingress.test_ending_streams -*-
"""Reads what a stream over many requests is asked for: the query of ``GET /api/v1/events``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from openhqm.delivery.selection import MOST_IDS, Selection
from openhqm.errors import InvalidRequest
from openhqm.policy.tags import MOST_TAG_CHARACTERS, MOST_TAGS, is_tag

EVENTS = "/api/v1/events"
NO_LOG = "this backend keeps no log of endings: listen to each request at /api/v1/events/{id}"
_KNOWN = (b"id", b"tag", b"last_event_id")


def read_selection(query: Mapping[bytes, Sequence[bytes]], tenant: str | None) -> Selection:
    """The endings that ``query`` asks for; those of ``tenant`` alone, where that is not None. `InvalidRequest`.

    A name that is not known is refused: with a misspelled one the stream would tell of all requests.
    """
    for name in query:
        if name not in _KNOWN:
            raise InvalidRequest(
                name.decode("ascii", "replace")[:64], "is unknown; there are id, tag and last_event_id"
            )
    if b"id" in query and b"tag" in query:
        raise InvalidRequest("tag", "cannot be used together with id")
    ids = tuple(dict.fromkeys(id.lower() for id in _texts(query, "id")))
    if len(ids) > MOST_IDS:
        raise InvalidRequest("id", f"must stand there at most {MOST_IDS} times")
    tags = tuple(dict.fromkeys(_texts(query, "tag")))
    if len(tags) > MOST_TAGS:
        raise InvalidRequest("tag", f"must stand there at most {MOST_TAGS} times")
    if not all(map(is_tag, tags)):
        raise InvalidRequest("tag", f"must have 1 to {MOST_TAG_CHARACTERS} characters")
    return Selection(ids, tags, tenant)


def read_last_event_id(field: str | None, query: Mapping[bytes, Sequence[bytes]]) -> str:
    """Last-Event-ID, else ``?last_event_id=``, else nothing. What is no cursor is told so on the stream."""
    return field or query.get(b"last_event_id", [b""])[0].decode("ascii", "replace")


def _texts(query: Mapping[bytes, Sequence[bytes]], name: str) -> list[str]:
    try:
        return [value.decode("utf-8") for value in query.get(name.encode(), [])]
    except UnicodeDecodeError:
        raise InvalidRequest(name, "must be UTF-8") from None

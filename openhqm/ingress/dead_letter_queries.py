# -*- test-case-name: tests.ingress.test_dead_letters -*-
"""What is asked of the dead letters: a filter, how many, and where to go on. `InvalidRequest` names what is wrong."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from openhqm.errors import InvalidRequest
from openhqm.messages import DeadLetter
from openhqm.policy.json_text import members, parse_object
from openhqm.policy.reason_classes import ReasonClass, reason_class
from openhqm.runtime.times import parse_rfc3339

MOST_LISTED = 1000
USUAL_LISTED = 100
SLOWEST, FASTEST = 0.1, 10_000.0
_FILTER = ("endpoint", "reason_class", "since", "tenant")
_CURSOR = re.compile(r"(\d{1,20})(?:-(\d{1,20}))?\Z", re.ASCII)


@attrs.frozen
class Filter:
    """Which dead letters are meant: all that have what is given here.

    ``endpoint`` and ``tenant`` are those of the request; empty: it has none. ``since`` is the earliest time of failure,
    in seconds since the epoch.
    """

    endpoint: str | None = None
    reason_class: ReasonClass | None = None
    since: float | None = None
    tenant: str | None = None

    def matches(self, letter: DeadLetter) -> bool:
        """Whether ``letter`` is meant."""
        return (
            (self.endpoint is None or (letter.request.submission.endpoint or "") == self.endpoint)
            and (self.tenant is None or (letter.request.submission.tenant or "") == self.tenant)
            and (self.since is None or letter.at >= self.since)
            and (self.reason_class is None or reason_class(letter) is self.reason_class)
        )


@attrs.frozen
class Cursor:
    """Where to go on: behind the dead letter ``after``. As text it is for this server only.

    ``last`` is the number of the last one that is meant; None: there is no such end.
    """

    after: int = 0
    last: int | None = None

    def __str__(self) -> str:
        return f"{self.after}" if self.last is None else f"{self.after}-{self.last}"


@attrs.frozen
class Query:
    """A filter, the most dead letters of one answer, and where to go on."""

    filter: Filter = Filter()
    limit: int = USUAL_LISTED
    cursor: Cursor = Cursor()


@attrs.frozen
class Order:
    """What is to be done with all that match: nothing where it is a ``dry_run``, else ``rate`` a second at most."""

    query: Query
    dry_run: bool = False
    rate: float | None = None


def read_query(arguments: Mapping[bytes, Sequence[bytes]], others: Sequence[str] = ()) -> Query:
    """The query of a URL. ``others`` are the names of further arguments, which the caller reads."""
    found: dict[str, Any] = {}
    for raw, values in arguments.items():
        name = raw.decode("utf-8", "replace")
        if name not in others:
            if len(values) != 1:
                raise InvalidRequest(name, "must be given once")
            found[name] = text_of(values[0], name)
    _refuse_unknown(found, (*_FILTER, "limit", "cursor", *others), "")
    limit = found.get("limit", str(USUAL_LISTED))
    return Query(
        read_filter({name: found[name] for name in _FILTER if name in found}, ""),
        check_limit(int(limit) if limit.isascii() and limit.isdigit() and len(limit) < 9 else limit),
        read_cursor(found.get("cursor")),
    )


def read_redrive(body: bytes) -> Order:
    """The order in the body of a redrive. Also `MalformedJSON`."""
    members(body)
    found = parse_object(body, "the body")
    _refuse_unknown(found, ("filter", "dry_run", "rate", "limit", "cursor"), "")
    wanted, rate, dry_run = found.get("filter"), found.get("rate"), found.get("dry_run", False)
    if not isinstance(wanted, dict):
        raise InvalidRequest("filter", "must be an object; {} means all dead letters")
    if rate is not None and (type(rate) not in (int, float) or not SLOWEST <= rate <= FASTEST):
        raise InvalidRequest("rate", f"must be a number from {SLOWEST:g} to {FASTEST:g}, in requests a second")
    if type(dry_run) is not bool:
        raise InvalidRequest("dry_run", "must be true or false")
    query = Query(
        read_filter(wanted, "filter."),
        check_limit(found.get("limit", USUAL_LISTED)),
        read_cursor(found.get("cursor")),
    )
    return Order(query, dry_run, rate)


def read_drop(arguments: Mapping[bytes, Sequence[bytes]]) -> Order:
    """The order in the query of a DELETE. It has a filter, or says ``all=true``: none is dropped for want of a word."""
    flags = {name: _flag(arguments.get(name.encode(), ()), name) for name in ("all", "dry_run")}
    query = read_query(arguments, tuple(flags))
    if flags["all"] is (query.filter != Filter()):
        raise InvalidRequest("all", "must be true where there is no filter, and nowhere else")
    return Order(query, flags["dry_run"])


def _flag(values: Sequence[bytes], name: str) -> bool:
    if any(value not in (b"true", b"false") for value in values) or len(values) > 1:
        raise InvalidRequest(name, "must be true or false")
    return b"true" in values


def text_of(value: bytes, name: str) -> str:
    """The value of an argument."""
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidRequest(name, "must be UTF-8") from None


def read_filter(found: Mapping[str, Any], where: str) -> Filter:
    """The filter in a JSON object or a query. ``where`` precedes the names in what is said of them."""
    _refuse_unknown(found, _FILTER, where)
    for name, value in found.items():
        if not isinstance(value, str):
            raise InvalidRequest(where + name, "must be a string")
    kind, since = found.get("reason_class"), found.get("since")
    if kind is not None and kind not in list(ReasonClass):
        raise InvalidRequest(f"{where}reason_class", f"must be one of {', '.join(ReasonClass)}")
    try:
        moment = None if since is None else parse_rfc3339(since)
    except ValueError as error:
        raise InvalidRequest(f"{where}since", str(error)) from None
    return Filter(found.get("endpoint"), None if kind is None else ReasonClass(kind), moment, found.get("tenant"))


def read_cursor(value: Any) -> Cursor:
    """The cursor of an earlier answer; None: the beginning."""
    if value is None:
        return Cursor()
    match = _CURSOR.match(value) if isinstance(value, str) else None
    if match is None:
        raise InvalidRequest("cursor", "must be the cursor of an earlier answer")
    return Cursor(int(match[1]), None if match[2] is None else int(match[2]))


def check_limit(value: Any) -> int:
    """``value``, which must be a number of dead letters."""
    if type(value) is not int or not 0 < value <= MOST_LISTED:
        raise InvalidRequest("limit", f"must be a whole number from 1 to {MOST_LISTED}")
    return value


def _refuse_unknown(found: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    for name in found:
        if name not in known:
            raise InvalidRequest(where + name, f"is unknown; there are {', '.join(known)}")

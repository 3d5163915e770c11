# -*- test-case-name: tests.test_dry_run -*-
"""The dry run: it prints which route a request takes and what would be sent. Nothing is sent or stored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import BinaryIO, TextIO

from openhqm.config.routing import Routing
from openhqm.errors import InvalidRequest, MalformedJSON, TransformFailed
from openhqm.ingress.submission import read_submission
from openhqm.policy.fields import Document
from openhqm.policy.routing import CompiledRoute, Outgoing
from openhqm.runtime.printing import print_lines

# The correlation id for templates that use one. No request ever has this id.
SAMPLE_ID = "00000000-0000-4000-8000-000000000000"


def dry_run(
    routing: Routing,
    path: str,
    now: float,
    standard_input: BinaryIO,
    out: TextIO,
    err: TextIO,
    default_endpoint: str | None = None,
) -> int:
    """Print on ``out`` the route of the submission in the file at ``path`` (``-``: standard input), and its outcome.

    Returns the exit code: 0, or 1 with one line on ``err`` where the sample cannot be read or its route cannot use it.
    ``now`` is in seconds since the epoch. ``default_endpoint`` is that of ``proxy``, where requests are forwarded.
    """
    name = "standard input" if path == "-" else path
    try:
        body = standard_input.read() if path == "-" else Path(path).read_bytes()
        document = Document(read_submission(body, now), SAMPLE_ID)
        route = routing.table().choose_for(document)
        outgoing = (route or CompiledRoute("")).outgoing(document)
    except OSError as error:
        reason = f"{name}: cannot be read: {error.strerror}"
    except MalformedJSON as error:
        reason = f"{name}: is not JSON: {error}"
    except InvalidRequest as error:
        reason = f"{name}: {error}"
    except TransformFailed as error:
        reason = str(error)
    else:
        print_lines(_report(route, outgoing, default_endpoint), out)
        return 0
    print(f"openhqm: {_plain(reason)}", file=err)
    return 1


def _report(route: CompiledRoute | None, outgoing: Outgoing, default: str | None) -> list[str]:
    """The lines to print. The content comes last, because it may have several lines."""
    endpoint = "not set by the route" if default is None else f"{default} (proxy.default_endpoint)"
    if route is None:
        endpoints = [] if default is None else [f"endpoint: {_plain(endpoint)}"]
        return ["route: none matches, and there is no default route", *endpoints, *_content(outgoing)]
    rows = [
        ("route", f"{route.name}{' (the default)' if route.condition is None else ''}"),
        ("endpoint", route.endpoint or endpoint),
        ("method", route.method or "as the endpoint has it"),
        ("timeout", "as the endpoint has it" if route.timeout is None else f"{route.timeout:g} s"),
        *(("header", f"{name}: {value}") for name, value in outgoing.headers.items()),
        *(("query", f"{name}={value}") for name, value in outgoing.query.items()),
    ]
    return [*(f"{name}: {_plain(value)}" for name, value in rows), *_content(outgoing)]


def _content(outgoing: Outgoing) -> list[str]:
    return [f"content: {outgoing.content_type}", "", outgoing.content.decode("utf-8", "backslashreplace")]


def _plain(text: str) -> str:
    """``text`` on one line, with line breaks and control characters escaped."""
    return text if text.isprintable() else json.dumps(text)[1:-1]

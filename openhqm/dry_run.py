# -*- test-case-name: tests.test_dry_run -*-
"""What would become of a request: which route it takes, and what would be sent. Nothing is sent or kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import BinaryIO, TextIO

from openhqm.config.routing import Routing
from openhqm.errors import InvalidRequest, MalformedJSON, TransformFailed
from openhqm.ingress.submission import read_submission
from openhqm.policy.fields import Document
from openhqm.policy.routing import CompiledRoute, Outgoing

# An id that the door never gives out, for templates that put one in.
SAMPLE_ID = "00000000-0000-4000-8000-000000000000"


def dry_run(routing: Routing, path: str, now: float, standard_input: BinaryIO, out: TextIO, err: TextIO) -> int:
    """Tell on ``out`` what becomes of the submission in the file at ``path`` (``-``: standard input).

    The exit code: 0, or 1 with one line on ``err`` about the sample that cannot be read, or is not fit for its route.
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
        for line in _report(route, outgoing):
            print(line, file=out)
        return 0
    print(f"openhqm: {_plain(reason)}", file=err)
    return 1


def _report(route: CompiledRoute | None, outgoing: Outgoing) -> list[str]:
    """The lines to print, the content last: it may have lines of its own."""
    if route is None:
        return ["route: none, and none is the default", *_content(outgoing)]
    rows = [
        ("route", f"{route.name}{' (the default)' if route.condition is None else ''}"),
        ("endpoint", route.endpoint or "not said here"),
        ("method", route.method or "as the endpoint has it"),
        ("timeout", "as the endpoint has it" if route.timeout is None else f"{route.timeout:g} s"),
        *(("header", f"{name}: {value}") for name, value in outgoing.headers.items()),
        *(("query", f"{name}={value}") for name, value in outgoing.query.items()),
    ]
    return [*(f"{name}: {_plain(value)}" for name, value in rows), *_content(outgoing)]


def _content(outgoing: Outgoing) -> list[str]:
    return [f"content: {outgoing.content_type}", "", outgoing.content.decode("utf-8", "backslashreplace")]


def _plain(text: str) -> str:
    """Text on one line of a terminal, whatever it holds."""
    return text if text.isprintable() else json.dumps(text)[1:-1]

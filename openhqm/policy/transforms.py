# -*- test-case-name: tests.policy.test_transforms -*-
"""Transforms of a request's payload into the content that is sent: none, or by jq, JSONPath or a template.

A transform is compiled once, when the configuration is loaded. One that fails for a request fails for it every time, so
`TransformFailed` is not retried.
"""

from __future__ import annotations

import importlib
import json
from typing import Any, Protocol

from openhqm.errors import TransformFailed, how_to_install
from openhqm.policy.fields import Document
from openhqm.policy.jq_programs import JqProgram
from openhqm.policy.templates import JSON, Template

KINDS = ("passthrough", "jq", "jsonpath", "template")


class MissingPackage(ValueError):
    """A transform needs a package that is not installed."""


class Transform(Protocol):
    """Makes the content that is sent for a request."""

    content_type: str

    def apply(self, document: Document) -> bytes:
        """The content. Raises `TransformFailed`, with the reason."""


class Passthrough:
    """The payload, byte for byte."""

    content_type = JSON

    def apply(self, document: Document) -> bytes:
        """The payload as it came."""
        return document.submission.payload


class JsonPath:
    """A JSONPath (RFC 9535) over the payload. Raises `ValueError` for an invalid one.

    Selected values keep their bytes: one value is sent as it is, several as a list.
    """

    content_type = JSON

    def __init__(self, jsonpath: Any, path: str) -> None:
        self._error = jsonpath.JSONPathError
        self._text = path
        try:
            self._path = jsonpath.JSONPathEnvironment(strict=True).compile(path)
        except jsonpath.JSONPathError as error:
            raise ValueError(f"not a JSONPath: {_message(error)}") from None

    def apply(self, document: Document) -> bytes:
        """The selected values. Raises `TransformFailed` where there are none."""
        try:
            value = json.loads(document.submission.payload, parse_int=_number)
            paths = [tuple(map(str, match.parts)) for match in self._path.finditer(value)]
        except self._error as error:
            raise TransformFailed(f"jsonpath: {_message(error)}") from None
        except ValueError as error:
            raise TransformFailed(f"the payload is not JSON: {error}") from None
        found = [text for path in paths if (text := document.in_payload(path)) is not None]
        if not found:
            raise TransformFailed(f"the path {self._text} selects nothing in this payload")
        return found[0] if len(found) == 1 else b"[" + b",".join(found) + b"]"


def compile_transform(kind: str, text: str | None) -> Transform:
    """The transform ``kind`` with its program ``text``.

    Raises `ValueError` where ``text`` is invalid, and `MissingPackage` where a package must be installed.
    """
    if kind == "passthrough":
        if text is not None:
            raise ValueError("must not be set for passthrough: set transform_type to jq, jsonpath or template")
        return Passthrough()
    if not text:
        raise ValueError(f"is missing: transform_type {kind} needs it")
    if kind == "template":
        return Template(text)
    if kind == "jq":
        return JqProgram(_module("jq", "jq", kind), text)
    if kind == "jsonpath":
        return JsonPath(_module("jsonpath", "python-jsonpath", kind), text)
    raise ValueError(f"there is no transform {kind!r}")


def _module(name: str, package: str, kind: str) -> Any:
    """A library that is an optional dependency."""
    try:
        return importlib.import_module(name)
    except ImportError:
        raise MissingPackage(f"{kind} needs the package {package}: {how_to_install('routing')}") from None


def _number(digits: str) -> int | float:
    """The number in ``digits``. One too long for ``int`` becomes a float, which only has to compare like a number."""
    return int(digits) if len(digits) < 1000 else float(digits)


def _message(error: Any) -> str:
    # str() of the library's error fails where the error is at the end of the path.
    return str(error.args[0] if error.args else type(error).__name__)

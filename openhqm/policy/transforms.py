# -*- test-case-name: tests.policy.test_transforms -*-
"""What a request's content becomes on its way out: as it came, or through jq, JSONPath or a template.

A transform is compiled once, when the configuration is read. One that fails for a request fails for it every
time: `TransformFailed` is not worth a second attempt.
"""

from __future__ import annotations

import importlib
import json
from typing import Any, Protocol

from openhqm.errors import TransformFailed
from openhqm.policy.fields import Document
from openhqm.policy.jq_programs import JqProgram
from openhqm.policy.templates import JSON, Template

KINDS = ("passthrough", "jq", "jsonpath", "template")


class MissingPackage(ValueError):
    """A kind of transform that needs a package which is not installed."""


class Transform(Protocol):
    """From a request to the content that is sent for it."""

    content_type: str

    def apply(self, document: Document) -> bytes:
        """The content. `TransformFailed` says why there is none."""


class Passthrough:
    """The payload, byte for byte."""

    content_type = JSON

    def apply(self, document: Document) -> bytes:
        """The payload as it came."""
        return document.submission.payload


class JsonPath:
    """A path of RFC 9535, over the payload. `ValueError` says what is wrong with it.

    What it selects comes out in the bytes it came in: one value as itself, several as a list.
    """

    content_type = JSON

    def __init__(self, jsonpath: Any, path: str) -> None:
        self._error = jsonpath.JSONPathError
        self._text = path
        try:
            self._path = jsonpath.JSONPathEnvironment(strict=True).compile(path)
        except jsonpath.JSONPathError as error:
            raise ValueError(f"not a JSONPath: {_words(error)}") from None

    def apply(self, document: Document) -> bytes:
        """What the path selects. `TransformFailed` if that is nothing."""
        try:
            value = json.loads(document.submission.payload, parse_int=_number)
            places = [tuple(map(str, match.parts)) for match in self._path.finditer(value)]
        except self._error as error:
            raise TransformFailed(f"jsonpath: {_words(error)}") from None
        except ValueError as error:
            raise TransformFailed(f"the payload is not JSON: {error}") from None
        found = [text for place in places if (text := document.in_payload(place)) is not None]
        if not found:
            raise TransformFailed(f"the path {self._text} selects nothing in this payload")
        return found[0] if len(found) == 1 else b"[" + b",".join(found) + b"]"


def compile_transform(kind: str, text: str | None) -> Transform:
    """The transform of a kind. `ValueError` says what is wrong with ``text``; `MissingPackage` what to install."""
    if kind == "passthrough":
        if text is not None:
            raise ValueError("passthrough takes none: say jq, jsonpath or template in transform_type")
        return Passthrough()
    if not text:
        raise ValueError(f"is missing: {kind} needs one")
    if kind == "template":
        return Template(text)
    if kind == "jq":
        return JqProgram(_module("jq", "jq", kind), text)
    if kind == "jsonpath":
        return JsonPath(_module("jsonpath", "python-jsonpath", kind), text)
    raise ValueError(f"there is no transform {kind!r}")


def _module(name: str, package: str, kind: str) -> Any:
    """A library that only those install who use it."""
    try:
        return importlib.import_module(name)
    except ImportError:
        raise MissingPackage(f"{kind} needs the package {package}: pip install openhqm[routing]") from None


def _number(digits: str) -> int | float:
    """As Python has it; digits without end only have to compare like a number."""
    return int(digits) if len(digits) < 1000 else float(digits)


def _words(error: Any) -> str:
    # Its str() fails for an error behind the end of the path; the message alone does not.
    return str(error.args[0] if error.args else type(error).__name__)

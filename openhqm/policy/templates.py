# -*- test-case-name: tests.policy.test_transforms -*-
"""Templates: text with placeholders such as ``{{ payload.name }}``, which are filled with JSON that cannot break out.

A template runs no code: it has no calls, loops or attributes. Whether a value is safe depends on where its placeholder
stands, which is checked once, when the template is compiled.
"""

from __future__ import annotations

import json
import re

import attrs

from openhqm.errors import TransformFailed
from openhqm.policy.fields import Document, Field, to_text

JSON, TEXT = "application/json", "text/plain; charset=utf-8"
_PLACEHOLDER = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)


@attrs.frozen
class _Placeholder:
    """A placeholder, filled with the field's value as JSON or, with ``as_text``, as plain text."""

    field: Field
    as_text: bool


class Template:
    """A compiled template. Raises `ValueError` for an invalid one.

    A template that is JSON once it is filled gives ``application/json``: ``| text`` must then stand inside a string,
    and is escaped for JSON. Any other template gives ``text/plain``, where ``| text`` is filled as it is.

    What is filled in may have ``most`` bytes in all; None: as many as it has.
    """

    def __init__(self, text: str, most: int | None = None) -> None:
        self._most = most
        literals, placeholders = (
            _PLACEHOLDER.split(text)[::2],
            [_parse_placeholder(inner) for inner in _PLACEHOLDER.findall(text)],
        )
        if any("{{" in literal for literal in literals):
            raise ValueError("a {{ has no matching }}")
        self.content_type = JSON if _is_json(literals, placeholders) else TEXT
        self._literals = [literal.encode() for literal in literals]
        self._placeholders = placeholders

    def apply(self, document: Document) -> bytes:
        """The template with its placeholders filled. Raises `TransformFailed` where the request lacks a field."""
        pieces = [self._literals[0]]
        size = 0
        for placeholder, literal in zip(self._placeholders, self._literals[1:], strict=True):
            value = self._fill(placeholder, document)
            size += len(value)
            if self._most is not None and size > self._most:
                raise TransformFailed(f"what is filled into the template has more than {self._most} bytes")
            pieces += (value, literal)
        return b"".join(pieces)

    def _fill(self, placeholder: _Placeholder, document: Document) -> bytes:
        name = placeholder.field.name
        value = document.find(placeholder.field)
        if value is None:
            raise TransformFailed(f"the template needs {name}, which the request does not have")
        if not placeholder.as_text:
            return value
        try:
            text = to_text(value)
        except ValueError:
            raise TransformFailed(f"the value of {name} cannot be sent as text") from None
        return json.dumps(text, ensure_ascii=False)[1:-1].encode() if self.content_type == JSON else text.encode()


def _parse_placeholder(inner: str) -> _Placeholder:
    name, *suffixes = [part.strip() for part in inner.split("|")]
    if suffixes not in ([], ["text"]):
        raise ValueError(f"only | text may follow the field in a placeholder: {{{{{inner}}}}}")
    if not name or any(character.isspace() or character in "{}\"'()[]" for character in name):
        raise ValueError(
            f"a placeholder must hold the name of a field, as in {{{{ payload.name }}}}, not {{{{{inner}}}}}"
        )
    return _Placeholder(Field.parse(name), bool(suffixes))


def _is_json(literals: list[str], placeholders: list[_Placeholder]) -> bool:
    """Whether the template becomes JSON. Raises `ValueError` where only the quotes around a placeholder prevent it."""

    def is_valid(value: str, text: str) -> bool:
        filled = [text if placeholder.as_text else value for placeholder in placeholders]
        try:
            json.loads("".join(piece for pair in zip(literals, [*filled, ""], strict=True) for piece in pair))
        except (ValueError, RecursionError):
            return False
        return True

    if is_valid("null", "text"):
        if not is_valid('"value"', "text"):
            raise ValueError(
                "a value has its own quotes: write {{ field }} without quotes, or {{ field | text }} inside quotes"
            )
        return True
    if "".join(literals).lstrip()[:1] in ("{", "[") and is_valid("null", "0"):
        raise ValueError("{{ field | text }} must be inside quotes in JSON; without quotes write {{ field }}")
    return False

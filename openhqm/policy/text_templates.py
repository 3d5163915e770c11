# -*- test-case-name: tests.policy.test_text_templates -*-
"""Templates for single names: ``lamps/{{ payload.id }}/set``, filled as plain text from the fields of a request.

``topic`` is where a bridged message was published, ``topic[1]`` its second level. Every other name is that of a
`openhqm.policy.fields.Field`.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from openhqm.errors import TransformFailed
from openhqm.policy.fields import Document, Field, to_text

TOPIC, LEVELS = "topic", "topic_levels"
"""The metadata of a bridged request: its topic, and the levels of it as a list."""
_PLACEHOLDER = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
_INDEX = re.compile(r"\[([0-9]{1,9})\]")
_NAME = re.compile(r"[^\s{}\"'()\[\]|]+")


def _unchanged(text: str) -> str:
    return text


class TextTemplate:
    """A compiled template. `ValueError` where it is none."""

    def __init__(self, text: str) -> None:
        self._literals = _PLACEHOLDER.split(text)[::2]
        self._fields = [_field(inner) for inner in _PLACEHOLDER.findall(text)]
        if any("{{" in literal or "}}" in literal for literal in self._literals):
            raise ValueError("a {{ or }} stands alone")

    @property
    def example(self) -> str:
        """The template with an ``x`` in each placeholder."""
        return "x".join(self._literals)

    def fill(self, document: Document, change: Callable[[str], str] = _unchanged) -> str:
        """The text, with each value as ``change`` has it. `TransformFailed` where the request lacks a field."""
        pieces = [self._literals[0]]
        for field, literal in zip(self._fields, self._literals[1:], strict=True):
            value = document.find(field)
            if value is None:
                raise TransformFailed(f"the template needs {field.name}, which the request does not have")
            try:
                text = to_text(value)
            except ValueError:
                raise TransformFailed(f"the value of {field.name} cannot be sent as text") from None
            pieces += (change(text), literal)
        return "".join(pieces)


def one_level(text: str) -> str:
    """``text``, where it can be one level of a topic. `TransformFailed`: it would lead to another topic."""
    if not text or any(character in "/+#" or not character.isprintable() for character in text):
        raise TransformFailed(f"{text[:40]!r} cannot be a part of a topic: it is empty, or has /, + or #")
    return text


def _field(inner: str) -> Field:
    name = _INDEX.sub(r".\1", inner.strip())
    if not _NAME.fullmatch(name):
        raise ValueError(f"a placeholder holds the name of a field, as in {{{{ payload.id }}}}, not {{{{{inner}}}}}")
    first, _, rest = name.partition(".")
    if first == TOPIC:
        name = f"metadata.{LEVELS}.{rest}" if rest else f"metadata.{TOPIC}"
    return Field.parse(name)

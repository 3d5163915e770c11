# -*- test-case-name: tests.policy.test_transforms -*-
"""Templates: text with ``{{ payload.name }}`` in it, where a value goes in as JSON and cannot break out.

There is nothing to run in a template: no calls, no loops, no attributes. What decides whether a value may be
trusted is where it stands, and that is looked at once, when the template is read.
"""

from __future__ import annotations

import json
import re

import attrs

from openhqm.errors import TransformFailed
from openhqm.policy.fields import Document, Field, spelled

JSON, TEXT = "application/json", "text/plain; charset=utf-8"
_PLACE = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)


@attrs.frozen
class _Place:
    """A place to be filled: with the value as JSON, or (``as_text``) with the words of it."""

    field: Field
    as_text: bool


class Template:
    """A template read and checked. `ValueError` says what is wrong with it.

    One that is JSON with its places filled gives ``application/json``: there ``| text`` stands inside a string, and
    goes in with JSON's escapes. Any other gives ``text/plain``, and there ``| text`` is the bare text.
    """

    def __init__(self, text: str) -> None:
        literals, places = _PLACE.split(text)[::2], [_place(inner) for inner in _PLACE.findall(text)]
        if any("{{" in literal for literal in literals):
            raise ValueError("{{ stands there without its }}")
        self.content_type = JSON if _is_json(literals, places) else TEXT
        self._literals = [literal.encode() for literal in literals]
        self._places = places

    def apply(self, document: Document) -> bytes:
        """The template with its places filled. `TransformFailed` names the field that is missing."""
        pieces = [self._literals[0]]
        for place, literal in zip(self._places, self._literals[1:], strict=True):
            pieces += (self._fill(place, document), literal)
        return b"".join(pieces)

    def _fill(self, place: _Place, document: Document) -> bytes:
        name = place.field.name
        value = document.find(place.field)
        if value is None:
            raise TransformFailed(f"the template needs {name}, which the request does not have")
        if not place.as_text:
            return value
        try:
            words = spelled(value)
        except ValueError:
            raise TransformFailed(f"{name} is not text that can be sent") from None
        return json.dumps(words, ensure_ascii=False)[1:-1].encode() if self.content_type == JSON else words.encode()


def _place(inner: str) -> _Place:
    name, *suffixes = [part.strip() for part in inner.split("|")]
    if suffixes not in ([], ["text"]):
        raise ValueError(f"after the field there may be | text and nothing else: {{{{{inner}}}}}")
    if not name or any(character.isspace() or character in "{}\"'()[]" for character in name):
        raise ValueError(f"a place holds the name of a field, as in {{{{ payload.name }}}}, not {{{{{inner}}}}}")
    return _Place(Field.parse(name), bool(suffixes))


def _is_json(literals: list[str], places: list[_Place]) -> bool:
    """Whether the template becomes JSON. `ValueError` if it would, but for quotes in the wrong place."""

    def reads(value: str, words: str) -> bool:
        filled = [words if place.as_text else value for place in places]
        try:
            json.loads("".join(piece for pair in zip(literals, [*filled, ""], strict=True) for piece in pair))
        except (ValueError, RecursionError):
            return False
        return True

    if reads("null", "words"):
        if not reads('"value"', "words"):
            raise ValueError("a value brings its own quotes: write {{ field }} without, or {{ field | text }} inside")
        return True
    if "".join(literals).lstrip()[:1] in ("{", "[") and reads("null", "0"):
        raise ValueError("{{ field | text }} stands inside of quotes in JSON; without quotes write {{ field }}")
    return False

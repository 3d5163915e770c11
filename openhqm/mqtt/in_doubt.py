# -*- test-case-name: tests.mqtt.test_in_doubt -*-
"""What a process had in hand when it lost its session. The broker may have lost it as well, until it comes again."""

from __future__ import annotations

from collections.abc import Iterable

from openhqm.interfaces.broker import Message

_Content = tuple[bytes, str | None, tuple[tuple[str, str], ...]]


class InDoubt:
    """Messages by their content, in the order in which they came. However many there are, one is found at once."""

    def __init__(self) -> None:
        self._messages: dict[_Content, list[Message]] = {}

    def __len__(self) -> int:
        return sum(len(alike) for alike in self._messages.values())

    def __bool__(self) -> bool:
        return bool(self._messages)

    def add(self, messages: Iterable[Message]) -> None:
        """These may be lost."""
        for message in messages:
            self._messages.setdefault(_content(message), []).append(message)

    def remove(self, message: Message) -> bool:
        """One like it has come; whether one was in doubt."""
        content = _content(message)
        alike = self._messages.get(content)
        if alike is None:
            return False
        alike.pop()
        if not alike:
            del self._messages[content]
        return True

    def clear(self) -> list[Message]:
        """Nothing is in doubt any more; what was."""
        messages, self._messages = self._messages, {}
        return [message for alike in messages.values() for message in alike]


def _content(message: Message) -> _Content:
    return message.body, message.key, tuple(sorted(message.headers.items()))

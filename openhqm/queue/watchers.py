# -*- test-case-name: tests.queue.test_contracts -*-
"""The listeners of each request in this process."""

from __future__ import annotations

from collections.abc import Callable

from openhqm.messages import Event

Listener = Callable[[Event], None]


class Watchers:
    """Listeners by correlation id. Nothing is kept for a request without a listener."""

    def __init__(self) -> None:
        self._listeners: dict[str, list[Listener]] = {}

    def add(self, correlation_id: str, listener: Listener) -> Callable[[], None]:
        """Tell ``listener`` of events until the function returned is called."""
        correlation_id = correlation_id.lower()  # as it was given out
        self._listeners.setdefault(correlation_id, []).append(listener)

        def remove() -> None:
            listeners = self._listeners.get(correlation_id, [])
            if listener in listeners:
                listeners.remove(listener)
            if not listeners:
                self._listeners.pop(correlation_id, None)

        return remove

    def tell(self, correlation_id: str, event: Event) -> None:
        """Call each listener. A listener must not raise."""
        for listener in tuple(self._listeners.get(correlation_id, ())):
            listener(event)

    def __bool__(self) -> bool:
        return bool(self._listeners)


class Nudges:
    """Listeners that are told that there is something to look at, and not what."""

    def __init__(self) -> None:
        self._listeners: list[Callable[[], None]] = []

    def add(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Tell ``listener`` until the function returned is called."""
        self._listeners.append(listener)

        def remove() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)

        return remove

    def tell(self) -> None:
        """Call each listener. A listener must not raise."""
        for listener in tuple(self._listeners):
            listener()

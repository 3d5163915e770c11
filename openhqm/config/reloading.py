# -*- test-case-name: tests.config.test_reloading -*-
"""SIGHUP in one process: read the configuration again, check it whole, apply what can be applied, and name the rest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs
from twisted.logger import Logger

from openhqm.config.model import Settings
from openhqm.errors import ConfigurationError

_ABSENT = object()


class Reloading:
    """``settings`` are those that the process runs with. ``read`` reads the configuration; `ConfigurationError`.

    ``applied`` has a function for each key that can change while the process runs, which is called with all settings.
    """

    _log = Logger()

    def __init__(
        self,
        settings: Settings,
        read: Callable[[], Settings],
        applied: Mapping[str, Callable[[Settings], None]],
    ) -> None:
        self._settings = settings
        self._running = settings
        self._read = read
        self._applied = applied

    def reload(self) -> None:
        """Read the configuration again. With an error in it nothing changes. Each key that has changed is logged."""
        try:
            settings = self._read()
        except ConfigurationError as error:
            for complaint in error.complaints:
                self._log.error("{complaint}; the process keeps its configuration", complaint=str(complaint))
            return
        before, self._settings = self._settings, settings
        for key in changed_keys(before, settings):
            if key in self._applied:
                self._applied[key](settings)
                self._log.info("{key} has changed", key=key)
        waiting = [key for key in changed_keys(self._running, settings) if key not in self._applied]
        for key in waiting:
            self._log.warn("{key} has changed in the configuration: restart openhqm to apply it", key=key)
        if not waiting:
            self._log.info("the configuration was read again, and all of it is applied")


def changed_keys(before: Any, after: Any, key: str = "") -> list[str]:
    """The dotted keys whose values differ. Of a mapping, those of its entries. A value is never part of the answer."""
    if before == after:
        return []
    if type(before) is type(after) and attrs.has(type(before)):
        names = [field.name for field in attrs.fields(type(before))]
        pairs = [(name, getattr(before, name), getattr(after, name)) for name in names]
    elif isinstance(before, Mapping) and isinstance(after, Mapping):
        pairs = [(name, before.get(name, _ABSENT), after.get(name, _ABSENT)) for name in {**before, **after}]
    else:
        return [key]
    return [each for name, old, new in pairs for each in changed_keys(old, new, f"{key}.{name}" if key else str(name))]

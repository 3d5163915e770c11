# -*- test-case-name: tests.config.test_reloading -*-
"""SIGHUP in one process: read the configuration again, check it whole, apply what can be applied, and name the rest."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import attrs
from twisted.logger import Logger

from openhqm.config.model import Settings
from openhqm.config.structure import Tagged, Wrong
from openhqm.errors import Complaint, ConfigurationError

_ABSENT = object()
MIXED = "with the keys that take a restart as they are: restart openhqm to apply the file"

Prepare = Callable[[Settings], Callable[[], None]]
"""Prepares a change without any effect, and returns the function that makes it. `ConfigurationError`."""


def _nothing_wrong(settings: Settings) -> Iterable[tuple[str, str]]:
    return ()


def _has_effect(key: str) -> str | None:
    return None


class Reloading:
    """``settings`` are those that the process runs with. ``read`` reads the configuration; `ConfigurationError`.

    ``applied`` has a `Prepare` for each key or section that can change while the process runs: ``proxy.endpoints`` is
    for ``proxy.endpoints.billing.url``, too. It is called with the settings that the process would run with: the keys
    that take a restart have their old values. Each of ``always`` is called at every reload, because what it prepares is
    in files that the configuration only names. ``check`` says which keys contradict each other in such settings.
    ``without_effect`` says why a key has no effect in this process, restarted or not; None: it has one.
    """

    _log = Logger()

    def __init__(
        self,
        settings: Settings,
        read: Callable[[], Settings],
        applied: Mapping[str, Prepare],
        *,
        always: Sequence[Prepare] = (),
        check: Callable[[Settings], Iterable[tuple[str, str]]] = _nothing_wrong,
        without_effect: Callable[[str], str | None] = _has_effect,
    ) -> None:
        self._running = settings
        self._read = read
        self._applied = applied
        self._always = always
        self._check = check
        self._without_effect = without_effect

    def reload(self) -> None:
        """Read the configuration again, and make all changes that can be made, or none where one of them cannot.

        Each key that has changed is logged.
        """
        try:
            wanted = self._read()
            settings = self._mixture(wanted)
            changed = changed_keys(self._running, settings)
            changes = self._prepare(settings, changed)
        except ConfigurationError as error:
            for complaint in error.complaints:
                self._log.error("{complaint}; the process keeps its configuration", complaint=str(complaint))
            return
        except Exception:  # a bug of ours must not end a process that works
            self._log.failure("reading the configuration again broke down; the process keeps its configuration")
            return
        for change in changes:
            change()
        self._running = settings
        waiting = changed_keys(settings, wanted)
        for key in (*changed, *waiting):
            reason = self._without_effect(key)
            if reason is not None:
                self._log.warn(
                    "{key} has changed in the configuration, without effect: {reason}", key=key, reason=reason
                )
            elif key in waiting:
                self._log.warn("{key} has changed in the configuration: restart openhqm to apply it", key=key)
            else:
                self._log.info("{key} has changed", key=key)
        if not waiting:
            self._log.info("the configuration was read again, and all of it is applied")

    def _mixture(self, wanted: Settings) -> Settings:
        """The settings to run with: of those that are wanted, what can be applied. `ConfigurationError`."""
        settings: Settings = merged(self._running, wanted, self._applied)
        if settings != wanted:  # what is wanted was checked when it was read
            found = [Complaint(key, f"{reason}, {MIXED}") for key, reason in self._check(settings)]
            if found:
                raise ConfigurationError(found)
        return settings

    def _prepare(self, settings: Settings, changed: Collection[str]) -> list[Callable[[], None]]:
        """What makes the changes. `ConfigurationError` has the complaints about all of them."""
        steps = [step for section, step in self._applied.items() if any(covers(section, key) for key in changed)]
        complaints: list[Complaint] = []
        changes = []
        for step in (*dict.fromkeys(steps), *self._always):  # one for several keys prepares all of them at once
            try:
                changes.append(step(settings))
            except ConfigurationError as error:
                complaints += error.complaints
        if complaints:
            raise ConfigurationError(complaints)
        return changes


def covers(section: str, key: str) -> bool:
    """Whether ``key`` is ``section``, or a key in it."""
    return key == section or key.startswith(f"{section}.")


def merged(running: Any, wanted: Any, applied: Collection[str], key: str = "") -> Any:
    """``running`` with what ``wanted`` says in the sections ``applied``. `ConfigurationError` for a contradiction."""
    if running == wanted or any(covers(section, key) for section in applied):
        return wanted
    if type(running) is not type(wanted) or not attrs.has(type(running)):
        return running
    names = [field.name for field in attrs.fields(type(running))]
    values = {
        name: merged(getattr(running, name), getattr(wanted, name), applied, f"{key}.{name}" if key else name)
        for name in names
    }
    try:
        return attrs.evolve(running, **values)
    except Wrong as wrong:
        found = [Complaint(".".join((key, *path)), f"{reason}, {MIXED}") for path, reason in wrong.found]
        raise ConfigurationError(found) from None


def changed_keys(before: Any, after: Any, key: str = "") -> list[str]:
    """The dotted keys whose values differ. Of a mapping, those of its entries. A value is never part of the answer."""
    if before == after:
        return []
    if isinstance(before, Tagged) and isinstance(
        after, Tagged
    ):  # in the file the keys of the record are beside ``type``
        if before.type != after.type:
            return [f"{key}.type"]
        return changed_keys(before.record, after.record, key)
    if type(before) is type(after) and attrs.has(type(before)):
        names = [field.name for field in attrs.fields(type(before))]
        pairs = [(name, getattr(before, name), getattr(after, name)) for name in names]
    elif isinstance(before, Mapping) and isinstance(after, Mapping):
        pairs = [(name, before.get(name, _ABSENT), after.get(name, _ABSENT)) for name in {**before, **after}]
    else:
        return [key]
    return [each for name, old, new in pairs for each in changed_keys(old, new, f"{key}.{name}" if key else str(name))]

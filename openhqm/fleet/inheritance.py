# -*- test-case-name: tests.fleet.test_parts -*-
"""What a process is started with by its parent: two pipes, the sockets to listen on, and the configuration as read.

The configuration is handed over because the file may be another by now: a process that takes the place of one that
died runs what the others run, and not what somebody is in the middle of writing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from typing import Any

import attrs
import msgspec

from openhqm.config.model import Settings
from openhqm.errors import CannotStart
from openhqm.runtime.forks import keep_from_forks

VARIABLE = "OF_AN_OPENHQM_PARENT"
HEARING, SPEAKING = 3, 4
_FIRST_FREE = 5


@attrs.frozen
class Source:
    """A configuration: what the file holds (None: there is none), and what was read from it and the environment."""

    settings: Settings
    text: bytes | None = attrs.field(repr=False)


@attrs.frozen
class Inheritance:
    """The file descriptors that a process has from its parent. ``text`` is what the configuration file holds."""

    sockets: list[int]
    text: bytes | None = attrs.field(repr=False)

    @classmethod
    def take(cls, environment: MutableMapping[str, str]) -> Inheritance | None:
        """What the parent left, or None where there is none; out of ``environment``, so that nobody else takes it.

        `CannotStart` where the parent is no more.
        """
        found = environment.pop(VARIABLE, None)
        if found is None:
            return None
        try:
            parent, sockets, has_text = msgspec.json.decode(found, type=tuple[int, int, bool])
        except msgspec.DecodeError:
            raise CannotStart(f"{VARIABLE} is for processes that are started by another, and must not be set") from None
        if parent != os.getppid():
            raise CannotStart("the process that started this one has ended")
        first_socket = _FIRST_FREE + has_text
        for descriptor in (HEARING, SPEAKING):
            os.set_inheritable(descriptor, False)
        text = None
        if has_text:
            with open(_FIRST_FREE, "rb") as file:
                text = file.read()
        inherited = list(range(first_socket, first_socket + sockets))
        keep_from_forks((HEARING, SPEAKING, *inherited))
        return cls(inherited, text)


@contextmanager
def bequest(sockets: Sequence[int], text: bytes | None) -> Iterator[tuple[dict[int, Any], dict[str, str]]]:
    """For starting a process: its file descriptors as ``spawnProcess`` wants them, and what its environment gets."""
    descriptors: dict[int, Any] = {0: 0, 1: 1, 2: 2, HEARING: "w", SPEAKING: "r"}
    file = None
    try:
        if text is not None:
            file = os.fdopen(os.memfd_create("openhqm-configuration"), "w+b")
            file.write(text)
            file.seek(0)  # where the process begins to read: it shares the place
            descriptors[_FIRST_FREE] = file.fileno()
        first_socket = _FIRST_FREE + (text is not None)
        descriptors.update({first_socket + place: descriptor for place, descriptor in enumerate(sockets)})
        told = msgspec.json.encode((os.getpid(), len(sockets), text is not None)).decode()
        yield descriptors, {VARIABLE: told}
    finally:
        if file is not None:
            file.close()

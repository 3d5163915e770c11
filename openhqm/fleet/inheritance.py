# -*- test-case-name: tests.fleet.test_parts -*-
"""What a parent passes to a process that it starts: two pipes, the listening sockets, and the configuration's text.

The text is passed on because the file may have changed since the parent read it. A process that replaces a dead one
runs the configuration of the others, and not a file that an operator is editing.
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
FROM_PARENT, TO_PARENT = 3, 4
"""The file descriptors of the pipes in the child process."""
_FIRST_FREE = 5


@attrs.frozen
class Source:
    """A configuration: the text of its file (None: no file), and the settings made of it and of the environment."""

    settings: Settings
    text: bytes | None = attrs.field(repr=False)


@attrs.frozen
class Inheritance:
    """The listening sockets that a process has from its parent, and the text of the configuration file."""

    sockets: list[int]
    text: bytes | None = attrs.field(repr=False)

    @classmethod
    def take(cls, environment: MutableMapping[str, str]) -> Inheritance | None:
        """What the parent has passed on, or None where this process has no parent of ours.

        The variable is removed from ``environment``, so that programs which handlers start do not inherit it.
        `CannotStart` where the parent has ended, or the variable was not set by a parent.
        """
        found = environment.pop(VARIABLE, None)
        if found is None:
            return None
        try:
            parent, sockets, has_text = msgspec.json.decode(found, type=tuple[int, int, bool])
        except msgspec.DecodeError:
            raise CannotStart(
                f"the environment variable {VARIABLE} is set by openhqm for the processes that it starts: unset it"
            ) from None
        if parent != os.getppid():
            raise CannotStart("the parent process has ended")
        first_socket = _FIRST_FREE + has_text
        for descriptor in (FROM_PARENT, TO_PARENT):
            os.set_inheritable(descriptor, False)
        text = None
        if has_text:
            with open(_FIRST_FREE, "rb") as file:
                text = file.read()
        inherited = list(range(first_socket, first_socket + sockets))
        keep_from_forks((FROM_PARENT, TO_PARENT, *inherited))
        return cls(inherited, text)


@contextmanager
def spawn_arguments(sockets: Sequence[int], text: bytes | None) -> Iterator[tuple[dict[int, Any], dict[str, str]]]:
    """The ``childFDs`` for ``spawnProcess``, and the environment variables for `Inheritance.take` in the child.

    The context has to stay open until the process is started.
    """
    descriptors: dict[int, Any] = {0: 0, 1: 1, 2: 2, FROM_PARENT: "w", TO_PARENT: "r"}
    file = None
    try:
        if text is not None:
            file = os.fdopen(os.memfd_create("openhqm-configuration"), "w+b")
            file.write(text)
            file.seek(0)  # both processes share the position, and the child reads from it
            descriptors[_FIRST_FREE] = file.fileno()
        first_socket = _FIRST_FREE + (text is not None)
        descriptors.update({first_socket + index: descriptor for index, descriptor in enumerate(sockets)})
        variable = msgspec.json.encode((os.getpid(), len(sockets), text is not None)).decode()
        yield descriptors, {VARIABLE: variable}
    finally:
        if file is not None:
            file.close()

# -*- test-case-name: tests.kafka.test_security -*-
"""Whether a cluster can be reached, and with which files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.internet.defer import Deferred

from openhqm.runtime.file_versions import file_version

FILES = "ssl.ca.location", "ssl.certificate.location", "ssl.key.location"


class Reachable:
    """A cluster that has answered, until librdkafka says that no broker of it can be reached."""

    def __init__(self) -> None:
        self.lost: Deferred[str] = Deferred()

    def close(self) -> None:
        self.fail("")

    abort = close

    def fail(self, reason: str) -> None:
        """It cannot be reached."""
        if not self.lost.called:
            self.lost.callback(reason)


class Files:
    """The files that ``properties`` name. A client of librdkafka reads them when it is made, and never again."""

    def __init__(self, properties: Mapping[str, Any]) -> None:
        self._paths = [properties[name] for name in FILES if name in properties]
        self._versions = self._look()

    def have_changed(self) -> bool:
        """Whether they are others than at the call before this one, or than at first."""
        before, self._versions = self._versions, self._look()
        return self._versions != before

    def forget(self) -> None:
        """They could not be used: they count as others next time."""
        self._versions = []

    def _look(self) -> list[object]:
        return [file_version(path) for path in self._paths]

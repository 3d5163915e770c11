# -*- test-case-name: tests.queue.test_contracts -*-
"""What a result store in the embedded file asks of the steps of requests, where there are none."""

from __future__ import annotations

from typing import Any

import apsw

from openhqm.messages import ChildState, Reply


class Childless:
    """No request consists of steps. See `openhqm.sqlite.children.Children`."""

    def states(self, connection: apsw.Connection, parent: int) -> tuple[ChildState, ...]:
        """The steps of a request."""
        return ()

    def forget(self, connection: apsw.Connection, key: int) -> None:
        """The record of the request is gone."""

    def happened(self, connection: apsw.Connection, key: int, type: str, detail: dict[str, Any], at: float) -> None:
        """An attempt at a step begins, or is to be repeated."""

    def ended(self, connection: apsw.Connection, key: int, reply: Reply) -> None:
        """A request has ended: what follows where it is a step, or consists of some."""

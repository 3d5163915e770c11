# -*- test-case-name: tests.queue.test_ending_logs -*-
"""The seam of a log of endings, which streams over many requests read."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from zope.interface import Interface

from openhqm.messages import LogPage


class IEndingLog(Interface):
    """The endings of all requests in the order in which they became durable, numbered from 1 without a gap.

    An ending is written down in the step that makes it durable. The log is bounded (`policy.tags`), and it is kept only
    while there are readers, and for `KEPT_SECONDS` after the last one: where no stream is open nothing is written down.
    A log that was not kept for a while, or that may have forgotten endings which were read, goes on under another name.
    Requests whose results no caller asks for are not in it.
    """

    def keep() -> Deferred[None]:
        """From when this fires, endings are written down for `KEPT_SECONDS`. `NotDurable`."""

    def read(after: int, most: int) -> Deferred[LogPage]:
        """Up to ``most`` endings numbered above ``after``, with the name and the bounds of the log. `NotDurable`."""

    def watch(listener: Callable[[], None]) -> Callable[[], None]:
        """Call ``listener`` when there may be more to read, until the returned function is called.

        A call can get lost with a connection: a reader also looks from time to time.
        """

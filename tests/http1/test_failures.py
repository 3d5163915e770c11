"""How a call of a server failed, as its caller is told."""

from __future__ import annotations

import builtins
import errno
import os

from twisted.internet import error as failures
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from openhqm.http1.failures import CallFailed, NotConnected, describe_failure


class DescriptionTests(SynchronousTestCase):
    """`describe_failure`"""

    def test_no_class_names(self) -> None:
        """What a connection can fail with is told in words, without a class of Python or Twisted."""
        connecting = [
            failures.ConnectionRefusedError(),
            builtins.ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED)),
            failures.TimeoutError(),
            failures.TimeoutError(string="not connected within 10 s"),
            builtins.TimeoutError(),
            failures.DNSLookupError("no results"),
            failures.NoRouteError(),
            failures.ConnectError(errno.EADDRNOTAVAIL),
            OSError(errno.ENETUNREACH, os.strerror(errno.ENETUNREACH)),
        ]
        closing = [failures.ConnectionLost(), failures.ConnectionDone(), builtins.ConnectionResetError()]
        texts = [describe_failure(NotConnected(Failure(each))) for each in connecting]
        texts += [describe_failure(CallFailed("broken", each)) for each in closing]
        for text in texts:
            self.assertNotRegex(text, "Error|Connection(Lost|Done)|ErrNo|b'")
        self.assertEqual(texts[3], "not connected within 10 s")
        self.assertEqual(texts[-1], "the connection was closed before the answer was complete")
        self.assertEqual(describe_failure(CallFailed("the server sent two lengths")), "the server sent two lengths")

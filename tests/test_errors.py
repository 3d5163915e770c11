"""Errors are sentences for whoever has to act on them."""

from __future__ import annotations

import builtins
import inspect

from twisted.trial.unittest import SynchronousTestCase

from openhqm import errors
from openhqm.errors import (
    Complaint,
    ConfigurationError,
    DestinationRefused,
    ExpiredRequest,
    FileInUse,
    InvalidRequest,
    UnknownRequest,
)


class ErrorsTests(SynchronousTestCase):
    """`openhqm.errors`"""

    def test_one_root(self) -> None:
        """Whatever is raised on purpose can be caught by one name, and hides no builtin."""
        found = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, Exception)]
        self.assertGreater(len(found), 10)
        for kind in found:
            self.assertTrue(issubclass(kind, errors.OpenHQMError), kind)
            self.assertNotIn(kind.__name__, dir(builtins))

    def test_every_complaint(self) -> None:
        """A configuration error says all of it: each key, what is wrong, and where it came from."""
        error = ConfigurationError([Complaint("server.port", "too high", "a.yaml"), Complaint("queue.type", "unknown")])
        self.assertEqual(str(error), "server.port: too high (a.yaml); queue.type: unknown")
        self.assertEqual([complaint.key for complaint in error.complaints], ["server.port", "queue.type"])

    def test_a_way_out(self) -> None:
        """Who finds the file in use is told by whom, and which setting moves it elsewhere."""
        for holder, shown in (("123", "process 123"), ("", "process unknown")):
            message = str(FileInUse("openhqm-data", holder))
            for part in ("openhqm-data", shown, "queue.connection.sqlite.path"):
                self.assertIn(part, message)

    def test_fields(self) -> None:
        """What a program needs of an error is a field of it, and no need to read the sentence."""
        self.assertEqual(InvalidRequest("metadata.timeout", "is odd").field, "metadata.timeout")
        self.assertEqual(str(InvalidRequest("metadata.timeout", "is odd")), "metadata.timeout: is odd")

    def test_ids_stay_out_of_the_words(self) -> None:
        """Two ids that are not there are not there in the same words."""
        for kind in (UnknownRequest, ExpiredRequest):
            self.assertEqual(str(kind("one")), str(kind("two")))
            self.assertEqual(kind("one").correlation_id, "one")

    def test_no_oracle(self) -> None:
        """Two destinations that are refused are refused in the same words; the reason is a field, for the log."""
        self.assertEqual(repr(DestinationRefused("10.0.0.0/8")), repr(DestinationRefused("port")))
        self.assertEqual(str(DestinationRefused("port")), "the destination is not allowed")
        self.assertEqual(DestinationRefused("port").reason, "port")

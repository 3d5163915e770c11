"""The texts and fields of errors."""

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
        """All errors have one base class, and none has the name of a builtin."""
        found = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, Exception)]
        self.assertGreater(len(found), 10)
        for kind in found:
            self.assertTrue(issubclass(kind, errors.OpenHQMError), kind)
            self.assertNotIn(kind.__name__, dir(builtins))

    def test_all_complaints(self) -> None:
        """A configuration error lists every key, what is wrong with it, and where it came from."""
        error = ConfigurationError([Complaint("server.port", "too high", "a.yaml"), Complaint("queue.type", "unknown")])
        self.assertEqual(str(error), "server.port: too high (a.yaml); queue.type: unknown")
        self.assertEqual([complaint.key for complaint in error.complaints], ["server.port", "queue.type"])

    def test_file_in_use(self) -> None:
        """The error for a file in use has the process that uses it, and the setting that avoids it."""
        for holder, shown in (("123", "process 123"), ("", "process unknown")):
            message = str(FileInUse("openhqm-data", holder))
            for part in ("openhqm-data", shown, "queue.connection.sqlite.path"):
                self.assertIn(part, message)

    def test_fields(self) -> None:
        """Programs read the fields of an error, and need not parse its text."""
        self.assertEqual(InvalidRequest("metadata.timeout", "is odd").field, "metadata.timeout")
        self.assertEqual(str(InvalidRequest("metadata.timeout", "is odd")), "metadata.timeout: is odd")

    def test_same_text_for_every_id(self) -> None:
        """The text for an unknown id does not repeat the id."""
        for kind in (UnknownRequest, ExpiredRequest):
            self.assertEqual(str(kind("one")), str(kind("two")))
            self.assertEqual(kind("one").correlation_id, "one")

    def test_same_text_for_every_destination(self) -> None:
        """All refused destinations have the same text. The reason is a field, for the log."""
        self.assertEqual(repr(DestinationRefused("10.0.0.0/8")), repr(DestinationRefused("port")))
        self.assertEqual(str(DestinationRefused("port")), "the destination is not allowed")
        self.assertEqual(DestinationRefused("port").reason, "port")

"""The values of header fields between bytes and text."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from openhqm.messages import Reply, Status
from openhqm.policy.field_text import field_bytes, readable
from openhqm.policy.foreign import reply_fields
from tests import hypothesis_profile  # noqa: F401


class FieldTextTests(SynchronousTestCase):
    @given(st.binary(max_size=20))
    def test_opaque(self, value: bytes) -> None:
        """A value that came over the wire goes out as the same bytes."""
        self.assertEqual(field_bytes(value.decode("latin-1")), value)

    def test_any_text(self) -> None:
        """Text of a handler that has no single bytes goes out as UTF-8, and none of it is lost."""
        self.assertEqual(field_bytes("Łukasz é"), "Łukasz é".encode())
        self.assertEqual(field_bytes("José"), b"Jos\xe9")

    def test_readable(self) -> None:
        """UTF-8 is read, and anything else stays as it is."""
        for came, read in (
            (b"Jos\xc3\xa9", "José"),
            (b"Jos\xe9", "José"),
            (b"\xff\xfe", "\xff\xfe"),
            (b"plain", "plain"),
        ):
            self.assertEqual(readable(came.decode("latin-1")), read)
        self.assertEqual(readable("Łukasz"), "Łukasz")

    def test_message(self) -> None:
        """A reply message to another program has the text of the fields, and not their bytes encoded once more."""
        reply = Reply("id", Status.COMPLETED, 1.0, result=b"1", headers={"X-Name": b"Jos\xc3\xa9".decode("latin-1")})
        fields = reply_fields(reply)
        self.assertEqual(fields[fields.index("X-Name") + 1], "José")

"""Header fields that are checked once for many requests."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from openhqm.http1.field_lines import FieldTemplate


class TemplateTests(SynchronousTestCase):
    def test_filled(self) -> None:
        """Values are filled in, in their order; what looks like a place for one in a fixed value stays as it is."""
        template = FieldTemplate([(b"A%b", b"100%b"), (b"B", None), (b"C", b"c: c"), (b"D", None)])
        filled = template.fill([b"%b", b"\xff"])
        self.assertEqual(filled.lines, b"A%b: 100%b\r\nB: %b\r\nC: c: c\r\nD: \xff\r\n")
        self.assertEqual(list(filled), [(b"A%b", b"100%b"), (b"B", b"%b"), (b"C", b"c: c"), (b"D", b"\xff")])

    def test_refused(self) -> None:
        """Fields that could not be sent one by one (RFC 9110, section 5), or are the client's, are in no template."""
        for name, value in (
            (b"A b", b""),
            (b"", b""),
            (b"A", b"a\r\nB: c"),
            (b"A", b"\x00"),
            (b"Host", b"a"),
            (b"content-length", None),
            (b"Transfer-Encoding", b"chunked"),
        ):
            self.assertRaises(ValueError, FieldTemplate, [(name, value)])

    def test_value_refused(self) -> None:
        """A value with a line end or another control character cannot be filled in."""
        for value in (b"a\r\nB: c", b"a\nB: c", b"\x00", b"\x7f"):
            self.assertRaises(ValueError, FieldTemplate([(b"A", None), (b"B", None)]).fill, [b"", value])

"""Text for a terminal."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from openhqm.command.text import printable, printable_lines, table


class TextTests(SynchronousTestCase):
    def test_printable(self) -> None:
        """No character moves the cursor, begins an escape sequence or turns the direction of the text."""
        for text, shown in (
            ("plain \u00e4 \u4e2d", "plain \u00e4 \u4e2d"),
            ("a\nb", "a\\nb"),
            ("\x1b[2J", "\\x1b[2J"),
            ("\x9b2J", "\\x9b2J"),
            ("\u202eabc", "\\u202eabc"),
            ("\r\t\x00", "\\r\\t\\x00"),
        ):
            self.assertEqual(printable(text), shown)
        self.assertEqual(printable_lines("a\n\x1bb"), "a\n\\x1bb")

    def test_table(self) -> None:
        """Columns are as wide as what is in them, up to a bound; what is missing is a dash; the last one is whole."""
        rows = [(1, None, "x" * 70), (12, "y" * 70, ""), (3, "a\nb", "z")]
        self.assertEqual(
            table(("number", "name", "error"), rows),
            [
                f"NUMBER  {'NAME'.ljust(60)}  ERROR",
                f"1       {'-'.ljust(60)}  {'x' * 70}",
                f"12      {'y' * 57}...  -",
                f"3       {'a' + chr(92) + 'nb':60}  z",
            ],
        )

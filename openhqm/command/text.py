# -*- test-case-name: tests.command.test_text -*-
"""Text for a terminal: no character of what others have written moves its cursor or changes its colors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

MOST_WIDTH = 60


def printable(text: str) -> str:
    """``text`` in one line, with control characters and line breaks as escapes."""
    return text if text.isprintable() else "".join(map(_escaped, text))


def printable_lines(text: str) -> str:
    """The same, with its line breaks."""
    return "\n".join(printable(line) for line in text.split("\n"))


def table(names: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """The lines of a table. A value beyond `MOST_WIDTH` characters is cut in all columns but the last."""
    cells = [[_cell(value) for value in row] for row in rows]
    for row in cells:
        row[:-1] = [cell if len(cell) <= MOST_WIDTH else f"{cell[: MOST_WIDTH - 3]}..." for cell in row[:-1]]
    lines = [[name.upper() for name in names], *cells]
    widths = [max(len(line[column]) for line in lines) for column in range(len(names))]
    return ["  ".join(map(str.ljust, line, widths)).rstrip() for line in lines]


def _cell(value: object) -> str:
    return "-" if value is None or value == "" else printable(str(value))


def _escaped(character: str) -> str:
    return character if character.isprintable() else ascii(character)[1:-1]
